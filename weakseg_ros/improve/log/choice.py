# SPDX-License-Identifier: Apache-2.0
"""Which frames of many, and which points of a frame, a person should look at: the same choice on the robot and offline.

Four strategies: `ours`; `spread`, the same without the model's doubt, for a first round in which that says little;
`entropy`, the highest calibrated entropies, which is what most people would do; `random`. The latter two are what the first
is measured against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from weakseg_ros.data.frame_log import Suggestion
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import counted
from weakseg_ros.improve.log.acquisition import Look, doubt
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.weak.ground import ground_points

Strategy = Literal["ours", "spread", "entropy", "random"]

CANDIDATES = 1200
"""points among which the best are sought, and for which they stand"""
REGION_M = 2.0
"""size of the region a point stands for, near the sensor"""
REGION_PER_RANGE = 0.06
"""its growth with the range, as points get sparse"""
FAR = 9.0
"""squared distance, in regions, beyond which a point says nothing of another"""
FARTHEST = 2.0
"""distance of a frame to nothing"""
CELL_M, SIZES_M = 0.5, (1.0, 3.0, 8.0)
"""cells that clusters are made of, and the sizes at which one kind of cluster ends"""
SCORE_FLOOR = 0.25
"""share of its distance that a frame without doubt keeps in the choice of frames"""


@dataclass(frozen=True)
class Choice:
    """A chosen frame."""

    index: int
    worth: float
    """by which it was chosen, 0..1; falls from choice to choice"""


def choose_frames(
    looks: Sequence[Look],
    count: int,
    strategy: Strategy = "ours",
    seed: int = 0,
    known: NDArray[np.float32] | None = None,
) -> list[Choice]:
    """At most `count` distinct frames out of `looks`, the most worth a person's time first.

    `ours` is the greedy k-centre choice, weighted by score: each next frame is the one with the largest product of score
    and distance to what was chosen before and to the descriptors `known` (n, D). `entropy` takes the highest mean
    entropies, `random` any, and `spread` is `ours` with all scores alike.
    """
    if strategy == "random":
        worths = np.random.default_rng(seed).random(len(looks))
    elif strategy == "entropy":
        worths = np.array([look.entropy for look in looks])
    else:
        return _centres(looks, count, known, evenly=strategy == "spread")
    return [Choice(int(i), float(worths[i])) for i in np.argsort(-worths, kind="stable")[:count]]


def _centres(looks: Sequence[Look], count: int, known: NDArray[np.float32] | None, evenly: bool = False) -> list[Choice]:
    if not looks:
        return []
    descriptors, weight = np.stack([look.descriptor for look in looks]), weights(looks, evenly)
    far = np.full(len(looks), FARTHEST)
    distance = distances_to(descriptors, known) if known is not None and len(known) else far
    chosen: list[Choice] = []
    for _ in range(min(count, len(looks))):
        worth = weight * distance
        worth[[choice.index for choice in chosen]] = -1.0
        best = int(np.argmax(worth))
        chosen.append(Choice(best, float(worth[best]) / FARTHEST))
        distance = np.minimum(distance, np.linalg.norm(descriptors - descriptors[best], axis=1))
    return chosen


def weights(looks: Sequence[Look], evenly: bool) -> NDArray[np.float64]:
    """(n,) what a frame's distance counts, by its score; all alike where they are chosen `evenly`."""
    scores = np.array([look.score for look in looks])
    weight: NDArray[np.float64] = SCORE_FLOOR + (1.0 - SCORE_FLOOR) * scores / max(float(scores.max()), 1e-9)
    return np.ones_like(weight) if evenly else weight


def distances_to(descriptors: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) distance of each descriptor (n, D) to the nearest of `known` (m, D), m > 0."""
    squared = (descriptors**2).sum(1)[:, None] + (known**2).sum(1) - 2.0 * descriptors @ known.T
    nearest: NDArray[np.float64] = np.sqrt(np.maximum(squared.min(axis=1), 0.0)).astype(np.float64)
    return nearest


def suggest_points(
    cloud: Cloud,
    answer: Segmentation,
    count: int,
    *,
    strategy: Strategy = "ours",
    seed: int = 0,
    labelled: Sequence[int] = (),
) -> list[Suggestion]:
    """At most `count` distinct points worth a click, the best first; only points that the model gave a class.

    `labelled` points are not suggested again, and what they stand for counts as known.

    `ours`: a point stands for the points of its predicted class within a region around it, and the worth of a set is
    the sum over the classes of the root of the doubt that it stands for, a class counting less the more points it has.
    This function of sets is submodular, so that choosing greedily is within 1 - 1/e of the best (Nemhauser et al.
    1978), and a second point in the same bush, or a tenth of the same class, is worth little. `spread` counts points in
    place of doubt, and groups of objects of about one size in place of predicted classes: see `size_groups`.
    """
    known = np.asarray(labelled, np.intp)
    free = answer.class_id > 0
    free[known] = False
    candidates = np.flatnonzero(free)
    if strategy == "random":
        picked = np.random.default_rng(seed).permutation(candidates)[:count]
        return [_suggestion(answer, i, 1.0, "drawn at random") for i in picked]
    if strategy == "entropy":
        order = np.argsort(-answer.uncertainty[candidates], kind="stable")[:count]
        picked = candidates[order]
        return [_suggestion(answer, i, answer.uncertainty[i], f"uncertainty {answer.uncertainty[i]:.2f}") for i in picked]
    if strategy == "spread":
        sizes = np.where(answer.class_id > 0, size_groups(cloud.xyz), 0).astype(np.uint8)
        answer = replace(answer, class_id=sizes)
    return _spread(cloud, answer, candidates, known, count, np.random.default_rng(seed), evenly=strategy == "spread")


def _spread(
    cloud: Cloud,
    answer: Segmentation,
    candidates: NDArray[np.intp],
    known: NDArray[np.intp],
    count: int,
    rng: np.random.Generator,
    evenly: bool = False,
) -> list[Suggestion]:
    if not len(candidates) or count < 1:
        return []
    sample = _draw(answer.class_id, candidates, max(CANDIDATES, 2 * count), rng)
    known = known[answer.class_id[known] > 0]
    class_id = answer.class_id[sample]
    values = np.ones(len(sample), np.float32) if evenly else doubt(answer, sample)
    reach = _Reach(cloud.xyz[sample], class_id, cloud.xyz[known], answer.class_id[known])
    counts = np.bincount(answer.class_id[candidates], minlength=256)
    drawn_for = counts[class_id] / np.bincount(class_id, minlength=256)[class_id]
    rows = _greedy(reach, values * drawn_for / np.sqrt(counts[class_id] / len(candidates)), class_id, count)
    owner = reach.nearest([row for row, _ in rows])
    stands_for = np.bincount(owner[owner >= 0], drawn_for[owner >= 0], minlength=len(rows))
    first = max(rows[0][1], 1e-9)
    found = []
    for place, (row, gain) in enumerate(rows):
        range_m = float(np.linalg.norm(cloud.xyz[sample[row]]))
        like_it = max(1, round(float(stands_for[place])))
        doubtful = "" if evenly else f"the model's uncertainty is {100 * values[row]:.0f} %; "
        why = f"{range_m:.0f} m away; {doubtful}about {counted(like_it, 'point is', 'points are')} similar"
        found.append(_suggestion(answer, sample[row], min(1.0, gain / first), why))
    return found


def size_groups(xyz: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N,) 1 for the ground, then 2 to 5 by the size of the cluster that a point (N, 3), m, belongs to; no network is asked.

    Clusters are points above the ground whose cells of 0.5 m touch; their sizes are below 1, 3 and 8 m, and above. A choice that
    is balanced over them finds the small and rare things that a random one misses (BaSAL: size-balanced warm start).
    """
    group = np.ones(len(xyz), np.uint8)
    above = np.flatnonzero(np.isfinite(xyz).all(axis=1))
    above = above[~ground_points(xyz[above])]
    if not len(above):
        return group
    cell, of_point = np.unique(np.floor(xyz[above] / CELL_M).astype(np.int64), axis=0, return_inverse=True)
    pairs = cKDTree(cell).query_pairs(1.8, output_type="ndarray")  # neighbours at sides, edges and corners
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(cell),) * 2)
    count, cluster = connected_components(links, directed=False)
    lowest, highest = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(lowest, cluster, cell)
    np.maximum.at(highest, cluster, cell + 1.0)
    size_m = CELL_M * (highest - lowest).max(axis=1)
    group[above] = 2 + np.digitize(size_m, SIZES_M)[cluster[of_point.reshape(-1)]]
    return group


def _suggestion(answer: Segmentation, point: int | np.integer, score: float | np.floating, why: str) -> Suggestion:
    confidence = float(np.nan_to_num(answer.confidence[point]))
    return Suggestion(int(point), float(score), why, round(min(max(confidence, 0.0), 1.0), 4))


def _draw(class_id: NDArray[np.uint8], candidates: NDArray[np.intp], size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """About `size` of the candidates: of each predicted class as the root of its number, evenly along the scan."""
    if len(candidates) <= size:
        return candidates
    own = class_id[candidates]
    roots = np.sqrt(np.bincount(own))
    parts = []
    for k in np.flatnonzero(roots):
        rows = candidates[own == k]
        count = min(len(rows), int(np.ceil(size * roots[k] / roots.sum())))
        parts.append(rows[((np.arange(count) + rng.random()) * (len(rows) / count)).astype(np.intp)])
    return np.sort(np.concatenate(parts))


class _Reach:
    """How well each of n points stands for each other of its class, (n, n) 0..1, class by class."""

    def __init__(
        self,
        xyz: NDArray[np.float32],
        class_id: NDArray[np.uint8],
        known_xyz: NDArray[np.float32],
        known_class: NDArray[np.uint8],
    ) -> None:
        self.rows: dict[int, NDArray[np.intp]] = {}
        self.place = np.zeros(len(xyz), np.intp)
        self.blocks: dict[int, NDArray[np.float32]] = {}
        self.covered = np.zeros(len(xyz), np.float32)
        region = np.maximum(REGION_M, REGION_PER_RANGE * np.linalg.norm(xyz, axis=1))
        for k in np.unique(class_id):
            rows = np.flatnonzero(class_id == k)
            self.rows[int(k)] = rows
            self.place[rows] = np.arange(len(rows))
            self.blocks[int(k)] = _similarity(xyz[rows], xyz[rows], region[rows])
            near = known_xyz[known_class == k]
            if len(near):
                self.covered[rows] = _similarity(near, xyz[rows], region[rows]).max(axis=0)
        self._class_id = class_id

    def of(self, row: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The points of the class of point `row`, and how well it stands for each."""
        k = int(self._class_id[row])
        return self.rows[k], self.blocks[k][self.place[row]]

    def totals(self, weight: NDArray[np.floating]) -> NDArray[np.float64]:
        """(n,) the weight that each point would stand for, beyond what is covered, were it the first."""
        totals = np.zeros(len(self.place))
        for k, rows in self.rows.items():
            totals[rows] = np.maximum(self.blocks[k] - self.covered[rows], 0.0) @ weight[rows]
        return totals

    def nearest(self, chosen: Sequence[int]) -> NDArray[np.intp]:
        """(n,) place in `chosen` of the point that stands for each point; -1 where none does by a half."""
        owner, best = np.full(len(self.place), -1), np.full(len(self.place), 0.5, np.float32)
        for place, row in enumerate(chosen):
            rows, strength = self.of(row)
            better = strength > best[rows]
            owner[rows[better]] = place
            best[rows[better]] = strength[better]
        return owner


def _similarity(a: NDArray[np.float32], b: NDArray[np.float32], region: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, m) Gaussian of the distances between `a` (n, 3) and `b` (m, 3), m, in regions of `b` (m,)."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T
    squared /= np.square(region)
    similarity = np.exp(-0.5 * np.maximum(squared, 0.0))
    near: NDArray[np.float32] = similarity * (squared <= FAR)
    return near


def _greedy(reach: _Reach, weight: NDArray[np.floating], class_id: NDArray[np.uint8], count: int) -> list[tuple[int, float]]:
    """(row, gain) of the points in the order of choice; what a point once added bounds what it adds later (Minoux 1978)."""
    weight = weight + 1e-6  # without any doubt the points that stand for most are still the better ones
    covered, adds = reach.covered.copy(), reach.totals(weight)
    computed_at = np.full(len(adds), -1)
    standing = np.bincount(class_id, covered * weight, minlength=256)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(count, len(adds)):
        before = standing[class_id]
        gain = np.sqrt(before + adds) - np.sqrt(before)
        gain[[row for row, _ in chosen]] = -1.0
        row = int(np.argmax(gain))
        rows, strength = reach.of(row)
        if computed_at[row] < len(chosen):
            adds[row] = weight[rows] @ np.maximum(strength - covered[rows], 0.0)
            computed_at[row] = len(chosen)
            continue
        chosen.append((row, float(gain[row])))
        standing[class_id[row]] += adds[row]
        covered[rows] = np.maximum(covered[rows], strength)
    return chosen
