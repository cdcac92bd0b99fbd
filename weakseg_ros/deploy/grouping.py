# SPDX-License-Identifier: Apache-2.0
"""From pixels to objects: which pixels of countable classes belong together, by their places or by a network's offsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.neighbours import PixelNeighbours
from weakseg_ros.points.projection import RangeView

OBJECT_RADIUS_M = {
    "person": 1.0,
    "bicycle": 1.5,
    "motorcycle": 1.5,
    "two-wheeler": 1.5,
    "bicyclist": 1.5,
    "motorcyclist": 1.5,
    "car": 3.5,
    "truck": 8.0,
    "bus": 8.0,
    "other-vehicle": 8.0,
}
"""how far from a point on an object of a class its other points may lie, m"""
OTHER_RADIUS_M = 4.0
PAIRS_AT_ONCE = 1 << 17
"""of neighbours: a few calls of numpy in place of forty, and their lists stay in the cache"""
LARGEST_ID = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class GroupingSettings:
    """Sets when two pixels belong to the same object."""

    gap_m: float = setting(0.5, 0.0, 100.0)
    """Sets the largest distance in metres between the points of neighbouring pixels of one object (0 to 100)."""
    gap_share: float = setting(0.02, 0.0, 1.0)
    """Sets the largest distance as a fraction of the range (0 to 1); the larger of this and `gap_m` applies."""
    rows: int = setting(3, 1, 8)
    """Sets the number of rows of the range image over which neighbours are searched (1 to 8)."""
    cols: int = setting(5, 1, 16)
    """Sets the number of columns of the range image over which neighbours are searched (1 to 16)."""
    min_heat: float = setting(0.1, 0.0, 1.0)
    """Sets the smallest value of the centre heatmap at an object's centre (0 to 1)."""
    merge_share: float = setting(0.4, 0.0, 2.0)
    """Sets the distance below which centres are merged, as a fraction of the radius of their class (0 to 2)."""
    min_pixels: int = setting(3, 1)
    """Sets the smallest number of pixels of an object (1 or more); smaller groups are discarded."""
    max_objects: int = setting(1000, 1, LARGEST_ID)
    """Limits the number of objects in a cloud (1 or more); the largest are kept."""

    def __post_init__(self) -> None:
        check_ranges(self)


def object_radii_m(labels: LabelMap) -> NDArray[np.float32]:
    """(K,) radius of the objects of each class in m, by the class's name; 0 for stuff."""
    radii = [OBJECT_RADIUS_M.get(row.name, OTHER_RADIUS_M) if row.thing else 0.0 for row in labels.classes]
    return np.array(radii, np.float32)


def group_components(
    class_image: NDArray[np.uint8],
    xyz: NDArray[np.float32],
    view: RangeView,
    things: NDArray[np.bool_],
    full_circle: bool,
    settings: GroupingSettings | None = None,
) -> NDArray[np.uint16]:
    """Objects as connected pixels of one thing class: (H, W) classes -> (H, W) instance ids from 1 up, 0 = none.

    Pixels within a window of `rows` x `cols` are tied where their points, `xyz` (N, 3) in m, are near each other; over a
    full circle the window reaches across the rear. Ids count up in the order of the objects' first pixels, row by row.
    """
    settings = settings or GroupingSettings()
    pixels = _ThingPixels(class_image, xyz, view, things)
    if not len(pixels):
        return np.zeros(class_image.shape, np.uint16)
    component = _connect(pixels, class_image.shape, full_circle, settings)
    return _number(component, pixels.at, class_image.shape, settings)


def group_centres(
    class_image: NDArray[np.uint8],
    xyz: NDArray[np.float32],
    view: RangeView,
    heat: NDArray[np.float32],
    offset: NDArray[np.float32],
    radius_m: NDArray[np.float32],
    settings: GroupingSettings | None = None,
) -> NDArray[np.uint16]:
    """Objects from a network's centres and offsets: (H, W) classes -> (H, W) instance ids from 1 up, 0 = none.

    `heat` (H, W) 0..1 says how near to its object's centre a pixel lies; `offset` (2, H, W) in m leads from the pixel's
    point to that centre: away from the sensor and to the left, seen along the pixel's own azimuth. Every pixel moves by
    its offset; the hottest are centres, one within `merge_share` of a class's radius, `radius_m` (K,), 0 for stuff;
    each pixel joins the nearest centre of its class, none where that is farther than the radius. Where nothing is hot
    enough a class has no object. Ids count up in the order of the objects' first pixels, row by row.
    """
    settings = settings or GroupingSettings()
    pixels = _ThingPixels(class_image, xyz, view, radius_m > 0)
    moved = _moved(pixels, offset.reshape(2, -1)[:, pixels.at])
    warmth = heat.ravel()[pixels.at]
    group = np.full(len(pixels), -1, np.int64)
    count = 0
    for class_id in np.unique(pixels.class_id):
        here = np.flatnonzero(pixels.class_id == class_id)
        reach = float(radius_m[class_id])
        centres = _centres(moved[here], warmth[here], reach * settings.merge_share, settings)
        joined = _nearest_centre(moved[here], centres, reach)
        group[here] = np.where(joined >= 0, joined + count, -1)
        count += len(centres)
    return _number(group, pixels.at, class_image.shape, settings)


class _ThingPixels:
    """The P pixels of things, row by row: `at` flat index, `class_id`, and x, y, z of their points, (P,) each."""

    def __init__(
        self, class_image: NDArray[np.uint8], xyz: NDArray[np.float32], view: RangeView, things: NDArray[np.bool_]
    ) -> None:
        owner = view.point_of_pixel.ravel()
        at = np.flatnonzero(things.take(class_image.ravel()))
        self.at = at[owner[at] >= 0]
        self.class_id = class_image.ravel()[self.at]
        self.x, self.y, self.z = np.ascontiguousarray(xyz.take(owner[self.at], axis=0).T)
        self._squared_range = self.x**2 + self.y**2 + self.z**2

    def __len__(self) -> int:
        return len(self.at)

    def tied(self, left: NDArray[Any], right: NDArray[Any], settings: GroupingSettings) -> NDArray[np.bool_]:
        """Whether the pixels of each pair have one class and points near each other."""
        apart = (self.x.take(left) - self.x.take(right)) ** 2
        apart += (self.y.take(left) - self.y.take(right)) ** 2
        apart += (self.z.take(left) - self.z.take(right)) ** 2
        nearer = np.minimum(self._squared_range.take(left), self._squared_range.take(right))
        reach = np.maximum(np.float32(settings.gap_m**2), np.float32(settings.gap_share**2) * nearer)
        tied: NDArray[np.bool_] = (apart <= reach) & (self.class_id.take(left) == self.class_id.take(right))
        return tied


def _connect(pixels: _ThingPixels, shape: tuple[int, ...], full_circle: bool, settings: GroupingSettings) -> NDArray[np.int64]:
    """(P,) number of the connected component of each pixel.

    Runs along a row are components to begin with, then what lies directly below joins them; the rest of the window is
    asked only where it leads to another component, which saves nine tenths of the work.
    """
    near = PixelNeighbours(pixels.at, shape, full_circle, settings.rows, settings.cols)
    component = _runs(pixels, near, settings)
    at_once = max(1, PAIRS_AT_ONCE // len(pixels))
    for offsets in ([(1, 0)], near.half_window):
        some = (offsets[first : first + at_once] for first in range(0, len(offsets), at_once))
        pairs = [_bridges(pixels, component, near.around(few), settings) for few in some]
        left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
        component = _merged(component, left, right)
    return component


def _runs(pixels: _ThingPixels, near: PixelNeighbours, settings: GroupingSettings) -> NDArray[np.int64]:
    """(P,) number of the run of each pixel: neighbours along a row without a foreign pixel between them."""
    later = np.arange(1, len(pixels))
    beside = (np.diff(near.row) == 0) & (np.diff(near.col) <= settings.cols)
    breaks = np.ones(len(pixels), np.int64)
    breaks[1:][beside] = ~pixels.tied(later[beside], later[beside] - 1, settings)
    number: NDArray[np.int64] = np.cumsum(breaks) - 1
    return number


def _bridges(
    pixels: _ThingPixels, component: NDArray[np.int64], other: NDArray[np.int32], settings: GroupingSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of components that are tied by a pixel and one of its neighbours, `other` (M, P), -1 = none."""
    theirs = component.take(other, mode="wrap")
    bridge = np.flatnonzero((other >= 0) & (theirs != component))
    left = bridge % len(component)
    tied = pixels.tied(left, other.take(bridge), settings)
    return component[left[tied]], theirs.take(bridge[tied])


def _merged(component: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """The components after those of each pair became one."""
    count = int(component.max()) + 1
    graph = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(count, count))
    name: NDArray[Any] = connected_components(graph, directed=False)[1]
    return name.astype(np.int64)[component]


def _moved(pixels: _ThingPixels, offset: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P, 2) x and y in m of where the offsets (2, P), away from the sensor and to the left, lead."""
    distance = np.maximum(np.hypot(pixels.x, pixels.y), np.float32(1e-6))
    ahead, left = pixels.x / distance, pixels.y / distance  # unit vector away from the sensor
    x = pixels.x + offset[0] * ahead - offset[1] * left
    y = pixels.y + offset[0] * left + offset[1] * ahead
    return np.stack([x, y], axis=1)


def _centres(
    moved: NDArray[np.float32], heat: NDArray[np.float32], merge_m: float, settings: GroupingSettings
) -> NDArray[np.float32]:
    """(M, 2) the hottest places, each at least `merge_m` from a hotter one; equal heat goes to the earlier pixel."""
    hot = np.flatnonzero(heat >= settings.min_heat)
    moved, heat = _row_summits(moved[hot], heat[hot], merge_m)
    chosen: list[NDArray[np.float32]] = []
    while len(heat) and len(chosen) < settings.max_objects:
        centre = moved[heat.argmax()]
        chosen.append(centre)
        apart = moved - centre
        far = np.einsum("pi,pi->p", apart, apart) > merge_m**2
        moved, heat = moved[far], heat[far]
    return np.array(chosen, np.float32).reshape(-1, 2)


def _row_summits(
    moved: NDArray[np.float32], heat: NDArray[np.float32], merge_m: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The pixels whose neighbours in the row are cooler or lead elsewhere: a few times fewer to choose centres from."""
    step = np.diff(moved, axis=0)
    together = np.einsum("pi,pi->p", step, step) <= merge_m**2
    summit = np.ones(len(heat), np.bool_)
    summit[:-1] &= ~(together & (heat[1:] > heat[:-1]))
    summit[1:] &= ~(together & (heat[:-1] >= heat[1:]))
    return moved[summit], heat[summit]


def _nearest_centre(moved: NDArray[np.float32], centres: NDArray[np.float32], reach_m: float) -> NDArray[np.int64]:
    """(P,) number of the nearest centre; -1 where none is within `reach_m`."""
    if not len(centres):
        return np.full(len(moved), -1, np.int64)
    # |m - c|^2 is smallest where m.c - |c|^2 / 2 is largest, which is one matrix product
    likeness = moved @ centres.T - 0.5 * (centres**2).sum(axis=1)  # (P, M)
    nearest = likeness.argmax(axis=1)
    apart = moved - centres[nearest]
    return np.where(np.einsum("pi,pi->p", apart, apart) <= reach_m**2, nearest, -1)


def _number(
    group: NDArray[np.int64], at: NDArray[np.int64], shape: tuple[int, ...], settings: GroupingSettings
) -> NDArray[np.uint16]:
    """(H, W) ids of the groups (-1 = none) that are large enough, in the order of their first pixels."""
    image = np.zeros(shape, np.uint16)
    inside = group >= 0
    name, first, of_pixel, size = np.unique(group[inside], return_index=True, return_inverse=True, return_counts=True)
    largest_first = np.lexsort((first, -size))
    kept = largest_first[size[largest_first] >= settings.min_pixels][: settings.max_objects]
    ids = np.zeros(len(name), np.uint16)
    ids[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1, dtype=np.uint16)
    image.ravel()[at[inside]] = ids[of_pixel]
    return image


def group_nearby(xyz: NDArray[np.float32], class_id: NDArray[np.uint8], reach_m: float) -> NDArray[np.uint16]:
    """(P,) number of the object of each of the (P, 3) points, from 1 up, 0 = none: same class, and no gap of `reach_m`.

    Objects of fewer than `GroupingSettings.min_pixels` points are none.
    """
    settings = GroupingSettings()
    pairs = cKDTree(xyz).query_pairs(reach_m, output_type="ndarray")
    pairs = pairs[class_id[pairs[:, 0]] == class_id[pairs[:, 1]]]
    links = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(len(xyz), len(xyz)))
    component = connected_components(links, directed=False)[1]
    return _number(component, np.arange(len(xyz)), (len(xyz),), settings)
