# SPDX-License-Identifier: Apache-2.0
"""Small pictures of the frames in the list: what the sensor saw all around, unrolled, near things bright."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.colors import DARK_TO_LIGHT, ramp
from weakseg_ros.improve.label.frame_source import Frame, FrameSource

SIZE = (40, 360)
"""rows and columns of a picture"""
KEPT = 300
NEAR_M, FAR_M = 2.0, 60.0
EMPTY = (24, 24, 24)


class Thumbnails:
    """The pictures that were drawn so far, by the frame's key."""

    def __init__(self) -> None:
        self._drawn: dict[str, NDArray[np.uint8]] = {}

    def known(self, key: str) -> NDArray[np.uint8] | None:
        """The picture of a frame, None where it is not drawn yet."""
        return self._drawn.get(key)

    def draw(self, source: FrameSource, key: str) -> NDArray[np.uint8]:
        """Draw the picture of a frame; an empty one for a frame that cannot be read."""
        try:
            picture = unrolled(source.frame(key))
        except (DataError, KeyError):
            picture = np.full((*SIZE, 3), EMPTY, np.uint8)
        if len(self._drawn) >= KEPT:
            self._drawn.pop(next(iter(self._drawn)))
        self._drawn[key] = picture
        return picture


def unrolled(frame: Frame) -> NDArray[np.uint8]:
    """(rows, columns, 3) the frame's range image, coloured by the logarithm of the distance, in the size of a picture."""
    shown = frame.view.point_of_pixel
    rows, columns = (np.linspace(0, side - 1, wanted).astype(int) for side, wanted in zip(shown.shape, SIZE, strict=True))
    point = shown[np.ix_(rows, columns)]
    distance = np.linalg.norm(frame.cloud.xyz[np.maximum(point, 0)], axis=-1)
    nearness = -np.log(np.clip(distance, NEAR_M, FAR_M))
    picture = ramp(nearness.ravel(), DARK_TO_LIGHT, -np.log(FAR_M), -np.log(NEAR_M)).reshape(*SIZE, 3)
    picture[point < 0] = EMPTY
    return picture
