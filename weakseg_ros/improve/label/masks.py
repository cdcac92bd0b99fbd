# SPDX-License-Identifier: Apache-2.0
"""Points that wait to be labelled together: what they are, how large, and whether one should look twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.boxes import boxes
from weakseg_ros.deploy.grouping import object_radii_m
from weakseg_ros.errors import counted
from weakseg_ros.improve.label.frame_source import Frame
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.weak.masks_by_rule import ClickSettings

MasksOfClicks = Callable[..., NDArray[np.int32]]
"""`weak.masks_by_rule.segment_from_clicks`, or a learned one that is called alike: which click each point belongs to"""

LARGEST_SHARE = 0.1
"""an object with more of the scan's points than this is looked at twice"""
SLACK = 1.2
"""how much larger than its class's largest extent an object may be before it is looked at twice"""

SMALLEST_REACH, LARGEST_REACH = 0.1, 10.0


@dataclass(frozen=True, eq=False)
class Mask:
    """Points that are labelled together once the person agrees."""

    class_id: int
    points: NDArray[np.int64]
    """(P,) indices of the points that would be labelled"""
    on: tuple[int, ...] = ()
    """points clicked on the object; none for a box that was drawn"""
    off: tuple[int, ...] = ()
    """points clicked on what does not belong to it"""
    reach: float = 0.0
    """how far from the clicks the object goes, in radii of its class"""


class MaskFinder:
    """Finds the points of objects from clicks on them and beside them."""

    def __init__(self, labels: LabelMap, masks_of_clicks: MasksOfClicks) -> None:
        self._labels, self._masks_of_clicks = labels, masks_of_clicks
        self._radii_m = object_radii_m(labels)

    def find(self, mask: Mask, frame: Frame, shown: NDArray[np.bool_]) -> Mask | None:
        """The mask with the points that its clicks find among those on the page (N,); None for a class without objects."""
        if not self._labels.things[mask.class_id]:
            return None
        clicks = np.array((*mask.on, *mask.off))
        settings = replace(ClickSettings(), reach=mask.reach)
        classes = np.full(len(clicks), mask.class_id)
        owner = self._masks_of_clicks(frame.cloud, clicks, classes, self._labels, frame.spec, settings, frame.view)
        return replace(mask, points=np.flatnonzero((owner >= 0) & (owner < len(mask.on)) & shown))

    def belongs_to(self, mask: Mask, xyz: NDArray[np.float32], point: int) -> bool:
        """Whether a click on a point may be meant for a mask, and not for another object."""
        if not mask.on:
            return False
        apart = np.linalg.norm(xyz[list(mask.on)] - xyz[point], axis=1).min()
        return point in mask.points or bool(apart <= self._radii_m[mask.class_id])


def size_m(xyz: NDArray[np.float32]) -> tuple[float, float, float]:
    """Length, width and height of the upright box around points (P, 3), m; zeros without a point."""
    ones = np.ones(len(xyz))
    found = boxes(xyz, ones.astype(np.uint16), ones.astype(np.uint8), ones.astype(np.float32))
    return tuple(map(float, found["size_m"][0])) if len(found) else (0.0, 0.0, 0.0)  # type: ignore[return-value]


def allowed_reach(reach: float) -> float:
    """A mask's reach, no smaller and no larger than makes sense: a factor on how far its rule grows."""
    return min(max(reach, SMALLEST_REACH), LARGEST_REACH)


def describe(mask: Mask, xyz: NDArray[np.float32]) -> str:
    """How large a mask is, in words: '856 points, 4.2 x 1.8 x 1.5 m'."""
    size = " x ".join(f"{side:.1f}" for side in size_m(xyz[mask.points]))
    return f"{counted(len(mask.points), 'point', spec=',')}, {size} m"


def objections(mask: Mask, xyz: NDArray[np.float32], labelled: NDArray[np.uint8], labels: LabelMap) -> str:
    """Why one should look again before a mask is accepted, as a sentence; empty where nothing is odd.

    `labelled` (N,) are the class ids on disk. Only single objects have a size that can be too large.
    """
    name, found = labels.names[mask.class_id], []
    largest = 2.0 * float(object_radii_m(labels)[mask.class_id])
    length = size_m(xyz[mask.points])[0]
    if labels.things[mask.class_id] and length > SLACK * largest:
        found.append(f"it is {length:.1f} m long, and a {name} is hardly longer than {largest:.0f} m")
    if labels.things[mask.class_id] and len(mask.points) > LARGEST_SHARE * len(xyz):
        found.append(f"it has {100 * len(mask.points) / len(xyz):.0f} % of the scan's points")
    other = labelled[mask.points]
    others = other[(other > 0) & (other != mask.class_id)]
    if len(others):
        names = ", ".join(labels.names[i] for i in np.unique(others))
        found.append(f"{len(others):,} of its points are labelled {names} and would become {name}")
    return "; ".join(found)


def points_in_rectangle(
    xyz: NDArray[np.float32],
    position: NDArray[np.float64],
    axes: NDArray[np.float64],
    fov_rad: float,
    aspect: float,
    corners: tuple[tuple[float, float], tuple[float, float]],
) -> NDArray[np.bool_]:
    """(N,) which points a camera sees within a rectangle of its picture.

    `axes` (3, 3): columns are the camera's right, down and forward; `fov_rad` is the vertical field of view, `aspect` width
    over height, `corners` the upper left and the lower right, 0..1 of width and height.
    """
    across, down, ahead = (np.asarray(xyz, np.float64) - position).dot(axes).T
    half = np.tan(fov_rad / 2)
    depth = np.maximum(ahead, 1e-9)
    u, v = 0.5 + across / (2 * half * aspect * depth), 0.5 + down / (2 * half * depth)
    (left, top), (right, bottom) = corners
    inside: NDArray[np.bool_] = (ahead > 0) & (u >= left) & (u <= right) & (v >= top) & (v <= bottom)
    return inside
