# SPDX-License-Identifier: Apache-2.0
"""What the segmenter says of a cloud: one answer for every point, in the points' order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.projection import RangeView


@dataclass(frozen=True)
class Seen:
    """What a referring head looks at."""

    pixels: RangeView
    """the range image"""
    features: NDArray[np.float32]
    """(D, ceil(H / 2), ceil(W / 2)) the network's features, means of two by two pixels"""


@dataclass(frozen=True)
class Segmentation:
    """N answers for N points, and the range image they came from (H x W of the bundle, or of the organised cloud)."""

    class_id: NDArray[np.uint8]
    """(N,) 0 = unlabelled: non-finite, non-return, outside the model's range"""
    instance_id: NDArray[np.uint16]
    """(N,) 0 = none"""
    confidence: NDArray[np.float32]
    """(N,) probability of the class, calibrated, 0..1; 0 where class_id is 0"""
    uncertainty: NDArray[np.float32]
    """(N,) entropy over log of the number of classes, calibrated, 0..1; 0 where class_id is 0"""
    flags: NDArray[np.uint8]
    """(N,) the cloud's flags, and FLAG_OUT_OF_RANGE"""
    class_image: NDArray[np.uint8]
    """(H, W) class of each pixel, 0 where no point is"""
    instance_image: NDArray[np.uint16]
    """(H, W) instance of each pixel, 0 = none"""
    timings_ms: dict[str, float] = field(default_factory=dict)
    """milliseconds by stage: project, image, engine, group, lift, ..."""
    novelty: NDArray[np.float32] | None = None
    """(N,) how unlike anything labelled a point is, 0..1; 0 where class_id is 0; None where the bundle cannot say"""
    seen: Seen | None = None
    """kept where a referring head asks for it, see FrontendSettings.refer"""

    def __post_init__(self) -> None:
        count = len(self.class_id)
        for name in ("instance_id", "confidence", "uncertainty", "flags", "novelty"):
            values = getattr(self, name)
            found = (count,) if values is None else values.shape
            if found != (count,):
                raise ValueError(f"Segmentation.{name}: expected shape ({count},), found {found}")
