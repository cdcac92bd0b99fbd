# SPDX-License-Identifier: Apache-2.0
"""Every command of README and docs runs as it is printed, page by page and in order, on data that is made here.

Data and trainings are small: support/small_commands.py appends small settings, and a script named `weakseg` that calls it
stands first on the PATH. A command that needs no shell is a call in this process, which spares it the imports. What cannot run
here is listed in ELSEWHERE with its reason; everything else runs.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from support import PATIENCE_S, free_port, optional, small_commands
from weakseg_ros.cli import main
from weakseg_ros.improve.label.clicks import ClickStore

for needed in ("torch", "onnx", "safetensors", "onnxruntime", "rosbags", "viser", "matplotlib", "jinja2", "rclpy"):
    optional(needed)

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
SHELL = re.compile(r"[$|&;<>*`]")
"""what a shell reads as more than a word"""


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
    (world / "bin" / "weakseg").write_text(f'#!/bin/bash\nexec {sys.executable} {small_commands.__file__} "$@"\n')
    (world / "bin" / "weakseg").chmod(0o755)
    run(world, "weakseg simulate --bag my_drive --topic /points --sensor os1_64")
    run(world, "weakseg simulate --out dense_scans --streets 2 --seed 7 --sensor os1_64")  # streets of its own
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
    verb, *words = shlex.split(command)
    if verb == "weakseg" and not SHELL.search(command):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert main(small_commands.small(words)) == 0, command
        return
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, f"{command}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"


def run_python(folder: Path, block: Block, names: dict[str, Any]) -> None:
    """Run a block of Python among the names of the blocks before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(block.text, f"block at line {block.line}", "exec"), names)


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
@pytest.mark.usefixtures("known_machine")
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs_in_order(page: str, world: Path, root: Path, tmp_path: Path) -> None:
    if page == RECORDS:
        pytest.skip("the commands of the results take hours, on data of their own")
    folder, text, names = tmp_path / "place", (root / page).read_text(), {"__name__": "__main__"}
    shutil.copytree(
        world,
        folder,
        ignore=lambda _, names: [name for name in names if re.search(rf"--(out|bag) {name}\n", re.sub(r" +#.*", "", text))],
    )
    for block in blocks(text):
        if block.language == "python":
            run_python(folder, block, names)
        for command in commands(block) if block.language == "bash" else ():
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
