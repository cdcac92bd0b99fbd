# SPDX-License-Identifier: Apache-2.0
"""Output folders are checked before a training starts: hours of work must not end at a place that cannot be written."""

from __future__ import annotations

import logging
import os
from itertools import count
from pathlib import Path

from weakseg_ros.deploy.bundle_place import INFO_FILE
from weakseg_ros.errors import ConfigError
from weakseg_ros.files import check_can_write, sweep
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.run_folder import RunFolder

log = logging.getLogger(__name__)


def check_outputs(config: TrainConfig) -> None:
    """Raise DataError or ConfigError where a training's run folder or bundle cannot be written, or something is there."""
    if not config.resume:
        RunFolder(config.out).check_free()
    check_can_write(config.out, "--out")
    if config.out_bundle is not None:
        check_bundle_place(config.out_bundle, config.overwrite, "--out-bundle")


def check_bundle_place(folder: Path, overwrite: bool, option: str) -> None:
    """Raise ConfigError where a bundle must not be written to `folder`, DataError where it cannot; `option` names the setting."""
    sweep(folder)
    if folder.is_symlink():
        target = os.readlink(folder)
        raise ConfigError(
            f"{folder}: is a link (to {target}), which nodes may follow, and links are never replaced; name another folder with "
            f"{option} and deploy it with 'weakseg promote'"
        )
    if (folder / INFO_FILE).is_file() and not overwrite:
        raise ConfigError(f"{folder}: already holds a bundle; name another folder with {option}, or add --overwrite")
    if folder.exists() and not (folder / INFO_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists and is not a bundle; name another folder with {option}")
    check_can_write(folder, option)


def still_free(folder: Path, overwrite: bool) -> Path:
    """Where a finished bundle goes: `folder`, or beside it where another process wrote one there since `check_bundle_place`.

    Neither that one nor the work that led to this one is lost.
    """
    if overwrite or not (folder / INFO_FILE).is_file():
        return folder
    places = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    other = next(place for place in places if not os.path.lexists(place))
    log.warning("%s: another process wrote a bundle there meanwhile, so this one goes to %s", folder, other)
    return other
