# SPDX-License-Identifier: Apache-2.0
"""The API reference builds, and the page about it names what there is."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import optional


def test_the_reference_of_the_robots_chapters_builds(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="pdoc is not installed (pip install weakseg_ros[docs])")
    chapters = ["weakseg_ros.points", "weakseg_ros.deploy.bundle", "weakseg_ros.deploy.segmenter", "weakseg_ros.deploy.boxes"]
    done = subprocess.run(
        [sys.executable, "-m", "pdoc", *chapters, "-o", str(tmp_path)], capture_output=True, text=True, timeout=1000
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "weakseg_ros" / "deploy" / "segmenter.html").read_text()
    assert "Answers for all N points" in page
    assert (tmp_path / "weakseg_ros" / "points" / "cloud.html").exists()


def test_the_page_names_what_there_is() -> None:
    table = (Path(__file__).resolve().parent.parent / "docs" / "api.md").read_text()
    names = [name for line in table.splitlines() if line.startswith("| ") for name in re.findall(r"`([\w.]+\.\w+)`", line)]
    assert len(names) > 8
    for name in names:
        module, _, attribute = name.rpartition(".")
        if module.startswith("train"):
            optional("lightning_fabric")
        if module.split(".")[0] in ("train", "methods"):
            optional("torch")
        assert hasattr(importlib.import_module(f"weakseg_ros.{module}"), attribute), name
