# SPDX-License-Identifier: Apache-2.0
"""Bags that lie elsewhere: the user's own command brings one to the machine that works on it, and it is removed afterwards."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weakseg_ros.data.ray_settings import as_given
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.files import scratch_folder


def fetched(work: Callable[[Path, str], dict[str, Any]], command: str) -> Callable[[Path, str], dict[str, Any]]:
    """`work`, with each bag fetched first; DataError where the command fails or brings nothing."""

    def work_on_fetched(bag: Path, name: str) -> dict[str, Any]:
        with scratch_folder("weakseg_bag") as folder:
            return work(_fetch(command, as_given(bag), folder), name)

    return work_on_fetched


def _fetch(command: str, bag: str, folder: Path) -> Path:
    """Where the bag lies after the command: the only thing in the folder, or the folder itself."""
    try:
        words = [word.replace("{bag}", bag).replace("{folder}", str(folder)) for word in shlex.split(command)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    except (OSError, ValueError) as error:
        raise ConfigError(f"fetch: '{command}' cannot be run ({error}); try it in a shell") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()[-1]
        raise DataError(f"{bag}: could not be fetched (exit code {done.returncode}: {said}); try the command in a shell")
    found = sorted(folder.iterdir())
    if not found:
        raise DataError(f"{bag}: the command succeeded but copied nothing to {{folder}}; try it in a shell")
    return found[0] if len(found) == 1 else folder
