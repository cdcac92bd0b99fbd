# SPDX-License-Identifier: Apache-2.0
"""Every command of README and docs runs as it is printed, page by page and in order, on data that is made here.

Data and trainings are small, since a script named `weakseg` stands first on the PATH and appends small settings. What cannot
run here is listed in ELSEWHERE with its reason; everything else runs.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from support import PATIENCE_S, free_port
from weakseg_ros.improve.label.clicks import ClickStore

for needed in ("torch", "onnx", "safetensors", "onnxruntime", "rosbags", "viser", "matplotlib", "jinja2", "rclpy"):
    pytest.importorskip(needed, reason="the README's commands need it")

PAGES = sorted(
    page.relative_to(root).as_posix()
    for root in [Path(__file__).resolve().parent.parent]
    for page in (root / "README.md", *(root / "docs").glob("*.md"))
)
ELSEWHERE = {
    r"ros2 |rosdep |python -m colcon |source install/": "needs an installed ROS 2",
    r"sudo |docker |git clone <|python3? -m pip |python3 -m venv ": "changes the machine, or downloads",
    r"make (demo|test)\b": "takes minutes: test_demo.py runs the demo, and this test is part of `make test`",
    r"ssh ": "needs a second machine",
    r".*rclone ": "needs an account with a cloud storage",
}
"""first words of commands that do not run here, with the reason"""
RECORDS = "docs/results.md"
"""this page says by which commands its figures were measured, on data and in hours of their own"""
PROGRAMS = re.compile(r"(weakseg|make|python3?|ros2|pip|sudo|docker|git|ssh|export) ")
SERVERS = {r"weakseg (label|view) (?!.*--(mcap|rrd))": "open http://", r"weakseg node (?!--print)": "active"}
"""commands that run until Ctrl+C, with a word of what they print once they are ready"""
SMALL = """#!/bin/bash
train="--steps 3 --warmup-steps 1 --width 64 --batch-size 2 --validate-every 3 --workers 1 --net-width 16"
case "$1" in
simulate) more="--scans 3 --columns 256 --workers 1"; [[ "$*" == *--streets* ]] && more="$more --streets 2"
  small="--points 1000 --camera.width 32 --camera.height 24"
  [[ "$*" == *--rooms* ]] && more="--scans 2 --columns 256 --workers 1 --buildings 1 $small" ;;
train) more="$train" ;;
benchmark)
  override="steps=3 warmup_steps=1 width=64 batch_size=2 validate_every=3 workers=1 net_width=16"
  more="--methods supervised --nets light --ratios 0.01 --seeds 1 --override $override" ;;
label | view) more="--port $WEAKSEG_TEST_PORT" ;;
retrain) more="--steps 3 --gate.miou-drop 1 --gate.class-drop 1 --gate.pq-drop 1 --gate.latency-ratio 100 --gate.new-gain -1" ;;
esac
exec PYTHON -m weakseg_ros "$@" $more
"""


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page in their order, with the number of their first line."""
    fence: Block | None = None
    kept: list[str] = []
    for number, line in enumerate(page.splitlines(), 1):
        if not line.startswith("```"):
            kept.append(line)
        elif fence:
            yield fence._replace(text="\n".join(kept))
            fence = None
        else:
            fence, kept = Block(number + 1, line[3:].strip(), ""), []


def commands(block: Block) -> list[str]:
    """The commands of a bash block without their comments."""
    lines = (re.sub(r"\s+# .*", "", line).strip() for line in block.text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("# ")]


def reason_elsewhere(command: str) -> str | None:
    """Why a command does not run here; None = it does."""
    return next((why for pattern, why in ELSEWHERE.items() if re.match(pattern, command)), None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, root: Path, own_domain: int) -> Path:
    """What the pages take for granted: the repository's config and models, a bag my_drive, scans with labels."""
    world = tmp_path_factory.mktemp("world")
    shutil.copytree(root / "config", world / "config")
    shutil.copytree(root / "models" / "street64", world / "models" / "street64")
    (world / "bin").mkdir()
    (world / "domain").write_text(str(own_domain))
    (world / "bin" / "weakseg").write_text(SMALL.replace("PYTHON", sys.executable))
    (world / "bin" / "weakseg").chmod(0o755)
    run(world, "weakseg simulate --bag my_drive --topic /points --sensor os1_64")
    run(world, "weakseg simulate --out dense_scans --streets 2 --sensor os1_64")
    return world


def environment(folder: Path) -> dict[str, str]:
    """Small commands first, no neighbour's ROS, a port of our own."""
    path = os.pathsep.join((str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
    return {
        **os.environ,
        "ROS_DOMAIN_ID": (folder / "domain").read_text(),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PATH": path,
        "OMP_NUM_THREADS": "1",
        "WEAKSEG_TEST_PORT": str(free_port()),
    }


def run(folder: Path, command: str) -> None:
    """Run a command to its end; its exit code must be 0."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, f"{command}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"


def serve(folder: Path, command: str, ready: str) -> None:
    """Start what runs until Ctrl+C, click a little where it is the labelling page, press Ctrl+C."""
    log = folder / "server.log"
    with open(log, "wb") as out:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=environment(folder), stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while ready not in log.read_text():
            assert server.poll() is None, f"{command}\nended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{command}\nis not ready:\n{log.read_text()}"
            time.sleep(0.05)
        if command.startswith("weakseg label "):
            click(folder / command.split()[2])
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE_S) in (0, 128 + signal.SIGINT), f"{command}\nafter Ctrl+C:\n{log.read_text()}"
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def click(scans: Path) -> None:
    """Name thirty points of each scan: the lower half road, the upper half building."""
    store = ClickStore(scans)
    names = [label.name for label in store.labels.classes]
    for i, key in enumerate(store.scans.keys):
        z = store.scans[i].cloud.xyz[:, 2]
        by_height = np.argsort(np.where(np.isfinite(z), z, np.inf))[: int(np.isfinite(z).sum())]
        store.add(key, by_height[:15], names.index("road"))
        store.add(key, by_height[-15:], names.index("building"))


@pytest.mark.dds
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs_in_order(page: str, world: Path, root: Path, tmp_path: Path) -> None:
    if page == RECORDS:
        pytest.skip("the commands of the results take hours, on data of their own")
    folder, text, python = tmp_path / "place", (root / page).read_text(), ""
    shutil.copytree(
        world, folder, ignore=lambda _, names: [name for name in names if f"--out {name}\n" in re.sub(r" +#.*", "", text)]
    )
    for block in blocks(text):
        if block.language == "python":
            python += block.text + "\n"
            (folder / "block.py").write_text(python)
        for command in {"bash": commands(block), "python": ["python block.py"]}.get(block.language, []):
            begin_s = time.monotonic()
            why = reason_elsewhere(command)
            if not why:
                ready = next((text for pattern, text in SERVERS.items() if re.match(pattern, command)), None)
                run(folder, command) if ready is None else serve(folder, command, ready)
            print(f"{page}:{block.line}: {f'left out ({why})' if why else f'{time.monotonic() - begin_s:.1f} s'}: {command}")


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_in_blocks_that_say_their_language(page: str, root: Path) -> None:
    for block in blocks((root / page).read_text()):
        if page != RECORDS and not block.language:
            assert not PROGRAMS.match(block.text), f"{page}:{block.line}: write ```bash"


def test_every_reason_to_leave_out_a_command_is_needed(root: Path) -> None:
    found = [
        c for page in PAGES for block in blocks((root / page).read_text()) if block.language == "bash" for c in commands(block)
    ]
    for pattern in ELSEWHERE:
        assert any(re.match(pattern, command) for command in found), pattern
    assert sum(reason_elsewhere(command) is None for command in found) > 30
