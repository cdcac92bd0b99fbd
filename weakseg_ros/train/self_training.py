# SPDX-License-Identifier: Apache-2.0
"""Adapting a bundle's net to clouds without labels: statistics re-estimated, then a student of a slow teacher of its own kind.

Schneider et al., Improving robustness against common corruptions by covariate shift adaptation, NeurIPS 2020: BatchNorm's
statistics as a mixture of the source's and the target's. The self-training is `methods.consistency` without labels. Li et
al., Explicit Inductive Bias for Transfer Learning, ICML 2018: weights are pulled back to where they began (L2-SP). Michele et
al., Train Till You Drop, ECCV 2024: an adaptation is stopped by its agreement with the model it began from.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weakseg_ros.batches.batches import Batch
from weakseg_ros.deploy.bundle import BundleInfo
from weakseg_ros.methods.consistency import Consistency
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.settings import ConsistencySettings, SupervisedSettings
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.progress import Progress
from weakseg_ros.train.adapt_settings import AdaptSettings
from weakseg_ros.train.cloud_views import CloudImage, CloudViews, tensor_of
from weakseg_ros.train.schedule import warmup_cosine_lr

TEACHING = ConsistencySettings(ramp=0.0, memory=0.1, share=0.5, least=0.3)
WARMUP_SHARE = 0.1
NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)


@dataclass(frozen=True)
class Look:
    """What a net does on the guard's clouds, all without labels."""

    step: int
    agreement: float
    """share of the points with the class that the source gave them"""
    steadiness: float
    """share of the points that keep their class where the cloud is mirrored, turned and tilted"""
    confidence: float
    """mean over the points"""
    class_share: tuple[float, ...] = ()
    """(K,) share of the points by class"""


@dataclass
class Trace:
    """How a self-training went."""

    looks: list[Look] = field(default_factory=list)
    stopped: str = ""
    """why it ended before its last step; empty where it did not"""
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Guard:
    """Watches an adaptation on clouds that it does not train on, or on some of them where there are few."""

    clouds: tuple[CloudImage, ...]
    moved: tuple[CloudImage, ...]
    """the same clouds mirrored, turned and tilted, their points in the same order"""
    before: tuple[NDArray[np.uint8], ...]
    """(N,) the classes of each cloud's points before the adaptation"""

    @classmethod
    def of(
        cls,
        views: CloudViews,
        clouds: Sequence[Cloud],
        source: nn.Module,
        seed: int,
        before: tuple[NDArray[np.uint8], ...] = (),
    ) -> Guard:
        """A guard that sees through `views`; without `before` it asks the source for its classes."""
        seen = tuple(views.whole(cloud) for cloud in clouds)
        moved = tuple(views.moved(cloud, np.random.default_rng([seed, 0, i])) for i, cloud in enumerate(clouds))
        return cls(seen, moved, before or tuple(_classes(_answer(source, one), one) for one in seen))

    def look(self, net: nn.Module, step: int) -> Look:
        """Measure a net, which is left in the mode it is in; a cloud counts by its points."""
        agreed = steady = points = sure = 0.0
        counts: NDArray[np.int64] = np.zeros(1, np.int64)
        for seen, moved, before in zip(self.clouds, self.moved, self.before, strict=True):
            probs = _answer(net, seen)
            classes, again = _classes(probs, seen), _classes(_answer(net, moved), moved)
            there, both = before > 0, (classes > 0) & (again > 0)
            points += there.sum()
            agreed += (classes == before)[there].sum()
            steady += (classes == again)[both].mean() * there.sum() if both.any() else 0.0
            sure += float(probs.amax(dim=0).numpy()[seen.mask].mean()) * there.sum()
            counts = counts + np.bincount(classes[classes > 0], minlength=len(probs))
        total = max(float(points), 1.0)
        shares = tuple((counts / max(int(counts.sum()), 1)).tolist())
        return Look(step, float(agreed) / total, float(steady) / total, float(sure) / total, shares)

    @torch.inference_mode()
    def logits(self, net: nn.Module) -> Tensor:
        """(P, K) of every fourth pixel that holds a point; the net must be in evaluation."""
        return torch.cat([net(tensor_of(seen)).logits[0][:, torch.from_numpy(seen.mask)].T[::4] for seen in self.clouds])


@torch.inference_mode()
def _answer(net: nn.Module, seen: CloudImage) -> Tensor:
    """(K, H, W) probabilities, in evaluation."""
    was = net.training
    answer: NetOutput = net.eval()(tensor_of(seen))
    net.train(was)
    return answer.probabilities[0]


def _classes(probs: Tensor, seen: CloudImage) -> NDArray[np.uint8]:
    """(N,) the class of each point, 0 where it has no pixel."""
    image, pixel = probs.argmax(dim=0).numpy().ravel().astype(np.uint8), seen.pixels.pixel_of_point
    return np.where(pixel >= 0, image[pixel], np.uint8(0))


@torch.no_grad()
def re_estimate(net: nn.Module, images: Sequence[CloudImage], share: float) -> None:
    """BatchNorm statistics <- (1 - share) own + share those of the images, in place; the net ends in evaluation."""
    norms = [module for module in net.modules() if isinstance(module, NORMS)]
    if not share or not norms:
        return
    before = [(norm.running_mean.clone(), norm.running_var.clone(), norm.momentum) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all images
    net.eval()
    for norm in norms:
        norm.train()
    for seen in images:
        net(tensor_of(seen))
    for norm, (mean, variance, momentum) in zip(norms, before, strict=True):
        norm.running_mean.lerp_(mean, 1.0 - share)  # type: ignore[union-attr]
        norm.running_var.lerp_(variance, 1.0 - share)  # type: ignore[union-attr]
        norm.momentum = momentum
    net.eval()


def self_train(
    net: nn.Module,
    info: BundleInfo,
    views: CloudViews,
    guard: Guard,
    settings: AdaptSettings,
    teaching: ConsistencySettings = TEACHING,
) -> tuple[nn.Module, Trace]:
    """The best teacher of a self-training that starts from `net`, and how it went.

    The best is the steadiest that agrees well enough with the source, `net` itself included, so that more steps cannot undo
    what fewer have reached. BatchNorm keeps its statistics: what is trained is what is deployed.
    """
    torch.manual_seed(settings.seed)
    student = copy.deepcopy(net).eval()
    task = Task(student, torch.zeros(info.labels.num_classes, dtype=torch.int64), info.labels, SupervisedSettings())
    method = Consistency(teaching, task)
    optimizer = torch.optim.AdamW(student.parameters(), settings.learning_rate, weight_decay=0.0)
    begun = [parameter.detach().clone() for parameter in student.parameters()]
    best, trace = copy.deepcopy(net), Trace([guard.look(net, 0)])
    best_look, started = trace.looks[0], time.monotonic()
    for step, batch in _batches(views, settings):
        progress = max(step / settings.steps, _share_of_time(settings, started))
        rate = _rate(settings, step, progress)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        method.loss(batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(student.parameters()), begun, min(1.0, rate * settings.anchor))
        method.after_step(student, min(progress, 1.0))
        trace.steps = step + 1
        finished = trace.steps == settings.steps or _share_of_time(settings, started) >= 1.0
        if finished or trace.steps % settings.check_every == 0:
            look = guard.look(method.teacher.net, trace.steps)
            trace.looks.append(look)
            if look.agreement < settings.least_agreement:
                trace.stopped = f"it agreed with the original model on only {look.agreement:.0%} of the points"
                break
            if look.steadiness >= best_look.steadiness:
                best, best_look = copy.deepcopy(method.teacher.net), look
        if finished:
            break
    trace.seconds = time.monotonic() - started
    return best.eval(), trace


def _batches(views: CloudViews, settings: AdaptSettings) -> Iterator[tuple[int, Batch]]:
    """The batches by step, each prepared while the one before is trained on."""

    def make(step: int) -> Batch:
        return views.batch(settings.batch_size, settings.crop_columns, np.random.default_rng([settings.seed, 1, step]))

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make, 0)
        for step in Progress(range(settings.steps), what="adapt", unit="step"):
            batch = ahead.result()
            ahead = pool.submit(make, step + 1)
            yield step, batch


def _rate(settings: AdaptSettings, step: int, progress: float) -> float:
    warmup = max(1, round(WARMUP_SHARE * settings.steps))
    position = step if step < warmup else min(max(step, progress * settings.steps), settings.steps)
    return warmup_cosine_lr(position, settings.steps, warmup, settings.learning_rate)


def _share_of_time(settings: AdaptSettings, started: float) -> float:
    return (time.monotonic() - started) / (60.0 * settings.max_minutes) if settings.max_minutes else 0.0
