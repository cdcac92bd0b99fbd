# SPDX-License-Identifier: Apache-2.0
"""Frames to offer to a running log."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from support import PATIENCE_S
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.improve.log.frame_folder import open_frames
from weakseg_ros.improve.log.recorder import FrameLog
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

LABELS = LabelMap.load("semantickitti")
ALL = {"per_minute": 6000.0, "spacing_s": 0.0, "min_distance": 0.0, "random_share": 0.0, "min_free_mib": 0, "points": 3}
_stamps = itertools.count(1)


def frame(count: int = 400, uncertainty: float = 0.5) -> tuple[Cloud, Segmentation, Origin]:
    stamp = next(_stamps)
    rng = np.random.default_rng(stamp)
    cloud = make_cloud(rng.normal(size=(count, 3)) * 10, rng.random(count), stamp_ns=stamp)
    image = np.zeros((1, 1), np.uint8)
    answer = Segmentation(
        class_id=rng.integers(1, 5, count).astype(np.uint8),
        instance_id=np.zeros(count, np.uint16),
        confidence=np.full(count, 1 - uncertainty, np.float32),
        uncertainty=np.full(count, uncertainty, np.float32),
        flags=cloud.flags,
        class_image=image,
        instance_image=image.astype(np.uint16),
    )
    return cloud, answer, Origin("street", "hash")


Start = Callable[..., FrameLog]


def wait(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.01)
    return value


def offer_until(log: FrameLog, condition: Callable[[], Any], what: str, points: int = 400) -> Any:
    """Offer frames until `condition` holds."""

    def step() -> Any:
        log.offer(*frame(points))
        return condition()

    return wait(step, what)


def kept(log: FrameLog) -> int:
    return sum(log.status().kept.values())


def fill(folder: Path, reasons: list[str]) -> list[str]:
    """Frames that were kept for these reasons, all of a low score."""
    with FrameWriter(folder, LABELS, RangeSpec(), source="a test") as writer:
        return [writer.write(*frame(), Worth(0.01, reason)).key for reason in reasons]


def keep(log: FrameLog, **changes: float) -> str:
    """Offer frames until one is handed to the disk, and wait for it: the reason it was offered for, or what was in the way."""
    before = sum(log.status().dropped.get(name, 0) for name in ("budget", "outdone"))
    reason = wait(lambda: log.offer(*frame(**changes)), "a decision")
    wait(lambda: not log._pending, "the disk")
    dropped = log.status().dropped
    return "dropped" if sum(dropped.get(name, 0) for name in ("budget", "outdone")) > before else str(reason)


def reasons_in(folder: Path) -> Counter[str]:
    return Counter(record.reason for record in open_frames(folder).frames)
