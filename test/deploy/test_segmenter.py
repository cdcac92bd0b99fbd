# SPDX-License-Identifier: Apache-2.0
"""One answer for every point, in the points' order, whatever the cloud holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, write_bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import CloudError, ConfigError
from weakseg_ros.points.cloud import Cloud, make_cloud


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Bundle) -> Iterator[Segmenter]:
    opened = Segmenter(tiny_bundle, threads=1)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def voting(tiny_bundle: Bundle) -> Iterator[Segmenter]:
    opened = Segmenter(tiny_bundle, threads=1, lift="knn")
    yield opened
    opened.close()


def street(count: int, seed: int = 0) -> Cloud:
    """Points all around the sensor, each at a distance of its own."""
    rng = np.random.default_rng(seed)
    azimuth, inclination = rng.uniform(-np.pi, np.pi, count), np.radians(rng.uniform(-24, 14, count))
    distance = rng.permutation(np.linspace(2, 60, count))
    xyz = np.stack([np.cos(azimuth) * np.cos(inclination), np.sin(azimuth) * np.cos(inclination), np.sin(inclination)], 1)
    return make_cloud((xyz * distance[:, None]).astype(np.float32), rng.uniform(0, 1, count).astype(np.float32))


def assert_rules(cloud: Cloud, answer: object) -> None:
    """What holds for every answer."""
    count = len(cloud)
    assert all(len(getattr(answer, name)) == count for name in ("class_id", "instance_id", "confidence", "uncertainty", "flags"))
    answered = answer.flags == 0
    np.testing.assert_array_equal(answer.class_id > 0, answered)
    np.testing.assert_array_equal(answer.flags[~cloud.valid], cloud.flags[~cloud.valid])
    assert set(np.unique(answer.flags[cloud.valid])) <= {0, 4}
    assert np.all(answer.confidence[answered] >= 0.25 - 1e-6)
    assert np.all(answer.confidence <= 1 + 1e-6)
    assert np.all((answer.uncertainty >= 0) & (answer.uncertainty <= 1))
    for values in (answer.class_id, answer.confidence, answer.uncertainty):
        assert not values[~answered].any()
    assert not answer.instance_id.any()
    assert answer.class_image.shape == answer.instance_image.shape == (16, 64)


@pytest.mark.parametrize("lift", ["segmenter", "voting"])
def test_answers_keep_the_points_order(lift: str, request: pytest.FixtureRequest) -> None:
    opened = request.getfixturevalue(lift)
    cloud = street(3000)
    answer = opened.run(cloud)
    assert_rules(cloud, answer)
    assert len(np.unique(answer.class_id)) > 1
    order = np.random.default_rng(3).permutation(3000)
    shuffled = opened.run(make_cloud(cloud.xyz[order], cloud.intensity[order]))
    for name in ("class_id", "confidence", "uncertainty", "flags"):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(answer, name)[order])


@pytest.mark.parametrize("own", ["pixel", "vote", "knn"])
def test_where_nobody_says_points_get_their_class_as_the_bundle_does(own: str, tiny_bundle: Bundle, tmp_path: Path) -> None:
    spec = dataclasses.replace(tiny_bundle.info.input, lift=own)
    files = {name: (file.kind, tiny_bundle.read(name)) for name, file in tiny_bundle.info.files.items()}
    bundle = write_bundle(tmp_path / "own", dataclasses.replace(tiny_bundle.info, input=spec), files, "")
    cloud = street(3000)
    answers = {}
    for asked in ("auto", "pixel", "vote", "knn"):
        opened = Segmenter(bundle, threads=1, lift=asked)
        answers[asked] = opened.run(cloud).class_id
        opened.close()
    np.testing.assert_array_equal(answers["auto"], answers[own])
    assert all((answers[asked] != answers["pixel"]).any() for asked in ("vote", "knn")), "these votes change something"


def test_an_unknown_way_to_the_points_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"^lift: unknown 'votes'; did you mean 'vote'"):
        Segmenter(tiny_bundle, threads=1, lift="votes")


def test_points_of_one_pixel_share_its_answer(segmenter: Segmenter) -> None:
    cloud = street(500)
    behind = make_cloud(np.concatenate([cloud.xyz, cloud.xyz * 1.1]), np.concatenate([cloud.intensity, cloud.intensity]))
    alone, both = segmenter.run(cloud), segmenter.run(behind)
    nearest = np.isin(np.arange(500), np.flatnonzero(alone.class_id))
    np.testing.assert_array_equal(both.class_id[:500][nearest], both.class_id[500:][nearest])


def test_points_that_cannot_be_answered_say_why(segmenter: Segmenter) -> None:
    cloud = street(1000)
    xyz = cloud.xyz.copy()
    xyz[0], xyz[1], xyz[2] = np.nan, 0, (np.inf, 0, 0)
    xyz[3], xyz[4] = (5, 0, 50), (500, 0, 0)
    damaged = make_cloud(xyz, cloud.intensity)
    answer = segmenter.run(damaged)
    assert_rules(damaged, answer)
    np.testing.assert_array_equal(answer.flags[:5], [1, 2, 1, 4, 4])
    assert not answer.flags[5:].any()


def test_unusable_points_do_not_change_the_answers_of_others(segmenter: Segmenter) -> None:
    cloud = street(1000)
    junk = np.array([[np.nan] * 3, [0, 0, 0], [-np.inf, 1, 1], [1e-3, 0, 90]], np.float32)
    both = make_cloud(np.concatenate([junk, cloud.xyz]), np.concatenate([np.full(4, np.nan, np.float32), cloud.intensity]))
    np.testing.assert_array_equal(segmenter.run(both).confidence[4:], segmenter.run(cloud).confidence)


def test_strange_clouds_get_an_answer(segmenter: Segmenter, voting: Segmenter) -> None:
    one = np.array([[5.0, 1.0, -1.0]], np.float32)
    for xyz in (
        np.zeros((0, 3)),
        np.full((7, 3), np.nan),
        np.zeros((7, 3)),
        one,
        np.repeat(one, 5000, 0),
        one * 1e30,
        one * 1e-40,
    ):
        cloud = make_cloud(xyz.astype(np.float32), np.zeros(len(xyz), np.float32))
        for opened in (segmenter, voting):
            assert_rules(cloud, opened.run(cloud))


wild = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(deadline=None, max_examples=60)
@given(points=st.lists(st.tuples(wild, wild, wild, wild), max_size=40))
def test_any_numbers_get_an_answer(segmenter: Segmenter, points: list[tuple[float, float, float, float]]) -> None:
    values = np.array(points, np.float32).reshape(-1, 4)
    cloud = make_cloud(values[:, :3], values[:, 3])
    assert_rules(cloud, segmenter.run(cloud))


def test_five_million_points(segmenter: Segmenter) -> None:
    cloud = street(5_000_000)
    answer = segmenter.run(cloud)
    assert_rules(cloud, answer)
    assert answer.class_id.all()


def test_stages_are_timed(segmenter: Segmenter) -> None:
    timings = segmenter.run(street(100)).timings_ms
    assert list(timings) == ["project", "image", "engine", "group", "lift", "monitor"]
    assert all(value >= 0 for value in timings.values())


def test_intensity_scales_by_datatype_or_by_setting(tiny_bundle: Bundle, segmenter: Segmenter) -> None:
    cloud = street(2000)
    steps = np.round(cloud.intensity * 255).astype(np.float32)
    reference = segmenter.run(make_cloud(cloud.xyz, steps / 255)).confidence
    as_bytes = make_cloud(cloud.xyz, steps, intensity_full_scale=255.0)
    np.testing.assert_allclose(segmenter.run(as_bytes).confidence, reference, atol=1e-5)
    as_floats = make_cloud(cloud.xyz, steps)
    assert not np.allclose(segmenter.run(as_floats).confidence, reference, atol=1e-2)
    told = Segmenter(tiny_bundle, intensity_scale=1 / 255)
    np.testing.assert_allclose(told.run(as_floats).confidence, reference, atol=1e-5)


def test_missing_intensity_is_refused_unless_told(tiny_bundle: Bundle, segmenter: Segmenter) -> None:
    cloud = street(2000)
    without = make_cloud(cloud.xyz)
    with pytest.raises(CloudError, match="model 'tiny' was trained with") as error:
        segmenter.run(without)
    assert error.value.reason == "no_intensity"
    zeros = segmenter.run(make_cloud(cloud.xyz, np.zeros(2000, np.float32)))
    told = Segmenter(tiny_bundle, allow_no_intensity=True)
    np.testing.assert_array_equal(told.run(without).confidence, zeros.confidence)


def respecified(bundle: Bundle, folder: object, rows: str) -> Bundle:
    told = dataclasses.replace(bundle.info.input, geometry=dataclasses.replace(bundle.info.input.geometry, rows=rows))
    info = dataclasses.replace(bundle.info, input=told)
    return write_bundle(folder, info, {"model.onnx": (KIND_ONNX, bundle.read("model.onnx"))}, "card")


def test_organised_cloud_keeps_its_own_grid(tiny_bundle: Bundle, tmp_path: object) -> None:
    opened = Segmenter(respecified(tiny_bundle, tmp_path / "grid", "grid"))
    cloud = street(16 * 64)
    organised = make_cloud(cloud.xyz, cloud.intensity, height=16, width=64)
    answer = opened.run(organised)
    assert_rules(organised, answer)
    np.testing.assert_array_equal(answer.class_image.ravel(), answer.class_id)
    with pytest.raises(CloudError) as error:
        opened.run(cloud)
    assert error.value.reason == "grid_size"


def test_rows_by_ring_need_a_ring(tiny_bundle: Bundle, tmp_path: object) -> None:
    opened = Segmenter(respecified(tiny_bundle, tmp_path / "ring", "ring"))
    cloud = street(1000)
    with pytest.raises(CloudError) as error:
        opened.run(cloud)
    assert error.value.reason == "no_ring"
    inclination = np.arctan2(cloud.xyz[:, 2], np.hypot(cloud.xyz[:, 0], cloud.xyz[:, 1]))
    ring = np.digitize(-inclination, np.linspace(-0.26, 0.43, 15)).astype(np.uint16)
    ringed = make_cloud(cloud.xyz, cloud.intensity, ring)
    assert_rules(ringed, opened.run(ringed))


def test_real_scan(segmenter: Segmenter, shared_data: object) -> None:
    values = np.fromfile(shared_data / "semantickitti_seq00" / "velodyne" / "000000.bin", np.float32).reshape(-1, 4)
    cloud = make_cloud(values[:, :3], values[:, 3])
    answer = segmenter.run(cloud)
    assert_rules(cloud, answer)
    assert np.mean(answer.class_id > 0) > 0.98
