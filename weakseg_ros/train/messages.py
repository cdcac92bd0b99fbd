# SPDX-License-Identifier: Apache-2.0
"""The messages of a training on the screen: its plan, progress, result and next command."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weakseg_ros.errors import complain, counted
from weakseg_ros.progress import SECONDS_BETWEEN_LINES, duration
from weakseg_ros.train.run_folder import CONFIG
from weakseg_ros.train.session import TrainingSession


def opening(session: TrainingSession) -> list[str]:
    """Six lines: data, validation, range image, net, steps, run folder."""
    config, images, facts, spec = session.config, session.images, session.statistics, session.images.spec
    weights = sum(parameter.numel() for parameter in session.learner.net.parameters())
    val = session.val_scans
    validated = f"validates on {counted(len(val), 'scan')} of {val.name}" if val is not None else "no validation"
    classes = images.scans.labels.num_classes - 1
    size = f"{counted(config.batch_size, 'scan')} per step"
    return [
        f"trains on {counted(len(images), 'scan')}, with labels on {100 * facts.label_ratio:.3g} % of their points",
        validated,
        f"range image of {spec.height} x {spec.width} from {spec.fov_down_deg:g} to {spec.fov_up_deg:g} deg",
        f"net {config.net} with {weights:,} weights, method {config.method}, {counted(classes, 'class')}",
        f"{counted(config.steps - session.position.step, 'step')}, {size}, on {session.fabric.device}",
        f"run folder {config.out}; all settings are in {config.out / CONFIG}",
    ]


def closing(session: TrainingSession, bundle: Path | None) -> list[str]:
    """What came of it: how good, where, how long, and the next command."""
    config, run, done = session.config, session.run, session.position
    best = run.load_best()[1]
    lines = [f"trained {counted(done.step, 'step')} in {duration(done.elapsed_s)}"]
    if "miou" in best:
        lines.append(f"{quality(best)} at step {best['step'] + 1}, on {counted(len(session.val_scans or ()), 'validation scan')}")
    else:
        lines.append("nothing was validated: the weights are those of the last step, and their quality is unknown")
    if bundle is None:
        return [*lines, f"next: weakseg export {shlex.quote(str(config.out))} --out models/{config.out.name}"]
    data = shlex.quote(str(config.val_data or config.data))
    return [*lines, f"the bundle is in {bundle}", f"next: weakseg evaluate {data} --bundle {shlex.quote(str(bundle))}"]


def quality(figures: Mapping[str, Any]) -> str:
    """The mIoU of a validation, and over how many classes it is."""
    present, asked = figures["classes_present"], len(figures["class_iou"])
    text = f"validation mIoU {figures['miou_present']:.3f} over the {counted(present, 'class')} in the scans"
    return text + (f" ({figures['miou']:.3f} over all {asked})" if present < asked else "")


def cut_short(session: TrainingSession) -> str:
    """A sentence where the time ended the training and not its steps; empty elsewhere."""
    config, done = session.config, session.position
    if done.step >= config.steps or not config.max_minutes:
        return ""
    return (
        f"the time cap of max_minutes {config.max_minutes:g} ended the training after "
        f"{done.step} of {counted(config.steps, 'step')}; "
        "a larger --max-minutes, or 0, trains all of them"
    )


class ProgressLines:
    """Progress for log files, which the bar on a terminal leaves empty: a line now and then."""

    def __init__(self, steps: int) -> None:
        self._steps, self._last = steps, -SECONDS_BETWEEN_LINES
        self._wanted = not sys.stderr.isatty()

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row of metrics.jsonl; the first, and those some seconds apart, become a line on stderr."""
        now = time.monotonic()
        if self._wanted and "loss" in row and now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            complain(
                f"step {row['step'] + 1} of {self._steps}, loss {row['loss']:.4g}, after {duration(row['elapsed_s'])}",
            )

    def close(self) -> None:
        """Nothing is left open."""
