# SPDX-License-Identifier: Apache-2.0
"""Retraining on clicks: it learns what the bundle did not know, forgets nothing, and refuses what is worse."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support import files_of_at_most
from support.night import KEYS, LABELS, SPEC, click, iou_at_night, scan_of, settings, write
from weakseg_ros.cli import main
from weakseg_ros.data.pose_files import format_pose
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.torch import stores_half
from weakseg_ros.errors import DataError
from weakseg_ros.files import content_of
from weakseg_ros.improve.retrain.data import open_retrain_data
from weakseg_ros.improve.retrain.gate import GateConfig
from weakseg_ros.improve.retrain.retrain import refused_on_failure, retrain, training_settings
from weakseg_ros.improve.retrain.versions import REJECTED, UNJUDGED, Versions
from weakseg_ros.methods.settings import PointPanopticSettings
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.finetune import export_refined, refine, training_of
from weakseg_ros.weak.propagate import PropagateSettings
from weakseg_ros.weak.protocols import SparseConfig


def test_clicks_teach_the_night_without_forgetting_the_day(world: Path, place: Path) -> None:
    click(place / "log", world / "night", KEYS)
    old = Bundle.load(place / "models" / "toy")
    before = {file.name: file.read_bytes() for file in old.folder.iterdir()}
    outcome = retrain(settings(place))
    assert outcome.verdict.passed, outcome.summary["failed"]
    assert iou_at_night(world, outcome.bundle) > iou_at_night(world, old) + 0.2
    after = outcome.summary["after"]["regression"]["miou"]
    assert after > outcome.summary["before"]["regression"]["miou"] - 0.01
    assert Versions(place / "models").current == outcome.bundle.folder
    assert outcome.bundle.folder == place / "models" / "versions" / "toy-1"
    assert {file.name: file.read_bytes() for file in old.folder.iterdir()} == before
    assert stores_half(outcome.bundle)  # as the old one does
    info = outcome.bundle.info
    assert (info.input.geometry, info.input.channels, info.input.mean, info.input.std, info.labels, info.net) == (
        old.info.input.geometry, old.info.input.channels, old.info.input.mean, old.info.input.std, old.info.labels, old.info.net,
    )  # fmt: skip
    assert info.provenance.command.startswith(old.info.provenance.command + " && weakseg retrain --frames ")
    assert json.loads((place / "run" / "summary.json").read_text())["passed"] is True
    assert "passed the gate" in outcome.report.read_text()
    written = {name: (place / "run" / name).stat().st_mtime_ns for name in ("retrain.yaml", "config.yaml", "summary.json")}
    assert written["retrain.yaml"] <= written["config.yaml"] < written["summary.json"], "the settings lie there first"


def test_clicks_on_suggested_points_do_not_say_that_nothing_else_is_there(place: Path) -> None:
    clicked = TrainConfig(method="point_panoptic", point_panoptic=PointPanopticSettings(all_clicked=True, rounds=1))
    assert training_settings(settings(place), clicked, place).point_panoptic == PointPanopticSettings(all_clicked=False, rounds=1)
    drawn = TrainConfig(method="supervised", draw=SparseConfig(protocol="per_instance"))
    changed = training_settings(settings(place, method="point_panoptic"), drawn, place)
    assert (changed.method, changed.point_panoptic) == ("point_panoptic", PointPanopticSettings(all_clicked=False))


def test_clicks_travel_to_the_frames_around_but_not_to_those_held_out(place: Path) -> None:
    cloud, label = scan_of(np.random.default_rng(2), night=True)  # the robot stands still
    for folder, shown in ((place / "still", None), (place / "truth", label)):
        with ScanWriter(folder, LABELS, SPEC, source="test", seed=2, intensity_full_scale=1.0) as writer:
            for _ in range(10):
                writer.write(cloud, shown)
    (place / "still" / "poses.txt").write_text((format_pose(np.eye(4)) + "\n") * 10)
    click(place / "still", place / "truth", KEYS[:4])
    config = settings(place, frames=place / "still", propagate=PropagateSettings(scans=9))
    data = open_retrain_data(config, Bundle.load(place / "models" / "toy"))
    assert data.around is not None
    assert len(data.new) + len(data.held_out) == 4
    assert len(data.around) == 10 - len(data.held_out)
    assert not {*data.around.keys} & {*data.held_out.keys}
    assert sum(np.count_nonzero(data.around[i].class_id) for i in range(len(data.around))) == data.clicks
    info = retrain(config).bundle.info
    assert info.metrics["new_scans"] == len(data.around) > len(data.new)
    assert info.metrics["clicks"] == data.clicks
    assert "--propagate.scans 9" in info.provenance.command


def test_a_second_round_learns_from_both_logs_and_the_first_data(world: Path, place: Path) -> None:
    click(place / "log", world / "night", KEYS[:4])
    first = retrain(settings(place, steps=5, gate=GateConfig(1.0, 1.0, 1.0, 1, 50.0, -1.0)))
    write(place / "log2", 10, night=True, seed=2, labelled=False)
    click(place / "log2", world / "night", KEYS[4:])
    again = settings(place, frames=place / "log2", bundle=str(place / "models" / "current"))
    data = open_retrain_data(again, Bundle.load(place / "models" / "current"))
    assert len(data.new) + len(data.held_out) == 8
    assert {key.split("/")[0] for key in data.new.keys} == {"0-log2", "1-log"}
    assert data.replay is not None
    assert len(data.replay) == 8
    assert data.problems == ()
    assert training_of(first.bundle.info) == training_of(Bundle.load(place / "models" / "toy").info)


def test_wrong_clicks_are_refused_and_the_candidate_is_kept(world: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    click(place / "log", world / "day", KEYS, wrong=True)
    paths = ["--frames", str(place / "log"), "--bundle", str(place / "models" / "toy"), "--models", str(place / "models")]
    gate = ["--gate.latency-ratio", "50", "--gate.class-points", "200", "--new-share", "0.9", "--steps", "60"]
    assert main(["retrain", *paths, *gate, "--learning-rate", "0.01", "--out", str(place / "run")]) == 1
    said = capsys.readouterr().err
    assert "refused, " in said
    assert "before, " in said
    assert said.startswith("retrains toy (")
    assert "learning_rate" not in said, "the settings are in the run folder"
    versions = Versions(place / "models")
    assert versions.current is None
    assert "refused: " in (place / "models" / "versions" / "toy-1" / REJECTED).read_text()
    assert [change.action for change in versions.history()] == ["reject"]
    Bundle.load(place / "models" / "versions" / "toy-1")


def test_it_refuses_to_train_on_nothing(world: Path, place: Path) -> None:
    config = settings(place)
    with pytest.raises(DataError, match="weakseg label"):
        retrain(config)
    click(place / "log", world / "night", KEYS[:1])
    with pytest.raises(DataError, match="1 frame has usable clicks"):
        retrain(config)
    click(place / "log", world / "night", KEYS[1:3])
    (place / "run").mkdir()
    (place / "run" / "mine.txt").touch()
    with pytest.raises(DataError, match="choose another --out"):
        retrain(config)
    assert not any((place / "models" / "versions").iterdir()), "no empty version is left behind"


def test_the_same_seed_gives_the_same_net(world: Path, place: Path) -> None:
    click(place / "log", world / "night", KEYS)
    bundle = Bundle.load(place / "models" / "toy")
    data = open_retrain_data(settings(place), bundle)
    assert data.replay is not None

    def weights(seed: int, name: str) -> list[Any]:
        config = dataclasses.replace(data.training, out=place / name, steps=5, warmup_steps=1, seed=seed)
        return list(refine(bundle, data.new, data.replay, config, 0.5).net.state_dict().values())

    first, second, other = weights(1, "a"), weights(1, "b"), weights(2, "c")
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, other))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_a_gpu_has_learnt_is_exported(world: Path, place: Path) -> None:
    click(place / "log", world / "night", KEYS)
    bundle = Bundle.load(place / "models" / "toy")
    data = open_retrain_data(settings(place), bundle)
    config = dataclasses.replace(data.training, out=place / "run", steps=5, warmup_steps=1, accelerator="cuda")
    refined = refine(bundle, data.new, data.replay, config, 0.5)
    folder = place / "models" / "versions" / "gpu"
    assert export_refined(refined, bundle, data.regression, folder, {}, "weakseg retrain").folder == folder


@pytest.mark.parametrize("limit", [20_000, 100])
def test_a_retraining_that_is_ended_leaves_neither_run_nor_candidate(world: Path, place: Path, limit: int) -> None:
    """Ended by the disk, which takes no file above a size: the next retraining has the same names."""
    click(place / "log", world / "night", KEYS)
    with files_of_at_most(limit), pytest.raises(OSError, match="too large"):
        retrain(settings(place, steps=1))
    assert not (place / "run").exists()
    assert content_of(place / "models" / "versions") == []


def test_a_retraining_that_was_ended_at_its_last_step_is_not_done_again(
    world: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    click(place / "log", world / "night", KEYS)
    lenient = settings(place, steps=1, gate=GateConfig(1.0, 1.0, 1.0, latency_ratio=100.0, new_gain=-1.0), out=None)
    first, versions = retrain(lenient), Versions(place / "models")
    mark = (first.bundle.folder, first.report.parent)
    assert not (first.bundle.folder / UNJUDGED).exists()
    versions.mark_unjudged(*mark)
    again = retrain(lenient)
    assert (again.bundle.folder, again.summary, again.verdict) == (first.bundle.folder, first.summary, first.verdict)
    assert not (first.bundle.folder / UNJUDGED).exists()
    versions.mark_unjudged(*mark)
    click(place / "log", world / "night", ["000008"])
    assert retrain(lenient).bundle.folder != first.bundle.folder, "there is something new to learn"


def test_a_candidate_that_cannot_be_compared_is_refused(world: Path, place: Path) -> None:
    versions = Versions(place / "models")
    folder = versions.new_folder("toy")
    shutil.copytree(world / "models" / "toy", folder, dirs_exist_ok=True)
    with pytest.raises(DataError, match="gone"), refused_on_failure(versions, folder):
        raise DataError("the regression set is gone")
    assert "could not be compared: DataError: the regression set is gone" in (folder / REJECTED).read_text()
    assert [change.action for change in versions.history()] == ["reject"]
