# SPDX-License-Identifier: Apache-2.0
"""Batches that mix newly labelled scans with earlier training scans at a fixed share.

The losses of the two are means of their own. Else a scan with every point labelled would outweigh ten clicks by a
thousand to one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weakseg_ros.batches.batches import Batch, ScanImages, make_batch
from weakseg_ros.batches.point_crops import CELL_BITS, PointCrops, Prepared
from weakseg_ros.data.scan_sets import ScanCollection
from weakseg_ros.deploy.input_spec import InputSpec
from weakseg_ros.methods.method import Method
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import RangeSpec


class ReplayImages:
    """Each batch holds `new_per_batch` of the new images first, then those of the replay; see `ImageSource`."""

    def __init__(self, new: ScanImages, replay: ScanImages, new_per_batch: int) -> None:
        self.new, self.replay, self.new_per_batch = new, replay, new_per_batch
        self.scans = ScanCollection("retraining", [("new", new.scans), ("replay", replay.scans)])

    @property
    def spec(self) -> RangeSpec:
        return self.new.spec

    def __len__(self) -> int:
        return len(self.new) + len(self.replay)

    def points(self, i: int) -> tuple[Cloud, NDArray[np.uint8]]:
        """Cloud and labels of a scan; the replay is counted on from the new ones."""
        return self.new.points(i) if i < len(self.new) else self.replay.points(i - len(self.new))

    def of_step(self, step: int, batch_size: int, rank: int, world: int, seed: int) -> list[int]:
        fresh = self.new.of_step(step, self.new_per_batch, rank, world, seed)
        known = self.replay.of_step(step, batch_size - self.new_per_batch, rank, world, seed)
        return [*fresh, *(number + len(self.new) for number in known)]

    def batch(self, spec: InputSpec, numbers: Iterable[int], rng: np.random.Generator) -> Batch:
        """See `ImageSource.batch`."""
        return make_batch(spec, *self.draw(numbers, rng))

    def draw(self, numbers: Iterable[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Each kind is varied among its own: a sector of dense labels has no place in an image of few clicks."""
        numbers = list(numbers)
        fresh = self.new.draw([n for n in numbers if n < len(self.new)], rng)
        known = self.replay.draw([n - len(self.new) for n in numbers if n >= len(self.new)], rng)
        return torch.cat([fresh[0], known[0]]), torch.cat([fresh[1], known[1]])


class ReplayCrops(PointCrops):
    """As `ReplayImages` for nets on points: new crops first, then those of the replay, padded to the longest of both."""

    def __init__(self, new: PointCrops, replay: PointCrops, new_per_batch: int) -> None:
        both = ScanCollection("retraining", [("new", new.scans), ("replay", replay.scans)])
        super().__init__(both, new.labels_of, new.spec, new.augment, told=new.told, weights=new.weights)
        self.new, self.replay, self.new_per_batch = new, replay, new_per_batch

    def points(self, i: int) -> tuple[Cloud, NDArray[np.uint8]]:
        """See `ReplayImages.points`."""
        return self.new.points(i) if i < len(self.new) else self.replay.points(i - len(self.new))

    def of_step(self, step: int, batch_size: int, rank: int, world: int, seed: int) -> list[int]:
        """See `ReplayImages.of_step`; the scan is the upper part of a crop's number."""
        fresh = self.new.of_step(step, self.new_per_batch, rank, world, seed)
        known = self.replay.of_step(step, batch_size - self.new_per_batch, rank, world, seed)
        return [*fresh, *(number + (len(self.new) << CELL_BITS) for number in known)]

    def prepared(self, i: int) -> Prepared:
        """See `PointCrops.prepared`."""
        return self.new.prepared(i) if i < len(self.new) else self.replay.prepared(i - len(self.new))


def mixed(new: Any, replay: Any, new_per_batch: int) -> ReplayImages | ReplayCrops:
    """Both kinds of scans as one source of batches; they are of one kind of source."""
    kind = ReplayCrops if isinstance(new, PointCrops) else ReplayImages
    return kind(new, replay, new_per_batch)


class ReplayMethod(Method):
    """A method whose losses are taken over the two kinds of scans apart, and weighted by `new_weight` and the rest."""

    def __init__(self, method: Method, new_per_batch: int, new_weight: float) -> None:
        nn.Module.__init__(self)
        self.method, self.new_per_batch, self.new_weight = method, new_per_batch, new_weight

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """The method's losses as `new_NAME` and `replay_NAME`."""
        losses = {}
        parts = {"new": (slice(None, self.new_per_batch), self.new_weight)}
        parts["replay"] = (slice(self.new_per_batch, None), 1.0 - self.new_weight)
        for kind, (rows, weight) in parts.items():
            for name, loss in self.method.losses(_rows_of_batch(batch, rows), _rows_of_output(out, rows), progress).items():
                losses[f"{kind}_{name}"] = weight * loss
        return losses

    def after_step(self, net: nn.Module, progress: float) -> None:
        self.method.after_step(net, progress)

    def deployable(self) -> Heads | None:
        return self.method.deployable()


def _rows_of_batch(batch: Batch, rows: slice) -> Batch:
    parts: dict[str, Any] = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    further = tuple(part[rows] for part in parts.pop("further"))
    return dataclasses.replace(batch, further=further, **{name: part[rows] for name, part in parts.items() if part is not None})


def _rows_of_output(out: NetOutput, rows: slice) -> NetOutput:
    stages, auxiliary = (tuple(part[rows] for part in parts) for parts in (out.stages, out.auxiliary))
    return NetOutput(out.logits[rows], out.features[rows], stages, auxiliary)
