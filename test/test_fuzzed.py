# SPDX-License-Identifier: Apache-2.0
"""The short form of bench/fuzz.py: of wild bytes nothing comes but the errors that are meant for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support import PATIENCE_S, optional


def test_wild_bytes_bring_up_nothing_unexpected(root: Path, tmp_path: Path) -> None:
    optional("rosbags")
    out = tmp_path / "fuzz.json"
    command = [sys.executable, str(root / "bench" / "fuzz.py"), "--count", "400", "--seed", "7", "--out", str(out)]
    done = subprocess.run(
        [*command, "--corpus", str(tmp_path / "corpus")], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    targets = json.loads(out.read_text())["targets"]
    assert {"cdr", "bent", "clouds", "labels", "yaml", "bundles", "bags", "clicks"} <= targets.keys()
    assert all(row["tried"] >= 20 for row in targets.values())
    for name in ("cdr", "bent"):
        assert 0 < targets[name]["refused"] < targets[name]["tried"]
    again = subprocess.run([*command, "--resume", "--count", "500", "--targets", "bent"], timeout=PATIENCE_S, check=False)
    assert again.returncode == 0
    resumed = json.loads(out.read_text())["targets"]
    assert resumed["bent"]["tried"] == 500
    assert resumed["cdr"] == targets["cdr"], "what was tried before stays"
