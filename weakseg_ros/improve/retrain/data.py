# SPDX-License-Identifier: Apache-2.0
"""What a retraining learns from and is judged by: new clicks, old scans, and scans that it must not get worse on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weakseg_ros.data.findings import some
from weakseg_ros.data.frame_log import FrameScans, read_records
from weakseg_ros.data.scan_sets import Scan, ScanCollection, ScanSet, Subset, readable
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import DataError, WeaksegError, counted
from weakseg_ros.files import inside
from weakseg_ros.improve.label.clicks import open_as_clicked
from weakseg_ros.improve.retrain.config import RetrainConfig
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.finetune import ModelScans, commands_of, training_of
from weakseg_ros.train.training_data import moved_labels, open_data
from weakseg_ros.weak.changed_map import follow
from weakseg_ros.weak.sparse_labels import RECORD, PartlyLabelled, hash_of_points, is_clicked

FEWEST_FRAMES = 2


@dataclass(frozen=True)
class RetrainData:
    """Everything is in the bundle's classes."""

    new: ModelScans
    """clicked frames to train on"""
    held_out: ModelScans
    """clicked frames to report on"""
    replay: ModelScans | None
    """some of what the bundle was trained on"""
    regression: ModelScans
    """what it must not get worse on"""
    training: TrainConfig
    """what the bundle was trained with, its data where they are now"""
    clicks: int
    """labelled points in `new`"""
    held_out_clicks: int
    problems: tuple[str, ...]
    """one sentence for each frame or label file that was left out, and for what is not as it should be"""
    around: ModelScans | None = None
    """`new` among the other frames of its logs, none of them held out, in the order of recording; None where no label is
    propagated to those"""

    def summary(self) -> dict[str, Any]:
        """Plain facts for a report."""
        sets = {"new": self.new, "held_out": self.held_out, "replay": self.replay, "regression": self.regression}
        named = {
            name: {"name": scans.name, "hash": scans.content_hash, "scans": len(scans)} if scans is not None else None
            for name, scans in sets.items()
        }
        keys = list(self.held_out.keys)
        clicks = {"clicks": self.clicks, "held_out_clicks": self.held_out_clicks}
        return {**named, **clicks, "held_out_frames": keys, "problems": list(self.problems)}


def open_retrain_data(config: RetrainConfig, bundle: Bundle) -> RetrainData:
    """Open and check all of it. Raises DataError where nothing can be trained on or judged by, with what to do."""
    problems: list[str] = []
    new, held_out, around = open_clicks(config, bundle, problems)
    clicks, held_out_clicks = _count(new), _count(held_out)
    training = _training(config, bundle)
    old, validated_on = (None, None)
    if not config.no_replay or config.regression is None:
        old, validated_on = _open_old(config, bundle, training, problems)
    replay = None
    if old is not None and not config.no_replay:
        replay = _as_seen(_drawn(_without(old, held_out), config.replay_scans, config.seed), bundle)
    regression = _regression(config, bundle, validated_on, new, problems)
    return RetrainData(new, held_out, replay, regression, training, clicks, held_out_clicks, tuple(problems), around)


class ClickedFrames(NamedTuple):
    """What was clicked, as `RetrainData` holds it."""

    new: ModelScans
    held_out: ModelScans
    around: ModelScans | None


def open_clicks(config: RetrainConfig, bundle: Bundle, problems: list[str]) -> ClickedFrames:
    """The frames to train on and those held out, of the log or logs and of those that the bundle was retrained on before.

    Frames that cannot be used (labels for another cloud, unknown ids, damaged files) are left out, and listed.
    """
    train: list[tuple[str, ScanSet]] = []
    held: list[tuple[str, ScanSet]] = []
    among: list[tuple[str, ScanSet]] = []
    usable = 0
    fresh = logs_in(config.frames)
    logs = [*((log, config.intensity_scale) for log in fresh), *_logs_before(fresh, bundle, problems)]
    for number, (folder, factor) in enumerate(logs):
        try:
            scans = _usable(folder, bundle, config.clicks, problems)
        except WeaksegError as error:
            if len(fresh) == 1 and not number:
                raise
            before = ", learnt from before," if number >= len(fresh) else ""
            problems.append(f"{error}; its clicks{before} are left out")
            continue
        inside, outside = split_by_name(scans.keys, config.held_out)
        name = f"{number}-{folder.name}"
        chosen = [(Subset(scans, inside), train), (Subset(scans, outside), held)]
        if config.propagate.scans:
            unheld = _among_others(Subset(scans, inside), folder, {scans.keys[i] for i in outside}, bundle)
            chosen.append((Subset(unheld, list(range(len(unheld)))), among))
        for frames, parts in chosen:
            if len(frames):
                parts += [(name, part) for part in _as_robot_saw(frames, folder, factor, bundle)]
        usable += number < len(fresh)
    if not usable:
        raise DataError(f"{config.frames}: none of the {len(fresh)} logs in it has usable clicks ({problems[0]})")
    names = ("clicks to train on", "clicks held out", "clicks among other frames")
    new, held_out, around = (
        ModelScans(ScanCollection(name, parts), bundle.info) if parts else None
        for name, parts in zip(names, (train, held, among), strict=True)
    )
    assert new is not None
    assert held_out is not None
    return ClickedFrames(new, held_out, around)


def split_by_name(keys: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """(kept, held out) indices: by a hash of each name, so that a frame stays on its side however many are added.

    Each side gets at least one where there are two.
    """
    draws = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64 for key in keys]
    held = {i for i, draw in enumerate(draws) if draw < share}
    order = sorted(range(len(keys)), key=draws.__getitem__)
    if len(keys) >= FEWEST_FRAMES:
        held = (held | {order[0]}) - {order[-1]}
    return [i for i in range(len(keys)) if i not in held], sorted(held)


def logs_in(folder: Path) -> list[Path]:
    """The logs that lie in a folder, one for each robot, by name; the folder itself where it is one or holds none."""
    if _is_log(folder) or not folder.is_dir():
        return [folder]
    return sorted(filter(_is_log, folder.iterdir())) or [folder]


def _is_log(folder: Path) -> bool:
    return FrameScans.recognises(folder) or (folder / "sparse").is_dir()


def _logs_before(fresh: Sequence[Path], bundle: Bundle, problems: list[str]) -> list[tuple[Path, float]]:
    """The logs that the bundle's provenance names, besides the fresh ones, each with the factor on its intensity."""
    logs: list[tuple[Path, float]] = []
    for words in commands_of(bundle.info)[1:]:
        options = dict(pairwise(words))
        if "--frames" not in options:
            continue
        folder, factor = Path(options["--frames"]), float(options.get("--intensity-scale", 0.0))
        if not folder.is_dir():
            problems.append(f"{folder}: no longer exists, so its clicks, used in an earlier retraining, are left out")
            continue
        for log in logs_in(folder):
            if all(log.resolve() != known.resolve() for known in (*fresh, *(known for known, _ in logs))):
                logs.append((log, factor))
    return logs


def _usable(folder: Path, bundle: Bundle, name: str, problems: list[str]) -> ScanSet:
    """The clicked frames of a log that can be read and fit their labels."""
    if not inside(folder / "sparse", name).is_dir():
        raise DataError(_no_clicks(folder, name))
    store = open_as_clicked(folder, bundle.labels, name)
    advice = f"retrain a bundle with the classes of the clicks, or click with those of {bundle.name}"
    gone = follow(store.record, bundle.labels, str(store.path), advice).gone
    if gone:
        raise DataError(f"{store.path}: {bundle.name} has no class {'; '.join(gone.values())}; {advice}")
    files = sorted(file.relative_to(store.path).as_posix() for file in store.path.rglob("*.label"))
    for file in files:
        key = file.removesuffix(".label")
        try:
            if not store.count(key):
                problems.append(f"{store.path / file}: holds no labelled point; the frame is left out")
        except DataError as error:
            problems.append(f"{error}; the frame is left out")
    scans = store.labelled_scans(bundle.labels)
    good = []
    for index in range(len(scans)):
        try:
            good += [index] if _labelled_points(scans[index]) else []
        except DataError as error:
            problems.append(f"{error}; the frame is left out")
    if len(good) < FEWEST_FRAMES:
        why = f" ({problems[0]})" if problems else ""
        raise DataError(
            f"{folder}: {counted(len(good), 'frame has', 'frames have')} usable clicks{why}; at "
            f"least {FEWEST_FRAMES} are needed, one of them for "
            f"evaluation: label more with 'weakseg label {folder}'"
        )
    return Subset(scans, good)


def _no_clicks(folder: Path, name: str) -> str:
    """What to do about a folder that has no clicks of this name."""
    if not folder.is_dir():
        return f"{folder}: is no folder; give that of a log, of scans, or of several of them with --frames"
    clicked = [path.parent.name for path in sorted(folder.glob(f"sparse/*/{RECORD}")) if is_clicked(path.parent)]
    if clicked:
        return f"{folder}: has no clicks called '{name}', but {some(clicked)}; name them with --clicks"
    return f"{folder}: it has no labels yet; click some points with 'weakseg label {folder}'"


def _among_others(clicked: Subset, folder: Path, held: set[str], bundle: Bundle) -> ScanSet:
    """Clicked frames among all frames of their log that can be read, but for those held out; the others have no labels."""
    whole = open_scans(folder, labels=bundle.labels)
    frames = Subset(whole, [number for number, _ in readable(whole, []) if whole.keys[number] not in held])
    place = {key: number for number, key in enumerate(frames.keys)}
    return PartlyLabelled(frames, clicked, [place[key] for key in clicked.keys])


def _training(config: RetrainConfig, bundle: Bundle) -> TrainConfig:
    """The bundle's training settings, with the data where this retraining's settings say they are."""
    training = training_of(bundle.info) or TrainConfig(data=Path())
    if config.replay is not None:
        training = dataclasses.replace(training, data=config.replay)
    if training.sparse_labels is not None:
        labels = config.replay_labels or moved_labels(training.sparse_labels, training.data)
        training = dataclasses.replace(training, sparse_labels=labels)
    elif config.replay_labels is not None:
        training = dataclasses.replace(training, sparse_labels=config.replay_labels)
    return training


def _open_old(
    config: RetrainConfig, bundle: Bundle, training: TrainConfig, problems: list[str]
) -> tuple[ScanSet | None, ScanSet | None]:
    """(what the bundle was trained on, what it was validated on)."""
    if training.data == Path():
        raise DataError(
            f"{bundle.folder}: does not say what it was trained on; name such data with --replay and --regression, "
            "or train without it: --no-replay --regression DATA"
        )
    if not training.data.exists():
        raise DataError(
            f"{bundle.folder}: was trained on {training.data}, which does not exist here; give its path with --replay, "
            "or train without it: --no-replay --regression DATA"
        )
    needed = training
    if config.regression is not None:
        apart = training.val_data or training.val_split or training.val_sequences
        share = 0.0 if apart else training.hold_out
        needed = dataclasses.replace(training, val_data=None, val_split="", val_sequences=(), hold_out=share)
    if needed.val_data is not None and not needed.val_data.exists():
        raise DataError(
            f"{bundle.folder}: was validated on {needed.val_data}, which does not exist here; name data with --regression"
        )
    scans, validated_on = open_data(needed, bundle.labels if training.label_map else None)  # its file may be another by now
    known = bundle.info.provenance.data_hash
    if config.regression is None and known and known != scans.content_hash:
        problems.append(f"{training.data}: is not, or not in every scan, what the bundle was trained on")
    return scans, validated_on


def _regression(
    config: RetrainConfig, bundle: Bundle, validated_on: ScanSet | None, new: ScanSet, problems: list[str]
) -> ModelScans:
    """The fixed set that the new bundle must not get worse on, without the frames whose clicks it learns."""
    if config.regression is not None:
        scans: ScanSet | None = open_scans(config.regression, config.regression_split, bundle.labels)
    else:
        scans = validated_on
    if scans is None:
        raise DataError(f"{bundle.folder}: was trained without validation scans; name labelled scans with --regression")
    if config.regression_scans and len(scans) > config.regression_scans:
        chosen = np.unique(np.linspace(0, len(scans) - 1, config.regression_scans).round().astype(int))
        scans = Subset(scans, chosen.tolist())
    apart = _without(scans, new)
    if len(apart) < len(scans):
        these = f"{scans.name}: of the {counted(len(scans), 'scan')} of the regression set, {len(scans) - len(apart)}"
        if not len(apart):
            raise DataError(f"{these} have clicks that are learnt, so nothing is left to judge by; name others with --regression")
        problems.append(f"{these} with clicks that are learnt are left out")
    scans = apart
    if not any(_labelled_points(scans[number]) for number in range(len(scans))):  # a gate without truth would let all pass
        fault = f"{scans.name}: no point of the regression set has a label in the classes of {bundle.name}"
        raise DataError(f"{fault}; name labelled scans with --regression")
    return _as_seen(scans, bundle)


def _as_robot_saw(frames: Subset, folder: Path, factor: float, bundle: Bundle) -> list[ModelScans]:
    """Frames with the intensity that their records tell; `factor` (0 = none) is for those whose records tell nothing."""
    records = read_records(folder, []) if factor and FrameScans.recognises(folder) else {}
    told: tuple[list[int], list[int]] = ([], [])
    for index, key in zip(frames.indices, frames.keys, strict=True):
        told[key in records and records[key].intensity_scale > 0.0].append(index)
    return [
        _as_seen(Subset(frames.parent, indices), bundle, scale)
        for indices, scale in zip(told, (factor, 0.0), strict=True)
        if indices
    ]


def _as_seen(scans: ScanSet, bundle: Bundle, intensity_scale: float = 0.0) -> ModelScans:
    if not scans.labels.same_classes_as(bundle.labels):
        raise DataError(
            f"{scans.name}: has the classes of '{scans.labels.name}', the bundle {bundle.name} those of "
            f"'{bundle.labels.name}'; give data of the bundle's classes"
        )
    return ModelScans(scans, bundle.info, intensity_scale)


def _without(scans: ScanSet, others: ScanSet) -> ScanSet:
    """The scans whose points are not those of a scan of the others."""
    known = {hash_of_points(others[number].cloud) for number in range(len(others))}
    return Subset(scans, [number for number in range(len(scans)) if not _is_among(scans, number, known)])


def _is_among(scans: ScanSet, number: int, known: Collection[str]) -> bool:
    try:
        return hash_of_points(scans[number].cloud) in known
    except DataError:
        return False  # whoever reads it next says so


def _drawn(scans: ScanSet, count: int, seed: int) -> ScanSet:
    if len(scans) <= count:
        return scans
    return Subset(scans, sorted(np.random.default_rng(seed).choice(len(scans), count, replace=False).tolist()))


def _count(scans: ScanSet) -> int:
    return sum(_labelled_points(scans[i]) for i in range(len(scans)))


def _labelled_points(scan: Scan) -> int:
    return 0 if scan.class_id is None else int(np.count_nonzero(scan.class_id))
