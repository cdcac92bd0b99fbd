# SPDX-License-Identifier: Apache-2.0
"""Retraining on clicks: it learns what the bundle did not know, forgets nothing, and refuses what is worse."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from support.night import LABELS, POINTS, SPEC, click, iou_at_night, scan_of, settings, write
from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.cli import main
from weakseg_ros.data.scan_files import format_pose
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.torch import stores_half
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import DataError
from weakseg_ros.files import content_of
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
from weakseg_ros.improve.retrain.data import logs_in, open_clicks, open_retrain_data, split_by_name
from weakseg_ros.improve.retrain.gate import GateConfig
from weakseg_ros.improve.retrain.retrain import command_of, compare, refused_on_failure, retrain, training_settings
from weakseg_ros.improve.retrain.versions import REJECTED, UNJUDGED, Versions
from weakseg_ros.methods.settings import PointPanopticSettings
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import export_run
from weakseg_ros.train.finetune import ModelScans, commands_of, export_refined, refine, training_of
from weakseg_ros.train.train import train
from weakseg_ros.weak.propagate import PropagateSettings
from weakseg_ros.weak.protocols import SparseConfig


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was trained by day, and frames of the night."""
    root = tmp_path_factory.mktemp("world")
    write(root / "day", 10, night=False, seed=1)
    write(root / "night", 10, night=True, seed=2)
    augment = AugmentConfig(flip=0.0, turn=0.0, tilt_deg=0.0, intensity_gain=0.0, mix=0.0)
    config = TrainConfig(
        data=root / "day", out=root / "run", net_width=16, channels=("z", "intensity"), augment=augment, steps=80, warmup_steps=8,
        batch_size=4, learning_rate=1e-2, validate_every=0, precision="32-true", accelerator="cpu",
    )  # fmt: skip
    export_run(train(config).path, root / "models" / "toy", half=True)
    return root


@pytest.fixture
def place(world: Path, tmp_path: Path) -> Path:
    """A folder of one's own: the models, and a log of the night without truth."""
    write(tmp_path / "log", 10, night=True, seed=2, labelled=False)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy").symlink_to(world / "models" / "toy")
    return tmp_path


KEYS = [f"{i:06d}" for i in range(8)]


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


def test_what_was_learnt_from_is_found_again_whatever_its_path(world: Path, place: Path) -> None:
    places = [write(place / name, 4, True, seed=2, labelled=False) for name in ("my log", "anna's", "a && b", "plain")]
    for folder in places:
        click(folder, world / "night", KEYS[:3])
    bundle = Bundle.load(place / "models" / "toy")

    def made_by(*commands: str) -> Bundle:
        source = dataclasses.replace(bundle.info.provenance, command=" && ".join(commands))
        return dataclasses.replace(bundle, info=dataclasses.replace(bundle.info, provenance=source))

    commands = [command_of(settings(place, frames=folder)) for folder in places[:3]]
    again = made_by(bundle.info.provenance.command, *commands)
    assert training_of(again.info) == training_of(bundle.info)
    new, _, _ = open_clicks(settings(place, frames=places[3]), again, [])
    assert {key.split("/")[0] for key in new.keys} == {"0-plain", "1-my log", "2-anna's", "3-a && b"}
    for named in ("it's", "plain"):  # as it was written before paths were quoted
        info = made_by("weakseg train drive --batch-size 7", f"weakseg retrain --frames {named} --steps 5").info
        assert training_of(info) == TrainConfig(data=Path("drive"), batch_size=7)
        assert commands_of(info)[1] == ["weakseg", "retrain", "--frames", named, "--steps", "5"]


def test_a_folder_of_logs_is_learnt_from_as_one(world: Path, place: Path) -> None:
    fleet, toy = place / "fleet", Bundle.load(place / "models" / "toy")
    for robot, keys in (("anna", KEYS[:4]), ("berta", KEYS[4:7])):
        click(write(fleet / robot, 10, night=True, seed=2, labelled=False), world / "night", keys)
    (fleet / "carla" / "sparse").mkdir(parents=True)
    (fleet / "notes.txt").write_text("not a log")
    assert [log.name for log in logs_in(fleet)] == ["anna", "berta", "carla"]
    problems: list[str] = []
    new, held_out, _ = open_clicks(settings(place, frames=fleet), toy, problems)
    assert len(new) + len(held_out) == 7
    assert {key.split("/")[0] for key in new.keys} == {"0-anna", "1-berta"}
    assert len(problems) == 1
    assert "carla: nothing is labelled in it yet" in problems[0]
    for robot in ("anna", "berta"):
        shutil.rmtree(fleet / robot / "sparse" / "clicks")
    with pytest.raises(DataError, match=r"fleet: none of the 3 logs in it has clicks to learn from .*anna"):
        open_clicks(settings(place, frames=fleet), toy, [])


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


def test_what_cannot_be_used_is_left_out_and_said(world: Path, place: Path) -> None:
    log = place / "log"
    click(log, world / "night", KEYS)
    clicks = log / "sparse" / "clicks"
    (clicks / f"{KEYS[0]}.label").write_bytes(b"\0" * 40)  # another cloud's
    (clicks / f"{KEYS[1]}.label").write_bytes((777).to_bytes(4, "little") * POINTS)  # unknown id
    (clicks / f"{KEYS[2]}.label").write_bytes(b"\0" * 4 * POINTS)  # nothing labelled
    (clicks / f"{KEYS[3]}.label").unlink()
    (clicks / "999999.label").write_bytes(b"\0" * 4 * POINTS)  # no such scan
    points = log / "velodyne" / f"{KEYS[4]}.bin"
    points.write_bytes(points.read_bytes()[:-5])
    problems: list[str] = []
    new, held_out, _ = open_clicks(settings(place), Bundle.load(place / "models" / "toy"), problems)
    keys = {key.rpartition("/")[2] for key in (*new.keys, *held_out.keys)}
    assert keys == set(KEYS[5:])
    for key in (KEYS[0], KEYS[1], KEYS[2], KEYS[4], "999999"):
        assert any(key in problem for problem in problems), (key, problems)


def test_it_refuses_to_train_on_nothing(world: Path, place: Path) -> None:
    config = settings(place)
    with pytest.raises(DataError, match="weakseg label"):
        retrain(config)
    click(place / "log", world / "night", KEYS[:1])
    with pytest.raises(DataError, match="1 frames have usable clicks"):
        retrain(config)
    click(place / "log", world / "night", KEYS[1:3])
    (place / "run").mkdir()
    (place / "run" / "mine.txt").touch()
    with pytest.raises(DataError, match="choose another --out"):
        retrain(config)
    assert not any((place / "models" / "versions").iterdir()), "no empty version is left behind"


def test_old_data_that_are_gone_are_named_with_what_to_do(world: Path, place: Path) -> None:
    click(place / "log", world / "night", KEYS)
    bundle, moved = Bundle.load(place / "models" / "toy"), world / "moved"
    (world / "day").rename(moved)
    try:
        with pytest.raises(DataError, match=r"day, which does not exist here; give its path with --replay, or train without it"):
            open_retrain_data(settings(place), bundle)
        found = open_retrain_data(settings(place, replay=moved, replay_scans=5), bundle)
        assert (found.problems, len(found.replay or ()), len(found.regression)) == ((), 5, 2)
        alone = open_retrain_data(settings(place, no_replay=True, regression=moved), bundle)
        assert (alone.replay, len(alone.regression)) == (None, 10)
    finally:
        moved.rename(world / "day")


def test_data_of_other_classes_are_refused(world: Path, place: Path) -> None:
    click(place / "log", world / "night", KEYS)
    changed = yaml.safe_load((world / "day" / "manifest.yaml").read_text())
    changed["classes"][1]["name"] = "deep"
    shutil.copytree(world / "day", place / "other")
    (place / "other" / "manifest.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(DataError, match="give data of the bundle's classes"):
        open_retrain_data(settings(place, replay=place / "other"), Bundle.load(place / "models" / "toy"))


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


def test_the_intensity_of_another_sensor_is_brought_to_the_models_scale(world: Path, place: Path) -> None:
    info = Bundle.load(place / "models" / "toy").info
    rng = np.random.default_rng(0)
    with ScanWriter(place / "other", LABELS, SPEC, source="test", seed=0, intensity_full_scale=255.0) as writer:
        cloud, label = scan_of(rng, night=False)
        writer.write(make_cloud(cloud.xyz, cloud.intensity * 255), label)
    seen = ModelScans(open_scans(place / "other"), info)[0].cloud
    np.testing.assert_allclose(seen.intensity, cloud.intensity, atol=1e-6)
    assert seen.intensity_full_scale == info.input.intensity.full_scale
    once = ModelScans(open_scans(place / "other"), info, intensity_scale=1.0)
    np.testing.assert_allclose(ModelScans(once, info)[0].cloud.intensity, cloud.intensity * 255, rtol=1e-5)


def write_log(folder: Path, clouds: Sequence[Cloud], factors: Sequence[float]) -> list[str]:
    """A robot's log: its clouds, and the factors on their intensity that its records tell."""
    with FrameWriter(folder, LABELS, SPEC, source="test") as log:
        return [
            log.write(cloud, answer_of(cloud), Origin(intensity_scale=factor), Worth(0.5, "asked")).key
            for cloud, factor in zip(clouds, factors, strict=True)
        ]


def answer_of(cloud: Cloud) -> Segmentation:
    """What a model says that knows one class and is in doubt."""
    number, image = np.zeros(len(cloud), np.uint16), np.zeros((1, 1), np.uint8)
    half = np.full(len(cloud), 0.5, np.float32)
    return Segmentation(np.ones(len(cloud), np.uint8), number, half, half, cloud.flags, image, image.astype(np.uint16))


def click_truth(folder: Path, keys: Sequence[str], truth: Sequence[NDArray[np.uint32]]) -> None:
    """A person clicks forty points of each frame."""
    store = ClickStore(folder, LABELS)
    for key, raw in zip(keys, truth, strict=True):
        chosen = np.random.default_rng(len(key)).choice(len(raw), 40, replace=False)
        for k in np.unique(raw[chosen]):
            store.add(key, chosen[raw[chosen] == k], int(k) // 10)


def test_the_factor_on_the_intensity_is_the_logs_and_not_the_old_datas(world: Path, place: Path) -> None:
    rng = np.random.default_rng(2)
    scans = [scan_of(rng, night=True) for _ in range(6)]
    raw = [make_cloud(cloud.xyz, cloud.intensity * 255) for cloud, _ in scans]
    keys = write_log(place / "robot", raw, [0.0, 0.0, 0.0, 1 / 255, 1 / 255, 1 / 255])
    click_truth(place / "robot", keys, [truth for _, truth in scans])
    data = open_retrain_data(
        settings(place, frames=place / "robot", intensity_scale=1 / 255), Bundle.load(place / "models" / "toy")
    )
    assert data.replay is not None
    assert len(data.new) + len(data.held_out) == 6
    for part in (data.new, data.held_out, data.replay, data.regression):
        for index in range(len(part)):
            assert 0.2 < part[index].cloud.intensity.max() < 1.1, part.keys[index]


def test_frames_that_were_answered_without_intensity_are_compared_so(world: Path, place: Path) -> None:
    rng = np.random.default_rng(2)
    scans = [scan_of(rng, night=True) for _ in range(4)]
    keys = write_log(place / "robot", [make_cloud(cloud.xyz) for cloud, _ in scans], [0.0] * 4)
    click_truth(place / "robot", keys, [truth for _, truth in scans])
    bundle, config = Bundle.load(place / "models" / "toy"), settings(place, frames=place / "robot")
    assert bundle.info.input.intensity.required
    data = open_retrain_data(config, bundle)
    before, after, _ = compare(bundle, bundle, data, config)
    assert before["clicks"] == after["clicks"]
    assert before["clicks"]["points"] == data.held_out_clicks > 0


@pytest.mark.parametrize("limit", [20_000, 100])
def test_a_retraining_that_is_ended_leaves_neither_run_nor_candidate(world: Path, place: Path, limit: int) -> None:
    """Ended by the disk, which takes no file above a size: the next retraining has the same names."""
    click(place / "log", world / "night", KEYS)
    before, former = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            retrain(settings(place, steps=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, former)
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


def test_a_frame_stays_on_its_side_however_many_are_added() -> None:
    keys = [f"0001_{i:06d}" for i in range(300)]
    kept, held = split_by_name(keys, 0.2)
    assert sorted(kept + held) == list(range(300))
    assert 30 < len(held) < 90
    few_kept, few_held = split_by_name(keys[:100], 0.2)
    assert few_held == [i for i in held if i < 100]
    assert few_kept == [i for i in kept if i < 100]
    assert [len(side) for side in split_by_name(keys[:2], 0.01)] == [1, 1]
    assert [len(side) for side in split_by_name(keys[:2], 0.9)] == [1, 1]
