# SPDX-License-Identifier: Apache-2.0
"""Data as people have them: labels of other types, scans without labels, other sensors, poses that do not fit, own classes."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from support import optional

optional("torch")

from weakseg_ros.cli import main
from weakseg_ros.config import load_yaml
from weakseg_ros.data.scans import open_scans
from weakseg_ros.data.side_files import say_once
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import DataError
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.config import TrainConfig

STEPS = "--steps 4 --warmup-steps 1 --batch-size 1 --accelerator cpu --precision 32-true".split()
TINY = [*STEPS, *"--height 16 --width 128 --net-width 16 --validate-every 0".split()]


@pytest.fixture
def bare(tmp_path: Path, layouts: ModuleType) -> Callable[..., Path]:
    def write(frames: int = 4, **lasers: Any) -> Path:
        say_once.cache_clear()
        folder: Path = layouts.write_bare(tmp_path / "data", frames, **lasers)
        return folder

    return write


def train(data: Path, *words: str, run: str = "run") -> int:
    return main(["train", str(data), "--out", str(data.parent / run), *TINY, *words])


def rewrite(folder: Path, convert: Callable[[np.ndarray, Path], None]) -> None:
    for file in sorted((folder / "labels").glob("*.label")):
        convert(np.fromfile(file, "<u4"), file)


@pytest.mark.parametrize(("kind", "found"), [("<u1", "uint8"), ("<u2", "uint16"), ("<i8", "int64"), ("<f4", "float32")])
def test_labels_of_another_type_are_refused_by_its_name(
    kind: str, found: str, bare: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = bare()
    rewrite(data, lambda raw, file: raw.astype(kind).tofile(file))
    assert train(data) == 2
    text = capsys.readouterr().err
    assert found in text
    assert "uint32" in text
    assert "numpy.save" in text


@pytest.mark.parametrize("kind", ["u1", "i2", "i8"])
def test_labels_as_npy_are_read_whatever_their_integer_type(kind: str, bare: Callable[..., Path]) -> None:
    data = bare()

    def convert(raw: np.ndarray, file: Path) -> None:
        file.unlink()
        np.save(file.with_suffix(".npy"), raw.astype(kind))

    rewrite(data, convert)
    assert train(data) == 0
    assert (data.parent / "run" / "best.json").is_file()


def test_label_files_that_belong_to_no_scan_are_named(bare: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    data = bare()
    rewrite(data, lambda raw, file: file.rename(file.with_name(f"{int(file.stem):010d}.label")) and None)
    with caplog.at_level(logging.WARNING):
        assert train(data) == 2
    assert "4 of 4 label files belong to no scan" in caplog.text
    assert "0000000000.label" in caplog.text


@pytest.mark.parametrize("suffix", [".txt", ".npz", ".csv"])
def test_files_of_another_kind_where_labels_are_due_are_named(
    suffix: str, bare: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    data = bare()
    rewrite(data, lambda raw, file: file.rename(file.with_suffix(suffix)) and None)
    open_scans(data)
    assert f"4 scans with a file of another kind than .label and .npy (the first: 000000{suffix})" in caplog.text
    caplog.clear()
    say_once.cache_clear()
    for file in sorted((data / "labels").iterdir()):
        file.with_suffix(".label").write_bytes(file.read_bytes())
    open_scans(data)
    assert "another kind" not in caplog.text


def test_two_label_files_for_one_scan_are_told(bare: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    data = bare()
    np.save(data / "labels" / "000001.npy", np.zeros(3, np.uint32))
    assert open_scans(data)[1].class_id is not None
    assert "1 scan has two label files (the first: 000001.label and 000001.npy), of which .label is read" in caplog.text


def test_labels_with_instances_as_floats_and_as_text_are_named(bare: Callable[..., Path]) -> None:
    data = bare()
    rewrite(data, lambda raw, file: np.where(raw > 0, raw | 3 << 16, 0).astype("<f4").tofile(file))
    with pytest.raises(DataError, match="holds float32 numbers, but uint32 is expected"):
        open_scans(data)[0]
    (data / "labels" / "000000.label").write_text("40\n10\n0\n")
    with pytest.raises(DataError, match=r"000000\.label: holds numbers as text; write the labels as uint32"):
        open_scans(data)[0]


def test_without_a_labelled_validation_scan_the_last_weights_are_exported(
    bare: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    data = bare(5)
    (data / "labels" / "000004.label").unlink()
    with caplog.at_level(logging.WARNING):
        assert train(data, "--validate-every", "1") == 0
    assert "the 1 validation scans have no labels" in caplog.text
    best = json.loads((data.parent / "run" / "best.json").read_text())
    assert best == {"step": 3}


def test_validation_is_on_the_scans_that_have_labels(bare: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    data = bare(6)
    (data / "labels" / "000005.label").unlink()
    with caplog.at_level(logging.WARNING):
        assert train(data, "--hold-out", "0.4") == 0
    assert "1 of the 2 validation scans have no label and are left out" in caplog.text
    assert json.loads((data.parent / "run" / "best.json").read_text())["miou_present"] > 0


@pytest.mark.parametrize("content", ["1 0 0 0 0 1 0 0 0 0 1 0\n", "1 2 3\n", "\n"])
def test_poses_that_do_not_fit_are_left_out_with_one_sentence(
    content: str, bare: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    data = bare()
    (data / "poses.txt").write_text(content)
    (data / "times.txt").write_text("0.0\n")
    with caplog.at_level(logging.WARNING):
        assert train(data) == 0
    assert sum("poses.txt" in record.message for record in caplog.records) == 1
    assert sum("times.txt" in record.message for record in caplog.records) == 1


def test_the_image_of_another_sensor_is_measured_and_can_be_set(
    bare: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    data = bare(4, up_deg=22.5, down_deg=-22.5, rows=32)
    with caplog.at_level(logging.INFO):
        assert main(["train", str(data), "--out", str(data.parent / "run"), *STEPS, "--net-width", "16"]) == 0
    assert "field of view and rows are measured" in caplog.text
    spec = load_yaml(RangeSpec, data.parent / "run" / "spec.yaml")
    assert 22.5 <= spec.fov_up_deg <= 24
    assert -24 <= spec.fov_down_deg <= -22.5
    assert spec.height == 32
    with caplog.at_level(logging.WARNING):
        assert train(data, "--fov-up-deg", "0", "--fov-down-deg", "-10", run="set") == 0
    spec = load_yaml(RangeSpec, data.parent / "set" / "spec.yaml")
    assert (spec.fov_up_deg, spec.fov_down_deg, spec.height, spec.width) == (0.0, -10.0, 16, 128)
    assert "of the points lie outside the range image" in caplog.text


def test_an_hdl_64e_is_still_taken_for_one(bare: Callable[..., Path]) -> None:
    data = bare(3, rows=64)
    assert main(["train", str(data), "--out", str(data.parent / "run"), *STEPS, "--net-width", "16", "--width", "128"]) == 0
    assert load_yaml(RangeSpec, data.parent / "run" / "spec.yaml") == RangeSpec(width=128)


DATA_CONFIG = """labels: {0: unlabeled, 1: ground, 2: wall, 5: car, 9: outlier}
color_map: {0: [0, 0, 0], 1: [255, 0, 128], 2: [0, 200, 255], 5: [245, 150, 100]}
learning_map: {0: 0, 9: 0, 1: 1, 2: 2, 5: 3}
learning_map_inv: {0: 0, 1: 1, 2: 2, 3: 5}
learning_ignore: {0: true, 1: false, 2: false, 3: false}
split: {train: [0], valid: [1], test: []}
"""


def test_a_data_config_of_lidar_bonnetal_is_a_label_map(bare: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    data = bare()
    rewrite(data, lambda raw, file: np.where(raw == 40, 1, 2).astype("<u4").tofile(file))
    (data.parent / "mine.yaml").write_text(DATA_CONFIG)
    assert train(data) == 2
    assert "--label-map" in capsys.readouterr().err
    assert train(data, "--label-map", str(data.parent / "mine.yaml")) == 0
    best = json.loads((data.parent / "run" / "best.json").read_text())
    assert list(best["class_iou"]) == ["ground", "wall", "car"]


def test_what_a_resumed_run_is_asked_for_counts_also_where_it_is_the_default(
    bare: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data, usual = bare(), TrainConfig()
    assert train(data, "--method", "erda", "--seed", "7", "--schedule", "exponential", "--max-val-scans", "1") == 0
    resume = ["train", str(data), "--out", str(data.parent / "run"), "--resume"]
    for name in ("method", "seed", "schedule"):
        assert main([*resume, f"--{name}", str(getattr(usual, name))]) == 2
        assert f"{name}: the run in" in capsys.readouterr().err
    (tmp_path / "usual.yaml").write_text("max_val_scans: 0\n")
    assert main([*resume, "--config", str(tmp_path / "usual.yaml")]) == 2
    assert "max_val_scans: the run in" in capsys.readouterr().err
    assert main([*resume, "--steps", str(usual.steps), "--max-minutes", "0.01"]) == 0
    assert load_yaml(TrainConfig, data.parent / "run" / "config.yaml").steps == usual.steps
    assert main(["train", "--out", str(tmp_path / "absent"), "--resume"]) == 2
    assert "there is no run to resume (config.yaml is missing); check --out" in capsys.readouterr().err


def test_a_resumed_run_does_more_steps_and_refuses_other_settings(
    bare: Callable[..., Path], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = bare()
    assert train(data) == 0
    run = str(data.parent / "run")
    resume = ["train", str(data), "--out", run, "--resume"]
    with caplog.at_level(logging.WARNING):
        assert main(resume) == 0
    assert "all 4 steps are done" in caplog.text
    assert main([*resume, "--steps", "7", "--warmup-steps", "1"]) == 0
    rows = [json.loads(line) for line in (data.parent / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) == 6
    assert main([*resume, "--steps", "5"]) == 2
    assert "has done 7 steps already" in capsys.readouterr().err
    assert main([*resume, "--learning-rate", "0.5"]) == 2
    assert "learning_rate: the run in" in capsys.readouterr().err
    assert main([*resume, "--learning-rate", str(TrainConfig().learning_rate), "--method", "erda"]) == 2
    assert "method: the run in" in capsys.readouterr().err
    points = next((data / "velodyne").glob("*.bin"))
    points.write_bytes(points.read_bytes()[:-16])
    assert main(resume) == 2
    assert "was trained on other scans" in capsys.readouterr().err


def own_map(file: Path, *rows: tuple[str, int]) -> Path:
    """A map of `street`'s two classes and what else is named."""
    first = {"id": 0, "name": "unlabelled", "color": [0, 0, 0], "thing": False, "raw_ids": [0]}
    more = [{**first, "id": i, "name": name, "raw_ids": [raw]} for i, (name, raw) in enumerate(rows, 1)]
    file.write_text(json.dumps([first, *more]))
    return file


@pytest.mark.parametrize("now", [(("wall", 50), ("ground", 40)), (("ground", 40), ("wall", 50), ("sky", 99)), ()])
def test_a_run_keeps_the_classes_that_it_began_with(
    now: tuple[tuple[str, int], ...], bare: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    data = bare()
    file = data.parent / "own.yaml"
    assert train(data, "--label-map", str(own_map(file, ("ground", 40), ("wall", 50)))) == 0
    run, same = data.parent / "run", data.parent / "same"
    shutil.copytree(run, same)
    assert main(["train", str(data), "--out", str(same), "--resume", "--steps", "6"]) == 0
    own_map(file, *now) if now else file.unlink()
    say_once.cache_clear()
    assert main(["train", str(data), "--out", str(run), "--resume", "--steps", "6"]) == 0
    assert "own.yaml is not what it was when the run in" in caplog.text
    assert "which keeps its classes (labels.yaml)" in caplog.text
    last = [json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])["class_iou"] for path in (run, same)]
    assert last[0] == last[1]
    assert main(["export", str(run), "--out", str(data.parent / "bundle"), "--variants"]) == 0
    bundles = [Bundle.load(data.parent / "bundle")]
    own_map(file, ("ground", 40), ("wall", 50))
    assert main(["export", str(run), "--out", str(data.parent / "again"), "--variants"]) == 0
    bundles += [Bundle.load(data.parent / "again")]
    assert bundles[0].labels.names == bundles[1].labels.names == ("unlabelled", "ground", "wall")
    assert bundles[0].info.temperature == bundles[1].info.temperature


def test_data_that_grew_or_went_since_the_training_are_told_by_export(
    bare: Callable[..., Path], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = bare()
    assert train(data) == 0
    export = ["export", str(data.parent / "run"), "--variants", "--out"]
    for folder, suffix in (("velodyne", "bin"), ("labels", "label")):
        shutil.copy(data / folder / f"000000.{suffix}", data / folder / f"000009.{suffix}")
    assert main([*export, str(data.parent / "grown")]) == 0
    assert "does not hold the scans that the run in" in caplog.text
    data.rename(data.parent / "moved")
    assert main([*export, str(data.parent / "gone")]) == 2
    assert "which does not exist here; put the data or a link to them there, or write" in capsys.readouterr().err


def test_a_run_on_sparse_labels_goes_on_where_both_were_moved(
    bare: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = bare()
    assert main(["sparse", str(data), "--ratio", "0.05"]) == 0
    assert train(data, "--sparse-labels", str(data / "sparse" / "voxel-0.05-s0")) == 0
    moved = data.rename(data.parent / "moved")
    resume = ["train", str(moved), "--out", str(data.parent / "run"), "--resume", "--steps"]
    assert main([*resume, "5"]) == 0
    (moved / "sparse").rename(data.parent / "labels")
    assert main([*resume, "6", "--sparse-labels", str(data.parent / "labels" / "voxel-0.05-s0")]) == 0
    assert main(["sparse", str(moved), "--ratio", "0.04"]) == 0
    capsys.readouterr()
    assert main([*resume, "7", "--sparse-labels", str(moved / "sparse" / "voxel-0.04-s0")]) == 2
    assert "was trained on other scans" in capsys.readouterr().err
