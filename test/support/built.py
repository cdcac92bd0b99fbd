# SPDX-License-Identifier: Apache-2.0
"""Folders that take seconds to build, built once for all processes that share the tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """The folder of this name that `build` fills; read it, do not change it.

    The first process that asks builds it while the others wait, so that its content may depend on nothing but `build`.
    """
    base = factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / f"built_{name}"
    whole = folder.with_suffix(".whole")
    with FileLock(folder.with_suffix(".lock")):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a build that failed has left
            folder.mkdir()
            build(folder)
            whole.touch()
    return folder
