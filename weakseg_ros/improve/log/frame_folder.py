# SPDX-License-Identifier: Apache-2.0
"""The frame log as it is read: whole frames, what the model saw in them and where they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data import scan_files
from weakseg_ros.data.arrays import load_array
from weakseg_ros.data.frame_log import (
    FrameRecord,
    FrameScans,
    Suggestion,
    part_path,
    read_records,
)
from weakseg_ros.errors import DataError
from weakseg_ros.points.labels import instances_in
from weakseg_ros.reads import read_json

SESSIONS = "sessions"


class FrameFolder:
    """A frame log, as it was at the moment of opening; `problems` says which entries were not whole.

    Raises DataError where there is no log, or no whole frame in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []
        self._origins: dict[str, str] = {}
        self._records = read_records(folder, self.problems)
        self.scans = FrameScans(folder, records=self._records)
        self.frames = sorted(self._records.values(), key=lambda record: (-record.score, record.key))

    def __len__(self) -> int:
        return len(self.frames)

    def record(self, key: str) -> FrameRecord:
        """The record of a frame; DataError where the log has no such frame."""
        if key not in self._records:
            raise DataError(
                f"{self.folder}: has no frame '{key}'; it may have been replaced by a more valuable one, open it again"
            )
        return self._records[key]

    def origin(self, key: str) -> str:
        """The bag or data set, or the node, that a frame comes from, as its session tells."""
        session = key.partition("_")[0]
        if session not in self._origins:
            self._origins[session] = _origin(self.folder / SESSIONS / session)
        return self._origins[session]

    def suggestions(self, key: str) -> list[Suggestion]:
        """The points most worth a click, the best first."""
        return list(self.record(key).suggestions)

    def prediction(self, key: str) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """(N,) class ids and (N,) instances that the model saw, 0 = none."""
        raw = scan_files.read_raw_labels(part_path(self.folder, "predictions", key), self.record(key).points)
        return self.scans.labels.to_class(raw), instances_in(raw)

    def uncertainty(self, key: str) -> NDArray[np.float32]:
        """(N,) the model's calibrated entropy, 0..1."""
        path, count = part_path(self.folder, "uncertainty", key), self.record(key).points
        try:
            values = load_array(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); remove the frame, or copy it again") from None
        if values.shape != (count,) or values.dtype != np.float16:
            raise DataError(f"{path}: holds {values.dtype} {values.shape}, expected float16 ({count},); copy it again")
        entropy: NDArray[np.float32] = values.astype(np.float32)
        return entropy


def open_frames(folder: Path | str) -> FrameFolder:
    """The frames that a log holds now, the most valuable first; nothing is written. Raises DataError."""
    path = Path(folder)
    if not FrameScans.recognises(path):
        raise DataError(f"{path}: is not a frame log; name the folder given to the node as 'log_folder', or to 'weakseg select'")
    return FrameFolder(path)


def _origin(session: Path) -> str:
    """The name of the data that the facts of a session tell; empty where they tell none."""
    try:
        return Path(read_json(session)["config"]["data"]).name
    except (OSError, ValueError, KeyError, TypeError):
        return ""
