# SPDX-License-Identifier: Apache-2.0
"""The frame log on disk: what is written is what is read, and after a kill at any moment every frame is whole."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.data.frame_log import INDEX, SUFFIX_OF_PART, Suggestion, part_path
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import DataError
from weakseg_ros.improve.log.frame_folder import open_frames
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

LABELS = LabelMap.load("semantickitti")
WORTH = Worth(0.5, "uncertain", (0.25, 0.5), (Suggestion(3, 1.0, "first"), Suggestion(1, 0.5, 'with "quotes": and # more')))


def frame(count: int = 50, seed: int = 0, **changes: object) -> tuple[Cloud, Segmentation]:
    rng = np.random.default_rng(seed)
    cloud = make_cloud(rng.normal(size=(count, 3)) * 10, rng.random(count), stamp_ns=1_700_000_000_123_456_789 + seed, **changes)
    answer = Segmentation(
        class_id=rng.integers(0, LABELS.num_classes, count).astype(np.uint8),
        instance_id=rng.integers(0, 1 << 16, count).astype(np.uint16),
        confidence=rng.random(count, dtype=np.float32),
        uncertainty=rng.random(count, dtype=np.float32),
        flags=cloud.flags,
        class_image=np.zeros((1, 1), np.uint8),
        instance_image=np.zeros((1, 1), np.uint16),
    )
    return cloud, answer


def writer(folder: Path, **changes: object) -> FrameWriter:
    return FrameWriter(folder, LABELS, RangeSpec(), source="a test", **changes)


def test_a_frame_comes_back_as_it_was(tmp_path: Path) -> None:
    cloud, answer = frame(64, height=4, ring=np.repeat(np.arange(4), 16), frame_id="lidar: #1", intensity_full_scale=255.0)
    with writer(tmp_path / "log") as log:
        written = log.write(cloud, answer, Origin("street", "abc", "/points", "08/000001"), WORTH)
    frames = open_frames(tmp_path / "log")
    assert frames.frames == [written]
    scan = frames.scans[0]
    for name in ("xyz", "intensity", "ring", "flags"):
        np.testing.assert_array_equal(getattr(scan.cloud, name), getattr(cloud, name))
    facts = ("stamp_ns", "frame_id", "height", "width", "intensity_full_scale", "intensity_field")
    assert all(getattr(scan.cloud, name) == getattr(cloud, name) for name in facts)
    assert scan.class_id is None
    class_id, instance_id = frames.prediction(written.key)
    np.testing.assert_array_equal(class_id, answer.class_id)
    np.testing.assert_array_equal(instance_id, answer.instance_id)
    np.testing.assert_allclose(frames.uncertainty(written.key), answer.uncertainty, atol=5e-4)
    assert frames.suggestions(written.key) == list(WORTH.suggestions)
    (tmp_path / "log" / INDEX).unlink()
    assert open_frames(tmp_path / "log").frames == [written], "the record alone says the same as the index"


def test_a_frame_keeps_its_colours(tmp_path: Path) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (50, 3)).astype(np.uint8)
    with writer(tmp_path / "log") as log:
        colored = log.write(*frame(rgb=rgb), Origin(), WORTH)
        plain = log.write(*frame(seed=1), Origin(), WORTH)
        assert "colored" not in plain.to_plain()
        assert colored.sizes["rgb"] == 150
        scans = open_frames(tmp_path / "log").scans
        np.testing.assert_array_equal(scans[0].cloud.rgb, rgb)
        assert scans[1].cloud.rgb is None
        part_path(tmp_path / "log", "rgb", colored.key).write_bytes(b"cut")
        assert [record.key for record in open_frames(tmp_path / "log").frames] == [plain.key]
        log.remove(colored.key)
        assert not list((tmp_path / "log" / "rgb").iterdir())
    (tmp_path / "log" / "rgb" / "0000_000009.rgb").write_bytes(b"half-written")
    with writer(tmp_path / "log"):
        assert not list((tmp_path / "log" / "rgb").iterdir()), "a dead writer's files are swept"


def test_a_frame_is_read_with_the_intensity_that_the_model_saw(tmp_path: Path) -> None:
    cloud, answer = frame(64, intensity_full_scale=255.0)
    with writer(tmp_path) as log:
        told = log.write(cloud, answer, Origin(intensity_scale=1 / 255), WORTH)
        plain = log.write(cloud, answer, Origin(), WORTH)
    for _ in ("from the index", "from the records"):
        scans = {scan.key: scan.cloud for scan in open_frames(tmp_path).scans}
        np.testing.assert_allclose(scans[told.key].intensity, cloud.intensity / 255, rtol=1e-6)
        assert scans[told.key].intensity_full_scale == 0.0, "nobody is to scale it again"
        np.testing.assert_array_equal(scans[plain.key].intensity, cloud.intensity)
        assert scans[plain.key].intensity_full_scale == 255.0
        (tmp_path / INDEX).unlink(missing_ok=True)
    stored = part_path(tmp_path, "frames", plain.key).read_text()
    assert "intensity_scale" not in stored, "as in the logs of before, whose hashes stay what they were"
    part_path(tmp_path, "frames", told.key).write_text(told.to_yaml().replace(str(told.intensity_scale), "-1.0"))
    assert "impossible numbers" in open_frames(tmp_path).problems[0]


def test_attempts_on_a_full_disk_leave_no_sessions(small_disk: Path) -> None:
    writer(small_disk / "log").close()
    with open(small_disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"0" * 4096):
            pass
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            writer(small_disk / "log")
    assert os.listdir(small_disk / "log" / "sessions") == ["0000"]


def test_clouds_whose_laser_index_would_be_lost_are_refused_where_the_model_needs_it(tmp_path: Path) -> None:
    ring = np.repeat(np.arange(4), 16)
    rows = RangeSpec(rows="ring")
    with FrameWriter(tmp_path, LABELS, rows, source="a test") as log:
        with pytest.raises(DataError, match="needs the laser index"):
            log.write(*frame(64, ring=ring), Origin(), WORTH)
        log.write(*frame(64, height=4, ring=ring), Origin(), WORTH)
    frames = open_frames(tmp_path)
    np.testing.assert_array_equal(frames.scans[0].cloud.ring, ring)
    assert len(frames) == 1


def test_the_log_is_a_data_set_while_it_grows(tmp_path: Path) -> None:
    hashes = set()
    with writer(tmp_path) as log:
        for seed in range(3):
            log.write(*frame(30 + seed, seed), Origin(), replace(WORTH, score=seed / 10))
            scans = open_scans(tmp_path)
            hashes.add(scans.content_hash)
            assert [len(scan.cloud) for scan in scans] == [30 + i for i in range(seed + 1)]
        assert [record.score for record in open_frames(tmp_path).frames] == [0.2, 0.1, 0.0]
    assert len(hashes) == 3
    assert scans.labels == LABELS


def test_a_removed_frame_is_gone_and_its_key_is_not_used_again(tmp_path: Path) -> None:
    with writer(tmp_path) as log:
        keys = [log.write(*frame(20, seed), Origin(), WORTH).key for seed in range(3)]
        log.remove(keys[2])
        assert [record.key for record in open_frames(tmp_path).frames] == keys[:2]
        assert log.write(*frame(20), Origin(), WORTH).key not in keys
    assert not [path for path in tmp_path.rglob(f"*{keys[2]}*") if path.name != INDEX]


def test_two_writers_share_a_folder(tmp_path: Path) -> None:
    with writer(tmp_path) as first, writer(tmp_path) as second:
        keys = [log.write(*frame(20), Origin(), WORTH).key for log in (first, second, first, second)]
    assert len(set(keys)) == 4
    assert sorted(open_scans(tmp_path).keys) == sorted(keys)
    assert not open_frames(tmp_path).problems


def test_a_starting_writer_leaves_the_half_written_frame_of_a_living_one(tmp_path: Path) -> None:
    with writer(tmp_path) as living:
        half = part_path(tmp_path, "velodyne", f"{living.write(*frame(), Origin(), WORTH).key[:5]}000099")
        half.write_bytes(b"half")
        with writer(tmp_path) as other:
            assert half.exists()
            assert not other.notes
    with writer(tmp_path) as later:
        assert not half.exists()
        assert "half-written" in later.notes[0]


def test_a_frame_with_a_damaged_file_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    with writer(tmp_path) as log:
        keys = [log.write(*frame(20, seed), Origin(), WORTH).key for seed in range(5)]
    part_path(tmp_path, "velodyne", keys[0]).write_bytes(b"short")
    part_path(tmp_path, "predictions", keys[1]).unlink()
    (tmp_path / INDEX).unlink()
    part_path(tmp_path, "frames", keys[2]).write_text("{not: [yaml")
    part_path(tmp_path, "frames", keys[3]).write_text(part_path(tmp_path, "frames", keys[4]).read_text())
    frames = open_frames(tmp_path)
    assert [record.key for record in frames.frames] == [keys[4]]
    assert len(frames.problems) == 4
    assert all(any(key in problem for problem in frames.problems) for key in keys[:4])


def test_a_torn_or_foreign_index_is_mended(tmp_path: Path) -> None:
    with writer(tmp_path) as log:
        records = {key: log.write(*frame(20, seed), Origin(), WORTH) for seed, key in enumerate("ab")}
    index = tmp_path / INDEX
    lines = index.read_bytes()
    for content in (lines[:-40], b"", b"\xff\x00[]\n{}\nnull\n" + lines, lines.replace(b'"score": 0.5', b'"score": NaN')):
        index.write_bytes(content)
        found = open_frames(tmp_path).frames
        assert sorted(found, key=lambda r: r.key) == sorted(records.values(), key=lambda r: r.key)
        writer(tmp_path).close()
        assert [json.loads(line)["key"] for line in index.read_text().splitlines()] == sorted(r.key for r in records.values())


@pytest.mark.parametrize("content", ["a file", "foreign", "scans", "classes"])
def test_a_folder_that_is_something_else_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "log"
    if content == "a file":
        folder.write_text("mine")
    elif content == "classes":
        other = LabelMap(LABELS.name, LABELS.classes[:5])
        FrameWriter(folder, other, RangeSpec(), source="a test").close()
    else:
        (folder / ("velodyne" if content == "scans" else "thesis")).mkdir(parents=True)
        (folder / ("velodyne" if content == "scans" else "thesis") / "000000.bin").write_bytes(b"0" * 16)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="log"):
        writer(folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_reading_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a frame log"):
        open_frames(tmp_path)
    with writer(tmp_path) as log:
        with pytest.raises(DataError, match="no complete frame yet"):
            open_frames(tmp_path)
        with pytest.raises(DataError, match="no points"):
            log.write(*frame(0), Origin(), WORTH)
        log.write(*frame(), Origin(), WORTH)
    with pytest.raises(DataError, match="no frame 'x'"):
        open_frames(tmp_path).record("x")


def test_an_uncertainty_file_is_never_unpickled(tmp_path: Path) -> None:
    with writer(tmp_path) as log:
        key = log.write(*frame(), Origin(), WORTH).key
    path = part_path(tmp_path, "uncertainty", key)
    size = path.stat().st_size
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    path.write_bytes(path.read_bytes()[:size].ljust(size, b"\0"))
    with pytest.raises(DataError, match="cannot be read"):
        open_frames(tmp_path).uncertainty(key)


ENDLESS = """
    import sys
    from pathlib import Path
    import numpy as np
    from weakseg_ros.data.frame_log import Suggestion
    from weakseg_ros.deploy.segmentation import Segmentation
    from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
    from weakseg_ros.points.cloud import make_cloud
    from weakseg_ros.points.labels import LabelMap
    from weakseg_ros.points.projection import RangeSpec
    n = 20_000
    cloud = make_cloud(np.ones((n, 3)), np.ones(n))
    image = np.zeros((1, 1), np.uint8)
    answer = Segmentation(*(np.ones(n, k) for k in ("u1", "u2", "f4", "f4", "u1")), image, image.astype(np.uint16))
    log = FrameWriter(Path(sys.argv[1]), LabelMap.load("semantickitti"), RangeSpec(), source="a test")
    print("ready", flush=True)
    while True:
        record = log.write(cloud, answer, Origin(), Worth(0.5, "uncertain", (0.1,), (Suggestion(7, 1.0, "why"),)))
        if record.key.endswith("3"):
            log.remove(record.key)
"""


def test_after_kill_9_at_any_moment_every_frame_is_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    total, keys_ever = 0, set()
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(ENDLESS), str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.02, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        keys = {path.stem for path in tmp_path.glob("frames/[0-9]*.yaml")}
        assert len(keys) >= total, "a kill takes no frame away"
        new = keys - keys_ever
        keys_ever |= keys
        total = len(keys)
        assert all(key[:4] == min(new)[:4] for key in new), "each process has its own keys"
        if not keys:
            continue
        frames = open_frames(tmp_path)
        assert {record.key for record in frames.frames} == keys, "whole, before anything was mended"
        assert not frames.problems
        for scan in itertools.islice(frames.scans, 5):
            assert (scan.cloud.xyz == 1).all()
            assert (frames.prediction(scan.key)[0] == 1).all()
            assert (frames.uncertainty(scan.key) == 1).all()
    assert total
    writer(tmp_path).close()
    left = {path for part in SUFFIX_OF_PART for path in (tmp_path / part).iterdir()}
    assert left == {part_path(tmp_path, part, key) for part in SUFFIX_OF_PART for key in keys}, "nothing half is left"
    assert {json.loads(line)["key"] for line in (tmp_path / INDEX).read_text().splitlines()} == keys
