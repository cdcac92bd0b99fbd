# SPDX-License-Identifier: Apache-2.0
"""The tests can be collected everywhere: by colcon, whose plugins import by name, and without optional libraries."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
ABSENT = ("torch", "rclpy", "onnx", "onnxruntime", "rosbags", "viser", "playwright", "matplotlib", "jinja2", "safetensors")
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""
"""collects the tests where these libraries cannot be imported"""


def test_no_two_test_files_share_a_name() -> None:
    names = Counter(file.name for file in FOLDER.rglob("*.py") if file.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_what_starts_the_node_has_the_marker() -> None:
    """The hook in conftest.py goes by the fixture `rig`: a file that starts the node by other means says so itself."""
    for file in (FOLDER / "ros").glob("test_*.py"):
        text = file.read_text()
        if re.search(r"NodeProcess\(|rclpy\.init", text):
            assert re.search(r"\brig\b|pytest\.mark\.dds", text), f"{file.name}: starts the node without the marker dds"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_collection_needs_no_optional_library(mode: str) -> None:
    """`colcon test` imports by `prepend`; a file whose library is absent is skipped, not an error."""
    command = [sys.executable, "-c", WITHOUT, "-o", "addopts=", f"--import-mode={mode}", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert re.search(r"\d{3,} tests collected", done.stdout)
