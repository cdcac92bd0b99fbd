# SPDX-License-Identifier: Apache-2.0
"""Predictions as files: every format reads back, the server gets what it takes, and files of any model can be compared."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest

from support import optional
from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.cloud_files import read_cloud_file
from weakseg_ros.data.pcd import read_pcd, read_ply
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import DataError
from weakseg_ros.measure.label_files import compare_files
from weakseg_ros.points.labels import LabelMap

SCANS = 6


@pytest.fixture(scope="module")
def answers(recording: Path, known_bundle: Bundle) -> list[np.ndarray]:
    """(N,) raw ids that the bundle answers, by scan."""
    segmenter = Segmenter(known_bundle)
    scans = open_scans(recording / "scans")
    found = [known_bundle.labels.to_raw(segmenter.run(scans[i].cloud).class_id) for i in range(len(scans))]
    segmenter.close()
    return found


def predict(data: Path, bundle: Bundle, out: Path, *options: str) -> int:
    return weakseg(["predict", str(data), "--bundle", str(bundle.folder), "--out", str(out), *options])


@pytest.mark.parametrize("kind", ["semantickitti", "npy", "pcd", "ply", "las"])
def test_each_format_reads_back(
    recording: Path, known_bundle: Bundle, answers: list[np.ndarray], tmp_path: Path, kind: str
) -> None:
    if kind == "las":
        optional("laspy")
    assert predict(recording / "scans", known_bundle, tmp_path / "out", "--format", kind) == 0
    file = tmp_path / "out" / ("predictions/000003.label" if kind == "semantickitti" else f"000003.{kind}")
    if kind in ("semantickitti", "npy"):
        raw = np.fromfile(file, "<u4") if kind == "semantickitti" else np.load(file)
    elif kind == "las":
        import laspy

        raw = np.array(laspy.read(file)["label"])
    else:
        raw = (read_pcd(file) if kind == "pcd" else read_ply(file))["label"]
        np.testing.assert_array_equal(read_cloud_file(file).xyz, open_scans(recording / "scans")[3].cloud.xyz)
    np.testing.assert_array_equal(raw & 0xFFFF, answers[3])


@pytest.mark.parametrize("kind", ["semantickitti", "npy", "ply"])
def test_a_full_disk_leaves_the_earlier_predictions_whole(
    recording: Path, known_bundle: Bundle, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    assert predict(recording / "scans", known_bundle, out, "--format", kind) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    folder = next(iter(before)).parent
    (folder / ".000001.4194304-0.tmp").write_text("half")
    (folder / ".000001.label.4194304-0.tmp").write_text("half")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(map(len, before.values())) // 2, limits[1]))
    try:
        assert predict(recording / "scans", known_bundle, out, "--format", kind) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before, "what a dead process left is gone"


def test_predictions_of_a_bag_are_those_of_its_scans(
    recording: Path, known_bundle: Bundle, answers: list[np.ndarray], tmp_path: Path
) -> None:
    assert predict(recording / "bag", known_bundle, tmp_path / "out") == 0
    raw = np.fromfile(tmp_path / "out" / "predictions" / "000002.label", "<u4")
    np.testing.assert_array_equal(raw & 0xFFFF, answers[2])


@pytest.fixture
def kitti(recording: Path, tmp_path: Path) -> Path:
    """The recording as two sequences of SemanticKITTI's test set."""
    for sequence in ("11", "12"):
        shutil.copytree(recording / "scans" / "velodyne", tmp_path / "kitti" / "sequences" / sequence / "velodyne")
    return tmp_path / "kitti"


def test_a_submission_has_every_scan_in_the_servers_layout(
    kitti: Path, known_bundle: Bundle, answers: list[np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(kitti, known_bundle, tmp_path / "out", "--split", "test", "--submission") == 0
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        names = sorted(archive.namelist())
        assert names == [f"sequences/{s}/predictions/{i:06d}.label" for s in ("11", "12") for i in range(SCANS)]
        for index, name in enumerate(names[:SCANS]):
            raw = np.frombuffer(archive.read(name), "<u4") & 0xFFFF
            np.testing.assert_array_equal(raw, answers[index])
    assert "these are missing: 13, 14" in capsys.readouterr().out


def test_a_submission_that_the_server_would_refuse_is_refused_here(
    recording: Path, kitti: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(recording / "scans", known_bundle, tmp_path / "out", "--submission") == 2
    assert "does not belong to a sequence" in capsys.readouterr().err
    assert predict(kitti, known_bundle, tmp_path / "pcd", "--submission", "--format", "pcd") == 2
    (kitti / "sequences" / "12" / "velodyne" / "000001.bin").write_bytes(b"123")
    assert predict(kitti, known_bundle, tmp_path / "cut", "--submission") == 1
    assert not (tmp_path / "cut" / "submission.zip").exists()


def test_files_of_any_model_are_compared(
    recording: Path, known_bundle: Bundle, answers: list[np.ndarray], tmp_path: Path
) -> None:
    assert predict(recording / "scans", known_bundle, tmp_path / "out") == 0
    truth = recording / "scans" / "labels"
    (tmp_path / "three.yaml").write_text(json.dumps(known_bundle.labels.to_rows()))
    arguments = ["evaluate", "--predictions", str(tmp_path / "out"), "--truth", str(truth), "--out", str(tmp_path / "report")]
    (tmp_path / "report").mkdir()
    half = tmp_path / "report" / ".summary.json.4194304-0.tmp"  # of a process that was killed
    half.touch()
    assert weakseg([*arguments, "--label-map", str(tmp_path / "three.yaml")]) == 0
    assert not half.exists()
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    raw = [np.fromfile(file, "<u4") & 0xFFFF for file in sorted(truth.glob("*.label"))]
    labelled = np.concatenate(raw) > 0
    right = (np.concatenate(raw) == np.concatenate(answers)) & labelled
    assert summary["accuracy"] == pytest.approx(right.sum() / labelled.sum(), abs=1e-4)
    assert summary["scans"] == SCANS
    assert weakseg(arguments[:3]) == 2, "without a truth there is nothing to compare with"


def test_predictions_that_are_missing_or_of_another_size_are_named(recording: Path, tmp_path: Path) -> None:
    truth = recording / "scans" / "labels"
    shutil.copytree(truth, tmp_path / "predictions")
    summary = compare_files(tmp_path / "predictions", truth, "semantickitti", tmp_path / "report")
    assert summary["miou_present"] == summary["accuracy"] == 1.0
    assert set(summary["class_iou"]) <= set(LabelMap.load("semantickitti").names)
    first = tmp_path / "predictions" / "000000.label"
    first.write_bytes(first.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"000000\.label: .*the truth is"):
        compare_files(tmp_path / "predictions", truth, "semantickitti", tmp_path / "report")
    first.unlink()
    with pytest.raises(DataError, match="no prediction for 1 of 6 scans"):
        compare_files(tmp_path / "predictions", truth, "semantickitti", tmp_path / "report")


def label(file: Path, raw: list[int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.array(raw, "<u4").tofile(file)


def test_predictions_beside_the_labels_in_one_tree_are_not_compared_with_themselves(tmp_path: Path) -> None:
    recording = tmp_path / "dataset" / "sequences" / "08"
    label(recording / "labels" / "000000.label", [10, 40, 40, 50])
    label(recording / "predictions" / "000000.label", [10, 40, 50, 50])
    label(tmp_path / "alone" / "08" / "000000.label", [10, 40, 50, 50])
    for predictions in (tmp_path / "dataset", tmp_path / "alone"):
        assert compare_files(predictions, tmp_path / "dataset", "semantickitti", tmp_path / "report")["accuracy"] == 0.75
    with pytest.raises(DataError, match=r"labels/000000.label: is both prediction and truth; give the folder of the one"):
        compare_files(recording / "labels", recording / "labels", "semantickitti", tmp_path / "report")
    np.save(recording / "predictions" / "000000.npy", np.array([10, 40, 40, 50], np.uint32))
    with pytest.raises(DataError, match=r"several label files of one scan \(sequences/08/predictions/000000.label and "):
        compare_files(tmp_path / "dataset", tmp_path / "dataset", "semantickitti", tmp_path / "report")


def test_ids_of_the_truth_that_the_map_does_not_list_are_named(tmp_path: Path) -> None:
    label(tmp_path / "truth" / "0.label", [10, 40, 777, 50])
    label(tmp_path / "predicted" / "0.label", [10, 40, 50, 50])
    with pytest.raises(DataError, match=r"truth/0.label: holds ids that label map 'semantickitti' does not list \(777\); give"):
        compare_files(tmp_path / "predicted", tmp_path / "truth", "semantickitti", tmp_path / "report")
