# SPDX-License-Identifier: Apache-2.0
"""One click per object, and the points that belong to it, by rule: nothing is learned, nothing is trained.

The baseline that learned distances have to beat, and a labelling aid from the first scan on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from weakseg_ros.config import setting
from weakseg_ros.deploy.grouping import object_radii_m
from weakseg_ros.errors import DataError, counted
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec, RangeView, project
from weakseg_ros.weak.ground import GroundSettings, ground_points
from weakseg_ros.weak.surfaces import SurfaceSettings, surface_graph


@dataclass(frozen=True)
class ClickSettings(SurfaceSettings):
    """Sets which points belong to a click."""

    distance: Literal["surface", "straight"] = "surface"
    """Selects how the nearest click is measured: 'surface' follows the visible surfaces, and 'straight' uses the straight
    line."""
    reach: float = setting(1.4, 0.1, 10.0)
    """Sets the search radius around a click as a multiple of the object radius of its class (0.1 to 10); 0.8 works better with
    `distance` 'straight'."""
    hidden_m: float = setting(0.5, 0.0, 100.0)
    """Sets how far in metres behind the nearest point of its pixel a point belongs to a different object (0 to 100)."""
    without_ground: bool = True
    """Excludes ground points from every object."""
    ground: GroundSettings = field(default_factory=GroundSettings)
    """Sets how ground points are found."""


def segment_from_clicks(
    cloud: Cloud,
    clicks: NDArray[np.integer],
    class_id: NDArray[np.integer],
    labels: LabelMap,
    spec: RangeSpec,
    settings: ClickSettings | None = None,
    view: RangeView | None = None,
) -> NDArray[np.int32]:
    """Which click each of N points belongs to: (N,) 0..M-1, -1 = none. Every click belongs to itself.

    `clicks` (M,) are indices of points, `class_id` (M,) their classes in `labels`, which says how large such objects are.
    Clicks of the same pixel share it with the first of them. `view` saves the projection where the caller has it.
    Raises DataError for clicks that the cloud does not have, and for classes that are no things.
    """
    settings = settings or ClickSettings()
    clicks = np.asarray(clicks, np.int64).reshape(-1)
    radius = object_radii_m(labels)[check_clicks(cloud, clicks, class_id, labels)] * np.float32(settings.reach)
    view = view or project(cloud, spec)
    seen = np.flatnonzero(view.pixel_of_point[clicks] >= 0)  # numbers of the clicks that lie in the image
    owner = np.full(view.point_of_pixel.size, -1, np.int32)
    if len(seen):
        pixels = _Candidates(cloud, view, clicks[seen], radius[seen], spec.full_circle, settings)
        nearest = _along_surfaces if settings.distance == "surface" else _straight
        winner = np.full(len(pixels.at), -1, np.int64)
        best = np.full(len(pixels.at), np.inf)
        for reach in np.unique(radius[seen]):
            group = np.flatnonzero(radius[seen] == reach)
            click, distance = nearest(pixels, group)
            better = (click >= 0) & (distance < best)
            better[better] = pixels.within(np.flatnonzero(better), click[better], float(reach))
            winner[better], best[better] = click[better], distance[better]
        owner[pixels.at[winner >= 0]] = seen[winner[winner >= 0]]
    return points_of_pixels(owner, view, clicks, settings.hidden_m)


def check_clicks(cloud: Cloud, clicks: NDArray[np.int64], class_id: NDArray[np.integer], labels: LabelMap) -> NDArray[np.int64]:
    """The classes (M,) of the clicks; DataError for clicks that the cloud does not have, and for classes that are no things."""
    class_id = np.asarray(class_id, np.int64).reshape(-1)
    if len(clicks) != len(class_id):
        raise DataError(f"clicks: {counted(len(clicks), 'point')}, but {counted(len(class_id), 'class')}; give one for each")
    if len(clicks) and not (clicks.min() >= 0 and clicks.max() < len(cloud)):
        raise DataError(f"clicks: points {clicks.min()}..{clicks.max()} of a cloud that has {len(cloud)}")
    things = np.flatnonzero(labels.things)
    for wrong in class_id[~np.isin(class_id, things)]:
        name = labels.names[wrong] if 0 <= wrong < labels.num_classes else f"class {wrong}"
        raise DataError(f"clicks: '{name}' has no countable objects; click {', '.join(labels.names[i] for i in things)}")
    return class_id


class _Candidates:
    """The pixels that may belong to a click: near enough to one, and not ground. Clicked pixels always."""

    def __init__(
        self,
        cloud: Cloud,
        view: RangeView,
        clicks: NDArray[np.int64],
        radius: NDArray[np.float32],
        full_circle: bool,
        settings: ClickSettings,
    ) -> None:
        self.shape, self.full_circle, self.settings = view.point_of_pixel.shape, full_circle, settings
        owner = view.point_of_pixel.ravel()
        at = np.flatnonzero(owner >= 0)
        xyz = cloud.xyz[owner[at]]
        chosen = ~ground_points(xyz, settings.ground) if settings.without_ground else np.ones(len(at), np.bool_)
        self.places = cloud.xyz[clicks]
        chosen &= _near_any(xyz, self.places, radius)
        chosen[np.searchsorted(at, view.pixel_of_point[clicks])] = True
        self.at, self.xyz = at[chosen], xyz[chosen]
        self.start = np.searchsorted(self.at, view.pixel_of_point[clicks])  # (M,) number of each click's pixel

    def within(self, pixel: NDArray[np.int64], click: NDArray[np.int64], reach_m: float) -> NDArray[np.bool_]:
        """Whether each pixel is within reach of a click, or is the click's own."""
        apart = self.xyz[pixel] - self.places[click]
        near = np.einsum("pi,pi->p", apart, apart) <= reach_m**2
        return np.asarray(near | (self.start[click] == pixel))

    @cached_property
    def surface(self) -> csr_array:
        """The ways between neighbouring pixels that no gap parts, (P, P), lengths in m."""
        return surface_graph(self.at, self.xyz, self.shape, self.full_circle, self.settings)


def _near_any(xyz: NDArray[np.float32], places: NDArray[np.float32], radius: NDArray[np.float32]) -> NDArray[np.bool_]:
    x, y, z = np.ascontiguousarray(xyz.T)
    near = np.zeros(len(xyz), np.bool_)
    for place, reach in zip(places, radius, strict=True):
        apart = (x - place[0]) ** 2
        apart += (y - place[1]) ** 2
        apart += (z - place[2]) ** 2
        near |= apart <= reach**2
    return near


def _straight(pixels: _Candidates, group: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(P,) the nearest click of a group, and how far it is in m."""
    distance, nearest = cKDTree(pixels.places[group]).query(pixels.xyz)
    return group[nearest], distance


def _along_surfaces(pixels: _Candidates, group: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(P,) the click of a group with the shortest way over neighbouring pixels, -1 where there is none, and its length in m."""
    click_of_pixel = np.full(len(pixels.at) + 1, -1, np.int64)  # the last one stays -1: no way leads there
    click_of_pixel[pixels.start[group][::-1]] = group[::-1]
    distance, _, source = dijkstra(
        pixels.surface,
        directed=False,
        indices=np.unique(pixels.start[group]),
        min_only=True,
        return_predecessors=True,
    )
    return click_of_pixel[np.where(np.isfinite(distance), source, -1)], distance


def points_of_pixels(owner: NDArray[np.int32], view: RangeView, clicks: NDArray[np.int64], hidden_m: float) -> NDArray[np.int32]:
    """(N,) what each point's pixel says (H * W,), and every click (M,) itself.

    -1 for points without a pixel and for those hidden behind their pixel's owner.
    """
    front = np.append(view.range_of_point, np.float32(np.nan))[view.point_of_pixel.ravel()]
    says = np.append(owner, np.int32(-1))[view.pixel_of_point]
    behind = view.range_of_point - np.append(front, np.float32(np.nan))[view.pixel_of_point]
    answer = np.where(behind < hidden_m, says, np.int32(-1))
    answer[clicks[::-1]] = np.arange(len(clicks), dtype=np.int32)[::-1]  # of two clicks on one point the first has it
    return answer
