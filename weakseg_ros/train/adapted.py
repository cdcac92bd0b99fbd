# SPDX-License-Identifier: Apache-2.0
"""A bundle's net adapted to clouds without labels, and exported through the code that exports every bundle."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.torch import load_graph, stores_half
from weakseg_ros.deploy.input_spec import NOT_NORMALISED, InputSpec
from weakseg_ros.environment import environment
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.train.adapt_settings import AdaptSettings
from weakseg_ros.train.cloud_views import CloudImage, CloudViews
from weakseg_ros.train.export import PARITY_IMAGES, export_bundle
from weakseg_ros.train.finetune import THEN
from weakseg_ros.train.self_training import Guard, Look, Trace, re_estimate, self_train

LEAST_STD = 1e-6


@dataclass(frozen=True)
class Watched:
    """A bundle's net before its adaptation, and what watches it."""

    bundle: Bundle
    net: nn.Module
    heads: Heads | None
    spec: InputSpec
    """with the normalisation of the adapted net"""
    views: CloudViews
    """through that"""
    images: tuple[CloudImage, ...]
    """of the clouds to adapt to, through that"""
    guard: Guard
    """sees through that, and agreement is with the bundle as it is"""
    source: Look
    """the bundle as it is"""


@dataclass(frozen=True)
class Adaptation:
    """An adapted net and how it came about."""

    net: nn.Module
    after: Look
    trace: Trace


def watch(
    bundle: Bundle, train: Sequence[Cloud], guard: Sequence[Cloud], settings: AdaptSettings, intensity_scale: float = 0.0
) -> Watched:
    """Open a bundle for adaptation and look at it as it is. Raises EngineError where it holds no weights for torch."""
    info, graph = bundle.info, load_graph(bundle)
    own = CloudViews(info, info.input, train, intensity_scale)
    as_it_is = Guard.of(own, guard, graph.net, settings.seed)
    spec = (
        info.input if settings.normalise == "none" else renormalised(info.input, [own.whole(cloud) for cloud in train], settings)
    )
    views = CloudViews(info, spec, train, intensity_scale)
    watcher = as_it_is if spec is info.input else Guard.of(views, guard, graph.net, settings.seed, as_it_is.before)
    images = tuple(views.whole(cloud) for cloud in train)
    return Watched(bundle, graph.net, graph.heads, spec, views, images, watcher, as_it_is.look(graph.net, 0))


def adapt_net(watched: Watched, settings: AdaptSettings) -> Adaptation:
    """Re-estimate the statistics, then self-train; the bundle's own net is left alone."""
    net = copy.deepcopy(watched.net)
    re_estimate(net, watched.images, settings.statistics_share)
    best, trace = self_train(net, watched.bundle.info, watched.views, watched.guard, settings)
    return Adaptation(best, watched.guard.look(best, trace.steps), trace)


def renormalised(spec: InputSpec, images: Sequence[CloudImage], settings: AdaptSettings) -> InputSpec:
    """The spec with mean and std of its channels, or of the intensity alone, measured on images that it made."""
    values = np.concatenate([seen.image[:, seen.mask] for seen in images], axis=1).astype(np.float64)  # (C, P), normalised
    mean, std = np.array(spec.mean), np.array(spec.std)
    asked = np.array([name not in NOT_NORMALISED and settings.normalise in ("all", name) for name in spec.channels])
    spread = values.std(axis=1)
    asked &= spread > LEAST_STD  # a channel that holds one value only says nothing of its scale
    fresh_mean, fresh_std = mean + std * values.mean(axis=1), std * spread
    changed = np.where(asked, fresh_mean, mean), np.where(asked, fresh_std, std)
    return dataclasses.replace(spec, mean=tuple(changed[0].tolist()), std=tuple(changed[1].tolist()))


def export_adapted(adapted: Adaptation, watched: Watched, folder: Path, facts: dict[str, Any], command: str) -> Bundle:
    """The adapted net as a bundle at `folder`, with all heads of the one it began from.

    Its temperature keeps the mean confidence that the bundle had: without labels nothing says that it may be surer.
    `facts` become its metrics, and `command` is added to the commands that made the bundle.
    """
    info = watched.bundle.info
    source = info.provenance
    changed = dataclasses.replace(
        info,
        name=folder.name,
        input=watched.spec,
        temperature=info.temperature * _calmed(adapted.net, watched, info.temperature),
        metrics=facts,
        provenance=dataclasses.replace(
            source, command=f" {THEN} ".join(filter(None, [source.command, command])), environment=environment()
        ),
        outputs={},
        files={},
        parity={},
        content_hash="",
    )
    sample: NDArray[np.float32] = np.stack([seen.image for seen in watched.images[:PARITY_IMAGES]])
    return export_bundle(adapted.net, changed, folder, sample, stores_half(watched.bundle), watched.heads)


def _calmed(net: nn.Module, watched: Watched, temperature: float) -> float:
    """The factor on the temperature (1 to 20) with which the net's mean confidence is at most that of the bundle."""
    before, ours = mean_confidence(watched.guard.logits(watched.net), temperature), watched.guard.logits(net)
    low, high = 0.0, math.log(20.0)
    if mean_confidence(ours, temperature) <= before:
        return 1.0
    for _ in range(10):
        middle = (low + high) / 2
        if mean_confidence(ours, temperature * math.exp(middle)) > before:
            low = middle
        else:
            high = middle
    return math.exp(high)


def mean_confidence(logits: Tensor, temperature: float) -> float:
    """Mean of the largest probability of (P, K) logits over the temperature, class 0 left out."""
    return float(torch.softmax(logits[:, 1:] / temperature, dim=1).amax(dim=1).mean())
