# SPDX-License-Identifier: Apache-2.0
"""What a result says about where it was made: the machine, its system and the libraries' versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from weakseg_ros.errors import counted


def environment() -> dict[str, str]:
    """What a result must say about where it was made: machine, system, Python and library versions."""
    versions = {}
    for name in ("weakseg_ros", "numpy", "torch", "onnx", "onnxruntime"):
        versions[name] = version_of(name) or version_of(f"{name}-gpu") or "absent"  # onnxruntime-gpu is onnxruntime
    return {
        "machine": f"{cpu_name()}, {counted(os.cpu_count() or 1, 'core')}",
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def version_of(distribution: str) -> str:
    """The version of an installed distribution; '' where it is absent."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def cpu_name() -> str:
    """The CPU's model, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
