# SPDX-License-Identifier: Apache-2.0
"""The options on how clouds are taken in do the same in every verb that has them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from support import optional
from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.bags import read_clouds
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import DataError
from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate

HUNG = ("--rotation-rpy-deg", "180", "0", "0", "--unit-m", "0.001")


@pytest.fixture(scope="module")
def hung(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording by a sensor that hangs upside down and counts millimetres."""
    path = tmp_path_factory.mktemp("hung") / "drive"
    with CloudBagWriter(path) as writer:
        for _, cloud in read_clouds(recording / "bag"):
            writer.write(dataclasses.replace(cloud, xyz=cloud.xyz * np.float32([1000, -1000, -1000])))
    return path


def miou(data: Path, bundle: Bundle, truth: Path, out: Path, **settings: object) -> float:
    config = EvaluateConfig(data=data, bundle=str(bundle.folder), truth=truth, out=out, **settings)
    return float(evaluate(config)[1]["miou"])


def test_a_turned_cloud_in_millimetres_is_answered_as_the_upright_one(
    recording: Path, hung: Path, known_bundle: Bundle, tmp_path: Path
) -> None:
    truth = recording / "scans" / "labels"
    upright = miou(recording / "bag", known_bundle, truth, tmp_path / "upright")
    assert miou(hung, known_bundle, truth, tmp_path / "hung") < upright / 2
    mended = miou(hung, known_bundle, truth, tmp_path / "mended", rotation_rpy_deg=(180.0, 0.0, 0.0), unit_m=0.001)
    assert mended == upright


def test_import_writes_what_a_model_is_to_see(recording: Path, hung: Path, tmp_path: Path) -> None:
    assert weakseg(["import", str(hung), "--out", str(tmp_path / "scans"), *HUNG, "--intensity-scale", "0.5"]) == 0
    written = open_scans(tmp_path / "scans")[2].cloud
    sent = [cloud for _, cloud in read_clouds(recording / "bag")][2]
    np.testing.assert_allclose(written.xyz, sent.xyz, atol=1e-3)
    np.testing.assert_allclose(written.intensity, sent.intensity * 0.5, rtol=1e-6)


@pytest.mark.usefixtures("known_machine")
def test_select_and_doctor_take_the_same_options(hung: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    bundle = ["--bundle", str(known_bundle.folder)]
    assert weakseg(["select", str(hung), *bundle, "--out", str(tmp_path / "log"), "--frames", "2", *HUNG]) == 0
    kept = open_scans(tmp_path / "log")[0].cloud
    assert np.abs(kept.xyz).max() < 100, "the log holds metres"
    assert (
        weakseg(["doctor", "--data", str(hung), *bundle, *HUNG, "--intensity-scale", "1.0", "--intensity-field", "intensity"])
        == 0
    )
    assert weakseg(["doctor", "--data", str(hung), *bundle, *HUNG, "--intensity-field", "reflectivity"]) == 1


def test_a_folder_of_scans_has_one_intensity(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    settings = {"data": recording / "scans", "bundle": str(known_bundle.folder), "out": tmp_path}
    with pytest.raises(DataError, match="has one intensity and no field 'reflectivity'"):
        evaluate(EvaluateConfig(**settings, intensity_field="reflectivity"))
    assert evaluate(EvaluateConfig(**settings, intensity_field=""))[1]["scans"]


def test_a_report_on_an_upside_down_sensor_says_so_first(
    known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optional("onnxruntime")
    from weakseg_ros.simulate.drive import SimulateConfig, simulate
    from weakseg_ros.simulate.lidar import load_sensor

    sensor = dataclasses.replace(load_sensor("generic64"), columns=512)
    with CloudBagWriter(tmp_path / "hung") as writer:
        for scan in simulate(SimulateConfig(seed=7, scans=2, stride=10, sensor=sensor)):
            writer.write(dataclasses.replace(scan.cloud, xyz=scan.cloud.xyz * np.float32([1, -1, -1])))
    arguments = ["evaluate", str(tmp_path / "hung"), "--bundle", str(known_bundle.folder), "--out", str(tmp_path / "report")]
    assert weakseg(arguments) == 0
    assert "the ground lies above the sensor" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text()
    assert "The clouds are not suitable for a model" in page
    assert weakseg([*arguments, "--rotation-rpy-deg", "180", "0", "0"]) == 0
    assert "the ground lies above" not in capsys.readouterr().out


@pytest.fixture
def foreign(recording: Path, tmp_path: Path) -> Path:
    """Scans whose labels the bundle cannot know: raw ids of somebody else, and a file of another size."""
    folder = tmp_path / "foreign"
    shutil.copytree(recording / "scans" / "velodyne", folder / "velodyne")
    (folder / "labels").mkdir()
    for number, scan in enumerate(sorted((folder / "velodyne").glob("*.bin"))):
        count = scan.stat().st_size // 16 if number else 7
        np.full(count, 999, np.uint32).tofile(folder / "labels" / f"{scan.stem}.label")
    return folder


@pytest.mark.usefixtures("known_machine")
def test_work_without_labels_does_not_mind_whatever_labels_lie_there(
    foreign: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_bundle = [str(foreign), "--bundle", str(known_bundle.folder)]
    assert weakseg(["predict", *with_bundle, "--out", str(tmp_path / "predictions")]) == 0
    assert weakseg(["select", *with_bundle, "--out", str(tmp_path / "log"), "--frames", "2"]) == 0
    assert weakseg(["doctor", "--data", *with_bundle]) == 0
    assert "labels/" not in capsys.readouterr().err
    with pytest.raises(DataError, match="so 8192 are due"):
        evaluate(EvaluateConfig(data=foreign, bundle=str(known_bundle.folder), out=tmp_path / "report"))


def test_evaluate_follows_its_advice_on_raw_ids_that_no_map_lists(
    recording: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, listed = tmp_path / "scans", tmp_path / "mine.yaml"
    for part in ("velodyne", "labels"):
        shutil.copytree(recording / "scans" / part, scans / part)
    for file in (scans / "labels").iterdir():
        raw = np.fromfile(file, np.uint32)
        raw[:5] = 999
        raw.tofile(file)
    asked = ["evaluate", str(scans), "--bundle", str(known_bundle.folder), "--no-pictures", "--out", str(tmp_path / "out")]
    assert weakseg(asked) == 2
    assert "does not list (999)" in capsys.readouterr().err
    rows = known_bundle.labels.to_rows()
    rows[0]["raw_ids"] = [*rows[0]["raw_ids"], 999]
    listed.write_text(yaml.safe_dump(rows))
    assert weakseg([*asked, "--label-map", str(listed)]) == 0


def test_truth_that_the_map_does_not_list_is_said(recording: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    shutil.copytree(recording / "scans" / "labels", truth)
    for file, strange in zip(sorted(truth.iterdir())[:2], (998, 999), strict=True):
        raw = np.fromfile(file, np.uint32)
        raw[:5] = strange
        raw.tofile(file)
    for data in ("bag", "scans"):
        config = EvaluateConfig(data=recording / data, bundle=str(known_bundle.folder), truth=truth, out=tmp_path / data)
        notes = evaluate(config)[1]["notes"]
        assert sum("the raw ids 998, 999 are not counted" in note for note in notes) == 1
        assert not any("the raw ids 998 are" in note for note in notes)
