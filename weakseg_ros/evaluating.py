# SPDX-License-Identifier: Apache-2.0
"""`weakseg evaluate`: the evaluation, directly, with --live through the node, or with --ray on a cluster."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.fleet.cluster import runner_of
from weakseg_ros.measure.evaluate import run
from weakseg_ros.ros.live import live_answers


def main(argv: Sequence[str]) -> int:
    """The verb; see `measure.evaluate.run` for the exit codes."""
    return run(argv, live_answers, runner_of)
