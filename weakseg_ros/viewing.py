# SPDX-License-Identifier: Apache-2.0
"""`weakseg view`: data from disk, or with --live what a running node answers."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.ros.live_view import node_frames
from weakseg_ros.view.command import run


def main(argv: Sequence[str]) -> int:
    """The verb; see `view.command.run` for the exit codes."""
    return run(argv, node_frames)
