# SPDX-License-Identifier: Apache-2.0
"""Is this sensor like the one the model was trained with? The bundle knows the training clouds, a robot compares its own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import BundleInfo, TrainingStatistics
from weakseg_ros.deploy.frontends.range_numpy import CloudView
from weakseg_ros.deploy.input_spec import WITHOUT_INTENSITY
from weakseg_ros.errors import counted
from weakseg_ros.points import sanity, sweeps
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.intensity import POOR_FIT, intensity_fit, suggest_factor
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.points.rings import ring_is_row

SAMPLE_POINTS = 4096
MERGED_POINTS = 20_000
"""of the last cloud, to tell whether it is of one sensor"""
RECENT_CLOUDS = 10
OUTSIDE_EXCESS = 0.05
"""outside the image may be this much more of the points than in training"""
DENSITY_RATIO = 0.5
SPAN_TAILS = (0.005, 0.995)


@dataclass(frozen=True)
class CloudSample:
    """What one cloud tells about its sensor; arrays hold at most SAMPLE_POINTS usable points, evenly taken."""

    intensity: NDArray[np.float32]
    """as the network sees it, scaled; empty where the cloud has none"""
    intensity_scale: float
    """what it was multiplied by"""
    xyz: NDArray[np.float32]
    """(P, 3) where the points are"""
    too_far: int
    """usable points beyond the largest range that the model answers"""
    usable: int
    """points that are neither non-finite nor non-returns"""
    outside: int
    """usable points without a pixel"""
    filled: int
    """pixels that hold a point"""
    pixels: int
    notes: tuple[str, ...] = ()
    """what the cloud's message states wrongly"""
    rows_are_rings: bool = True
    """False where rows by laser index are asked for and the index does not order the inclinations"""


def sample_cloud(seen: CloudView, spec: RangeSpec) -> CloudSample:
    """Measure one cloud and its range image, which is of `spec`: what each cloud costs, so all else waits for a report."""
    cloud, view, intensity_scale = seen.cloud, seen.pixels, seen.intensity_scale
    usable = np.flatnonzero(cloud.valid)
    taken = usable[:: math.ceil(len(usable) / SAMPLE_POINTS) or 1]
    intensity = cloud.intensity[taken] * np.float32(intensity_scale) if cloud.intensity_field else np.zeros(0, np.float32)
    return CloudSample(
        intensity=intensity[np.isfinite(intensity)],
        intensity_scale=intensity_scale,
        xyz=cloud.xyz.take(taken, axis=0),
        too_far=int(np.count_nonzero(view.range_of_point > spec.max_range_m)),  # that of an unusable point is NaN
        usable=len(usable),
        outside=len(usable) - int(np.count_nonzero(view.pixel_of_point >= 0)),
        filled=int(np.count_nonzero(view.point_of_pixel >= 0)),
        pixels=view.point_of_pixel.size,
        notes=cloud.notes,
        rows_are_rings=spec.rows != "ring" or ring_is_row(cloud),
    )


class DomainMonitor:
    """Keeps what the last clouds looked like and says where they differ from the training data."""

    def __init__(self, info: BundleInfo) -> None:
        self._info = info
        self._samples: deque[CloudSample] = deque(maxlen=RECENT_CLOUDS)
        self._frame_id = ""
        self._added = 0
        self._last: Cloud | None = None
        self._factors: dict[str, bool] = {}
        """intensity factors that were tried on a cloud, and whether the model's answers got better"""
        self._geometry: tuple[int, list[str]] = (0, [])
        """clouds that had been seen when it was judged, and the judgement"""
        self._unit_or_height: list[str] = []

    def add(self, view: CloudView) -> None:
        """Note one cloud; the oldest of RECENT_CLOUDS is forgotten."""
        self._frame_id = view.cloud.frame_id
        self._added += 1
        self._samples.append(sample_cloud(view, self._info.input.geometry))
        self._last = view.cloud

    def geometry(self) -> list[str]:
        """What is plainly wrong with the frame or unit of the recent clouds, one sentence each; empty = nothing is."""
        added, last, samples = self._added, self._last, [sample for sample in tuple(self._samples) if sample.usable]
        if last is None or not samples:
            return []
        if self._geometry[0] == added:
            return self._geometry[1]
        points = np.concatenate([sample.xyz for sample in samples])
        found = sanity.findings(points[:: math.ceil(len(points) / SAMPLE_POINTS)], self._frame_id)
        if self._info.input.level:
            self._unit_or_height = [str(one) for one in found if one.kind in sanity.LEVELLED and one.units]
            found = [one for one in found if one.kind not in sanity.LEVELLED]
        parts = sweeps.segments([sweeps.sectors(sample.xyz.astype(np.float64)) for sample in samples])
        several = None if parts or found else sweeps.merged(_some_points(last))
        self._geometry = added, [str(one) for one in (*found, *filter(None, [parts, several]))]
        return self._geometry[1]

    def _doubts(self) -> list[str]:
        """A sentence where a model that sees clouds level does not mind the height, which another unit would explain as well."""
        return [] if self.geometry() else self._unit_or_height

    def untried_factor(self) -> float | None:
        """The intensity factor that `report` would advise, where it was not tried on a cloud yet."""
        samples = [sample for sample in tuple(self._samples) if sample.usable]
        factor = _factor(samples, self._info) if samples else None
        return None if factor is None or _key(factor) in self._factors else factor

    def tried(self, factor: float, better: bool) -> None:
        """Note whether the model's answers got better with a factor on the intensity; what did not help is not advised."""
        self._factors[_key(factor)] = better

    def report(self) -> list[str]:
        """One sentence per difference, empty where the recent clouds look like the training data.

        A wrong geometry comes first, then what their messages state wrongly, and how that was read.
        """
        recent = tuple(self._samples)
        notes = list(dict.fromkeys(note for sample in recent for note in sample.notes))
        samples = [sample for sample in recent if sample.usable]
        if not samples:
            return notes
        trained = self._info.statistics
        sentences = [
            _rows(samples, self._info),
            _field_of_view(samples, trained, self._info),
            _density(samples, trained, self._info),
            _intensity(samples, trained, self._info, self._factors),
        ]
        return [*self.geometry(), *self._doubts(), *notes, *filter(None, sentences)]


def _some_points(cloud: Cloud) -> NDArray[np.float32]:
    """(P, 3) about MERGED_POINTS of the usable points, evenly taken."""
    step = math.ceil(np.count_nonzero(cloud.valid) / MERGED_POINTS) or 1
    return cloud.xyz[::step].take(np.flatnonzero(cloud.valid[::step]), axis=0)


def _rows(samples: list[CloudSample], info: BundleInfo) -> str:
    if all(sample.rows_are_rings for sample in samples):
        return ""
    return (
        f"model '{info.name}': its rows are the lasers' indices, but this cloud's index does not order the points by "
        "inclination (as Livox's 'line'); use a model whose rows follow the angle"
    )


def _field_of_view(samples: list[CloudSample], trained: TrainingStatistics, info: BundleInfo) -> str:
    outside = _share(samples, "outside", "usable")
    if outside <= trained.outside_share + OUTSIDE_EXCESS:
        return ""
    xyz = np.concatenate([sample.xyz for sample in samples]).astype(np.float64)
    too_far = _share(samples, "too_far", "usable")
    if too_far > outside / 2:
        middle = float(np.median(np.linalg.norm(xyz, axis=1)))
        return (
            f"model '{info.name}': {too_far:.0%} of this cloud's points are farther than the "
            f"{info.input.geometry.max_range_m:g} m that it answers (median {middle:.0f} m), and {outside:.0%} get no class"
        )
    low, high = np.quantile(np.degrees(np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1]))), SPAN_TAILS)
    return (
        f"model '{info.name}': trained for {_span(info.input.geometry)}, this cloud spans {low:.1f}..{high:.1f}; "
        f"{outside:.0%} of its points get no class; use a model that covers them, or train one ('weakseg train' has --fov-up-deg "
        "and --fov-down-deg)"
    )


def _density(samples: list[CloudSample], trained: TrainingStatistics, info: BundleInfo) -> str:
    filled = _share(samples, "filled", "pixels")
    if not trained.filled_share or filled >= DENSITY_RATIO * trained.filled_share:
        return ""
    beams = f" by {counted(trained.beams, 'beam')}" if trained.beams else ""
    return (
        f"model '{info.name}': this cloud fills {filled:.0%} of the range image, the training data{beams} filled "
        f"{trained.filled_share:.0%}; use a model trained for this sensor"
    )


def _intensity(samples: list[CloudSample], trained: TrainingStatistics, info: BundleInfo, tried: Mapping[str, bool]) -> str:
    if "intensity" not in info.input.channels or info.input.intensity.ranks or not trained.intensity:
        return ""
    found = _intensity_difference(samples, trained.intensity, info, tried)
    return f"model '{info.name}': {found}" if found else ""


def _factor(samples: list[CloudSample], info: BundleInfo) -> float | None:
    """The factor that would bring the intensities nearer to those of the training data, where they are far from them."""
    trained, values = info.statistics.intensity, np.concatenate([sample.intensity for sample in samples])
    ranks = info.input.intensity.ranks
    if "intensity" not in info.input.channels or ranks or not trained or not values.size or values.min() == values.max():
        return None
    if values.min() < 0 or intensity_fit(values, trained) >= POOR_FIT:
        return None
    return suggest_factor(_unscaled(samples), trained, info.input.intensity.full_scale, samples[-1].intensity_scale)


def _key(factor: float) -> str:
    return f"{factor:.2g}"


def _intensity_difference(
    samples: list[CloudSample], trained: dict[float, float], info: BundleInfo, tried: Mapping[str, bool]
) -> str:
    values = np.concatenate([sample.intensity for sample in samples])
    without = f"a model trained without intensity suits such clouds better ({WITHOUT_INTENSITY})"
    if not values.size:
        return f"was trained with intensity, but this cloud has none, so the model gets zeros; {without}"
    low, high = float(values.min()), float(values.max())
    if low == high and trained[0.05] != trained[0.95]:
        found = f"constant {high:g}" if high else "all zero"
        return f"intensity is {found}; set intensity_field to a field that varies, or where there is none: {without}"
    if low < 0 <= trained[0.01]:
        return f"intensity goes down to {low:g}, trained on none below 0; set intensity_field to another field"
    if intensity_fit(values, trained) >= POOR_FIT:
        return ""
    now, then = float(np.quantile(values, 0.95)), trained[0.95]
    scale = f" (scale 0..{info.input.intensity.full_scale:g})" if info.input.intensity.full_scale else ""
    factor = _factor(samples, info)
    if factor is not None and not tried.get(_key(factor), True):
        advice = f"a factor of {factor:.3g} would match it, but was tried and does not help; {without}"
    elif factor:
        advice = f"set intensity_scale to {factor:.3g} (--intensity-scale {factor:.3g}, or input.intensity_scale of the node)"
    else:
        advice = f"no factor makes it match; {without}"
    return f"intensity p95 is {now:.3g}, trained on {then:.3g}{scale}; {advice}"


def _unscaled(samples: list[CloudSample]) -> NDArray[np.float32]:
    """The intensities as the driver gave them."""
    return np.concatenate([sample.intensity / np.float32(sample.intensity_scale or 1.0) for sample in samples])


def _span(spec: RangeSpec) -> str:
    return f"{spec.fov_down_deg:.1f}..{spec.fov_up_deg:.1f} deg"


def _share(samples: list[CloudSample], part: str, whole: str) -> float:
    total = sum(getattr(sample, whole) for sample in samples)
    return sum(getattr(sample, part) for sample in samples) / total if total else 0.0
