# SPDX-License-Identifier: Apache-2.0
"""Every manual opens on a machine without torch, and what needs torch says so in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import optional
from support.manuals import Manual, manuals
from support.small_scans import record
from weakseg_ros.cli import VERBS

ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
BLOCKED = "import sys\nsys.modules['torch'] = None\n"
SCANS = "SCANS"
"""stands for a folder of scans"""


def weakseg(prelude: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"{prelude}\nfrom weakseg_ros.cli import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module", params=[ABSENT, BLOCKED], ids=["absent", "blocked"])
def without_torch(request: pytest.FixtureRequest) -> dict[str, Manual]:
    return manuals(request.param)


@pytest.mark.parametrize("verb", VERBS)
def test_every_manual_opens_without_torch(verb: str, without_torch: dict[str, Manual]) -> None:
    if verb in ("node", "replay"):
        optional("rclpy")
    manual = without_torch[verb]
    assert manual.code == 0, manual.err
    assert f"usage: weakseg {verb}" in manual.out


@pytest.mark.parametrize("verb", ["train", "benchmark", "export", "retrain"])
def test_a_manual_does_not_import_torch_where_it_is_there(verb: str) -> None:
    heavy = {"torch", "lightning_fabric", "onnx", "matplotlib", *(["scipy.spatial"] if verb == "train" else [])}
    code = (
        "import sys; from weakseg_ros.cli import main\n"
        "try:\n    main([sys.argv[1], '--help'])\nexcept SystemExit:\n    pass\n"
        f"sys.exit(str({heavy!r} & set(sys.modules) or '') or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("prelude", [ABSENT, BLOCKED], ids=["absent", "blocked"])
@pytest.mark.parametrize("words", [["train", SCANS], ["benchmark", SCANS], ["export", "runs/x"], ["retrain", "--frames", "x"]])
def test_without_torch_a_training_is_refused_in_one_sentence(words: list[str], prelude: str, tmp_path: Path) -> None:
    scans = str(record(tmp_path / "scans"))  # a wrong path would be told first
    done = weakseg(prelude, *(scans if word == SCANS else word for word in words))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"weakseg {words[0]}: torch: is not installed, and it is needed for training")
