# SPDX-License-Identifier: Apache-2.0
"""Bad data are found before any expensive work: the bundle of these tests runs in no engine, and nobody gets to know that."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import optional

optional("rosbags")

from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.bags import read_clouds as clouds_in
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, write_bundle
from weakseg_ros.improve.adapt.clouds import read_clouds
from weakseg_ros.improve.adapt.config import AdaptConfig
from weakseg_ros.points.encode import pack_cloud


@pytest.fixture
def broken(known_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle that can be loaded and not run."""
    return write_bundle(tmp_path / "broken", known_bundle.info, {"model.onnx": (KIND_ONNX, b"no model")}, "for tests\n")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    with CloudBagWriter(tmp_path / "empty", "/top"):
        return tmp_path / "empty"


VERBS = {
    "evaluate": ["--out", "OUT"],
    "predict": ["--out", "OUT"],
    "select": ["--out", "OUT"],
    "view": ["--mcap", "OUT"],
    "doctor": [],
}


def said(verb: str, data: list[Path], bundle: Bundle, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    options = [str(out) if word == "OUT" else word for word in VERBS[verb]]
    given = ["--data", *map(str, data)] if verb == "doctor" else [str(path) for path in data]
    assert weakseg([verb, *given, "--bundle", str(bundle.folder), *options]) == 2
    assert not out.exists()
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


@pytest.mark.parametrize("verb", VERBS)
def test_a_bag_without_clouds_is_found_first(
    verb: str, empty: Path, recording: Path, broken: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "topic '/top' holds no cloud; check that the driver ran" in said(verb, [empty], broken, tmp_path / "out", capsys)
    if verb != "doctor":
        assert "no engine can run it" in said(verb, [recording / "bag"], broken, tmp_path / "out", capsys)


@pytest.mark.parametrize("verb", VERBS)
def test_a_bag_without_a_topic_of_clouds_is_found_first(
    verb: str, broken: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with CloudBagWriter(tmp_path / "bag", "/top") as bag:
        bag.write_values("/speed", "std_msgs/msg/Float32", 1, {"data": 1.0})
    file = next((tmp_path / "bag").glob("*.mcap"))
    file.write_bytes(file.read_bytes().replace(b"PointCloud2", b"PointCloud9"))
    assert "has 0 PointCloud2 topics" in said(verb, [file], broken, tmp_path / "out", capsys)


def test_shards_without_a_scan_are_found_first(
    recording: Path, broken: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(recording / "bag"), "--bundle", str(broken.folder), "--out", str(tmp_path / "out")]
    assert weakseg([*arguments, "--shard", "7/7"]) == 2
    assert "6 scans cannot be shared by 7 shards; choose fewer" in capsys.readouterr().err


def test_a_topic_without_clouds_names_those_that_have_some(
    recording: Path, broken: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    with CloudBagWriter(tmp_path / "bag", "/empty") as bag:
        for _, cloud in clouds_in(recording / "bag"):
            bag.write_points("/full", pack_cloud(cloud), cloud)
    assert weakseg(["predict", str(tmp_path / "bag"), "--topic", "/empty", "--bundle", str(broken.folder)]) == 2
    assert "topic '/empty' holds no cloud; its PointCloud2 topics with clouds: /full (6)" in capsys.readouterr().err


def test_an_empty_bag_among_others_is_left_out(
    empty: Path, recording: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["view", str(recording / "bag"), str(empty), "--bundle", str(known_bundle.folder), "--mcap", str(out)]
    assert weakseg(arguments) == 0
    assert "left out: " in (told := capsys.readouterr().out)
    assert "'/top' holds no cloud" in told
    assert "6 scans" in told


def test_replay_does_not_wait_for_a_node_with_an_empty_bag(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert weakseg(["replay", str(empty), "--start-timeout-s", "3600"]) == 2
    assert "topic '/top' holds no cloud" in capsys.readouterr().err


def test_clouds_to_adapt_to_are_taken_from_the_bags_that_have_some(empty: Path, recording: Path) -> None:
    clouds = read_clouds(AdaptConfig(data=(empty, recording / "bag"), max_clouds=4, guard_clouds=2))
    assert (clouds.found, clouds.names) == (6, ("bag",))
    assert "holds no cloud" in clouds.problems[0]
