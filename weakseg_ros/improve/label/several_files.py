# SPDX-License-Identifier: Apache-2.0
"""Several files of one folder that change in one step: a kill leaves all of them as they were, or none.

The new files are prepared in a folder aside, which gets its name `.together` once they are all on the disk. From then on the
step counts as done: whoever has the next turn at the folder moves what has not been moved yet.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from weakseg_ros.errors import DataError
from weakseg_ros.files import inside, put_in_place, staged
from weakseg_ros.half_written import remove
from weakseg_ros.reads import read_json

TOGETHER, STEPS = ".together", "steps.json"


def prepare(folder: Path, files: Mapping[str, bytes], removed: Sequence[str]) -> None:
    """Write files aside, by their names below `folder`, and say which are to be removed. OSError leaves all as it was."""
    with staged(folder / TOGETHER) as fresh:
        for number, content in enumerate(files.values()):
            (fresh / str(number)).write_bytes(content)
        (fresh / STEPS).write_text(json.dumps({"files": list(files), "removed": list(removed)}, ensure_ascii=False))
        put_in_place(fresh, folder / TOGETHER)


def finish(folder: Path) -> None:
    """Put in place what was prepared, in its order, and remove what is to be removed; nothing where nothing is prepared."""
    ready = folder / TOGETHER
    if not ready.is_dir():
        return
    if (ready / STEPS).is_file():  # without it all is done, and a kill came while the folder was removed
        files, removed = _steps(ready)
        for number, name in enumerate(files):
            if (ready / str(number)).is_file():
                target = inside(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(ready / str(number), target)
        for name in removed:
            inside(folder, name).unlink(missing_ok=True)
    remove(ready)


def _steps(ready: Path) -> tuple[list[str], list[str]]:
    """(names of the prepared files, names to remove); DataError where the list is damaged."""
    try:
        steps = read_json(ready / STEPS)
        return [str(name) for name in steps["files"]], [str(name) for name in steps["removed"]]
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{ready}: is damaged; remove this folder, and the last step over several scans is lost") from None
