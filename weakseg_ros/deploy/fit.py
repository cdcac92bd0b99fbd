# SPDX-License-Identifier: Apache-2.0
"""Can a model's answers on these clouds be trusted? One number from 0 to 1 with its reasons, without labels.

The number is the point accuracy to expect, roughly: `bench/fit.py` holds it against labelled scans of real and simulated
sensors, and made the weights. It needs the engine once more for each cloud that is looked at, and no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import BundleInfo
from weakseg_ros.deploy.frontends.range_numpy import CloudView
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.points.cloud import FLAG_NON_RETURN, Cloud
from weakseg_ros.points.ground import SURE_SHARE, find_ground
from weakseg_ros.points.intensity import intensity_fit
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.surroundings import ROOM_M, SHARE, difference, reach_m

LOW, FAIR = 0.4, 0.6
"""below the one a model's answers are not to be built on; below the other they are to be looked at"""
WEIGHTS = {
    "geometry": 1.0,
    "surroundings": 1.0,
    "ground": 0.7,
    "clarity": 1.0,
    "stability": 0.4,
    "answered": 0.4,
    "intensity": 0.5,
}
"""exponents of the parts in their product, chosen on one half of the labelled sets by rank and distance from the accuracy"""
ENOUGH = {"stability": 0.5}
"""a part of this value or more costs nothing: sound answers differ in it by what they are of, and not by how right they are"""
FLOOR = 0.1
"""a part counts no less than this, so that none decides alone"""
WRONG_GEOMETRY = 0.3
ELSEWHERE = 0.3
"""a model of streets in a room, or the reverse"""
WITHOUT_INTENSITY = 0.3
"""a model of intensity whose clouds have none, or a constant"""
FIRST, EVERY, KEPT = 4, 16, 32
"""the first clouds are looked at, then every sixteenth; the last thirty-two of those count"""
MIN_POINTS = 200
SAMPLE = 20_000
MIN_OF_CLASS = 30
NEAR_M, ON_GROUND_M = 30.0, 0.2
GROUND_WORDS = frozenset(
    "road parking sidewalk terrain ground floor flat surface pavement marking grass lane path dirt soil".split()
)
"""a class with one of these in its name is ground"""

Parts = Mapping[str, float]


@dataclass(frozen=True)
class Fit:
    """How far a model's answers on some clouds can be trusted."""

    value: float
    """0 to 1"""
    parts: dict[str, float]
    """0 to 1 each, by a name in WEIGHTS; a part that cannot be told is not there"""
    reasons: tuple[str, ...]
    """what lowers it, the worst first, one clause each"""

    @property
    def low(self) -> bool:
        """Whether the answers are not to be built on."""
        return self.value < LOW

    def __str__(self) -> str:
        why = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"fit {self.value:.2f} of 1{why}"

    def to_mapping(self) -> dict[str, Any]:
        """As JSON holds it."""
        parts = {name: round(value, 4) for name, value in self.parts.items()}
        return {"value": round(self.value, 4), "low": self.low, "parts": parts, "reasons": list(self.reasons)}


class FitMonitor:
    """Looks at some of the clouds that a model answers, and tells how far the answers can be trusted."""

    def __init__(self, info: BundleInfo) -> None:
        self._info = info
        self._seen = self._looks = 0
        self._parts: deque[Parts] = deque(maxlen=KEPT)
        self._reach_m: deque[float] = deque(maxlen=KEPT)

    def due(self, busy: bool = False) -> bool:
        """Count a cloud; whether its turn has come to be measured, which it has not while another one still is: `busy`."""
        number, self._seen = self._seen, self._seen + 1
        if busy or (self._looks >= FIRST and number % EVERY):
            return False
        self._looks += 1
        return True

    def note(self, cloud: Cloud, parts: Parts) -> None:
        """Keep what `measure` said of a cloud."""
        self._parts.append(parts)
        self._reach_m.append(reach_m(cloud.xyz[cloud.valid]))

    def fit(self, wrong_geometry: Sequence[str] = ()) -> Fit | None:
        """What the clouds looked at say, each part by its median; None before there are any.

        `wrong_geometry` are sentences on a frame or unit that is plainly wrong.
        """
        looked = tuple(self._parts)
        if not looked:
            return None
        names = [name for name in WEIGHTS if any(name in parts for parts in looked)]
        parts = {name: float(np.median([one[name] for one in looked if name in one])) for name in names}
        if wrong_geometry:
            parts["geometry"] = WRONG_GEOMETRY
        elsewhere = self._elsewhere()
        if elsewhere:
            parts["surroundings"] = ELSEWHERE
        return combine(parts, (*wrong_geometry, *elsewhere))

    def _elsewhere(self) -> tuple[str, ...]:
        """A sentence where the clouds are from a room and the training data was not, or the reverse; none where it is unknown."""
        trained = self._info.statistics.range_m.get(SHARE)
        found = difference(float(np.median(self._reach_m)), trained) if trained else ""
        return (found,) if found else ()


def combine(parts: Parts, first: Sequence[str] = ()) -> Fit:
    """The fit of some parts: their weighted product; `first` are the reasons for a low geometry or other surroundings."""
    costs = {name: -WEIGHTS[name] * math.log(max(FLOOR, _counted(name, value))) for name, value in parts.items()}
    worst = sorted(costs, key=lambda name: -costs[name])
    found = [_reason(name, parts[name]) for name in worst if name not in ("geometry", "surroundings")]
    return Fit(math.exp(-sum(costs.values())), dict(parts), (*first, *filter(None, found)))


def _counted(name: str, value: float) -> float:
    return min(1.0, value / ENOUGH.get(name, 1.0))


def _reason(name: str, value: float) -> str:
    if _counted(name, value) >= FAIR:
        return ""
    return {
        "ground": f"only {value:.0%} of the ground near the sensor is predicted as ground",
        "stability": f"with half of the points removed, only {value:.0%} keep their class, averaged over the classes",
        "clarity": f"the model hesitates between classes: its uncertainty is {1 - value:.2f} of 1 on average",
        "answered": f"{1 - value:.0%} of the points get no class",
        "intensity": "the intensity distribution differs from that of the training data",
    }[name]


def tells(cloud: Cloud) -> bool:
    """Whether a cloud has points enough to be measured."""
    return bool(np.count_nonzero(cloud.valid) >= MIN_POINTS)


def measure(
    view: CloudView, answer: Segmentation, of_fewer: NDArray[np.uint8], info: BundleInfo, ground: NDArray[np.bool_]
) -> dict[str, float]:
    """The parts of one cloud that `tells`, and of its answer.

    `of_fewer` (N,) is the class of each point where the model is shown the cloud `thinned`; `ground` (K,) are the classes of the
    ground.
    """
    cloud = view.cloud
    usable = np.flatnonzero(cloud.valid)
    sample = usable[:: math.ceil(len(usable) / SAMPLE)]
    answered = usable[answer.class_id[usable] > 0]
    parts = {"answered": len(answered) / len(usable)}
    if len(answered):
        parts["clarity"] = 1.0 - float(answer.uncertainty[answered].mean())
    _put(parts, "ground", _ground_recall(cloud.xyz[sample], answer.class_id[sample], ground, _least_share(info)))
    _put(parts, "stability", _stability(cloud, answer.class_id, of_fewer))
    _put(parts, "intensity", _intensity(view, sample, info))
    return parts


def ground_classes(labels: LabelMap) -> NDArray[np.bool_]:
    """(K,) the classes whose names say that they are ground; none where the map names no such class."""
    words = [frozenset(name.lower().replace("-", " ").replace("_", " ").split()) for name in labels.names]
    return np.array([bool(found & GROUND_WORDS) for found in words])


def thinned(cloud: Cloud) -> Cloud:
    """The cloud with half of its points, drawn with a fixed seed, made non-returns."""
    dropped = np.random.default_rng(0).random(len(cloud)) < 0.5
    flags = np.where(dropped, np.uint8(FLAG_NON_RETURN), cloud.flags)
    return dataclasses.replace(cloud, xyz=np.where(dropped[:, None], np.float32(0.0), cloud.xyz), flags=flags)


def _put(parts: dict[str, float], name: str, value: float | None) -> None:
    if value is not None:
        parts[name] = value


def _least_share(info: BundleInfo) -> float:
    """How clear a ground plane must be to count: in rooms, the lowest points are often tables and chairs."""
    return SURE_SHARE if 0 < info.statistics.range_m.get(SHARE, 0.0) < ROOM_M else 0.0


def _ground_recall(
    xyz: NDArray[np.float32], class_id: NDArray[np.uint8], ground: NDArray[np.bool_], least_share: float
) -> float | None:
    """Share of the points on the ground, found from their places alone, that the model takes for ground."""
    plane = find_ground(xyz)
    if not ground.any() or plane.share <= least_share:
        return None
    near = np.hypot(xyz[:, 0], xyz[:, 1]) < NEAR_M
    on = near & (np.abs(plane.height(xyz)) < ON_GROUND_M) & (class_id > 0)
    return float(ground[class_id[on]].mean()) if np.count_nonzero(on) >= MIN_OF_CLASS else None


def _stability(cloud: Cloud, class_id: NDArray[np.uint8], of_fewer: NDArray[np.uint8]) -> float | None:
    """Mean over the classes of the share of points that keep their class without the other half of the points."""
    both = thinned(cloud).valid & (class_id > 0)
    if not both.any():
        return 0.0
    first, second = class_id[both], of_fewer[both]
    counts = np.bincount(first)
    kept = np.bincount(first, first == second)
    asked = counts >= MIN_OF_CLASS
    return float(np.mean(kept[asked] / counts[asked])) if asked.any() else None


def _intensity(view: CloudView, sample: NDArray[np.intp], info: BundleInfo) -> float | None:
    if "intensity" not in info.input.channels or info.input.intensity.ranks or not info.statistics.intensity:
        return None
    values = view.cloud.intensity[sample]
    if values.min() == values.max():
        return WITHOUT_INTENSITY
    return intensity_fit(values * np.float32(view.intensity_scale), info.statistics.intensity)
