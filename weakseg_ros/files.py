# SPDX-License-Identifier: Apache-2.0
"""Files that are never half written, hashes of what was read, and paths that stay in their folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from weakseg_ros.errors import DataError


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the file `path` by `content`, or leave it as it was: temporary file, fsync, rename.

    The temporary file lies beside its target (a rename does not cross file systems) and is removed on any failure.
    """
    blob = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_atomic(path, json.dumps(content, indent=2, sort_keys=False) + "\n")


def read_json_lines(path: Path, key: str) -> list[dict[str, Any]]:
    """Every row of a JSON-lines file that has `key`, none where there is no file; a line that a crash cut short is left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    rows = map(_parsed, lines)
    return [row for row in rows if isinstance(row, dict) and key in row]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of one file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_parts(parts: Iterable[str | bytes]) -> str:
    """Hex SHA-256 over several strings in order, each with its length, so that moving a border changes the hash."""
    digest = hashlib.sha256()
    for part in parts:
        blob = part.encode() if isinstance(part, str) else part
        digest.update(len(blob).to_bytes(8, "little") + blob)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused with DataError where it would leave the folder (`../`, absolute, a link outwards)."""
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise DataError(f"{folder}: the entry '{name}' points outside its folder; refused")
    return target


def share_folder() -> Path:
    """The folder that holds `config`, `launch` and `models`: the checkout, or where pip or colcon put them.

    Raises DataError where none is found, which means a broken installation.
    """
    package = Path(__file__).resolve().parent
    prefixes = [*package.parents, Path(sys.prefix), *map(Path, filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(":")))]
    candidates = [package.parent, *(prefix / "share" / "weakseg_ros" for prefix in prefixes)]
    for folder in candidates:
        if (folder / "config" / "labels").is_dir():
            return folder
    raise DataError(f"weakseg_ros: its config folder was found neither beside {package} nor under share/; install it again")


def environment() -> dict[str, str]:
    """What a result must say about where it was made: machine, system, Python and library versions."""
    versions = {}
    for name in ("weakseg_ros", "numpy", "torch", "onnx", "onnxruntime"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "machine": f"{_cpu_name()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
