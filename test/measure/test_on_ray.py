# SPDX-License-Identifier: Apache-2.0
"""Many bags on a Ray cluster of real workers: the figures of one process, and whatever dies on the way is named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import optional
from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.many_bags import Job
from weakseg_ros.data.ray_settings import RaySettings
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import ConfigError

pytestmark = pytest.mark.slow
SCANS = 6
TIMES = ("times_ms", "cold_ms", "worst_ms", "times_stride")
ROBOTS = ("ada", "bob", "cy")


@pytest.fixture(scope="module")
def workers() -> Iterator[None]:
    """A cluster of two workers for all tests of this file; the verbs find it."""
    optional("ray")
    from weakseg_ros.fleet.cluster import cluster

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cluster(RaySettings(ray="local", ray_workers=2)))
        except ConfigError as error:  # Ray waits for its own daemons for fifteen seconds, whatever else the machine does
            pytest.skip(f"Ray does not start on this machine: {error}")
        yield


@pytest.fixture
def fleet(recording: Path, tmp_path: Path) -> list[Path]:
    """A bag of each of three robots, under one name."""
    bags = [tmp_path / "robots" / robot / "drive" for robot in ROBOTS]
    for bag in bags:
        shutil.copytree(recording / "bag", bag)
    return bags


def counted(out: Path) -> dict[str, Any]:
    """What a summary counts, without the times."""
    summary = json.loads((out / "summary.json").read_text())
    counts = {name: value for name, value in summary["counts"].items() if name not in TIMES}
    rest = ("classes", "data_hash", "scans", "miou", "calibration", "panoptic_counts", "track_counts", "fit")
    return {"counts": counts, **{name: summary.get(name) for name in rest}}


def test_one_process_one_worker_and_two_give_the_same_figures(
    workers: None, fleet: list[Path], recording: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", *map(str, fleet), "--bundle", str(known_bundle.folder), "--engine", "onnxruntime"]
    command += ["--truth", str(recording / "scans" / "labels")]
    assert weakseg([*command, "--out", str(tmp_path / "here")]) == 0
    assert counted(tmp_path / "here")["miou"] > 0
    for number in ("1", "2"):
        out = str(tmp_path / number)
        assert weakseg([*command, "--out", out, "--ray", "local", "--ray-workers", number]) == 0
        assert counted(tmp_path / number) == counted(tmp_path / "here")
    rows = json.loads((tmp_path / "2" / "bags.json").read_text())
    assert [row["name"] for row in rows] == ["1_drive", "2_drive", "3_drive"]
    assert all(row["attempts"] == 1 and row["host"] for row in rows)
    capsys.readouterr()
    assert weakseg([*command, "--out", str(tmp_path / "2"), "--ray", "local"]) == 0
    assert capsys.readouterr().err.count("done before") == len(fleet), "a second start does only what is missing"


OWN_CLUSTER = """
from weakseg_ros.data.ray_settings import RaySettings
from weakseg_ros.fleet.cluster import cluster
with cluster(RaySettings(ray="local", ray_workers=1)) as ray:
    print("nodes", len(ray.nodes()), "cpus", ray.cluster_resources()["CPU"])
"""


def test_a_local_cluster_is_our_own_where_another_runs_and_an_address_is_set(workers: None) -> None:
    named = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    told = subprocess.run([sys.executable, "-c", OWN_CLUSTER], env=named, capture_output=True, text=True, timeout=600)
    assert told.stdout.split() == ["nodes", "1", "cpus", "1.0"], told.stderr


KILLER = """
import os, shutil, signal, sys
bag, folder, marks = sys.argv[1:]
mark = os.path.join(marks, bag.replace("/", "_"))
if ("ada" in bag or "bob" in bag) and not os.path.exists(mark):
    open(mark, "w").close()
    os.kill(os.getppid(), signal.SIGKILL)
    raise SystemExit
shutil.copytree(bag, os.path.join(folder, "drive"))
"""


def test_killed_workers_and_damaged_bags_are_named_and_all_else_is_whole(
    workers: None, fleet: list[Path], known_bundle: Bundle, tmp_path: Path
) -> None:
    damaged = [tmp_path / f"damaged_{number}" for number in range(3)]
    for bag in damaged:
        bag.mkdir()
        (bag / "a.mcap").write_bytes(b"no bag")
    (tmp_path / "marks").mkdir()
    (tmp_path / "fetch.py").write_text(KILLER)
    out = tmp_path / "out"
    fetch = f"{sys.executable} {tmp_path / 'fetch.py'} {{bag}} {{folder}} {tmp_path / 'marks'}"
    command = ["evaluate", *map(str, (*fleet, *damaged)), "--bundle", str(known_bundle.folder), "--out", str(out)]
    command += ["--engine", "onnxruntime"]
    assert weakseg([*command, "--ray", "local", "--ray-retries", "1", "--fetch", fetch]) == 1
    rows = {row["name"]: row for row in json.loads((out / "bags.json").read_text())}
    assert [rows[name]["attempts"] for name in ("1_drive", "2_drive", "3_drive")] == [2, 2, 1]
    assert all("worker" in rows[name]["failures"][0] for name in ("1_drive", "2_drive"))
    assert all(rows[name]["scans"] == SCANS for name in ("1_drive", "2_drive", "3_drive"))
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["scans"], summary["partial"]) == (3 * SCANS, True)
    page = (out / "report.html").read_text()
    assert all(f"damaged_{number}: not evaluated" in page for number in range(3))
    assert all(f"{name}: {SCANS} scans" in page for name in ("1_drive", "2_drive", "3_drive"))
    assert "attempt 2: worker " in page
    assert not (out / ".attempts").exists()


def test_select_chooses_over_all_robots_under_one_budget(
    workers: None, fleet: list[Path], known_bundle: Bundle, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    command = ["select", *map(str, fleet), "--bundle", str(known_bundle.folder), "--engine", "onnxruntime", "--out", str(log)]
    command += ["--frames", "5", "--ray", "local"]
    assert weakseg(command) == 0
    rows = json.loads((log / "bags.json").read_text())
    assert [row["robot"] for row in rows] == list(ROBOTS)
    assert sum(row["frames"] for row in rows) == 5
    assert len(list((log / "frames").glob("*.yaml"))) == 5
    before = {path: path.stat().st_mtime_ns for path in (log / "frames").glob("*.yaml")}
    assert weakseg(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (log / "frames").glob("*.yaml")} == before, "nothing is chosen twice"


def test_every_verb_goes_over_the_cluster(
    workers: None, fleet: list[Path], known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = ["--bundle", str(known_bundle.folder)]
    ray = ["--ray", "local"]
    assert weakseg(["import", *map(str, fleet), "--out", str(tmp_path / "scans"), *ray]) == 0
    assert weakseg(["predict", *map(str, fleet), *bundle, "--engine", "onnxruntime", "--out", str(tmp_path / "pre"), *ray]) == 0
    assert len(list((tmp_path / "scans").rglob("*.bin"))) == len(fleet) * SCANS
    assert len(list((tmp_path / "pre").rglob("*.label"))) == len(fleet) * SCANS
    capsys.readouterr()
    weakseg(["doctor", "--data", *map(str, fleet), *bundle, *ray])
    said = capsys.readouterr().out
    assert all(f"{number}_drive: " in said for number in (1, 2, 3))


def test_a_long_bag_is_shared_by_several_workers(workers: None, fleet: list[Path], known_bundle: Bundle, tmp_path: Path) -> None:
    command = ["evaluate", *map(str, fleet[:2]), "--bundle", str(known_bundle.folder), "--engine", "onnxruntime", "--no-track"]
    assert weakseg([*command, "--out", str(tmp_path / "whole")]) == 0
    assert weakseg([*command, "--out", str(tmp_path / "parts"), "--ray", "local", "--parts", "3"]) == 0
    assert counted(tmp_path / "parts")["counts"] == counted(tmp_path / "whole")["counts"]


def test_a_command_clears_its_own_notes_away_and_leaves_those_of_another(tmp_path: Path) -> None:
    from weakseg_ros.fleet.cluster import ATTEMPTS, FORGOTTEN_S, _notes

    killed = tmp_path / ATTEMPTS / "token-of-a-killed-command"
    killed.mkdir(parents=True)
    with _notes(tmp_path) as first:
        os.utime(killed, (0, time.time() - 2 * FORGOTTEN_S))
        with _notes(tmp_path) as second:
            assert second.place is not None
            second.place.note(Job(Path("bag"), "bag"), "worker 2")
        assert not killed.exists()
        assert first.place is not None
        assert first.place.is_seen(), "it goes on while the other one ends"
        assert not second.place.is_seen()
    assert not (tmp_path / ATTEMPTS).exists()


def test_a_machine_without_the_output_folder_does_no_work(tmp_path: Path) -> None:
    from weakseg_ros.fleet.cluster import _Place, _run_on_worker

    place = _Place(tmp_path / "elsewhere", "token-1")
    row = _run_on_worker((lambda bag, name: pytest.fail("works"), place, str(Path.cwd())), Job(Path("bag"), "bag"))
    assert "put --out on storage that all nodes share" in row["problem"]
    row = _run_on_worker((lambda bag, name: pytest.fail("works"), None, str(tmp_path / "gone")), Job(Path("bag"), "bag"))
    assert "start the command in a folder that all nodes share" in row["problem"]


def test_without_ray_the_remedy_is_one_sentence(
    fleet: list[Path], known_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert weakseg(["evaluate", *map(str, fleet), "--bundle", str(known_bundle.folder), "--ray", "local"]) == 2
    said = capsys.readouterr().err
    assert "ray: is not installed" in said
    assert "pip install" in said
