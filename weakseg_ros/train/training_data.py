# SPDX-License-Identifier: Apache-2.0
"""What the settings of a training choose from its data: scans to train on and to validate on, labels, range image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from weakseg_ros.batches.batches import LabelsOf
from weakseg_ros.data.scan_sets import ScanSet, Subset, holdout
from weakseg_ros.data.scans import open_scans, open_splits, splits_of
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.weak.pieces import PieceScans
from weakseg_ros.weak.propagate import PropagatedScans, RelabelledScans, reached_scans
from weakseg_ros.weak.protocols import draw_scan
from weakseg_ros.weak.sparse_labels import sparse_scans


def open_data(config: TrainConfig, labels: LabelMap | None = None) -> tuple[ScanSet, ScanSet | None]:
    """(training scans, validation scans or None), as the settings say; only the former have sparse labels.

    `labels` are the classes in place of those that the settings name: those of a run that has begun. No scan is in both:
    where the settings do not name those to train on, it is left to validation, else ConfigError.
    """
    config = with_own_split(config)
    classes = labels or config.label_map
    if config.val_data or config.val_split or config.val_sequences:
        train = open_scans(config.data, config.split, classes, config.sequences)
        val = open_scans(config.val_data or config.data, config.val_split, classes or train.labels, config.val_sequences)
        return _with_sparse_labels(config, _without_validation(config, train, val)), val
    if config.hold_out and not config.split and not config.sequences:
        train, val = open_splits(config.data, config.hold_out, classes or None)
    else:
        train = open_scans(config.data, config.split, classes, config.sequences)
        if not config.hold_out:
            return _with_sparse_labels(config, train), None
        train, val = holdout(train, config.hold_out)
    return _with_sparse_labels(config, train), val


def with_own_split(config: TrainConfig) -> TrainConfig:
    """The settings; where they name a part of the data to validate on and none to train on, with the data's own `train`."""
    apart = config.val_data or config.val_split or config.val_sequences
    if not apart or config.split or config.sequences or not _val_folder(config).is_relative_to(config.data.resolve()):
        return config
    return dataclasses.replace(config, split="train") if "train" in splits_of(config.data) else config


def _val_folder(config: TrainConfig) -> Path:
    return (config.val_data or config.data).resolve()


def _without_validation(config: TrainConfig, train: ScanSet, val: ScanSet) -> ScanSet:
    """The training scans that are not validated on; see `open_data`."""
    folder = _val_folder(config)
    number = {key: i for i, key in enumerate(train.keys)}
    if not folder.is_relative_to(config.data.resolve()):
        return train
    for prefix in ("", f"{config.val_split or folder.name}/"):  # a part opened alone has shorter keys than in the whole
        shared = [(number[prefix + key], i) for i, key in enumerate(val.keys) if prefix + key in number]
        if shared and np.array_equal(train[shared[0][0]].cloud.xyz, val[shared[0][1]].cloud.xyz):  # not of like names alone
            break
    else:
        return train
    kept = sorted(set(range(len(train))) - {ours for ours, _ in shared})
    if config.split or config.sequences or not kept:
        fault = (
            f"{len(shared)} of the {len(val)} validation scans are also training scans (the first: {train.keys[shared[0][0]]})"
        )
        raise ConfigError(f"{config.data}: {fault}; name other scans with split, sequences, val_split or val_sequences")
    return Subset(train, kept, f"{train.name} (kept)")


def _with_sparse_labels(config: TrainConfig, scans: ScanSet) -> ScanSet:
    if config.sparse_labels is None:
        return scans
    folder = moved_labels(config.sparse_labels, config.data)
    return sparse_scans(scans, folder, unlabelled=bool(config.propagate.scans))


def moved_labels(folder: Path, data: Path) -> Path:
    """Where sparse labels are now: in their folder, or, where the data were moved with them, in that of the same name there."""
    there = data / "sparse" / folder.name
    return there if not folder.is_dir() and there.is_dir() else folder


def with_propagated_labels(config: TrainConfig, scans: ScanSet) -> ScanSet:
    """The training scans with the labels that follow from those given, as the settings ask for: through time, then over pieces.

    Scans that no label reaches through time are left out.
    """
    if not follow_from_others(config):
        return scans
    scans = RelabelledScans(scans, labels_of(config, scans))
    if config.propagate.scans:
        scans = reached_scans(PropagatedScans(scans, config.propagate))
    return PieceScans(scans, config.pieces) if config.pieces.reach_m else scans


def follow_from_others(config: TrainConfig) -> bool:
    """Whether some labels are not given but follow from others, so that each has a weight."""
    return bool(config.propagate.scans or config.pieces.reach_m)


def labels_of(config: TrainConfig, scans: ScanSet) -> LabelsOf:
    """Which labels of a scan are trained on: all it has, or those that the settings draw from them."""
    if config.draw.protocol == "full":
        return lambda scan: scan.class_id
    return lambda scan: scan.class_id if scan.label_weight is not None else draw_scan(scan, scans.labels, config.draw).class_id


def image_spec(config: TrainConfig, scans: ScanSet) -> RangeSpec:
    """The range image to train on: the data's own, or its field of view at another size."""
    own = scans.spec
    asked: dict[str, float | None] = {"height": config.height or None, "width": config.width or None}
    asked |= {"fov_up_deg": config.fov_up_deg, "fov_down_deg": config.fov_down_deg}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value not in (None, getattr(own, name))}
    if own.rows == "grid" and changes:
        raise ConfigError(
            f"{', '.join(changes)}: {scans.name} uses the sensor's fixed grid of {own.height} x {own.width}; leave them out"
        )
    return dataclasses.replace(own, **changes)
