# SPDX-License-Identifier: Apache-2.0
"""One report, one choice and one queue over many robots, and what the runs over many bags are made of."""

from __future__ import annotations

import json
import re
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from support import files_of_at_most
from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.bags import read_raw
from weakseg_ros.data.fetching import fetched
from weakseg_ros.data.many_bags import Row, bags_of, each_bag, names_of, read_rows
from weakseg_ros.data.places import FIX, ODOMETRY, place_of
from weakseg_ros.data.ray_settings import RaySettings, as_given
from weakseg_ros.data.robots import robot_of
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.fleet.drift import Stretch, over_places, over_time
from weakseg_ros.improve.log.acquisition import Look
from weakseg_ros.improve.log.choice_over_robots import choose_over_robots
from weakseg_ros.measure.course import missing_between
from weakseg_ros.measure.latency import MOST_SAMPLES, StageTimes

SCANS = 6


@pytest.fixture
def fleet(recording: Path, tmp_path: Path) -> list[Path]:
    """A bag of each of two robots; ada's says where she was, bob's lost two clouds."""
    clouds = [open_scans(recording / "scans")[index].cloud for index in range(SCANS)]
    bags = [tmp_path / "robots" / robot / "drive" for robot in ("ada", "bob")]
    for bag in bags:
        bag.parent.mkdir(parents=True)
        with CloudBagWriter(bag, "/top") as writer:
            for index, cloud in enumerate(clouds):
                if bag.parent.name == "ada":
                    position = {"pose": {"pose": {"position": {"x": 100.0 * index, "y": 5.0}}}}
                    writer.write_values("/odom", ODOMETRY, cloud.stamp_ns - 1000, position)
                if bag.parent.name == "ada" or index not in (2, 3):
                    writer.write(cloud)
    return bags


def test_a_fleet_is_one_page_with_a_row_for_each_robot_and_bag(
    fleet: list[Path], known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "robots" / "cy" / "drive"
    bad.mkdir(parents=True)
    (bad / "a.mcap").write_bytes(b"no bag")
    model = ["--bundle", str(known_bundle.folder), "--engine", "onnxruntime"]
    run, log, out = tmp_path / "run", tmp_path / "log", tmp_path / "fleet"
    assert weakseg(["evaluate", *map(str, (*fleet, bad)), *model, "--out", str(run)]) == 1
    assert weakseg(["select", *map(str, fleet), *model, "--frames", "4", "--together", "--out", str(log)]) == 0
    assert weakseg(["fleet", str(run), "--log", str(log), "--out", str(out)]) == 1, "one bag could not be read"
    found = json.loads((out / "fleet.json").read_text())
    robots = {row["name"]: row for row in found["robots"]}
    assert [(row["bags"], row["scans"], row["unread"]) for row in robots.values()] == [(1, 6, 0), (1, 4, 0), (1, 0, 1)]
    assert (robots["ada"]["missing_share"], robots["bob"]["missing_share"]) == (0.0, pytest.approx(2 / 6))
    assert sum(found["queue"]["by_robot"].values()) == found["queue"]["frames"] == 4
    assert {row["x_m"] for row in found["places"]["cells"]} == {25.0 + 100.0 * index for index in range(SCANS)}
    page = (out / "fleet.html").read_text()
    assert "3 bags of 3 robots, 10 scans" in page
    assert "More than 5% of the clouds of bob are missing." in page
    assert f"weakseg retrain --frames {log}" in page
    assert "cannot be read as a bag" in page
    link = re.search(r'href="([^"#]+)"', page)
    assert link is not None
    assert (out / link[1]).is_file()
    said = capsys.readouterr().out
    assert "3 bags of 3 robots, 10 scans" in said


def test_logs_of_several_robots_become_one_queue_without_what_is_clicked(
    fleet: list[Path], known_bundle: Bundle, tmp_path: Path
) -> None:
    model = ["--bundle", str(known_bundle.folder), "--engine", "onnxruntime"]
    logs = [tmp_path / robot / "log" for robot in ("ada", "bob")]
    for bag, log in zip(fleet, logs, strict=True):
        assert weakseg(["select", str(bag), *model, "--frames", "3", "--out", str(log)]) == 0
    (logs[0] / "sparse" / "clicks").mkdir(parents=True)
    (logs[0] / "sparse" / "clicks" / "0000_000001.label").write_bytes(b"")
    command = ["select", *map(str, logs), *model, "--frames", "9", "--together", "--out", str(tmp_path / "queue")]
    assert weakseg(command) == 0
    scans = open_scans(tmp_path / "queue")
    assert len(scans) == 5, "one of six is clicked already"


def test_a_choice_over_bags_that_was_ended_goes_on_in_the_same_sessions(
    fleet: list[Path], known_bundle: Bundle, tmp_path: Path
) -> None:
    model = ["--bundle", str(known_bundle.folder), "--engine", "onnxruntime"]
    command = ["select", *map(str, fleet), *model, "--frames", "4", "--together", "--out", str(tmp_path / "log")]
    assert weakseg(command) == 0
    sessions = sorted((tmp_path / "log" / "sessions").iterdir())
    frames = sorted(path.name for path in (tmp_path / "log" / "frames").iterdir())
    last = sessions[-1]
    for end in ("empty", "unfinished"):  # as a kill leaves the session of the second bag
        told = json.loads(last.read_text())
        del told["finished"]
        last.write_text("" if end == "empty" else json.dumps(told))
        for path in (tmp_path / "log").glob(f"*/{last.name}_*"):
            path.unlink()
        assert weakseg(command) == 0
        assert sorted((tmp_path / "log" / "sessions").iterdir()) == sessions, end
        assert sorted(path.name for path in (tmp_path / "log" / "frames").iterdir()) == frames, end
        assert "finished" in json.loads(last.read_text())


def test_equal_shares_that_were_ended_before_the_row_of_a_bag_write_no_frame_twice(
    fleet: list[Path], known_bundle: Bundle, tmp_path: Path
) -> None:
    model, log = ["--bundle", str(known_bundle.folder), "--engine", "onnxruntime"], tmp_path / "log"
    command = ["select", *map(str, fleet), *model, "--frames", "4", "--out", str(log)]
    assert weakseg(command) == 0
    manifest, names = (log / "bags.json").read_text(), sorted(path.name for path in log.glob("*/*"))
    (log / "bags.json").unlink()  # as a kill leaves it between the end of the second bag's session and its row
    (log / "bags.jsonl").write_text(json.dumps(json.loads(manifest)[0]) + "\n")
    assert weakseg(command) == 0
    assert sorted(path.name for path in log.glob("*/*")) == names
    assert (log / "bags.json").read_text() == manifest


def test_a_full_disk_is_no_fault_of_a_bag_and_ends_the_selection(
    fleet: list[Path], known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["select", *map(str, fleet), "--bundle", str(known_bundle.folder), "--engine", "onnxruntime", "--out"]
    with files_of_at_most(2):
        assert weakseg([*command, str(tmp_path / "log")]) == 2
    said = capsys.readouterr().err
    assert "File too large" in said
    assert "could not be read" not in said


def test_a_robot_does_not_take_the_whole_budget() -> None:
    rng = np.random.default_rng(0)
    broken = [Look(1.0, 1.0, rng.random(8).astype(np.float32)) for _ in range(20)]
    others = [Look(0.6, 0.6, rng.random(8).astype(np.float32)) for _ in range(20)]
    robots = ["broken"] * 20 + ["ada"] * 10 + ["bob"] * 10
    for strategy in ("ours", "entropy"):
        chosen = choose_over_robots([*broken, *others], robots, 9, strategy)
        counts = [sum(robots[choice.index] == name for choice in chosen) for name in ("broken", "ada", "bob")]
        assert min(counts) >= 2, strategy
        assert len({choice.index for choice in chosen}) == 9


def test_drift_is_told_where_it_is_more_than_noise() -> None:
    rng = np.random.default_rng(0)
    rising = [Stretch("ada", "a", 60.0 * i, 10, 0.2 + 0.02 * i, None, None, False) for i in range(30)]
    steady = [Stretch("bob", "b", 60.0 * i, 10, 0.3 + rng.normal(0, 0.05), 0.9, None, False) for i in range(30)]
    found = over_time([*rising, *steady])
    assert found["said"] == ["ada: the mean uncertainty rises from 0.29 to 0.69 between its first and last third"]
    assert found["width_s"] == 60.0
    assert over_time([]) == {"width_s": 0.0, "robots": {}, "said": []}


def test_places_on_the_earth_share_a_map_and_those_of_odometries_do_not() -> None:
    def at(bag: str, x: float, is_global: bool) -> Stretch:
        return Stretch("ada", bag, 0.0, 2, 0.5, None, (x, 0.0), is_global)

    assert len(over_places([at("a", 10.0, True), at("b", 12.0, True)], 50.0)["cells"]) == 1
    apart = over_places([at("a", 10.0, False), at("b", 12.0, False), at("b", 13.0, False)], 50.0)
    assert (apart["maps"], apart["map"], len(apart["cells"])) == (2, "b", 1)


def test_missing_clouds_are_gaps_between_stamps() -> None:
    assert missing_between([]) == missing_between([5]) == missing_between([7, 7]) == 0
    assert missing_between([0, 100, 205, 300, 500, 600, 1000, 1100]) == 1 + 3


def test_places_are_read_from_messages_by_hand_and_damage_is_no_place() -> None:
    header = b"\x00\x01\x00\x00" + struct.pack("<iII", 1, 2, 4) + b"map\x00"
    fix = header + struct.pack("<bxH", 0, 1) + b"\x00" * 4 + struct.pack("<ddd", 50.0, 8.0, 0.0)
    place = place_of(FIX, fix)
    assert place is not None
    assert (place.y_m, place.is_global) == (pytest.approx(50 * 111_320.0), True)
    assert place_of(FIX, fix[:20]) is None
    assert place_of(FIX, b"") is None
    nowhere = header + struct.pack("<bxH", -1, 1) + b"\x00" * 4 + struct.pack("<ddd", float("nan"), 8.0, 0.0)
    assert place_of(FIX, nowhere) is None


def test_messages_beside_the_clouds_come_in_between(fleet: list[Path]) -> None:
    places = []
    for _ in read_raw(fleet[0], "/top", beside={"/odom": lambda data: places.append(place_of(ODOMETRY, data))}):
        places.append(None)
    assert [place and place.x_m for place in places] == [x for i in range(SCANS) for x in (100.0 * i, None)]


def test_times_of_many_bags_take_no_more_memory_than_those_of_some() -> None:
    times = StageTimes()
    for _ in range(6):
        times += StageTimes({"total": np.linspace(0.0, 100.0, 20_001).tolist()})
    assert len(times.samples_ms["total"]) <= MOST_SAMPLES
    summary = times.summary()["total"]
    assert (summary["p50"], summary["p95"], summary["max"]) == (pytest.approx(50, abs=0.1), pytest.approx(95, abs=0.1), 100.0)
    long = StageTimes()
    for index in range(2 * MOST_SAMPLES + 10):
        long.add({"total": float(index)})
    assert len(long.samples_ms["total"]) <= MOST_SAMPLES
    assert long.summary()["total"]["max"] == 2 * MOST_SAMPLES + 9


def test_what_a_killed_run_had_done_is_in_its_journal(tmp_path: Path) -> None:
    bags = [tmp_path / name for name in ("a", "b", "c")]
    out = tmp_path / "out"
    out.mkdir()
    done: list[str] = []
    interruptions = [KeyboardInterrupt()]

    def work(bag: Path, name: str) -> Row:
        if name == "b" and interruptions:
            raise interruptions.pop()
        done.append(name)
        return {"complete": True}

    with pytest.raises(KeyboardInterrupt):
        each_bag(bags, out, {}, work, lambda row: "")
    (out / "bags.json").rename(out / "bags.jsonl")
    row = json.dumps(json.loads((out / "bags.jsonl").read_text())[0])
    (out / "bags.jsonl").write_text(f'{row}\n{{"bag": "cut of', encoding="utf-8")  # as SIGKILL leaves it
    assert [one["name"] for one in read_rows(out)] == ["a"]
    each_bag(bags, out, {}, work, lambda row: "")
    assert done == ["a", "b", "c"], "nothing is done twice"
    assert [one["name"] for one in read_rows(out)] == ["a", "b", "c"]
    assert not (out / "bags.jsonl").exists()


def test_a_bag_keeps_its_name_when_more_bags_come(tmp_path: Path) -> None:
    ada, bob, cy = (tmp_path / robot / "drive" for robot in ("ada", "bob", "cy"))
    out = tmp_path / "out"
    out.mkdir()
    done: list[tuple[str, str]] = []

    def work(bag: Path, name: str) -> Row:
        done.append((bag.parent.name, name))
        return {"complete": True}

    each_bag([bob], out, {}, work, lambda row: "")
    each_bag([ada, bob, cy], out, {}, work, lambda row: "")
    assert done == [("bob", "drive"), ("ada", "1_drive"), ("cy", "3_drive")], "nothing is done twice, no name is given twice"
    assert names_of([ada, bob, cy]) == ["1_drive", "2_drive", "3_drive"]
    assert names_of([bob, cy], {str(ada): "2_drive"}) == ["1_drive", "3_drive"]


def test_bags_are_listed_in_a_file_and_fetched_by_a_command(recording: Path, tmp_path: Path) -> None:
    listed = tmp_path / "bags.txt"
    listed.write_text("# Monday\ns3://store/ada/drive\n\ns3://store/bob/drive\n")
    bags = bags_of(listed, (), is_elsewhere=True)
    assert [as_given(bag) for bag in bags] == ["s3://store/ada/drive", "s3://store/bob/drive"]
    assert bags_of(Path("s3://store/one"), (), is_elsewhere=True) == [Path("s3://store/one")]
    script = tmp_path / "get.py"
    copy = f"shutil.copytree({str(recording / 'bag')!r}, sys.argv[2] + '/x')"
    script.write_text(f"import shutil, sys\nassert sys.argv[1] == 's3://store/ada/drive'\n{copy}\n")
    seen: list[Path] = []

    def count(bag: Path, name: str) -> Row:
        seen.append(bag)
        return {"files": len(list(bag.iterdir()))}

    work = fetched(count, f"{sys.executable} {script} {{bag}} {{folder}}")
    assert work(bags[0], "ada")["files"] == 2
    assert not seen[0].exists(), "it is removed afterwards"
    with pytest.raises(DataError, match="s3://store/bob/drive: could not be fetched"):
        work(bags[1], "bob")
    with pytest.raises(DataError, match="copied nothing"):
        fetched(work, "true {bag} {folder}")(bags[0], "ada")
    with pytest.raises(ConfigError, match=r"lacks \{bag\} and \{folder\}"):
        RaySettings(fetch="cp a b")
    with pytest.raises(DataError, match="lists no bag"):
        bags_of(_empty(tmp_path), ())


def _empty(folder: Path) -> Path:
    (folder / "none.txt").write_text("\n")
    return folder / "none.txt"


def test_a_robot_is_named_by_the_path_of_its_bag() -> None:
    assert robot_of(Path("robots/ada/drive_1")) == "ada"
    assert robot_of(Path("s3://store/ada-2/drive"), r"//store/(\w+)") == "ada"
    assert robot_of(Path("x/y"), "(ada)") == ""
    with pytest.raises(ConfigError, match="has no group"):
        robot_of(Path("x"), "ada")
    with pytest.raises(ConfigError, match="is not a regular expression"):
        robot_of(Path("x"), "(ada")


def test_a_run_that_is_none_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert weakseg(["fleet", str(tmp_path)]) == 2
    assert "holds no bags.json" in capsys.readouterr().err
    shutil.rmtree(tmp_path)
