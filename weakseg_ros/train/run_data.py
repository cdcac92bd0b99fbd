# SPDX-License-Identifier: Apache-2.0
"""The data of a run that has begun, in the classes that it began with, whatever became of its label map's file since."""

from __future__ import annotations

from weakseg_ros.config import load_yaml
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.data.side_files import say_once
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.run_folder import CONFIG, LABELS, RunFolder
from weakseg_ros.train.training_data import follow_from_others, open_data


def open_run_data(run: RunFolder) -> tuple[ScanSet, ScanSet | None]:
    """(training scans, validation scans or None) of a run, as `open_data` has them.

    Says where they are other scans by now. Raises DataError where they are gone, with what to do.
    """
    config = load_yaml(TrainConfig, run.path / CONFIG)
    for name in ("data", "val_data"):
        folder = getattr(config, name)
        if folder is not None and not folder.exists():
            raise DataError(
                f"{run.path}: was trained with {folder}, which does not exist here; put the data or a link to them there, or "
                f"write their path into {run.path / CONFIG} ({name})"
            )
    train_scans, val_scans = open_data(config, classes_of_run(run, config))
    known = run.environment().get("data", {}).get("hash")
    if known and not follow_from_others(config) and train_scans.content_hash != known:
        say_once(
            f"{config.data}: does not hold the scans that the run in {run.path} was trained on; the confidence may be calibrated "
            "on scans that the net has learnt"
        )
    return train_scans, val_scans


def classes_of_run(run: RunFolder, config: TrainConfig) -> LabelMap:
    """The classes that a run learns; says where the file that it has them from means others by now."""
    labels = load_yaml(LabelMap, run.path / LABELS)
    if config.label_map and not _still_means(config.label_map, labels):
        say_once(
            f"label_map: {config.label_map} is not what it was when the run in {run.path} was started, which keeps its classes "
            f"({LABELS}); start a new run for others"
        )
    return labels


def _still_means(label_map: str, labels: LabelMap) -> bool:
    try:
        return LabelMap.load(label_map).same_classes_as(labels)
    except ConfigError:
        return False
