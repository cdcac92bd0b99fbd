# SPDX-License-Identifier: Apache-2.0
"""Identity switches counted by hand, their rules one by one, and that counts add up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.errors import DataError
from weakseg_ros.measure.tracks import COUNTS, TrackQuality, object_keys


def scan(*runs: tuple[int, int]) -> np.ndarray:
    """Ids from (id, points)."""
    return np.concatenate([np.full(count, name) for name, count in runs])


def counts(quality: TrackQuality) -> dict[str, int]:
    return {name: getattr(quality, name) for name in COUNTS}


def test_a_recording_by_hand() -> None:
    truth = scan((0, 5), (1, 20), (2, 20))
    quality = TrackQuality(min_points=10)
    quality.add(scan((0, 5), (7, 20), (8, 20)), truth)
    quality.add(scan((0, 5), (7, 20), (9, 20)), truth)  # 2 switches to 9
    quality.add(scan((0, 5), (7, 20), (0, 20)), truth)  # 2 is missed
    quality.add(scan((0, 5), (8, 20), (9, 20)), truth)  # 1 switches to 8, which was 2's; 2 is found again
    assert counts(quality) == {
        "scans": 4,
        "seen": 8,
        "found": 7,
        "followed": 2,
        "switches": 2,
        "fragmentations": 1,
        "transfers": 1,
    }
    assert quality.switch_rate == 2 / 5
    assert quality.lifetime_scans == 7 / 4
    assert quality.summary()["recall"] == 7 / 8


def test_half_an_overlap_and_small_objects_do_not_count() -> None:
    quality = TrackQuality(min_points=10)
    quality.add(scan((3, 10), (0, 10), (4, 9)), scan((1, 20), (2, 9)))
    assert (quality.seen, quality.found) == (1, 0)
    quality.add(scan((3, 11), (0, 9)), scan((1, 20)))
    assert (quality.seen, quality.found, quality.fragmentations) == (2, 1, 0)


def test_unknown_points_are_left_out() -> None:
    quality = TrackQuality(min_points=5)
    predicted, truth = scan((3, 30)), scan((1, 10), (0, 20))
    quality.add(predicted, truth)
    assert quality.found == 0
    quality.add(predicted, truth, np.arange(30) < 12)
    assert quality.found == 1


def test_a_new_recording_forgets_the_ids() -> None:
    quality = TrackQuality()
    for name in (1, 2):
        quality.begin()
        quality.add(scan((name, 20)), scan((5, 20)))
    assert (quality.followed, quality.switches) == (2, 0)


def test_an_object_hidden_between_is_not_broken() -> None:
    quality = TrackQuality()
    for predicted, truth in ((3, 5), (0, 0), (3, 5)):
        quality.add(scan((predicted, 20)), scan((truth, 20)))
    assert (quality.seen, quality.found, quality.switches, quality.fragmentations) == (2, 2, 0, 0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_names_do_not_matter_and_constant_ids_never_switch(seed: int, scans: int, objects: int) -> None:
    rng = np.random.default_rng(seed)
    truths = [rng.integers(0, objects + 1, 60) for _ in range(scans)]
    predictions = [np.where(rng.random(60) < 0.3, rng.integers(0, objects + 1, 60), truth) for truth in truths]
    name = rng.permutation(np.arange(1, 50_000))[:objects]
    renamed = np.concatenate([[0], name])
    plain, other, perfect = TrackQuality(1), TrackQuality(1), TrackQuality(1)
    for predicted, truth in zip(predictions, truths, strict=True):
        plain.add(predicted, truth)
        other.add(renamed[predicted].astype(np.uint16), truth)
        perfect.add(renamed[truth], truth)
    assert counts(plain) == counts(other)
    assert perfect.found == perfect.seen
    assert (perfect.switches, perfect.fragmentations, perfect.transfers) == (0, 0, 0)
    assert plain.switches <= plain.found - plain.followed


def test_counts_add_up_and_survive_json() -> None:
    first, second = TrackQuality(), TrackQuality()
    first.add(scan((1, 20)), scan((5, 20)))
    second.add(scan((2, 20)), scan((5, 20)))
    second.add(scan((3, 20)), scan((5, 20)))
    total = sum([first, second])
    assert counts(total) == {name: getattr(first, name) + getattr(second, name) for name in COUNTS}
    again = TrackQuality.from_mapping(json.loads(json.dumps(total.to_mapping())))
    assert counts(again) == counts(total)
    with pytest.raises(DataError, match="min_points"):
        first + TrackQuality(3)
    with pytest.raises(DataError, match="one for each point"):
        first.add(scan((1, 2)), scan((1, 3)))
    with pytest.raises(ValueError, match="min_points 0"):
        TrackQuality(0)


def test_objects_of_two_classes_are_two() -> None:
    things = np.array([False, True, True, False])
    keys = object_keys(np.array([1, 2, 3, 1, 0], np.uint8), np.array([4, 4, 4, 0, 4], np.uint16), things)
    assert len(set(keys[:2])) == 2
    np.testing.assert_array_equal(keys[2:], 0)
