# SPDX-License-Identifier: Apache-2.0
"""The short form of bench/fuzz.py: of wild bytes nothing comes but the errors that are meant for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_wild_bytes_bring_up_nothing_unexpected(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="bags are among what is read")
    out = tmp_path / "fuzz.json"
    command = [sys.executable, str(root / "bench" / "fuzz.py"), "--count", "400", "--seed", "7", "--out", str(out)]
    done = subprocess.run(
        [*command, "--corpus", str(tmp_path / "corpus")], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    targets = json.loads(out.read_text())["targets"]
    assert {"cdr", "clouds", "labels", "yaml", "bundles", "bags", "clicks"} <= targets.keys()
    assert all(row["tried"] >= 20 for row in targets.values())
    assert targets["cdr"]["refused"] > 0
