# SPDX-License-Identifier: Apache-2.0
"""A disk that fills up."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount, folder = shutil.which("mount"), tmp_path / "disk"
    folder.mkdir()
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, check=False)
    if not made or made.returncode:
        pytest.skip("mounting a tmpfs of 4 MiB takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
