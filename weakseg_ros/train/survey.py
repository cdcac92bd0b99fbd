# SPDX-License-Identifier: Apache-2.0
"""One pass over the training scans before training: normalisation, class counts, and what the data look like."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.batches.batches import TrainingSource
from weakseg_ros.deploy.bundle import TrainingStatistics
from weakseg_ros.deploy.frontends import make_frontend
from weakseg_ros.deploy.input_spec import NOT_NORMALISED, InputSpec, IntensityRule, plain_spec, representation_of
from weakseg_ros.errors import DataError
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.crops import PointsSpec
from weakseg_ros.points.intensity import quantiles
from weakseg_ros.points.lift import Lift
from weakseg_ros.points.projection import RangeSpec, RangeView
from weakseg_ros.progress import Progress

log = logging.getLogger(__name__)

_SAMPLE_POINTS = 2000
"""points per scan that the quantiles are taken from"""


@dataclass(frozen=True)
class DataStatistics:
    """What a run folder's `statistics.yaml` holds about the training data."""

    channels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_counts: tuple[int, ...]
    """labelled points by class id, index 0 the points without a label; sparse labels as they were trained on"""
    intensity_full_scale: float
    """largest intensity the sensor can give, 0 = unknown"""
    has_intensity: bool
    clouds: TrainingStatistics
    intensity_ranks: bool = False
    """the net is fed ranks, not values"""
    intensity_optional: bool = False
    """it was trained on scans that had lost their intensity, too"""
    level: bool = False
    """clouds are put upright first"""
    lift: Lift = "pixel"
    """how points get their class from the net's image"""
    scans: int = 0
    """scans that were counted; 0 in runs of older versions, and where two kinds of scans are mixed"""

    def input_spec(self, geometry: RangeSpec, points: PointsSpec | None = None) -> InputSpec:
        """What the net is told of a cloud, in range images of that geometry, or as such points."""
        required = "intensity" in self.channels and self.has_intensity and not self.intensity_optional
        return InputSpec(
            representation=representation_of(points),
            geometry=geometry,
            points=points,
            channels=self.channels,
            mean=self.mean,
            std=self.std,
            intensity=IntensityRule(required, self.intensity_full_scale, self.intensity_ranks),
            level=self.level,
            lift=self.lift,
        )

    @property
    def label_ratio(self) -> float:
        """Share of the points that have a label."""
        return sum(self.class_counts[1:]) / max(1, sum(self.class_counts))


@dataclass(frozen=True)
class _OneScan:
    """What one scan adds; sums of doubles are taken scan by scan in order, so that they do not depend on who looked."""

    sums: NDArray[np.float64]
    """(3, C) pixels, values, squared values"""
    counts: NDArray[np.int64]
    usable: int
    outside: int
    pixels: int
    """of the network's image, with a point or without"""
    is_labelled: bool
    sample: NDArray[np.float32]
    beams: int


Gather = Callable[[list[_OneScan]], list[list[_OneScan]]]
"""Gives every process the lists of all, by rank."""


def survey(
    images: TrainingSource,
    channels: tuple[str, ...],
    num_classes: int,
    rank: int = 0,
    world: int = 1,
    gather: Gather = lambda own: [own],
) -> DataStatistics:
    """Look at every training scan once; of `world` processes, number `rank` reads its share, and `gather` brings all together.

    Raises DataError where none of the scans has a labelled point.
    """
    rule = images.told.intensity
    numbers = range(rank, len(images), world)
    progress = Progress(numbers, what="survey", unit="scan", shown=rank == 0)
    shares = gather([_look_at(images, i, channels, num_classes) for i in progress])
    scans = [shares[i % world][i // world] for i in range(len(images))]
    counts = np.sum([scan.counts for scan in scans], axis=0)
    sums = np.zeros((3, len(channels)))
    for scan in scans:
        sums += scan.sums
    unlabelled = sum(not scan.is_labelled for scan in scans)
    if not counts[1:].any():
        raise DataError(f"{images.scans.name}: none of the {len(images)} training scans has a labelled point; draw or add labels")
    if unlabelled and rank == 0:
        log.info("%s: %d of the %d training scans have no labelled point", images.scans.name, unlabelled, len(images))
    mean, std = _moments(sums, channels)
    table = np.concatenate([scan.sample for scan in scans], axis=1)  # (3, samples)
    clouds = TrainingStatistics(
        intensity=quantiles(table[0]),
        range_m=quantiles(table[1]),
        inclination_deg=quantiles(table[2]),
        outside_share=sum(scan.outside for scan in scans) / max(1, sum(scan.usable for scan in scans)),
        filled_share=float(sums[0, 0]) / max(1, sum(scan.pixels for scan in scans)),
        beams=max(scan.beams for scan in scans),
    )
    full_scale, has_intensity = images.scans.intensity_full_scale, bool(np.any(table[0] != 0))
    optional = images.augment.intensity_drop > 0
    facts = (tuple(counts.tolist()), full_scale, has_intensity, clouds, rule.ranks, optional, images.told.level)
    return DataStatistics(channels, mean, std, *facts, scans=len(images))


def _look_at(images: TrainingSource, i: int, channels: tuple[str, ...], num_classes: int) -> _OneScan:
    """Look at one scan."""
    rule = images.told.intensity
    plain = plain_spec(images.spec, channels, rule, images.told.level, images.told.points)
    cloud, labels = images.points(i)
    values, view = make_frontend(plain, images.scans.labels).channels(cloud)
    values = values.astype(np.float64)  # (C, P)
    return _OneScan(
        sums=np.stack([np.full(len(channels), values.shape[1]), values.sum(axis=1), (values**2).sum(axis=1)]),
        counts=np.bincount(labels[cloud.valid], minlength=num_classes)[:num_classes],
        usable=int(cloud.valid.sum()),
        outside=int((cloud.valid & (view.pixels.pixel_of_point < 0)).sum()),
        pixels=view.pixels.point_of_pixel.size,
        is_labelled=bool(labels.any()),
        sample=_sample(cloud if view.upright is None else view.upright, view.pixels, rule.scale_of(cloud)),
        beams=_beams(cloud, images.spec),
    )


def _moments(sums: NDArray[np.float64], channels: tuple[str, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean = sums[1] / np.maximum(sums[0], 1)
    variance = np.maximum(sums[2] / np.maximum(sums[0], 1) - mean**2, 0.0)
    std = np.where(variance > 1e-12, np.sqrt(variance), 1.0)  # a constant channel is only centred
    fixed = np.isin(channels, list(NOT_NORMALISED))
    return tuple(np.where(fixed, 0.0, mean).tolist()), tuple(np.where(fixed, 1.0, std).tolist())


def _sample(cloud: Cloud, view: RangeView, intensity_scale: float) -> NDArray[np.float32]:
    """(3, P) intensity as the net sees it, range in m and inclination in deg of some usable points."""
    chosen = np.flatnonzero(cloud.valid)
    chosen = chosen[:: max(1, len(chosen) // _SAMPLE_POINTS)]
    distance = view.range_of_point[chosen]
    inclination = np.degrees(np.arcsin(np.clip(cloud.xyz[chosen, 2] / distance, -1.0, 1.0)))
    return np.stack([cloud.intensity[chosen] * intensity_scale, distance, inclination]).astype(np.float32)


def _beams(cloud: Cloud, spec: RangeSpec) -> int:
    if cloud.ring is not None:
        return len(np.unique(cloud.ring[cloud.valid]))
    return spec.height if spec.rows == "grid" else 0
