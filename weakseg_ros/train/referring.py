# SPDX-License-Identifier: Apache-2.0
"""Train a referring head on a frozen network's superpoints, with masks for all or few of the sentences."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weakseg_ros.deploy.vocabulary import Vocabulary
from weakseg_ros.measure.referring import ReferringTally
from weakseg_ros.methods.mean_teacher import follow
from weakseg_ros.methods.referring.batch import answered
from weakseg_ros.methods.referring.semi_supervised import SemiSupervised
from weakseg_ros.nets.heads.referring import ReferringHead
from weakseg_ros.points.superpoints import columns, describe
from weakseg_ros.progress import Progress
from weakseg_ros.train.referring_config import ReferringTraining as ReferringTraining
from weakseg_ros.train.referring_data import ReferringData, Views

PARTS = 4
"""of the attention"""


@dataclass
class State:
    """A training under way: student, teacher, and what the optimiser knows."""

    student: ReferringHead
    teacher: ReferringHead
    optimizer: torch.optim.Optimizer
    method: SemiSupervised
    step: int = 0

    def turned_to(self, config: ReferringTraining) -> State:
        """A copy that goes on by another method: what was learnt on masks alone is the same for all of them."""
        again = copy.deepcopy(self)
        again.method = SemiSupervised(config.switched)
        return again


def draw_labelled(data: ReferringData, ratio: float, seed: int) -> list[int]:
    """The expressions whose masks are used, drawn uniformly; at least one. A larger ratio holds those of a smaller one."""
    order = np.random.default_rng([seed, 0x1A]).permutation(len(data))
    return sorted(map(int, order[: max(round(ratio * len(data)), 1)]))


def begin(data: ReferringData, num_classes: int, config: ReferringTraining, words: Vocabulary) -> State:
    """A fresh head that knows the data's mean and deviation, and the optimiser."""
    torch.manual_seed(config.seed)
    features = next(iter(data.scans.values())).superpoints.features.shape[1]
    described = columns(num_classes, features)
    head = ReferringHead(described, " ".join(words.words), config.width, config.layers, PARTS, config.dropout)
    told = np.concatenate([describe(scan.superpoints) for scan in list(data.scans.values())[:200]])
    head.mean.copy_(torch.from_numpy(told.mean(axis=0)))
    head.std.copy_(torch.from_numpy(told.std(axis=0)).clamp_min(0.05))
    optimizer = torch.optim.AdamW(head.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    teacher = copy.deepcopy(head).eval().requires_grad_(False)
    return State(head, teacher, optimizer, SemiSupervised(config.switched))


def train(state: State, views: Views, labelled: Sequence[int], config: ReferringTraining, until: int) -> dict[str, float]:
    """Train in place up to the step `until`; returns the last means of the losses, and the size of the pool."""
    method = state.method
    rng = np.random.default_rng([config.seed, state.step, 0x5E])
    unlabelled = [] if config.method == "supervised" else _by_scan(views.data, set(range(len(views.data))).difference(labelled))
    known = _by_scan(views.data, (number for number in labelled if views.data.can_be_found(int(number))))
    state.student.train()
    seen: list[list[float]] = []
    for step in Progress(range(state.step, until), what=f"{config.method} {config.ratio:g}", unit="step"):
        _set_rate(state.optimizer, config, step)
        chosen, pooled = _draw(known, method, config, rng)
        depth = 0 if step < config.shallow * config.steps else config.layers
        loss = method.labelled(state.student, views.batch(chosen, strong=True), pooled, depth)
        more = torch.zeros(())
        if unlabelled and step >= config.burn_in:
            chosen = _of_few_scans(unlabelled, config, rng, config.batch)
            strong, weak = views.pair(chosen)
            more = method.unlabelled(state.student, state.teacher, strong, weak, depth)
        state.optimizer.zero_grad()
        (loss + more).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(state.student.parameters(), 5.0)
        state.optimizer.step()
        follow(state.teacher, state.student, method.settings.teacher.keep_at(step))
        seen.append([float(loss.detach()), float(more.detach())])
    state.step = until
    means = np.mean(seen[-100:], axis=0) if seen else np.zeros(2)
    return {"labelled": float(means[0]), "unlabelled": float(means[1]), "pool": float(len(method.pool))}


@torch.inference_mode()
def evaluate(head: ReferringHead, views: Views, batch: int = 64) -> dict[str, float]:
    """How well a head answers all expressions of a data set, over the points of the clouds: `ReferringTally.figures`.

    `ceiling` is the mIoU that the right superpoints would have.
    """
    head.eval()
    rows = views.data.expressions
    order = sorted(range(len(rows)), key=lambda number: rows[number].scan)
    tally, best = ReferringTally(), []
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        told = views.batch(chosen, strong=False)
        masks = answered(told.answered_by(head), told.valid).numpy()
        for number, mask in zip(chosen, masks, strict=True):
            scan, row = views.data.scans[rows[number].scan], rows[number]
            meant = mask[: len(scan.superpoints)]
            tally.add_iou(row.case, scan.iou(meant, row.targets), bool(meant.any()))
            if row.targets:
                best.append(scan.iou(scan.covered(row.targets), row.targets))
    return {**tally.figures(), "ceiling": float(np.mean(best)) if best else float("nan")}


def _set_rate(optimizer: torch.optim.Optimizer, config: ReferringTraining, step: int) -> None:
    warm = min(1.0, (step + 1) / 50)
    rate = config.learning_rate * warm * (0.1 + 0.45 * (1 + math.cos(math.pi * step / config.steps)))
    for group in optimizer.param_groups:
        group["lr"] = rate


def _draw(
    labelled: list[list[int]], method: SemiSupervised, config: ReferringTraining, rng: np.random.Generator
) -> tuple[list[int], dict[int, Tensor]]:
    """Expressions of a labelled batch, and the masks of those among them that come from the pool."""
    pool = list(method.pool.keys())
    share = min(len(pool) / (len(pool) + sum(map(len, labelled))), method.settings.pool_share)
    count = int(rng.binomial(config.batch, share)) if pool else 0
    true = _of_few_scans(labelled, config, rng, config.batch - count)
    taken = rng.choice(np.asarray(pool), count).tolist() if count else []
    masks = {len(true) + i: method.pool.mask(key) for i, key in enumerate(taken)}
    return [*true, *map(int, taken)], masks


def _by_scan(data: ReferringData, numbers: Iterable[int]) -> list[list[int]]:
    """These expressions, by scan."""
    found: dict[str, list[int]] = defaultdict(list)
    for number in numbers:
        found[data.expressions[number].scan].append(number)
    return list(found.values())


def _of_few_scans(by_scan: list[list[int]], config: ReferringTraining, rng: np.random.Generator, count: int) -> list[int]:
    """At most `count` expressions about few scans, which is quick as each scan is surveyed once."""
    each = max(config.batch // config.scans_per_batch, 1)
    chosen: list[int] = []
    for scan in rng.permutation(len(by_scan)):
        of_scan = by_scan[scan]
        chosen += rng.choice(of_scan, min(each, len(of_scan)), replace=False).tolist()
        if len(chosen) >= count:
            break
    return chosen[:count]
