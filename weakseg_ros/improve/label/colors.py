# SPDX-License-Identifier: Apache-2.0
"""What colour each point is drawn in."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap

DARK_TO_LIGHT = np.array([[78, 82, 150], [52, 124, 170], [62, 186, 130], [190, 221, 60], [253, 245, 160]], np.float32)
COLD_TO_HOT = np.array([[56, 62, 120], [70, 140, 190], [225, 225, 215], [240, 160, 80], [215, 48, 39]], np.float32)
UNKNOWN = (105, 108, 115)
"""points that no class is known for"""

MOST_DOUBT = 0.8
"""uncertainty of the hottest colour; hardly a point has more"""

INTENSITY, HEIGHT, PREDICTION, UNCERTAINTY, LABELS = "intensity", "height", "prediction", "uncertainty", "labels"


class Seen(Protocol):
    """A scan with what a model says of it."""

    @property
    def cloud(self) -> Cloud: ...

    @property
    def prediction(self) -> NDArray[np.uint8] | None:
        """(N,) class ids; None where no model has seen the scan"""

    @property
    def uncertainty(self) -> NDArray[np.float32] | None:
        """(N,) 0..1"""


def views_of(frame: Seen) -> tuple[str, ...]:
    """What the points of a frame can be coloured by."""
    known = [(INTENSITY, bool(np.ptp(frame.cloud.intensity) > 0)), (HEIGHT, True), (PREDICTION, frame.prediction is not None)]
    known += [(UNCERTAINTY, frame.uncertainty is not None), (LABELS, True)]
    return tuple(name for name, there in known if there)


def color_points(frame: Seen, view: str, labels: LabelMap) -> NDArray[np.uint8]:
    """(N, 3) red, green, blue of every point, seen by one of `views_of(frame)`."""
    usable = frame.cloud.valid
    if view == PREDICTION and frame.prediction is not None:
        return _of_classes(frame.prediction, labels)
    if view == UNCERTAINTY and frame.uncertainty is not None:
        return ramp(frame.uncertainty, COLD_TO_HOT, 0.0, MOST_DOUBT)
    if view == HEIGHT:
        return ramp(frame.cloud.xyz[:, 2], DARK_TO_LIGHT, *_span(frame.cloud.xyz[usable, 2], 1.0, 97.0))
    if view == INTENSITY:
        return ramp(frame.cloud.intensity, DARK_TO_LIGHT, *_span(frame.cloud.intensity[usable], 1.0, 95.0))
    return np.full((len(frame.cloud), 3), UNKNOWN, np.uint8)


def ramp(values: NDArray[np.floating], stops: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """(N, 3) colours of (N,) values: the first stop at `low` and below, the last at `high` and above."""
    share = np.clip((np.nan_to_num(values.astype(np.float32)) - low) / max(high - low, 1e-9), 0.0, 1.0)
    place = share * (len(stops) - 1)
    return np.stack([np.interp(place, np.arange(len(stops)), stops[:, i]) for i in range(3)], axis=1).astype(np.uint8)


def _of_classes(class_id: NDArray[np.uint8], labels: LabelMap) -> NDArray[np.uint8]:
    table = labels.colors_on_black.copy()
    table[0] = UNKNOWN
    return table[class_id]


def _span(values: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    first, last = np.percentile(values, [low, high])
    return float(first), float(last)
