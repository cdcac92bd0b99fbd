# SPDX-License-Identifier: Apache-2.0
"""What lies in and beside the folders of bags: hidden files, links, packed copies, logs of SQLite, odd names."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from support import optional

optional("rosbags")

from rosbags import rosbag2

from support.recorded_bags import COUNT, START_NS, assert_read, cdr, points, split_bag, write
from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.bag_files import bags_in
from weakseg_ros.data.cloud_files import cloud_files
from weakseg_ros.data.importer import ImportConfig, import_bag
from weakseg_ros.data.many_bags import bags_of
from weakseg_ros.data.scans import open_scans

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(82)
"""what macOS lays beside each file that it copies to a disk of another system"""


def storage_of(bag: Path) -> Path:
    (file,) = (file for file in bag.iterdir() if file.suffix in (".mcap", ".db3"))
    return file


@pytest.mark.parametrize("has_metadata", [True, False])
def test_hidden_files_are_no_data(tmp_path: Path, has_metadata: bool, caplog: pytest.LogCaptureFixture) -> None:
    bag = write(tmp_path / "drives" / "one")
    (bag / f"._{storage_of(bag).name}").write_bytes(APPLE_DOUBLE)
    (tmp_path / "drives" / "._one").write_bytes(APPLE_DOUBLE)
    shutil.copytree(bag, tmp_path / "drives" / ".trash")
    if not has_metadata:
        (bag / "metadata.yaml").unlink()
    assert bags_in(bag) == []
    assert_read(bag)
    assert "._" not in caplog.text
    assert bags_in(tmp_path / "drives") == bags_in(tmp_path / "drives" / "*") == [bag]


def test_hidden_files_are_no_scans(tmp_path: Path) -> None:
    import_bag(ImportConfig(write(tmp_path / "bag"), out=tmp_path / "scans"))
    (tmp_path / "scans" / "labels").mkdir()
    for name in ("velodyne/._000000.bin", "labels/._000000.label"):
        (tmp_path / "scans" / name).write_bytes(APPLE_DOUBLE)
    scans = open_scans(tmp_path / "scans")
    assert len(scans) == COUNT
    np.testing.assert_array_equal(scans[0].cloud.xyz, points(0)[:, :3])
    assert [file.name for file in cloud_files(tmp_path / "scans" / "velodyne")] == [f"{i:06d}.bin" for i in range(COUNT)]


def test_a_packed_copy_beside_its_file_is_not_read_again(tmp_path: Path) -> None:
    packed = write(tmp_path / "packed" / "drive", packed=rosbag2.CompressionMode.FILE)
    bag = tmp_path / "bag"
    bag.mkdir()
    shutil.copy(storage_of(write(tmp_path / "plain" / "drive")), bag / "drive.mcap")
    for ending in (".zstd", ".zst"):
        shutil.copy(next(packed.glob("*.mcap.zstd")), bag / f"drive.mcap{ending}")
    assert_read(bag)
    assert bags_in(bag) == []


def test_a_link_to_a_bag_beside_it_is_no_further_bag(tmp_path: Path) -> None:
    drives = tmp_path / "drives"
    bag = write(drives / "b")
    (drives / "a_latest").symlink_to("b")
    elsewhere = write(tmp_path / "elsewhere")
    (drives / "other").symlink_to(elsewhere)
    assert bags_in(drives) == bags_in(drives / "*") == [bag, drives / "other"]
    assert bags_of(drives / "a_latest", [bag]) == [bag]
    assert bags_of(bag, [bag, elsewhere, drives / "other"]) == [bag, elsewhere]


@pytest.mark.parametrize("name", ["drive.bag", "drive.mcap", "drive.db3"])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_folder_may_be_called_as_a_file(tmp_path: Path, name: str, storage: str) -> None:
    write(tmp_path / "made", storage).rename(tmp_path / name)
    assert_read(tmp_path / name)


@pytest.mark.parametrize("name", ["a#1", "50%25", "why?"])
@pytest.mark.parametrize("has_metadata", [True, False])
def test_names_that_look_like_addresses_are_read(tmp_path: Path, name: str, has_metadata: bool) -> None:
    write(tmp_path / "made", "sqlite3").rename(tmp_path / name)
    if not has_metadata:
        (tmp_path / name / "metadata.yaml").unlink()
    assert_read(tmp_path / name)


@pytest.mark.parametrize("written", ["some", "all"])
def test_what_sqlite_has_not_yet_taken_into_a_database_is_read(tmp_path: Path, written: str) -> None:
    """A recorder that was killed leaves its last messages in a log beside the database."""
    made = storage_of(write(tmp_path / "made", "sqlite3"))
    file = tmp_path / "made" / "live.db3"
    with sqlite3.connect(made) as source, sqlite3.connect(file) as target:
        source.backup(target)
        if written == "all":
            target.execute("vacuum")
    bag = tmp_path / "killed"
    bag.mkdir()
    live = sqlite3.connect(file)
    live.execute("pragma journal_mode=wal").fetchall()
    live.execute("pragma wal_autocheckpoint=0").fetchall()
    live.execute("delete from messages where id > 1")
    live.commit()
    live.execute("pragma wal_checkpoint(truncate)").fetchall()
    (topic,) = live.execute("select id from topics").fetchone()
    for index in range(1, COUNT):
        live.execute("insert into messages(topic_id, timestamp, data) values (?, ?, ?)", (topic, START_NS + index, cdr(index)))
    live.commit()
    before = file.read_bytes()
    for part in tmp_path.glob("made/live.db3*"):
        shutil.copy(part, bag)
    live.close()
    assert_read(bag)
    assert (bag / "live.db3").read_bytes() == before, "the bag stays as it is"


def test_a_transaction_that_was_never_ended_is_taken_back(tmp_path: Path) -> None:
    file = storage_of(write(tmp_path / "made", "sqlite3"))
    live = sqlite3.connect(file, isolation_level=None)
    live.execute("pragma journal_mode=delete").fetchall()
    live.execute("pragma cache_size=5")
    live.execute("begin")
    live.execute("update messages set data = zeroblob(20000)")
    bag = tmp_path / "killed"
    bag.mkdir()
    for part in file.parent.glob("*.db3*"):
        shutil.copy(part, bag)
    live.execute("rollback")
    live.close()
    assert (bag / f"{file.name}-journal").stat().st_size
    assert_read(bag)


@pytest.mark.parametrize("verb", ["import", "evaluate", "predict"])
def test_the_metadata_of_a_bag_is_told_to_be_no_bag(tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write(tmp_path / "drive")
    assert weakseg([verb, str(bag / "metadata.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert f"it describes the bag in {bag}; name that folder" in capsys.readouterr().err


@pytest.mark.parametrize(("place", "name"), [(".", "drive"), ("..", "drive"), ("./", "drive")])
def test_the_current_folder_is_data_with_a_name(
    tmp_path: Path, place: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = split_bag(tmp_path)
    (bag / "below").mkdir()
    monkeypatch.chdir(bag / "below" if place == ".." else bag)
    assert weakseg(["view", place, "--mcap", str(tmp_path / "seen")]) == 0
    assert f"{COUNT} scans" in capsys.readouterr().out
    assert weakseg(["predict", place, "--bundle", "nothing_of_this_name", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "no data is given" not in told
    assert "nothing_of_this_name" in told
    assert weakseg(["predict", place, "--topic", "/other", "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / name}: has no topic '/other'" in capsys.readouterr().err
