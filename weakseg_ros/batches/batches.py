# SPDX-License-Identifier: Apache-2.0
"""Batches: which scans a step sees, and how they become tensors.

Everything random is a function of (seed, step, process): a resumed run draws what the uninterrupted one would have
drawn, and no generator's state needs saving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg_ros.batches.augment import FEW_LABELS, augment_images, move_points
from weakseg_ros.batches.mixing import OBJECT_PLANE, WEIGHT_PLANE
from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.data.scan_sets import Scan, ScanSet
from weakseg_ros.deploy.frontends.range_numpy import raw_planes, stand
from weakseg_ros.deploy.input_spec import COLORS, PLANES, InputSpec, IntensityRule, plain_spec
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.crops import PointsSpec
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec, RangeView

LabelsOf = Callable[[Scan], "NDArray[np.uint8] | None"]
"""The (N,) class ids to train on, 0 = none; None where a scan has no labels at all"""
T = TypeVar("T")

_SAME_SURFACE_M, _SAME_SURFACE_SHARE = 0.1, 0.02
_BESIDE_M = 0.5
"""so near to a hidden click, a point of a neighbouring pixel is taken for the same object's"""
_AROUND = np.array([(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right])
"""(8, 2) steps to the neighbouring pixels"""


@dataclass(frozen=True)
class Batch:
    """What a method's losses see of B scans."""

    image: Tensor
    """(B, C, H, W) f32, normalised, 0 where no point is"""
    labels: Tensor
    """(B, H, W) i64 class id, 0 = none"""
    mask: Tensor
    """(B, H, W) bool, True where a point is"""
    xyz: Tensor | None = None
    """(B, 3, H, W) f32 m, where the point of each pixel is, 0 where none is; for methods that measure distances"""
    instances: Tensor | None = None
    """(B, H, W) i64 number of the object that a labelled pixel belongs to, 0 = none; no number stands in two scans"""
    weights: Tensor | None = None
    """(B, H, W) f32 how much each label counts, 1 where a person gave it, less where it was propagated there, 0 without one; None
    where all labels count 1"""
    further: tuple[Tensor, ...] = ()
    """what a net is given besides the image, each (B, ...): a net on points, the pyramid of its points"""


def make_batch(spec: InputSpec, geometry: Tensor, labels: Tensor) -> Batch:
    """The batch of (B, 5, H, W) raw images; 6 with the instances, 7 with the weights of the labels, too.

    What follows from them is computed here, once they are augmented.
    """
    planes = dict(zip(PLANES, geometry[:, : len(PLANES)].unbind(dim=1), strict=True))
    mask = (geometry[:, :3] != 0).any(dim=1)
    instances = _of_one_scan_each((geometry[:, OBJECT_PLANE] * mask).long()) if geometry.shape[1] > OBJECT_PLANE else None
    weights = geometry[:, WEIGHT_PLANE] * mask if geometry.shape[1] > WEIGHT_PLANE else None
    image = torch.stack(spec.image(planes, mask.float(), torch), dim=1)  # (B, C, H, W)
    return Batch(image, labels.long() * mask, mask, geometry[:, :3], instances, weights)


def label_image(class_id: NDArray[np.uint8], view: RangeView) -> NDArray[np.uint8]:
    """(N,) labels -> (H, W): the class of each pixel's nearest point, or of a labelled point just behind it.

    A click on a point that a neighbour hides by less than 0.1 m + 2 % lies on the same surface and labels the pixel;
    without this, many of a few clicks would be lost where several points share a pixel.
    """
    return np.append(class_id, np.uint8(0))[labelled_points(class_id, view)].astype(np.uint8)


def labelled_points(class_id: NDArray[np.uint8], view: RangeView) -> NDArray[np.int64]:
    """(H, W) the point that gives each pixel its label, as `label_image` says; -1 where there is none."""
    owner = view.point_of_pixel.ravel()
    chosen = np.where(np.append(class_id, np.uint8(0))[owner] > 0, owner, -1)  # (H * W,)
    labelled = np.flatnonzero((class_id > 0) & (view.pixel_of_point >= 0))
    pixel, distance = view.pixel_of_point[labelled], view.range_of_point[labelled]
    nearest = view.range_of_point[owner[pixel]]
    behind = (chosen[pixel] < 0) & (distance <= nearest * (1 + _SAME_SURFACE_SHARE) + _SAME_SURFACE_M)
    farthest_first = labelled[behind][np.argsort(-distance[behind], kind="stable")]
    chosen[view.pixel_of_point[farthest_first]] = farthest_first
    return chosen.reshape(view.point_of_pixel.shape)


def clicked_points(class_id: NDArray[np.uint8], xyz: NDArray[np.float32], view: RangeView) -> NDArray[np.int64]:
    """`labelled_points`, where a click that another point hides goes to the pixel beside it whose point is near, if there is one.

    For labels of which each counts, one click for an object; places (N, 3) m. Many labels, as dense ones, stay as they are.
    """
    chosen = labelled_points(class_id, view)
    labelled = np.flatnonzero((class_id > 0) & (view.pixel_of_point >= 0))
    if len(labelled) > FEW_LABELS * len(class_id):
        return chosen
    hidden = labelled[~np.isin(labelled, chosen)]
    height, width = chosen.shape
    row, col = np.divmod(view.pixel_of_point[hidden].astype(np.int64), width)
    rows, cols = row[:, None] + _AROUND[:, 0], col[:, None] + _AROUND[:, 1]  # (L, 8)
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    rows, cols = np.where(inside, rows, 0), np.where(inside, cols, 0)
    owner = view.point_of_pixel[rows, cols]
    apart = np.linalg.norm(xyz[owner] - xyz[hidden][:, None], axis=2)
    apart[~inside | (owner < 0) | (chosen[rows, cols] >= 0) | (apart > _BESIDE_M)] = np.inf
    for click in np.flatnonzero(np.isfinite(apart.min(axis=1, initial=np.inf))):
        best = apart[click].argmin()
        chosen[rows[click, best], cols[click, best]] = hidden[click]
    return chosen


class ImageSource(Protocol):
    """What a training draws its batches from."""

    @property
    def spec(self) -> RangeSpec:
        """The range image."""

    @property
    def scans(self) -> ScanSet:
        """The scans behind the images."""

    def __len__(self) -> int:
        """How many scans there are."""

    def of_step(self, step: int, batch_size: int, rank: int, world: int, seed: int) -> list[int]:
        """Which scans a process trains on in a step."""

    def batch(self, spec: InputSpec, numbers: Iterable[int], rng: np.random.Generator) -> Batch:
        """The scans, or parts of them, with these numbers, augmented, as what a network of `spec` is given."""


class TrainingSource:
    """What the rows of registry.SOURCES are: training scans that can be examined before a training, and batches of them.

    What a row prepares of a scan is kept in memory up to `cache_gib`; the rest is made again each time. With `instances` a batch
    says which object each labelled pixel belongs to, with `weights` how much each label counts. `told` says how clouds are put
    upright and what intensity is, as `untold` by default.
    """

    def __init__(
        self,
        scans: ScanSet,
        labels_of: LabelsOf,
        spec: RangeSpec,
        augment: AugmentConfig,
        cache_gib: float = 4.0,
        instances: bool = False,
        told: InputSpec | None = None,
        weights: bool = False,
    ) -> None:
        self.scans, self.labels_of, self.spec, self.augment = scans, labels_of, spec, augment
        self.told = told or untold(spec, scans.intensity_full_scale)
        self.instances, self.weights = instances, weights
        self._kept: dict[int, Any] = {}
        self._bytes_left = cache_gib * 2**30
        self._set_up()

    def _set_up(self) -> None:
        """What a row makes ready, once its settings are known."""

    def __len__(self) -> int:
        return len(self.scans)

    def points(self, i: int) -> tuple[Cloud, NDArray[np.uint8]]:
        """The i-th training scan's cloud and given labels (N,), read from disk; propagated labels are left out."""
        cloud, labels, _, weight = self._read(i)
        return cloud, labels * (weight >= 1.0)

    def of_step(self, step: int, batch_size: int, rank: int, world: int, seed: int) -> list[int]:
        """See `ImageSource.of_step`."""
        raise NotImplementedError

    def batch(self, spec: InputSpec, numbers: Iterable[int], rng: np.random.Generator) -> Batch:
        """See `ImageSource.batch`."""
        raise NotImplementedError

    def _read(self, i: int) -> tuple[Cloud, NDArray[np.uint8], NDArray[np.uint16], NDArray[np.float32]]:
        """The i-th training scan's cloud, labels (N,), objects (N,), 0 = none, and the labels' weights (N,)."""
        scan = self.scans[i]
        labels, instance, weight = self.labels_of(scan), scan.instance_id, scan.label_weight
        labels = np.zeros(len(scan.cloud), np.uint8) if labels is None else labels
        instance = np.zeros(len(scan.cloud), np.uint16) if instance is None else instance
        return scan.cloud, labels, instance, (labels > 0).astype(np.float32) if weight is None else weight

    def _keep(self, i: int, make: Callable[[], T], bytes_of: Callable[[T], int]) -> T:
        """What `make` makes of the i-th scan, made once where there is room for it."""
        if i in self._kept:
            kept: T = self._kept[i]
            return kept
        made = make()
        size = bytes_of(made)
        if size <= self._bytes_left:
            self._bytes_left -= size
            self._kept[i] = made
        return made


_Points = tuple[Cloud, "NDArray[np.uint8]", "NDArray[np.uint16] | None", "NDArray[np.float32] | None"]


class ScanImages(TrainingSource):
    """The training scans as raw images, augmented.

    Projected images are kept, or the points where the augmentation moves points. With `instances` every raw image has a
    plane more: the number of the object that each labelled pixel belongs to, as the scans say. With `weights` it has another
    behind that: how much each label counts. Raises ConfigError where points are to be moved on a sensor's own grid.
    """

    def _set_up(self) -> None:
        if self.augment.where != "images" and self.spec.rows == "grid":
            raise ConfigError(
                "augment.where: moved points cannot be projected back onto the sensor's own grid; set it to 'images'"
            )
        self._objects = _pasted_classes(self.augment, self.scans.labels) if self.augment.paste else []

    def of_step(self, step: int, batch_size: int, rank: int, world: int, seed: int) -> list[int]:
        """Which scans a process trains on in a step; see `scans_of_step`."""
        return scans_of_step(step, len(self), batch_size, rank, world, seed)

    def batch(self, spec: InputSpec, numbers: Iterable[int], rng: np.random.Generator) -> Batch:
        """See `ImageSource.batch`."""
        return make_batch(spec, *self.draw(numbers, rng))

    def draw(self, numbers: Iterable[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Augmented raw images (B, 5, H, W) f32 and labels (B, H, W) u8 of the scans with these numbers."""
        pairs = [self._one(i, rng) for i in numbers]
        geometry = torch.from_numpy(np.stack([g for g, _ in pairs]))
        labels = torch.from_numpy(np.stack([y for _, y in pairs]))
        if self.instances:
            _number_apart(geometry[:, OBJECT_PLANE])
        return augment_images(geometry, labels, self.spec, self.augment, rng, self._objects, self.told.intensity.absent)

    def _one(self, i: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        if self.augment.where == "images":
            return self._keep(i, lambda: self._projected(i), _bytes_of)
        cloud, labels, instance, weight = self._keep(i, lambda: self._points(i), _bytes_of_points)
        return raw_image(move_points(cloud, self.augment, rng), labels, self.told, instance, weight)

    def _projected(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        cloud, labels, instance, weight = self._points(i)
        return raw_image(cloud, labels, self.told, instance, weight)

    def _points(self, i: int) -> _Points:
        """The i-th training scan's cloud, labels (N,), and where they are asked for its objects (N,) and weights (N,)."""
        cloud, labels, instance, weight = self._read(i)
        return cloud, labels, instance if self.instances else None, weight if self.weights else None


def _bytes_of(arrays: Iterable[NDArray[Any] | None]) -> int:
    return sum(array.nbytes for array in arrays if array is not None)


def _bytes_of_points(points: _Points) -> int:
    cloud, *rest = points
    return _bytes_of((cloud.xyz, cloud.intensity, *rest))


def untold(
    spec: RangeSpec, intensity_full_scale: float, ranks: bool = False, level: bool = False, points: PointsSpec | None = None
) -> InputSpec:
    """What raw images need to know before their statistics do: the range image, what intensity is, whether clouds are levelled.

    All PLANES are taken, and of `points` the colours too: which of them a net is told of is decided later.
    """
    rule = IntensityRule(required=False, full_scale=intensity_full_scale, ranks=ranks)
    return plain_spec(spec, ("height", *(COLORS if points else ())), rule, level, points)


def raw_image(
    cloud: Cloud,
    labels: NDArray[np.uint8],
    told: InputSpec,
    instance: NDArray[np.uint16] | None = None,
    weight: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Project a cloud: (5, H, W) f32 geometry and (H, W) u8 labels.

    Where instances (N,) are given the geometry has a sixth plane; where the labels' weights (N,) are given it has a seventh,
    behind a plane of instances that is 0 without them. A given label, of weight 1, wins the pixel over a propagated one.
    """
    standing, rule = stand(cloud, told), told.intensity
    cloud, view = standing.cloud, standing.pixels
    image = raw_planes(cloud, view, rule.scale_of(cloud), rule.ranks, standing.ground)
    if instance is None and weight is None:
        return image, label_image(labels, view)
    chosen = _points_of_labels(cloud, labels, view, instance, weight)
    planes = [image, _at(chosen, instance)[None]] + ([] if weight is None else [_at(chosen, weight)[None]])
    return np.concatenate(planes), np.append(labels, np.uint8(0))[chosen].astype(np.uint8)


def _points_of_labels(
    cloud: Cloud,
    labels: NDArray[np.uint8],
    view: RangeView,
    instance: NDArray[np.uint16] | None,
    weight: NDArray[np.float32] | None,
) -> NDArray[np.int64]:
    """(H, W) the point that gives each pixel its label, -1 = none: given labels first, then propagated ones."""

    def choose(chosen: NDArray[np.uint8]) -> NDArray[np.int64]:
        return labelled_points(chosen, view) if instance is None else clicked_points(chosen, cloud.xyz, view)

    if weight is None:
        return choose(labels)
    given, every = choose(labels * (weight >= 1.0)), choose(labels)
    return np.where(given >= 0, given, every)


def _at(chosen: NDArray[np.int64], values: NDArray[Any] | None) -> NDArray[np.float32]:
    """(H, W) the values (N,) of the chosen points, 0 where there is none."""
    if values is None:
        return np.zeros(chosen.shape, np.float32)
    return np.append(values, values.dtype.type(0))[chosen].astype(np.float32)


def _pasted_classes(augment: AugmentConfig, labels: LabelMap) -> list[int]:
    """Ids of the classes whose points are pasted into other scans."""
    ids = [labels.id_of(name) for name in augment.paste_classes] or np.flatnonzero(labels.things).tolist()
    if not ids:
        raise ConfigError(
            f"augment.paste_classes: label map '{labels.name}' has no thing classes to paste; set paste_classes, or paste to 0"
        )
    return ids


def _of_one_scan_each(instances: Tensor) -> Tensor:
    """The objects (B, H, W), 0 = none, renumbered so that none is in two scans: mixing leaves a part of an object in each."""
    first = torch.arange(len(instances), device=instances.device) * (int(instances.max()) + 1)
    return torch.where(instances > 0, instances + first[:, None, None], 0)


def _number_apart(instances: Tensor) -> None:
    """Renumber the objects of a batch in place, (B, H, W), 0 = none: once scans are mixed, numbers must tell them apart."""
    count = 0
    for scan in instances:
        numbers, of_pixel = torch.unique(scan, return_inverse=True)
        fresh = torch.cumsum(numbers > 0, dim=0) + count
        scan.copy_(torch.where(numbers > 0, fresh, 0)[of_pixel])
        count = int(fresh[-1])


def scans_of_step(step: int, count: int, batch_size: int, rank: int, world: int, seed: int) -> list[int]:
    """Which of `count` scans process `rank` of `world` trains on in a step: `batch_size` indices.

    All processes together run through one shuffled order after the other, so every scan is seen equally often.
    """
    first = (step * world + rank) * batch_size
    places = range(first, first + batch_size)
    orders = {epoch: np.random.default_rng([seed, 0, epoch]).permutation(count) for epoch in {n // count for n in places}}
    return [int(orders[n // count][n % count]) for n in places]


def step_generator(step: int, rank: int, seed: int) -> np.random.Generator:
    """The generator of all augmentation in one step of one process."""
    return np.random.default_rng([seed, 1, step, rank])
