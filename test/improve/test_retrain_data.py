# SPDX-License-Identifier: Apache-2.0
"""What a retraining learns from and is judged on: the clicks of one log or many, the old data, and their intensity."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from support.night import KEYS, LABELS, POINTS, SPEC, click, scan_of, settings, write
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
from weakseg_ros.improve.retrain.data import logs_in, open_clicks, open_retrain_data, split_by_name
from weakseg_ros.improve.retrain.retrain import command_of, compare
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.finetune import ModelScans, commands_of, training_of
from weakseg_ros.weak.propagate import PropagateSettings


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
    assert "carla: it has no labels yet" in problems[0]
    for robot in ("anna", "berta"):
        shutil.rmtree(fleet / robot / "sparse" / "clicks")
    with pytest.raises(DataError, match=r"fleet: none of the 3 logs in it has usable clicks .*anna"):
        open_clicks(settings(place, frames=fleet), toy, [])


def test_clicks_and_regression_sets_of_other_classes_are_told(world: Path, place: Path) -> None:
    toy, log = Bundle.load(place / "models" / "toy"), place / "log"
    other = LabelMap("other", tuple(dataclasses.replace(row, name=f"kind {row.id}") for row in LABELS.classes))
    store = ClickStore(log, other)
    for key in KEYS:
        store.add(key, [1, 2, 3], 1)
    before = {file: file.read_bytes() for file in (*store.path.rglob("*.label"), store.path / "sparse.yaml")}
    with pytest.raises(DataError, match=r"has the classes of 'other' .*; retrain a bundle with the classes of the clicks, or"):
        open_retrain_data(settings(place), toy)
    assert {file: file.read_bytes() for file in before} == before
    shutil.rmtree(log / "sparse")
    click(log, world / "night", KEYS)
    unlabelled = write(place / "unlabelled", 3, night=False, seed=4, labelled=False)
    with pytest.raises(DataError, match=r"no point of the regression set has a label in the classes of toy; name labelled scans"):
        open_retrain_data(settings(place, regression=unlabelled), toy)


def test_clicks_of_the_same_classes_with_other_raw_ids_are_understood_and_left_as_they_are(world: Path, place: Path) -> None:
    toy, log = Bundle.load(place / "models" / "toy"), place / "log"

    def renumbered(*raw: int) -> LabelMap:
        return LabelMap("mine", tuple(dataclasses.replace(row, raw_ids=(raw[row.id],)) for row in LABELS.classes))

    for ours, is_clear in ((renumbered(0, 101, 102, 103), True), (renumbered(0, 20, 30, 10), False)):
        shutil.rmtree(log / "sparse", ignore_errors=True)
        store = ClickStore(log, ours)
        for i, key in enumerate(KEYS):
            store.add(key, [1, 2, 3], 1 + i % 3)
        files = [*store.path.rglob("*.label"), store.path / "sparse.yaml"]
        before = [file.read_bytes() for file in files]
        if is_clear:
            data = open_retrain_data(settings(place, propagate=PropagateSettings(scans=1)), toy)
            for part in (data.new, data.held_out, data.around):
                assert part is not None
                found = {key[-6:]: set(np.unique(scan.class_id)) - {0} for key, scan in zip(part.keys, part, strict=True)}
                assert found
                assert all(found[key] == {1 + int(key) % 3} for key in found if key in KEYS)
        else:
            with pytest.raises(
                DataError, match=r"raw id 20 is 'low' in these labels and 'dark' .*; retrain a bundle with the classes"
            ):
                open_retrain_data(settings(place), toy)
        assert [file.read_bytes() for file in files] == before


def test_clicks_of_another_name_rejected_ones_and_no_folder_are_told(world: Path, place: Path) -> None:
    toy, log = Bundle.load(place / "models" / "toy"), place / "log"
    click(log, world / "night", KEYS[:2])
    store = ClickStore(log, LABELS)
    for key in KEYS[:2]:
        store.review(key, accepted=False)
    with pytest.raises(DataError, match=r"2 labelled scans were rejected in review, and no other one is labelled; mark them"):
        open_clicks(settings(place), toy, [])
    store.path.rename(store.path.with_name("anna"))
    with pytest.raises(DataError, match=r"log: has no clicks called 'clicks', but anna; name them with --clicks"):
        open_clicks(settings(place), toy, [])
    with pytest.raises(ConfigError, match="name: 'a/b' is no name of a folder"):
        settings(place, name="a/b")
    for wrong in (place / "absent", log / "manifest.yaml"):
        with pytest.raises(DataError, match=r"is no folder; give that of a log"):
            open_clicks(settings(place, frames=wrong), toy, [])


def test_what_is_learnt_is_not_judged_by_and_what_is_held_out_is_not_learnt(world: Path, place: Path) -> None:
    day = place / "day"
    shutil.copytree(world / "day", day)
    click(day, world / "day", KEYS)
    data = open_retrain_data(settings(place, frames=day, regression=day), Bundle.load(place / "models" / "toy"))

    def clouds(scans: ScanSet | None) -> set[bytes]:
        assert scans is not None
        return {scans[number].cloud.xyz.tobytes() for number in range(len(scans))}

    assert not clouds(data.regression) & clouds(data.new)
    assert not clouds(data.replay) & clouds(data.held_out)
    assert len(data.regression) == 10 - len(data.new)
    assert f"of the 10 scans of the regression set, {len(data.new)} with clicks that are learnt are left out" in data.problems[0]
    small = write(place / "small", 2, night=True, seed=2)
    click(place / "log", world / "night", KEYS)
    with pytest.raises(DataError, match=r"of the 2 scans of the regression set, 2 have clicks that are learnt, so nothing"):
        open_retrain_data(settings(place, regression=small), Bundle.load(place / "models" / "toy"))


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
