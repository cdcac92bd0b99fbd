# SPDX-License-Identifier: Apache-2.0
"""Where a bundle lies: a path, or the name of one that is shipped with the package."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from weakseg_ros.errors import BundleError, DataError, WeaksegError, shortened
from weakseg_ros.files import share_folder, users_path
from weakseg_ros.registry import DEFAULT_BUNDLE

INFO_FILE = "bundle.yaml"
LONGEST_NAME = 200
"""characters of a name that are told"""
CURRENT = "current"
"""name of the link to the deployed bundle"""
FOREIGN_FILES = ("arch_cfg.yaml", "data_cfg.yaml", "backbone", "segmentation_decoder", "segmentation_head")
"""what model folders of lidar-bonnetal and its kin hold"""


def find_bundle(where: Path | str) -> Path:
    """The bundle folder that a user's text means: a path, or the name of a bundle shipped with the package.

    `street`, `models/street` and `/home/me/models/yard` all work; a path relative to the working folder wins. A link
    (`models/current`) is followed here, once, so that all is read from one bundle even where it is changed meanwhile.
    Raises BundleError where there is none.
    """
    try:
        text = users_path(where)
    except DataError as error:
        raise BundleError(str(error)) from None
    candidates = [text]
    if not text.is_absolute():
        with contextlib.suppress(WeaksegError):  # no share folder: only the path itself counts
            candidates += [share_folder() / text, share_folder() / "models" / text]
    name = shortened(str(where), LONGEST_NAME) or "''"
    try:
        for folder in candidates:
            if (folder / INFO_FILE).is_file():
                return folder.resolve()
    except OSError as error:
        raise BundleError(f"{name}: {error.strerror}; give the folder that 'weakseg export' wrote") from None
    if text.name == CURRENT and not text.exists():
        raise BundleError(
            f"{where}: {_undeployed(text)}; deploy one, e.g. 'weakseg promote {DEFAULT_BUNDLE}', or name its folder"
        )
    raise BundleError(
        f"{name}: {_what_it_is(text)}; give the folder that 'weakseg export' wrote, or the name of a shipped bundle"
    )


def _undeployed(pointer: Path) -> str:
    return f"leads to {os.readlink(pointer)}, which no longer exists" if pointer.is_symlink() else "no bundle is deployed here"


def _what_it_is(place: Path) -> str:
    """Why a place holds no bundle, in words: people give checkpoints and models of other projects."""
    if place.is_file():
        other = (
            "an ONNX file alone does not describe its classes and input"
            if place.suffix == ".onnx"
            else "a checkpoint is for 'train --init'"
        )
        return f"is a file, a bundle is a folder ({other})"
    if not place.is_dir():
        return "there is no such folder"
    foreign = sorted(file.name for file in place.iterdir() if file.suffix == ".onnx" or file.name in FOREIGN_FILES)
    return f"holds no {INFO_FILE}" + (f", but {', '.join(foreign)}: a model of another project" if foreign else "")
