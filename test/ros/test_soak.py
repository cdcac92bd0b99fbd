# SPDX-License-Identifier: Apache-2.0
"""The short form of bench/soak.py: every cloud is answered or accounted for while models, layouts and subscribers change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.dds, pytest.mark.slow]


def test_half_a_minute_of_everything_loses_no_cloud_unaccounted(root: Path, tmp_path: Path, own_domain: int) -> None:
    for module in ("rclpy", "torch", "onnx", "onnxruntime", "matplotlib"):
        pytest.importorskip(module, reason=f"the soak needs {module}")
    environment = {**os.environ, "ROS_DOMAIN_ID": str(own_domain)}
    command = [sys.executable, str(root / "bench" / "soak.py"), "--minutes", "0.5", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False, env=environment)
    assert (tmp_path / "soak.json").is_file(), done.stdout + done.stderr
    summary = json.loads((tmp_path / "soak.json").read_text())
    assert summary["sent"] == 300
    accounted = sum(summary["dropped_by_the_node"].values())  # a busy machine answers late, and the newest cloud wins
    assert summary["without_an_answer"] <= accounted, summary
    assert summary["models_announced"] >= 2
    assert summary["layouts"] >= 3
    assert (tmp_path / "soak.png").stat().st_size > 10_000
