# SPDX-License-Identifier: Apache-2.0
"""Clouds as points, without an image, on the CPU in numpy: thinned by a grid, cropped, each crop a pyramid of neighbourhoods.

To the network a list of points is an image of one row, so losses, methods and answers are those of range images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.frontends import FrontendSettings, Lap
from weakseg_ros.deploy.frontends.range_numpy import CloudView, put_upright
from weakseg_ros.deploy.grouping import group_nearby
from weakseg_ros.deploy.input_spec import COLORS, PLANES, InputSpec
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.tensors import TensorSpec
from weakseg_ros.points.cloud import FLAG_OUT_OF_RANGE, Cloud
from weakseg_ros.points.crops import PointsSpec, covering_crops, pyramid
from weakseg_ros.points.grid import Grid, group_points, points_of_scene
from weakseg_ros.points.ground import GroundPlane
from weakseg_ros.points.intensity import intensity_ranks
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeView, ranges_of

AT_ONCE = 4
REACH_CELLS = 3.0
"""points of an object are at most so many cells apart"""


@dataclass(frozen=True)
class GridPoints:
    """A cloud thinned by a grid: M points."""

    grid: Grid
    """of the usable points"""
    usable: NDArray[np.intp]
    """the cloud's `points_of_scene`"""
    columns: dict[str, NDArray[np.float32]]
    """(M,) each: PLANES and COLORS by name, x, y and z where the mean of each cell's points is"""

    @property
    def xyz(self) -> NDArray[np.float32]:
        """(M, 3) m"""
        return np.stack([self.columns[axis] for axis in "xyz"], axis=1)


@dataclass(frozen=True, kw_only=True)
class PointsView(CloudView):
    """A cloud and the points that the network sees: `pixels` is a list for each crop, in which a point has its cell's place."""

    points: GridPoints
    crops: NDArray[np.intp]
    """(B, P) which grid point stands where"""


def thin(cloud: Cloud, spec: InputSpec, intensity_scale: float = 1.0, ground: GroundPlane | None = None) -> GridPoints:
    """The grid points of a cloud that stands upright already, with their raw channels."""
    assert spec.points is not None
    usable = points_of_scene(cloud)
    xyz = cloud.xyz[usable]
    grid = group_points(xyz, spec.points.grid_m)
    columns = {axis: grid.mean(xyz[:, number]) for number, axis in enumerate("xyz")}
    intensity = grid.mean(np.nan_to_num(cloud.intensity[usable], posinf=0.0, neginf=0.0) * np.float32(intensity_scale))
    columns["intensity"] = intensity_ranks(intensity, bool(cloud.intensity_field)) if spec.intensity.ranks else intensity
    columns["height"] = np.zeros(grid.count, np.float32)
    if ground is not None:
        columns["height"] = ground.height(np.stack([columns[axis] for axis in "xyz"], axis=1)).astype(np.float32)
    for number, name in enumerate(COLORS):
        columns[name] = np.zeros(grid.count, np.float32)
        if cloud.rgb is not None and name in spec.channels:
            columns[name] = grid.mean(cloud.rgb[usable, number]) / np.float32(255.0)
    return GridPoints(grid, usable, columns)


def crop_planes(points: Mapping[str, NDArray[np.float32]], chosen: NDArray[np.intp]) -> dict[str, NDArray[np.float32]]:
    """PLANES and COLORS of the chosen grid points, the coordinates counted from the middle of them."""
    planes = {name: points[name][chosen] for name in (*PLANES, *COLORS)}
    for axis in "xyz":
        planes[axis] = planes[axis] - planes[axis].mean()
    return planes


def crop_tensors(planes: Mapping[str, NDArray[np.float32]], spec: InputSpec) -> dict[str, NDArray[Any]]:
    """The network's inputs of one crop, without the batch: its channels (C, 1, P), and its pyramid."""
    assert spec.points is not None
    with np.errstate(over="ignore"):
        channels = spec.image(planes, np.ones_like(planes["x"]), np)
    tensors: dict[str, NDArray[Any]] = {"features": np.stack(channels).astype(np.float32, copy=False)[:, None]}
    xyz = np.stack([planes[axis] for axis in "xyz"], axis=1)
    for number, level in enumerate(pyramid(xyz, spec.points)):
        parts = (level.xyz, level.neighbours, level.pool, level.nearest)
        tensors |= {f"{name}_{number}": part for name, part in zip(LEVEL_PARTS, parts, strict=True)}
    return tensors


LEVEL_PARTS = ("xyz", "neighbours", "pool", "nearest")
"""of each level, in the order of the network's inputs"""


def points_inputs(spec: PointsSpec) -> dict[str, TensorSpec]:
    """The table of what a network on such points is given."""
    table = {"features": TensorSpec("float32", ("B", "C", "H", "W"), "normalised channels of the points of each crop")}
    k = str(spec.neighbours)
    for number in range(len(spec.ratios)):
        here, sparser = f"P{number}" if number else "W", f"P{number + 1}"
        table |= {
            f"xyz_{number}": TensorSpec("float32", ("B", here, "3"), "places, from the middle of the crop", "m"),
            f"neighbours_{number}": TensorSpec("int32", ("B", here, k), "nearest points, itself first", below=here),
            f"pool_{number}": TensorSpec("int32", ("B", sparser, k), "neighbours of the points that are kept", below=here),
            f"nearest_{number}": TensorSpec("int32", ("B", here), "nearest point of those that are kept", below=sparser),
        }
    return table


class PointsFrontend:
    """See Frontend; a cloud of more grid points than `spec.points.points` is a batch of crops that cover it, and they vote."""

    at_once = AT_ONCE

    def __init__(
        self, spec: InputSpec, labels: LabelMap, heads: tuple[str, ...], outputs: Mapping[str, TensorSpec], name: str
    ) -> None:
        assert spec.points is not None, "InputSpec asks for it"
        self.settings = FrontendSettings()
        self.inputs = points_inputs(spec.points)
        self._spec, self._points, self._labels, self._name, self._outputs = spec, spec.points, labels, name, outputs
        self._of_points = [output for output, table in outputs.items() if table.of_points and output != "class_id"]

    def encode(self, cloud: Cloud, lap: Lap = lambda stage: None) -> tuple[dict[str, NDArray[Any]], PointsView]:
        """See Frontend.encode."""
        view = self._view(cloud)
        lap("grid")
        crops = [crop_tensors(crop_planes(view.points.columns, chosen), self._spec) for chosen in view.crops if len(chosen)]
        inputs = {name: np.stack([crop[name] for crop in crops]) for name in (crops[0] if crops else ())}
        lap("neighbours")
        return inputs, view

    def channels(self, cloud: Cloud) -> tuple[NDArray[np.float32], PointsView]:
        """See Frontend.channels."""
        view, found = self._view(cloud), []
        for chosen in view.crops:
            planes = crop_planes(view.points.columns, chosen) if len(chosen) else dict.fromkeys((*PLANES, *COLORS), _NONE)
            found.append(np.stack(self._spec.image(planes, np.ones_like(planes["x"]), np)))
        return np.concatenate(found, axis=1).astype(np.float32, copy=False), view

    def _view(self, cloud: Cloud) -> PointsView:
        rule = self._spec.intensity
        if not self.settings.allow_no_intensity:
            rule.check(cloud, self._name)
        scale = rule.scale_of(cloud, self.settings.intensity_scale)
        upright, ground = put_upright(cloud, self._spec)
        points = thin(upright, self._spec, scale, ground)
        crops = covering_crops(points.xyz, self._points.points, self.settings.passes)
        return PointsView(cloud, _places(cloud, points, crops), scale, upright, points=points, crops=crops)

    def sees_nothing(self, view: PointsView) -> bool:
        """See Frontend.sees_nothing."""
        return not view.crops.size

    def nothing(self, view: PointsView) -> dict[str, NDArray[Any]]:
        """See Frontend.nothing."""
        shape = (len(view.crops), 1, view.crops.shape[1])
        return {name: np.zeros(shape, self._outputs[name].dtype) for name in ("class_id", *self._of_points)}

    def decode(self, outputs: Mapping[str, NDArray[Any]], view: PointsView, lap: Lap = lambda stage: None) -> Segmentation:
        """See Frontend.decode. Where crops overlap, the class with the largest sum of confidences is taken."""
        cloud, count = view.cloud, view.points.grid.count
        cells = view.crops.ravel()
        times = np.maximum(np.bincount(cells, minlength=count), 1)
        of_cells = {name: np.bincount(cells, outputs[name].ravel(), count) / times for name in self._of_points}
        classes, sums = _vote(cells, outputs["class_id"].ravel(), outputs["confidence"].ravel(), count, self._labels.num_classes)
        of_cells["confidence"] = sums / times
        lap("vote")
        instances = self._objects(classes, view)
        lap("group")
        class_id = _to_points(classes, view)
        instance_id = _to_points(instances, view)
        grid = (cloud.height, cloud.width)
        of_points: dict[str, Any] = {name: _to_points(values.astype(np.float32), view) for name, values in of_cells.items()}
        answer = Segmentation(
            class_id=class_id,
            instance_id=instance_id,
            **of_points,
            flags=np.where(cloud.valid & (view.pixels.pixel_of_point < 0), np.uint8(FLAG_OUT_OF_RANGE), cloud.flags),
            class_image=class_id.reshape(grid),
            instance_image=instance_id.reshape(grid),
        )
        lap("lift")
        return answer

    def _objects(self, classes: NDArray[np.uint8], view: PointsView) -> NDArray[np.uint16]:
        things = np.flatnonzero(self._labels.things[classes])
        instances = np.zeros(len(classes), np.uint16)
        if self.settings.instances != "none" and len(things):
            instances[things] = group_nearby(view.points.xyz[things], classes[things], REACH_CELLS * self._points.grid_m)
        return instances


_NONE = np.zeros(0, np.float32)


def _vote(
    cells: NDArray[np.intp], class_id: NDArray[np.uint8], confidence: NDArray[np.float32], count: int, num_classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(classes (M,), their sums of confidence (M,)) of answers to some grid points."""
    sums = np.bincount(cells * num_classes + class_id, confidence, count * num_classes).reshape(count, num_classes)
    classes: NDArray[np.uint8] = sums.argmax(axis=1).astype(np.uint8)
    largest: NDArray[np.float64] = sums.max(axis=1)
    return classes, largest


def _to_points(values: NDArray[Any], view: PointsView) -> NDArray[Any]:
    """(M,) values of grid points -> (N,), 0 for points that are not usable."""
    found = np.zeros(len(view.cloud), values.dtype)
    found[view.points.usable] = values[view.points.grid.cell_of_point]
    return found


def _places(cloud: Cloud, points: GridPoints, crops: NDArray[np.intp]) -> RangeView:
    """The crops as the lists that they are: `point_of_pixel` (B, P) the first point of each cell; each point in one crop."""
    first = points.usable[points.grid.first_point]
    place_of_cell = np.zeros(points.grid.count, np.int32)
    place_of_cell[crops.ravel()] = np.arange(crops.size, dtype=np.int32)
    place = np.full(len(cloud), -1, np.int32)
    place[points.usable] = place_of_cell[points.grid.cell_of_point]
    with np.errstate(all="ignore"):
        ranges = ranges_of(np.ascontiguousarray(cloud.xyz.T), cloud.valid)
    return RangeView(place, first[crops].astype(np.int32), ranges)
