# SPDX-License-Identifier: Apache-2.0
"""Predictions on disk, one file for each scan: SemanticKITTI's .label, .pcd, .ply, .las, .npy; and what its server takes."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_files import read_raw_labels
from weakseg_ros.errors import DataError
from weakseg_ros.extras import need
from weakseg_ros.files import make_folder, staged, write_atomic
from weakseg_ros.points.labels import RAW_IDS, LabelMap, instances_in, raw_ids_in

SERVER_SEQUENCES = tuple(f"{number:02d}" for number in range(11, 22))
"""SemanticKITTI's test set"""
ZIP = "submission.zip"


class Predicted(NamedTuple):
    """What is written of one scan; N values each."""

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32]
    raw: NDArray[np.uint32]
    """raw id in the low 16 bits, number of the object above"""
    class_id: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    """(N, 3) colours of the classes"""


def label_path(key: str) -> Path:
    """Where the server wants the labels of a scan: sequences/NN/predictions/KEY.label; predictions/KEY.label of one recording."""
    recording, _, name = key.rpartition("/")
    return Path(*(["sequences", recording] if recording else []), "predictions", f"{name}.label")


class PredictionFolder:
    """A folder of predictions in one format (a key of FORMATS); a file in it is whole, or the one that was there before."""

    def __init__(self, out: Path, kind: str) -> None:
        self._out, self._kind = out, kind
        self._made: set[Path] = set()

    def write(self, key: str, predicted: Predicted) -> Path:
        """Write one scan's file; returns its path."""
        path = self._out / (label_path(key) if self._kind == "semantickitti" else Path(f"{key}.{self._kind}"))
        if path.parent not in self._made:
            make_folder(path.parent)
            self._made.add(path.parent)
        write_atomic(path, FORMATS[self._kind](predicted))
        return path


def server_ids(labels: LabelMap) -> NDArray[np.uint16]:
    """(65536,) the raw id that the server knows for each raw id of a bundle's classes.

    Raises DataError where a class has no raw id of SemanticKITTI.
    """
    official = LabelMap.load("semantickitti")
    raw = labels.to_raw(np.arange(labels.num_classes))
    known = official.to_class(raw.astype(np.uint32))
    strange = [labels.names[k] for k in range(1, labels.num_classes) if not known[k]]
    if strange:
        listed = ", ".join(strange)
        raise DataError(f"submission: SemanticKITTI's server has no class for {listed}; use a bundle with its classes")
    table = np.zeros(RAW_IDS, np.uint16)
    table[raw] = official.to_raw(known)
    return table


def check_submission(out: Path, points: Mapping[str, int]) -> list[str]:
    """Read back what was written for the scans `points` (number of points by key) and pack it; sentences on what is not due.

    Raises DataError for a file that is missing or wrong, and for scans that are in no sequence.
    """
    stray = [key for key in points if not key.rpartition("/")[0].isdecimal()]
    if stray:
        raise DataError(
            f"submission: scan '{stray[0]}' does not belong to a sequence; give SemanticKITTI's folder, which holds sequences/"
        )
    allowed = LabelMap.load("semantickitti")
    known = np.isin(np.arange(RAW_IDS), allowed.to_raw(np.arange(allowed.num_classes)))
    for key, count in points.items():
        raw = raw_ids_in(read_raw_labels(out / label_path(key), count))
        if not known[raw].all():
            raise DataError(f"{out / label_path(key)}: holds the raw id {raw[~known[raw]][0]}, which the server does not know")
    with staged(out / ZIP) as fresh:
        with zipfile.ZipFile(fresh / ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
            for key in points:
                archive.write(out / label_path(key), label_path(key).as_posix())
        os.replace(fresh / ZIP, out / ZIP)
    present = {key.rpartition("/")[0] for key in points}
    missing = [name for name in SERVER_SEQUENCES if name not in present]
    return [f"the server expects the sequences 11 to 21; these are missing: {', '.join(missing)}"] if missing else []


def _label(predicted: Predicted) -> bytes:
    return predicted.raw.astype("<u4").tobytes()


def _npy(predicted: Predicted) -> bytes:
    file = io.BytesIO()
    np.save(file, predicted.raw.astype("<u4"))
    return file.getvalue()


COLUMNS = (
    ("x", "<f4", "float"),
    ("y", "<f4", "float"),
    ("z", "<f4", "float"),
    ("intensity", "<f4", "float"),
    ("label", "<u2", "ushort"),
    ("instance", "<u2", "ushort"),
    ("confidence", "<f4", "float"),
    ("uncertainty", "<f4", "float"),
)


def _rows(predicted: Predicted, more: Sequence[tuple[str, str]] = ()) -> NDArray[np.void]:
    rows = np.zeros(len(predicted.raw), [(name, kind) for name, kind, _ in COLUMNS] + list(more))
    rows["x"], rows["y"], rows["z"] = predicted.xyz.T
    rows["intensity"], rows["confidence"], rows["uncertainty"] = predicted.intensity, predicted.confidence, predicted.uncertainty
    rows["label"], rows["instance"] = raw_ids_in(predicted.raw), instances_in(predicted.raw)
    return rows


def _pcd(predicted: Predicted) -> bytes:
    rows = _rows(predicted)
    kinds = [np.dtype(kind) for _, kind, _ in COLUMNS]
    lines = [
        "VERSION 0.7",
        "FIELDS " + " ".join(name for name, _, _ in COLUMNS),
        "SIZE " + " ".join(str(kind.itemsize) for kind in kinds),
        "TYPE " + " ".join("F" if kind.kind == "f" else "U" for kind in kinds),
        "COUNT " + " ".join("1" for _ in kinds),
        f"WIDTH {len(rows)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(rows)}",
        "DATA binary",
    ]
    return ("\n".join(lines) + "\n").encode() + rows.tobytes()


def _ply(predicted: Predicted) -> bytes:
    colors = ("red", "green", "blue")
    rows = _rows(predicted, [(name, "u1") for name in colors])
    for axis, name in enumerate(colors):
        rows[name] = predicted.rgb[:, axis]
    properties = [f"property {kind} {name}" for name, _, kind in COLUMNS] + [f"property uchar {name}" for name in colors]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}", *properties, "end_header"]
    return ("\n".join(lines) + "\n").encode() + rows.tobytes()


def _las(predicted: Predicted) -> bytes:
    need("laspy")
    import laspy

    file = laspy.create(point_format=7, file_version="1.4")
    file.header.scales = [1e-3] * 3
    finite = np.nan_to_num(predicted.xyz.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    file.x, file.y, file.z = np.clip(finite, -1e6, 1e6).T
    file.classification = predicted.class_id
    file.red, file.green, file.blue = predicted.rgb.T.astype(np.uint16) * 257
    for name, values in (
        ("label", raw_ids_in(predicted.raw)),
        ("instance", instances_in(predicted.raw)),
        ("confidence", predicted.confidence),
    ):
        kind: Any = np.float32 if name == "confidence" else np.uint16
        file.add_extra_dim(laspy.ExtraBytesParams(name=name, type=kind))
        file[name] = values.astype(kind)
    stream = io.BytesIO()
    file.write(stream)
    return stream.getvalue()


FORMATS: dict[str, Callable[[Predicted], bytes]] = {
    "semantickitti": _label,
    "pcd": _pcd,
    "ply": _ply,
    "las": _las,
    "npy": _npy,
}
"""the content of a scan's file by the name of the format"""
