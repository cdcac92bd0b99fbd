# SPDX-License-Identifier: Apache-2.0
"""Which frames and points are chosen: always valid and distinct, and spread where the highest entropies are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import optional
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.improve.log.acquisition import Look, descriptor_size, doubt, look_at
from weakseg_ros.improve.log.choice import choose_frames, distances_to, size_groups, suggest_points
from weakseg_ros.improve.log.frame_folder import open_frames
from weakseg_ros.points.cloud import Cloud, make_cloud

CLASSES = 6


def answer_of(cloud: Cloud, class_id: np.ndarray, uncertainty: np.ndarray, **changes: object) -> Segmentation:
    known = class_id > 0
    image = np.zeros((1, 1), np.uint8)
    columns = {
        "class_id": class_id.astype(np.uint8),
        "instance_id": np.zeros(len(cloud), np.uint16),
        "confidence": ((1 - uncertainty) * known).astype(np.float32),
        "uncertainty": (uncertainty * known).astype(np.float32),
        "flags": cloud.flags,
        "class_image": image,
        "instance_image": image.astype(np.uint16),
    }
    return Segmentation(**{**columns, **changes})


@st.composite
def frames(draw: st.DrawFn) -> tuple[Cloud, Segmentation]:
    """A cloud of any size with answers of any kind, among them none, ties and a single class."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.sampled_from([0, 1, 2, 30, 400, 5000]))
    spread = draw(st.sampled_from([0.0, 0.1, 30.0]))
    classes = draw(st.integers(0, CLASSES - 1))
    cloud = make_cloud(rng.normal(size=(count, 3)) * spread + [1, 0, 0], rng.random(count))
    class_id = rng.integers(0, classes + 1, count)
    uncertainty = draw(st.sampled_from([0.0, 0.5, 1.0])) * np.ones(count) if draw(st.booleans()) else rng.random(count)
    novelty = rng.random(count, dtype=np.float32) if draw(st.booleans()) else None
    return cloud, answer_of(cloud, class_id, uncertainty, novelty=novelty)


@given(frames(), st.integers(0, 40), st.sampled_from(["ours", "spread", "entropy", "random"]), st.integers(0, 5))
@settings(deadline=None, max_examples=80)
def test_suggestions_are_few_distinct_and_answered(
    frame: tuple[Cloud, Segmentation], count: int, strategy: str, seed: int
) -> None:
    cloud, answer = frame
    answered = np.flatnonzero(answer.class_id > 0)
    labelled = answered[::7]
    found = suggest_points(cloud, answer, count, strategy=strategy, seed=seed, labelled=labelled)
    points = [suggestion.point for suggestion in found]
    assert len(points) == len(set(points)) == min(count, len(answered) - len(labelled))
    assert set(points) <= set(answered) - set(labelled)
    scores = [suggestion.score for suggestion in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert all(suggestion.why for suggestion in found)
    assert found == suggest_points(cloud, answer, count, strategy=strategy, seed=seed, labelled=labelled)


@given(frames())
@settings(deadline=None, max_examples=60)
def test_doubt_score_and_descriptor_are_bounded(frame: tuple[Cloud, Segmentation]) -> None:
    cloud, answer = frame
    values = doubt(answer)
    assert ((values >= 0) & (values <= 1)).all()
    assert not values[answer.class_id == 0].any()
    look = look_at(cloud, answer, CLASSES)
    assert 0 <= look.score <= 1
    assert look.descriptor.shape == (descriptor_size(CLASSES),)
    assert np.isfinite(look.descriptor).all()
    assert np.linalg.norm(look.descriptor) <= np.sqrt(1.5) + 1e-5


def bush(points: int = 300) -> tuple[Cloud, Segmentation, np.ndarray]:
    """A bush of very doubtful leaves, and twenty objects of doubt and of five classes; the region of each point."""
    rng = np.random.default_rng(3)
    centres = np.array([[12 * np.cos(a), 12 * np.sin(a), 0] for a in np.linspace(0, 2 * np.pi, 21)])
    region = np.repeat(np.arange(21), points)
    cloud = make_cloud(centres[region] + rng.normal(size=(len(region), 3)) * 0.3, rng.random(len(region)))
    class_id = 1 + region % 5
    uncertainty = np.where(region == 0, rng.uniform(0.9, 1.0, len(region)), rng.uniform(0.5, 0.8, len(region)))
    return cloud, answer_of(cloud, class_id, uncertainty), region


def test_the_highest_entropies_are_one_bush_and_ours_is_not() -> None:
    cloud, answer, region = bush()
    reached = {
        strategy: {int(region[s.point]) for s in suggest_points(cloud, answer, 21, strategy=strategy)}
        for strategy in ("ours", "entropy")
    }
    assert reached["entropy"] == {0}
    assert len(reached["ours"]) >= 19
    assert {1 + r % 5 for r in reached["ours"]} == {1, 2, 3, 4, 5}


def test_what_is_labelled_is_not_asked_for_again() -> None:
    cloud, answer, region = bush()
    labelled = [int(np.flatnonzero(region == r)[0]) for r in range(10)]
    found = {int(region[s.point]) for s in suggest_points(cloud, answer, 11, labelled=labelled)}
    assert len(found & set(range(10, 21))) >= 10


def test_doubt_comes_before_size_and_rare_classes_before_common_ones() -> None:
    rng = np.random.default_rng(0)
    count = 8000
    xyz = rng.uniform(-30, 30, (count, 3)) * [1, 1, 0.02]
    class_id = np.where(np.arange(count) < 200, 2, 1)
    xyz[:200] = [10, 10, 0] + rng.normal(size=(200, 3)) * 0.5
    uncertainty = np.where(class_id == 2, 0.6, 0.3)
    cloud = make_cloud(xyz, rng.random(count))
    found = suggest_points(cloud, answer_of(cloud, class_id, uncertainty), 10)
    assert 2 in class_id[[s.point for s in found[:3]]]
    sure = answer_of(cloud, class_id, np.where(xyz[:, 0] > 0, 0.7, 0.01))
    assert np.mean([xyz[s.point, 0] > -3 for s in suggest_points(cloud, sure, 10)]) >= 0.9


def test_novelty_adds_doubt() -> None:
    cloud = make_cloud(np.ones((4, 3)), np.ones(4))
    class_id, uncertainty = np.array([1, 1, 1, 0]), np.array([0.0, 0.0, 0.5, 0.0])
    plain = doubt(answer_of(cloud, class_id, uncertainty))
    told = doubt(answer_of(cloud, class_id, uncertainty, novelty=np.array([0.0, 0.8, 0.5, 1.0], np.float32)))
    np.testing.assert_allclose(plain, [0, 0, 0.75, 0], atol=1e-6)
    np.testing.assert_allclose(told, [0, 0.8, 0.875, 0], atol=1e-6)


def look(descriptor: np.ndarray, score: float = 0.5) -> Look:
    return Look(score, score, np.asarray(descriptor, np.float32))


@given(st.integers(0, 30), st.integers(0, 40), st.sampled_from(["ours", "entropy", "random"]), st.integers(0, 2**16))
@settings(deadline=None, max_examples=60)
def test_chosen_frames_are_distinct_and_in_the_order_of_worth(frames: int, count: int, strategy: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    looks = [look(rng.random(5), float(rng.random())) for _ in range(frames)]
    choices = choose_frames(looks, count, strategy, seed, rng.random((3, 5), dtype=np.float32) if seed % 2 else None)
    assert len({choice.index for choice in choices}) == len(choices) == min(frames, count)
    worths = [choice.worth for choice in choices]
    assert worths == sorted(worths, reverse=True)
    assert all(0 <= worth <= 1 for worth in worths)


def test_each_group_of_like_frames_is_met_before_any_is_met_twice() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 25)
    looks = [look(np.eye(8)[g] + rng.normal(size=8) * 0.02, 0.5 + 0.01 * g) for g in groups]
    ours = [groups[choice.index] for choice in choose_frames(looks, 8)]
    assert sorted(ours) == list(range(8))
    assert set(groups[[choice.index for choice in choose_frames(looks, 8, "entropy")]]) == {7}
    known = np.eye(8, dtype=np.float32)[:4]
    assert {groups[choice.index] for choice in choose_frames(looks, 4, known=known)} == {4, 5, 6, 7}


def test_distances_are_those_of_the_nearest() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((6, 4), dtype=np.float32), rng.random((5, 4), dtype=np.float32)
    expected = np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1)
    np.testing.assert_allclose(distances_to(a, b), expected, atol=1e-4)


def test_select_writes_a_log_and_adds_to_it(shared_data: Path, tmp_path: Path) -> None:
    optional("onnxruntime")
    from weakseg_ros.data.scans import open_scans
    from weakseg_ros.improve.log.select import SelectConfig, select

    source = open_scans(shared_data / "semantickitti_seq00")
    config = SelectConfig(data=shared_data / "semantickitti_seq00", out=tmp_path / "log", frames=3, points=5, seed=1)
    first = select(config).keys
    log = open_frames(config.out)
    assert [record.key for record in log.frames] == first
    assert len(select(config).keys) == 2, "the two scans that were left"
    log = open_frames(config.out)
    assert {record.source_key for record in log.frames} == set(source.keys)
    for record in log.frames:
        original = source[list(source.keys).index(record.source_key)]
        index = list(log.scans.keys).index(record.key)
        np.testing.assert_array_equal(log.scans[index].cloud.xyz, original.cloud.xyz)
        assert len(record.suggestions) == 5


@pytest.mark.parametrize("strategy", ["ours", "entropy", "random"])
def test_select_reads_a_bag(tmp_path: Path, strategy: str) -> None:
    optional("onnxruntime")
    from weakseg_ros.data.bag_writer import CloudBagWriter
    from weakseg_ros.improve.log.command import main

    rng = np.random.default_rng(0)
    with CloudBagWriter(tmp_path / "bag", "/points") as bag:
        for i in range(4):
            xyz = rng.normal(size=(3000, 3)) * [15, 15, 0.5]
            bag.write(make_cloud(xyz, rng.random(3000), stamp_ns=10 + i, frame_id="lidar"))
    arguments = ["--frames", "2", "--points", "4", "--strategy", strategy, "--out", str(tmp_path / "log")]
    assert main([str(tmp_path / "bag"), *arguments]) == 0
    log = open_frames(tmp_path / "log")
    assert len(log) == 2
    for record in log.frames:
        assert (record.frame_id, record.sensor, record.points) == ("lidar", "/points", 3000)
        assert 10 <= record.stamp_ns < 14
        assert len(record.suggestions) == 4
    facts = json.loads((tmp_path / "log" / "sessions" / "0000").read_text())
    assert facts["config"]["strategy"] == strategy
    assert len(facts["data_hash"]) == 64


def test_select_shows_the_model_the_intensity_as_told_and_says_so(tmp_path: Path) -> None:
    optional("onnxruntime")
    from weakseg_ros.data.bag_writer import CloudBagWriter
    from weakseg_ros.improve.log.command import main

    rng = np.random.default_rng(0)
    xyz, intensity = rng.normal(size=(3000, 3)) * [15, 15, 0.5], rng.random(3000)
    answers = {}
    for name, values, factor in (
        ("plain", intensity, "0"),
        ("raw", intensity * 256, str(1 / 256)),
        ("untold", intensity * 256, "0"),
    ):
        with CloudBagWriter(tmp_path / f"{name}-bag", "/points") as bag:
            bag.write(make_cloud(xyz, values, stamp_ns=10, frame_id="lidar"))
        told_of_values = str(Path(__file__).parents[2] / "models" / "street64")
        options = ["--bundle", told_of_values, "--intensity-scale", factor, "--out", str(tmp_path / name)]
        assert main([str(tmp_path / f"{name}-bag"), *options]) == 0
        log = open_frames(tmp_path / name)
        answers[name] = log.uncertainty(log.frames[0].key)
        assert log.frames[0].intensity_scale == float(factor)
    np.testing.assert_array_equal(answers["raw"], answers["plain"])
    assert (answers["untold"] != answers["plain"]).any()
    np.testing.assert_allclose(open_frames(tmp_path / "raw").scans[0].cloud.intensity, intensity, atol=1e-6)


@pytest.mark.parametrize(
    ("stamps_s", "kept"),
    [([100, 101, 102, 103, 104, 105], [100, 102, 104]), ([100, 101, 102, 3, 4, 5], [4, 100, 102])],
    ids=["as they are", "a clock that was set"],
)
def test_select_chooses_as_the_node_would_and_says_why_not_the_others(
    stamps_s: list[int], kept: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optional("onnxruntime")
    from weakseg_ros.data.bag_messages import cloud_message
    from weakseg_ros.data.bag_types import POINT_CLOUD
    from weakseg_ros.data.bag_writer import CloudBagWriter
    from weakseg_ros.data.bags import ros2_types, serialized
    from weakseg_ros.improve.log.command import main
    from weakseg_ros.points.encode import pack_cloud

    rng = np.random.default_rng(0)
    with CloudBagWriter(tmp_path / "bag", "/points") as bag:
        for recorded_ns, stamp_s in enumerate(stamps_s):
            points = pack_cloud(make_cloud(rng.normal(size=(1000, 3)) * [15, 15, 0.5], rng.random(1000)))
            message = cloud_message(ros2_types(), points, (1, 1000), stamp_s * 10**9, "lidar", True)
            bag.write_message("/points", POINT_CLOUD, recorded_ns, serialized(message))
    settings = ["--log.per-minute", "6000", "--log.spacing-s", "2", "--log.min-distance", "0", "--log.random-share", "0"]
    assert main([str(tmp_path / "bag"), "--like-node", *settings, "--points", "2", "--out", str(tmp_path / "log")]) == 0
    told = capsys.readouterr().out
    assert "the node's log would keep 3 of 6 scans in 0.1 minutes" in told
    assert "3  skipped: spacing" in told
    stamps = sorted(record.stamp_ns // 10**9 for record in open_frames(tmp_path / "log").frames)
    assert stamps == kept


def test_things_are_grouped_by_their_size() -> None:
    """A plain, a post, a car and a house on it."""
    rng = np.random.default_rng(0)
    plain = np.concatenate([rng.uniform(-25, 25, (6000, 2)), np.full((6000, 1), -1.7)], axis=1)
    boxes = [((5.0, 0.0), (0.3, 0.3, 2.4)), ((-8.0, 6.0), (4.3, 1.8, 1.5)), ((12.0, -15.0), (5.0, 20.0, 5.0))]
    things = [rng.uniform(0, 1, (900, 3)) * size + [*corner, -1.4] for corner, size in boxes]
    groups = size_groups(np.concatenate([plain, *things]).astype(np.float32))
    assert (groups[:6000] == 1).mean() > 0.99
    found = [int(np.bincount(groups[6000 + 900 * i : 6900 + 900 * i]).argmax()) for i in range(3)]
    assert found == [3, 4, 5]
    assert size_groups(np.full((3, 3), np.nan, np.float32)).tolist() == [1, 1, 1]
    assert len(size_groups(np.zeros((0, 3), np.float32))) == 0


def test_the_first_clicks_are_spread_over_sizes_whatever_the_model_doubts() -> None:
    """The model calls all of it one class and doubts a patch of the ground; a third of the clicks would go there."""
    rng = np.random.default_rng(1)
    plain = np.concatenate([rng.uniform(-25, 25, (6000, 2)), np.full((6000, 1), -1.7)], axis=1)
    posts = [rng.uniform(0, 1, (25, 3)) * (0.3, 0.3, 2.0) + [x, y, -1.4] for x in (-9.0, 9.0) for y in (-9.0, 9.0)]
    cloud = make_cloud(np.concatenate([plain, *posts]), rng.random(6100))
    patch = (np.abs(cloud.xyz[:, 0] - 12) < 4) & (np.abs(cloud.xyz[:, 1]) < 4) & (cloud.xyz[:, 2] < -1.6)
    answer = answer_of(cloud, np.ones(6100, int), np.where(patch, 0.9, 0.02))
    on_posts, in_patch = {}, {}
    for strategy in ("ours", "spread"):
        points = [suggestion.point for suggestion in suggest_points(cloud, answer, 12, strategy=strategy)]
        on_posts[strategy] = sum(point >= 6000 for point in points)
        in_patch[strategy] = int(patch[points].sum())
    assert on_posts["spread"] >= 3 > on_posts["ours"]
    assert in_patch["spread"] < in_patch["ours"]


def test_frames_are_spread_without_regard_to_their_scores() -> None:
    size = descriptor_size(CLASSES)
    descriptors = [np.eye(1, size, k, dtype=np.float32)[0] for k in (0, 1, 2)]
    looks = [Look(1.0, 1.0, descriptors[0]), Look(0.9, 0.9, 0.9 * descriptors[0]), Look(0.0, 0.0, descriptors[1])]
    assert {choice.index for choice in choose_frames(looks, 2, "spread")} == {0, 2}
