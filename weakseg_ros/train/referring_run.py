# SPDX-License-Identifier: Apache-2.0
"""`weakseg train-referring`: encode the scans once, train the head, measure it, and write the bundle with it."""

from __future__ import annotations

import math

import numpy as np

from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import counted, say
from weakseg_ros.train.outputs import check_bundle_place, still_free
from weakseg_ros.train.referring import begin, draw_labelled, evaluate, train
from weakseg_ros.train.referring_config import TrainReferringConfig
from weakseg_ros.train.referring_data import ReferringData, Views, with_head

PARITY_SCANS = 2


def run(config: TrainReferringConfig) -> int:
    """Do what was asked for; returns the exit code."""
    check_bundle_place(config.out_bundle, config.overwrite, "--out-bundle")
    bundle, asked = Bundle.load(config.bundle), config.training
    bundle.info.refuse_points("a referring head")
    data = ReferringData(config.data, bundle, config.cache)
    words = data.vocabulary()
    labelled = draw_labelled(data, asked.ratio, asked.seed)
    say(
        f"{data.name}: {counted(len(data), 'expression')} about {counted(len(data.scans), 'scan')}, "
        f"{len(labelled)} with a mask; {counted(len(words), 'word')}"
    )
    state = begin(data, bundle.num_classes, asked, words)
    views = Views(data, words, np.random.default_rng(asked.seed))
    figures = train(state, views, labelled, asked, asked.steps)
    say("  loss " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    measured: dict[str, float] = {}
    if config.test is not None:
        test = ReferringData(config.test, bundle, config.cache)
        measured = evaluate(state.teacher, Views(test, words, np.random.default_rng(0)))
        say(f"  on {test.name}: {in_words(measured)}")
    head = state.teacher.eval()
    scans = open_scans(config.data)
    clouds = [scans[number].cloud for number in range(min(PARITY_SCANS, len(scans)))]
    figures = {f"referring_{name}": value for name, value in _known(measured).items()}
    metrics = {**bundle.info.metrics, **figures, "referring_expressions": len(labelled)}
    made = with_head(bundle, head, still_free(config.out_bundle, config.overwrite), clouds, metrics=metrics)
    say(f"{made.folder}: {made.name}, with a referring head that knows {counted(len(words), 'word')}")
    return 0


def in_words(measured: dict[str, float]) -> str:
    """The measures in one line."""
    return ", ".join(f"{name} {value:.3g}" for name, value in _known(measured).items())


def _known(measured: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in measured.items() if not math.isnan(value)}
