# SPDX-License-Identifier: Apache-2.0
"""The frames of a log that are most worth a click, over all robots, and how far the labelling is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from weakseg_ros.improve.log.frame_folder import open_frames

SHOWN = 20


def queue_of(log: Path) -> dict[str, Any]:
    """The frames of a log in the order in which 'weakseg label' shows them; DataError where there is no log."""
    frames = open_frames(log).frames
    clicked = {path.stem for path in log.glob("sparse/*/*.label")}
    by_robot = Counter(_robot(record.source_key) for record in frames)
    return {
        "log": str(log),
        "frames": len(frames),
        "clicked": sum(record.key in clicked for record in frames),
        "by_robot": dict(sorted(by_robot.items())),
        "first": [
            {
                "key": record.key,
                "robot": _robot(record.source_key),
                "scan": record.source_key,
                "worth": record.score,
                "reason": record.reason,
                "points": len(record.suggestions),
                "clicked": record.key in clicked,
            }
            for record in frames[:SHOWN]
        ],
    }


def _robot(source_key: str) -> str:
    """The first part of a name such as ada/drive_3/000017, as a choice over several robots writes it."""
    parts = source_key.split("/")
    return parts[0] if len(parts) > 2 else ""
