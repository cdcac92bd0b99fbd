# SPDX-License-Identifier: Apache-2.0
"""The gate passes what is better, refuses what is worse in anything agreed on, and says which figure it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from weakseg_ros.errors import ConfigError
from weakseg_ros.improve.retrain.gate import GateConfig, Scores, judge
from weakseg_ros.points.labels import LabelClass, LabelMap

LABELS = LabelMap("four", tuple(LabelClass(i, name, (i, i, i), i == 3, (i,)) for i, name in enumerate(("none", "a", "b", "c"))))


def scores(right: tuple[int, int, int], total: int = 2000, instances: int = 0, objects: int = 0) -> Scores:
    """Points of three classes, so many right of `total` each, the others taken for the next class."""
    made = Scores(LABELS)
    for k, hits in enumerate(right, 1):
        made.confusion.counts[k, k] += hits
        made.confusion.counts[k % 3 + 1, k] += total - hits
    made.instances = instances
    made.panoptic.tp[:] = objects
    made.panoptic.iou_sum[:] = objects
    made.panoptic.fn[:] = instances - objects
    return made


GOOD = (1800, 1800, 1800)
OLD, OLD_CLICKS, NEW_CLICKS = scores(GOOD), scores((10, 10, 10), 40), scores((30, 30, 30), 40)


def failed(new: Scores, clicks: Scores = NEW_CLICKS, ratio: float = 1.0, old: Scores = OLD, **changes: float) -> list[str]:
    verdict = judge(old, new, OLD_CLICKS, clicks, ratio, dataclasses.replace(GateConfig(), **changes))
    assert verdict.passed == (not verdict.failed)
    return [check.name for check in verdict.failed]


def test_better_on_the_new_and_equal_on_the_old_passes() -> None:
    assert failed(scores(GOOD)) == []


def test_each_figure_that_falls_is_named() -> None:
    assert failed(scores((1780, 1780, 1780))) == ["mIoU"]
    assert failed(scores((1780, 1780, 1780)), miou_drop=0.05) == []
    assert failed(scores((1990, 1990, 1500))) == ["IoU of c"]
    assert failed(scores((1990, 1990, 1500)), class_drop=0.1) == []
    assert failed(scores((1500, 1500, 1500))) == ["mIoU", "IoU of a", "IoU of b", "IoU of c"]
    assert failed(scores(GOOD), ratio=1.2) == ["latency ratio"]
    assert failed(scores(GOOD), clicks=OLD_CLICKS) == ["accuracy on held-out clicks"]


def test_a_gain_that_is_due_is_said_to_be_more_than_what_was() -> None:
    (refused,) = judge(OLD, OLD, OLD_CLICKS, OLD_CLICKS, 1.0, GateConfig()).failed
    assert str(refused).endswith("0.250 before, 0.250 after, more than 0.250 is required")


def test_all_right_before_and_after_is_good_enough() -> None:
    perfect = scores((40, 40, 40), 40)
    assert judge(OLD, OLD, perfect, perfect, 1.0, GateConfig()).passed
    assert not judge(OLD, OLD, perfect, NEW_CLICKS, 1.0, GateConfig()).passed


def test_a_class_of_few_points_is_not_judged_and_that_is_said() -> None:
    old, new = scores(GOOD), scores(GOOD)
    for made, hits in ((old, 30), (new, 0)):
        made.confusion.counts[:, 3] = 0
        made.confusion.counts[3, 3], made.confusion.counts[1, 3] = hits, 30 - hits
    verdict = judge(old, new, OLD_CLICKS, NEW_CLICKS, 1.0, GateConfig(miou_drop=1.0))
    assert verdict.passed
    assert "IoU of c: 30 points are too few (class_points 1000)" in verdict.unasked


def test_pq_counts_where_there_are_instances() -> None:
    old = scores(GOOD, instances=10, objects=9)
    assert failed(scores(GOOD, instances=10, objects=9), old=old) == []
    assert failed(scores(GOOD, instances=10, objects=5), old=old) == ["PQ"]
    assert "PQ: the regression set has no instances" in judge(OLD, OLD, OLD_CLICKS, NEW_CLICKS, 1.0, GateConfig()).unasked


def test_a_check_reads_as_a_sentence() -> None:
    verdict = judge(OLD, scores((1780, 1780, 1780)), OLD_CLICKS, NEW_CLICKS, 1.0, GateConfig())
    assert str(verdict.failed[0]) == "mIoU: 0.818 before, 0.802 after, at least 0.808 is required"


@pytest.mark.parametrize("changes", [{"miou_drop": -0.1}, {"miou_drop": np.nan}, {"latency_ratio": 0.0}, {"class_points": 0}])
def test_absurd_bounds_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        GateConfig(**changes)
