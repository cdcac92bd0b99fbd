# SPDX-License-Identifier: Apache-2.0
"""The short form of bench/soak.py: every cloud is answered or accounted for while models, layouts and subscribers change.

Half a minute holds each kind of change but the jump of the clock at least once, so that the whole suite stays short; memory and
latency over time take `make soak`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import optional

pytestmark = [pytest.mark.dds, pytest.mark.slow]


def test_half_a_minute_of_everything_loses_no_cloud_unaccounted(root: Path, tmp_path: Path, own_domain: int) -> None:
    for module in ("rclpy", "torch", "onnx", "onnxruntime", "matplotlib"):
        optional(module)
    environment = {**os.environ, "ROS_DOMAIN_ID": str(own_domain)}
    command = [sys.executable, str(root / "bench" / "soak.py"), "--minutes", "0.5", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False, env=environment)
    assert (tmp_path / "soak.json").is_file(), done.stdout + done.stderr
    summary = json.loads((tmp_path / "soak.json").read_text())
    assert summary["sent"] == 300
    lost = summary["lost"]
    counts = lost["counts_of_the_node"]
    dropped = {key: count for key, count in counts.items() if key.startswith("dropped ")}
    # a busy machine answers late, and the newest cloud wins; nothing else may be dropped, and nothing without a count
    assert dropped.keys() <= {"dropped superseded", "dropped lost_in_transport"}, summary
    assert lost["dropped_by_the_node"] == dropped.get("dropped superseded", 0), summary
    assert lost["never_reached_the_node"] == dropped.get("dropped lost_in_transport", 0), summary
    assert summary["without_an_answer"] == len(lost["when"]), summary
    assert sum(part["sent"] for part in summary["parts"]) == 300
    assert summary["models_announced"] >= 2
    assert summary["layouts"] >= 3
    assert (tmp_path / "soak.png").stat().st_size > 10_000
