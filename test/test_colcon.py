# SPDX-License-Identifier: Apache-2.0
"""`colcon build` for real: after sourcing, `weakseg` and `segment_node` are on PATH and find their data."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

COLCON = shutil.which("colcon")
SOURCES = ("weakseg_ros", "config", "launch", "resource", "scripts")


@pytest.fixture(params=[(), ("--symlink-install",)], ids=["copied", "linked"])
def workspace(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Path:
    """A workspace with a copy of this package, built."""
    if COLCON is None:
        pytest.skip("colcon is not installed: python3 -m pip install colcon-common-extensions")
    source = tmp_path / "src" / "weakseg_ros"
    source.mkdir(parents=True)
    for name in SOURCES:
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "setup.cfg", "package.xml", "colcon.pkg", "README.md"):
        shutil.copy(root / file, source)
    listed = subprocess.run([COLCON, "list"], cwd=tmp_path, capture_output=True, text=True)
    assert "(ros.ament_python)" in listed.stdout
    built = subprocess.run([COLCON, "build", *request.param], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return tmp_path


def test_the_programs_are_on_path_after_sourcing(workspace: Path) -> None:
    script = "source install/setup.bash && command -v weakseg segment_node && weakseg --version && echo $AMENT_PREFIX_PATH"
    done = subprocess.run(["bash", "-ec", script], cwd=workspace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    program, node, version, prefix = done.stdout.split()
    assert program == str(workspace / "install" / "weakseg_ros" / "lib" / "weakseg_ros" / "weakseg")
    assert Path(node).name == "segment_node"
    assert version
    assert (Path(prefix.partition(":")[0]) / "share" / "weakseg_ros" / "launch" / "segment.launch.py").exists()
