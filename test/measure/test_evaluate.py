# SPDX-License-Identifier: Apache-2.0
"""A model whose answers are known, on scans whose truth is known: every figure of the summary can be worked out by hand."""

from __future__ import annotations

import dataclasses
import json
import shutil
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.bags import read_clouds
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, write_bundle
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate
from weakseg_ros.measure.tally import Tally
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap

SCANS, RETURNS = 6, 16 * 127
CAR_POINTS = 16 * 2 * sum(range(SCANS))
CAR_RAW = 10
TIMED = ("made", "latency_ms", "latency_warm_ms", "cold_start_ms", "latency_histogram", "counts")


def run(data: Path, bundle: Bundle, out: Path, **settings: Any) -> dict[str, Any]:
    _, summary = evaluate(EvaluateConfig(data=data, bundle=str(bundle.folder), out=out, **settings))
    return summary


def without_times(folder: Path) -> dict[str, Any]:
    """What must not differ between two evaluations of the same data."""
    content = json.loads((folder / "summary.json").read_text())
    counts = {name: value for name, value in content["counts"].items() if name not in ("times_ms", "cold_ms", "worst_ms")}
    for stretch in content["course"]["stretches"]:
        del stretch["ms"]
    return {**{name: value for name, value in content.items() if name not in TIMED}, "counts": counts}


def test_every_figure_is_what_one_works_out_by_hand(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    summary = run(recording / "scans", known_bundle, tmp_path)
    half = SCANS * RETURNS / 2
    right = half - CAR_POINTS / 2
    assert (summary["scans"], summary["labelled_scans"], summary["points_per_scan"]) == (SCANS, SCANS, 2048)
    assert summary["class_iou"] == {"road": round(right / half, 4), "building": round(right / half, 4), "car": 0.0}
    assert summary["miou"] == pytest.approx(2 * right / half / 3, abs=1e-4)
    assert summary["accuracy"] == pytest.approx(right / half, abs=1e-4)
    assert summary["classes_present"] == ["road", "building", "car"]
    assert summary["calibration"]["ece"] == pytest.approx(abs(right / half - 0.75), abs=1e-4)
    assert summary["points_without_class"] == {
        "non_finite": 0,
        "non_return": SCANS * 16,
        "out_of_range": 0,
        "total": SCANS * 16,
    }
    assert sum(ring["points"] for ring in summary["miou_by_range"]) == SCANS * RETURNS
    assert [pair["truth"] for pair in summary["confusions"]] == ["car", "car"]
    assert summary["worst"][0]["key"] == "000005"
    assert summary["worst"][0]["score"] == pytest.approx(10 / 127, abs=1e-4)
    assert set(summary["latency_ms"]["total"]) == {"p50", "p95", "p99", "mean", "max", "count"}
    assert summary["latency_ms"]["total"]["count"] == SCANS
    assert not summary["partial"]


def test_two_runs_say_the_same(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    for name in "ab":
        run(recording / "scans", known_bundle, tmp_path / name)
    assert without_times(tmp_path / "a") == without_times(tmp_path / "b")


def test_a_bag_with_labels_counts_as_its_scans_do(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    from_scans = run(recording / "scans", known_bundle, tmp_path / "scans")
    labels = recording / "scans" / "labels"
    from_bag = run(recording / "bag", known_bundle, tmp_path / "bag", truth=labels)
    for name in ("confusion_matrix", "miou", "calibration", "scans", "points", "worst", "uncertainty_histogram"):
        assert from_bag[name] == from_scans[name], name
    assert "decode" in from_bag["latency_ms"]
    assert from_bag["data"]["topic"] == "/top"


def test_a_bag_without_labels_gives_shares_and_no_miou(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    summary = run(recording / "bag", known_bundle, tmp_path)
    assert "miou" not in summary
    shares = {row["name"]: row["predicted_share"] for row in summary["classes"]}
    assert shares == {"road": 0.5, "building": 0.5, "car": 0.0}
    assert summary["uncertainty_histogram"]["counts"][5] == SCANS * RETURNS
    assert "No labels to compare with" in (tmp_path / "report.html").read_text()


def test_shards_add_up_to_the_whole(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    whole = run(recording / "scans", known_bundle, tmp_path / "whole")
    parts = [tmp_path / f"part{i}" for i in range(3)]
    for i, part in enumerate(parts):
        run(recording / "scans", known_bundle, part, shard=f"{i + 1}/3")
    merged_folder = tmp_path / "merged"
    assert weakseg(["evaluate", "--merge", *map(str, parts), "--out", str(merged_folder)]) == 0
    merged = json.loads((merged_folder / "summary.json").read_text())
    for name in ("confusion_matrix", "class_iou", "miou", "miou_by_range", "calibration", "points_without_class", "scans"):
        assert merged[name] == whole[name], name
    assert merged["latency_ms"]["total"]["count"] == SCANS
    assert "<html" in (merged_folder / "report.html").read_text()


def test_ids_that_last_are_counted_where_scans_follow_each_other(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    """The truth is what the model itself finds, under one id throughout: the object moves by a metre a scan."""
    rows = [{**row, "thing": row["name"] == "building"} for row in known_bundle.labels.to_rows()]
    info = dataclasses.replace(known_bundle.info, labels=LabelMap.from_rows(rows, "things"))
    network = {"model.onnx": (KIND_ONNX, (known_bundle.folder / "model.onnx").read_bytes())}
    bundle = write_bundle(tmp_path / "countable", info, network, "for tests\n")
    segmenter, labels = Segmenter(bundle), tmp_path / "labels"
    labels.mkdir()
    scans = open_scans(recording / "scans")
    for scan in (scans[index] for index in range(SCANS)):
        answer = segmenter.run(scan.cloud)
        largest = np.bincount(answer.instance_id)[1:].argmax() + 1
        raw = bundle.labels.to_raw(answer.class_id).astype("<u4") + (np.uint32(9 << 16) * (answer.instance_id == largest))
        raw.astype("<u4").tofile(labels / f"{scan.key}.label")
    segmenter.close()
    found = run(recording / "scans", bundle, tmp_path / "whole", truth=labels)
    assert found["tracks"]["found"] == found["tracks"]["seen"] >= 3  # farther away its points no longer touch
    assert found["tracks"]["followed"] == 1
    assert found["tracks"]["switches"] == 0
    assert found["latency_ms"]["track"]["count"] == SCANS
    assert "track" not in run(recording / "scans", bundle, tmp_path / "loose", truth=labels, track=False)["latency_ms"]
    assert "tracks" not in run(recording / "scans", bundle, tmp_path / "part", truth=labels, shard="1/2")
    folders = [str(tmp_path / "whole"), str(tmp_path / "part")]
    assert weakseg(["evaluate", "--merge", *folders, "--out", str(tmp_path / "merged")]) == 0
    assert json.loads((tmp_path / "merged" / "summary.json").read_text())["tracks"] == found["tracks"]


def with_objects(recording: Path, folder: Path) -> Path:
    """The recording's label files, all car points of a scan one object."""
    shutil.copytree(recording / "scans" / "labels", folder)
    for file in folder.glob("*.label"):
        raw = np.fromfile(file, "<u4")
        (raw + (np.uint32(7 << 16)) * (raw == CAR_RAW)).astype("<u4").tofile(file)
    return folder


def test_objects_count_where_the_truth_tells_them_apart(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    """The model knows no car, and loses 16 points of road and of building for every column of one."""
    labels = with_objects(recording, tmp_path / "labels")
    summary = run(recording / "scans", known_bundle, tmp_path / "whole", truth=labels)
    half = RETURNS / 2
    of_stuff = np.mean([(half - 16 * i) / half for i in range(SCANS)])
    found = summary["panoptic"]
    assert found["class_pq"] == {
        "road": pytest.approx(of_stuff, abs=1e-4),
        "building": pytest.approx(of_stuff, abs=1e-4),
        "car": 0,
    }
    assert found["pq_stuff"] == pytest.approx(of_stuff, abs=1e-4)
    assert found["pq_things"] == 0
    assert found["pq"] == found["pq_present"] == pytest.approx(2 / 3 * of_stuff, abs=1e-4)
    assert "panoptic" not in run(recording / "scans", known_bundle, tmp_path / "semantic")
    from_bag = run(recording / "bag", known_bundle, tmp_path / "bag", truth=labels)
    assert from_bag["panoptic"] == found
    parts = [tmp_path / f"part{i}" for i in range(2)]
    for i, part in enumerate(parts):
        run(recording / "scans", known_bundle, part, truth=labels, shard=f"{i + 1}/2")
    assert weakseg(["evaluate", "--merge", *map(str, parts), "--out", str(tmp_path / "merged")]) == 0
    assert json.loads((tmp_path / "merged" / "summary.json").read_text())["panoptic"] == found


def test_a_truncated_bag_gives_a_partial_result_and_exit_code_1(
    recording: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag, sent = tmp_path / "bag", 90
    with CloudBagWriter(bag, "/top") as writer:
        for _, cloud in islice(cycle(list(read_clouds(recording / "bag"))), sent):
            writer.write(cloud)
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.6)])
    out = tmp_path / "out"
    assert weakseg(["evaluate", str(bag), "--bundle", str(known_bundle.folder), "--out", str(out)]) == 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["partial"]
    assert 0 < summary["scans"] < sent
    assert str(bag) in summary["partial_reason"]
    assert "partial result" in capsys.readouterr().err
    assert "Partial result" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (np.full((50, 3), np.nan), "no point of 1 scan gets a class (100% are not finite); 'weakseg doctor --data'"),
        (np.zeros((50, 3)), "no point of 1 scan gets a class (100% are non-returns); 'weakseg doctor --data'"),
        (np.zeros((0, 3)), "the 1 scan contains no points; check the topic and the driver"),
    ],
)
def test_clouds_without_an_answer_are_not_evaluated_in_silence(
    points: np.ndarray, sentence: str, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with CloudBagWriter(tmp_path / "bag", "/top") as writer:
        writer.write(make_cloud(points, np.zeros(len(points))))
    out = ["--bundle", str(known_bundle.folder), "--out", str(tmp_path / "out")]
    assert weakseg(["evaluate", str(tmp_path / "bag"), *out]) == 1
    assert sentence in capsys.readouterr().err


def test_scans_without_an_answer_among_others_are_counted(
    recording: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with CloudBagWriter(tmp_path / "bag", "/top") as writer:
        for index, (_, cloud) in enumerate(read_clouds(recording / "bag")):
            writer.write(dataclasses.replace(cloud, xyz=np.zeros_like(cloud.xyz)) if index < 2 else cloud)
    out = ["--bundle", str(known_bundle.folder), "--out", str(tmp_path / "out")]
    assert weakseg(["evaluate", str(tmp_path / "bag"), *out]) == 0
    assert "no point of 2 of 6 scans gets a class; 'weakseg doctor --data' looks at the clouds" in capsys.readouterr().err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["scans"], summary["silent_scans"]) == (6, 2)
    assert weakseg(["predict", str(tmp_path / "bag"), *out[:2], "--out", str(tmp_path / "files")]) == 1
    assert "no point of 2 of 6 scans gets a class" in capsys.readouterr().err
    assert weakseg(["select", str(tmp_path / "bag"), *out[:2], "--out", str(tmp_path / "log")]) == 1
    told = capsys.readouterr()
    assert "left out: no point of 2 of 6 scans gets a class" in told.err
    assert "4 frames" in told.out


def test_a_bag_without_the_topic_names_those_it_has(
    recording: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(recording / "bag"), "--topic", "/topp", "--bundle", str(known_bundle.folder), "--out", str(tmp_path / "out")]
    assert weakseg(["evaluate", *arguments]) == 2
    assert "/top" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_scan_is_left_out_and_makes_the_result_partial(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    scans = Path(shutil.copytree(recording / "scans", tmp_path / "scans"))
    (scans / "velodyne" / "000002.bin").write_bytes(b"cut")
    summary = run(scans, known_bundle, tmp_path / "out")
    assert summary["scans"] == SCANS - 1
    assert summary["partial"]
    assert "000002.bin" in summary["partial_reason"]


def test_too_few_label_files_for_a_bag_are_a_partial_result(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for file in sorted((recording / "scans" / "labels").glob("*.label"))[:4]:
        shutil.copy(file, labels)
    summary = run(recording / "bag", known_bundle, tmp_path / "out", truth=labels)
    assert summary["partial"]
    assert summary["scans"] == 4


@pytest.mark.parametrize("shard", ["0/3", "4/3", "-1/3", "1", "a/b", "0/0"])
def test_a_shard_that_is_none_is_refused(shard: str) -> None:
    with pytest.raises(ConfigError, match="is not i/n with i from 1 to n"):
        EvaluateConfig(shard=shard)


def test_merging_what_does_not_belong_together_is_refused(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    run(recording / "scans", known_bundle, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    other = json.loads((tmp_path / "b" / "summary.json").read_text())
    other["bundle"]["hash"] = "0" * 64
    (tmp_path / "b" / "summary.json").write_text(json.dumps(other))
    (tmp_path / "c.json").write_text("[]")
    for wrong in ("b", "c.json", "absent"):
        arguments = ["evaluate", "--merge", str(tmp_path / "a"), str(tmp_path / wrong), "--out", str(tmp_path / "out")]
        assert weakseg(arguments) == 2, wrong


arrays = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def random_tally(rng: np.random.Generator) -> Tally:
    tally = Tally(4)
    for _ in range(int(rng.integers(0, 4))):
        count = int(rng.integers(1, 50))
        cloud = make_cloud(rng.normal(0, 30, (count, 3)).astype(np.float32))
        class_id = rng.integers(0, 4, count).astype(np.uint8)
        known = (class_id > 0).astype(np.float32)
        confidence, uncertainty = (rng.random(count).astype(np.float32) * known for _ in range(2))
        none = np.zeros(count, np.uint16)
        image = np.zeros((1, 1), np.uint8)
        timings = {"engine": float(rng.random())}
        flags = rng.integers(0, 8, count).astype(np.uint8)
        answer = Segmentation(class_id, none, confidence, uncertainty, flags, image, image.astype(np.uint16), timings)
        tally.add(cloud, answer, rng.integers(0, 4, count).astype(np.uint8) if rng.random() < 0.7 else None)
    return tally


@settings(deadline=None)
@given(arrays)
def test_tallies_survive_json_and_add_up(rng: np.random.Generator) -> None:
    first, second = random_tally(rng), random_tally(rng)
    total = first + second
    for tally in (first, total):
        again = Tally.from_mapping(json.loads(json.dumps(tally.to_mapping())), "x")
        assert again.to_mapping() == tally.to_mapping()
    assert total.points == first.points + second.points
    np.testing.assert_array_equal(total.confusion.counts, first.confusion.counts + second.confusion.counts)
    assert total.scans == len(total.times.samples_ms.get("total", ()))


def test_a_damaged_tally_is_a_sentence() -> None:
    good = Tally(3).to_mapping()
    for name in good.keys() - {
        "cold_ms",
        "times_stride",
        "worst_ms",
        "silent_scans",
    }:  # which files of older versions do not have
        with pytest.raises(DataError, match=r"^file\.json: its counts cannot be read"):
            Tally.from_mapping({key: value for key, value in good.items() if key != name}, "file.json")
