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
from weakseg_ros.improve.label.shown_scans import OneScan, ShownScans
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.weak.masks_by_rule import ClickSettings

MasksOfClicks = Callable[..., NDArray[np.int32]]
"""`weak.masks_by_rule.segment_from_clicks`, or a learned one that is called alike: which click each point belongs to"""

LARGEST_SHARE = 0.1
"""an object with more of the scan's points than this is looked at twice"""
SLACK = 1.2
"""how much larger than its class's largest extent an object may be before it is looked at twice"""

SAME_PLACE_M = 0.5
"""a point of another scan stands for a click so near to it"""
UNLIKE_M, UNLIKE_SHARE = 0.5, 0.35
"""by how much, the latter of the larger one, the sides of one object may differ between two scans"""

SMALLEST_REACH, LARGEST_REACH = 0.1, 10.0


@dataclass(frozen=True, eq=False)
class Mask:
    """Points that are labelled together once the person agrees."""

    class_id: int
    points: NDArray[np.int64]
    """(P,) numbers of the points that would be labelled, among those of all scans that are labelled together"""
    on: tuple[int, ...] = ()
    """points clicked on the object; none for a box that was drawn"""
    off: tuple[int, ...] = ()
    """points clicked on what does not belong to it"""
    reach: float = 0.0
    """how far from the clicks the object goes, in radii of its class"""
    left_out: int = 0
    """scans in which nothing of like size was found where the object was clicked"""

    def corrected(self, point: int) -> Mask:
        """With one more click: on it, to take that part off, or beside it, to add what is there."""
        return replace(self, off=(*self.off, point)) if point in self.points else replace(self, on=(*self.on, point))


class MaskFinder:
    """Finds the points of objects from clicks on them and beside them."""

    def __init__(self, labels: LabelMap, masks_of_clicks: MasksOfClicks) -> None:
        self._labels, self._masks_of_clicks = labels, masks_of_clicks
        self._radii_m = object_radii_m(labels)

    def find(self, mask: Mask, scans: ShownScans, shown: NDArray[np.bool_]) -> Mask | None:
        """The mask with the points that its clicks find among those on the page (M,); None for a class without objects.

        In scans that were not clicked, the points next to the clicks stand for them. What is found there is left out where
        its size is another one: the object has moved, or something hides it.
        """
        if not self._labels.things[mask.class_id]:
            return None
        clicked = scans.owner(mask.on[0])
        found = {clicked.start: self._points(mask, scans, clicked, shown)}
        size = size_m(scans.xyz[found[clicked.start]])
        for scan in scans:
            if scan is not clicked:
                points = self._points(mask, scans, scan, shown)
                if len(points) and is_like(size_m(scans.xyz[points]), size):
                    found[scan.start] = points
        points = np.concatenate([found[start] for start in sorted(found)])
        return replace(mask, points=points, left_out=len(scans) - len(found))

    def _points(self, mask: Mask, scans: ShownScans, scan: OneScan, shown: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(P,) what the clicks of a mask find in one scan, as numbers among all scans."""
        here = shown[scan.numbers]
        on, off = (_clicks_in(scans, scan, clicks, here) for clicks in (mask.on, mask.off))
        if not on:
            return np.zeros(0, np.int64)
        clicks, classes = np.array(on + off), np.full(len(on) + len(off), mask.class_id)
        settings, frame = replace(ClickSettings(), reach=mask.reach), scan.frame
        owner = self._masks_of_clicks(frame.cloud, clicks, classes, self._labels, frame.spec, settings, frame.view)
        return scan.start + np.flatnonzero((owner >= 0) & (owner < len(on)) & here)

    def belongs_to(self, mask: Mask, xyz: NDArray[np.float32], point: int) -> bool:
        """Whether a click on a point may be meant for a mask, and not for another object."""
        if not mask.on:
            return False
        apart = np.linalg.norm(xyz[list(mask.on)] - xyz[point], axis=1).min()
        return point in mask.points or bool(apart <= self._radii_m[mask.class_id])


def _clicks_in(scans: ShownScans, scan: OneScan, clicks: tuple[int, ...], here: NDArray[np.bool_]) -> list[int]:
    """The clicks on a scan, and the points of it that stand for those on others, as its own numbers.

    `here` (N,) are its points on the page.
    """
    found: list[int] = []
    for click in clicks:
        own = scans.owner(click) is scan
        place = scans.xyz[click]
        at = click - scan.start if own else scans.nearest(scan, place, SAME_PLACE_M, here & ~scan.frame.ground)
        if at is not None and at not in found:
            found.append(at)
    return found


def is_like(size: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Whether two boxes (length, width, height in m) may be those of one object, seen from two places."""
    return all(abs(one - two) <= max(UNLIKE_M, UNLIKE_SHARE * max(one, two)) for one, two in zip(size, other, strict=True))


def size_m(xyz: NDArray[np.float32]) -> tuple[float, float, float]:
    """Length, width and height of the upright box around points (P, 3), m; zeros without a point."""
    ones = np.ones(len(xyz))
    found = boxes(xyz, ones.astype(np.uint16), ones.astype(np.uint8), ones.astype(np.float32))
    return tuple(map(float, found["size_m"][0])) if len(found) else (0.0, 0.0, 0.0)  # type: ignore[return-value]


def allowed_reach(reach: float) -> float:
    """A mask's reach, no smaller and no larger than makes sense: a factor on how far its rule grows."""
    return min(max(reach, SMALLEST_REACH), LARGEST_REACH)


def describe(mask: Mask, scans: ShownScans) -> str:
    """How large a mask is, in words: '856 points, 4.2 x 1.8 x 1.5 m'; of several scans the size in the first of them."""
    parts = scans.split(mask.points)
    size = " x ".join(f"{side:.1f}" for side in (size_m(parts[0][0].xyz[parts[0][1]]) if parts else (0.0, 0.0, 0.0)))
    missing = f"; nothing alike in {counted(mask.left_out, 'other scan')}" if mask.left_out else ""
    return f"{how_many(scans, mask.points)}, {size} m{missing}"


def how_many(scans: ShownScans, points: NDArray[np.int64], what: str = "point") -> str:
    """'856 points'; where several scans are labelled together, '856 points in 5 scans'."""
    where = f" in {counted(len(scans.split(points)), 'scan')}" if len(scans) > 1 else ""
    return f"{counted(len(points), what, spec=',')}{where}"


def objections(mask: Mask, scans: ShownScans, labelled: NDArray[np.uint8], labels: LabelMap) -> str:
    """Why one should look again before a mask is accepted, as a sentence; empty where nothing is odd.

    `labelled` (M,) are the class ids on disk. Only single objects have a size that can be too large, and that in each scan.
    """
    name, found = labels.names[mask.class_id], []
    parts = scans.split(mask.points) if labels.things[mask.class_id] else []
    largest = 2.0 * float(object_radii_m(labels)[mask.class_id])
    length = max((size_m(scan.xyz[points])[0] for scan, points in parts), default=0.0)
    if length > SLACK * largest:
        found.append(f"it is {length:.1f} m long, and a {name} is hardly longer than {largest:.0f} m")
    share = max((len(points) / len(scan.xyz) for scan, points in parts), default=0.0)
    if share > LARGEST_SHARE:
        found.append(f"it has {100 * share:.0f} % of the scan's points")
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
