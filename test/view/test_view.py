# SPDX-License-Identifier: Apache-2.0
"""What `weakseg view` shows: frames of folders and bags in any order, panes, colours, boxes, and files for other viewers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support import files_of_at_most, optional
from support.viewed_scans import LABELS, SCANS, cloud_of, truth_of
from weakseg_ros.cli import main
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.measure.pictures import RIGHT, WRONG
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.view.frames import Model, Shown, by_name, by_raw_id, open_recording
from weakseg_ros.view.legend import legend_html
from weakseg_ros.view.panes import DIM, box_edges, boxes_of, colors_of, looks_of, share_wrong, sides_of


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def bag(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rosbag2 = optional("rosbags.rosbag2")
    from weakseg_ros.data.bag_writer import CloudBagWriter

    path = tmp_path_factory.mktemp("bag") / "drive"
    with CloudBagWriter(path) as out:
        for index in range(SCANS):
            out.write(cloud_of(index))
    if request.param == "mcap":
        return path
    lite = path.with_name("lite")
    with rosbag2.Reader(path) as reader, rosbag2.Writer(lite, version=9, storage_plugin=rosbag2.StoragePlugin.SQLITE3) as writer:
        from rosbags.typesys import Stores, get_typestore

        kind = next(iter(reader.connections))
        there = writer.add_connection(kind.topic, kind.msgtype, typestore=get_typestore(Stores.ROS2_HUMBLE))
        for _, stamp_ns, data in reader.messages():
            writer.write(there, stamp_ns, data)
    return lite


def test_scans_of_a_bag_come_in_any_order(bag: Path) -> None:
    recording = open_recording(bag)
    assert len(recording) == SCANS
    for index in (4, 0, 3, 2, 2, 4, 1, 0):
        recording._kept.clear()
        np.testing.assert_array_equal(recording.frame(index).cloud.xyz, cloud_of(index).xyz)


def test_messages_that_were_recorded_at_one_time_are_told_apart(tmp_path: Path) -> None:
    optional("rosbags")
    from weakseg_ros.data.bag_cursor import BagCursor
    from weakseg_ros.data.bag_writer import CloudBagWriter
    from weakseg_ros.data.bags import read_raw

    with CloudBagWriter(tmp_path / "bag") as out:
        for index in range(SCANS):
            cloud = cloud_of(index)
            out.write(make_cloud(cloud.xyz, cloud.intensity, stamp_ns=10**18 + (index // 2) * 10**8, frame_id="lidar"))
    whole = [message.data for message in read_raw(tmp_path / "bag")]
    cursor = BagCursor(tmp_path / "bag", "/points")
    assert [cursor.at(index).data for index in (3, 2, 1, 4, 3, 0)] == [whole[index] for index in (3, 2, 1, 4, 3, 0)]
    with pytest.raises(IndexError):
        cursor.at(SCANS)
    assert cursor.at(1).data == whole[1]


def test_a_folder_shows_its_own_labels_and_few_scans_stay_in_memory(folder: Path) -> None:
    recording = open_recording(folder)
    recording._kept_points = 450
    frames = [recording.frame(index) for index in range(SCANS)]
    assert recording.labels.names == LABELS.names
    np.testing.assert_array_equal(frames[3].truth, truth_of()[0])
    assert len(recording._kept) == 2
    assert recording.frame(4) is frames[4]


def test_two_bags_are_one_row_of_scans(folder: Path, tmp_path: Path) -> None:
    optional("rosbags")
    from weakseg_ros.data.bag_writer import CloudBagWriter

    for number in range(2):
        with CloudBagWriter(tmp_path / "drives" / f"drive{number}") as out:
            for index in range(2):
                out.write(cloud_of(2 * number + index))
    recording = open_recording(tmp_path / "drives")
    assert len(recording) == 4
    assert recording.frame(2).name == "drive1, 000000"
    np.testing.assert_array_equal(recording.frame(3).cloud.xyz, cloud_of(3).xyz)


def test_panes_colours_and_figures(shown: Shown) -> None:
    labels, model = sides_of(shown, ("mine",))
    assert (labels.title, model.title) == ("labels", "mine")
    assert looks_of([labels, model]) == ("classes", "errors", "uncertainty", "objects", "intensity", "height")
    assert share_wrong(labels) is None
    assert share_wrong(model) == pytest.approx(20 / 190)
    errors = colors_of(model, "errors", LABELS)
    assert tuple(errors[0]) == RIGHT
    assert tuple(errors[50]) == WRONG
    assert tuple(errors[195]) == DIM
    assert tuple(colors_of(model, "classes", LABELS)[50]) == LABELS.classes[2].color
    assert tuple(colors_of(labels, "errors", LABELS)[50]) == LABELS.classes[3].color
    objects = colors_of(labels, "objects", LABELS)
    assert len({tuple(objects[at]) for at in (0, 50, 100)}) == 3
    assert "10.5%" not in legend_html([labels, model], "classes", LABELS)
    assert "person" in legend_html([labels, model], "classes", LABELS)


def test_objects_with_the_same_number_have_boxes_of_their_own(shown: Shown) -> None:
    labels, model = sides_of(shown, ("mine",))
    found = boxes_of(labels, LABELS)
    assert sorted(found["class_id"]) == [2, 3]
    edges = box_edges(found[found["class_id"] == 2])
    assert edges.shape == (12, 2, 3)
    car = shown.cloud.xyz[:40]
    np.testing.assert_allclose(edges.reshape(-1, 3)[:, 2].min(), car[:, 2].min(), atol=1e-3)
    lengths = np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1)
    np.testing.assert_allclose(np.sort(lengths), np.sort(np.repeat(found[found["class_id"] == 2]["size_m"][0], 4)), atol=1e-3)
    assert len(boxes_of(model, LABELS)) == 1


def test_a_model_answers_here_as_it_does_everywhere() -> None:
    bundle = Bundle.load("models/street")
    assert bundle.info.input.lift == "vote"
    rng = np.random.default_rng(0)
    cloud = make_cloud(
        rng.uniform(-20, 20, (20_000, 3)).astype(np.float32) * np.float32([1, 1, 0.1]), rng.random(20_000, np.float32)
    )
    shown, _ = Model(bundle, bundle.labels, "onnxruntime", InputSettings()).answer(cloud)
    own, pixel = (Segmenter(bundle, "onnxruntime", lift=lift).run(cloud).class_id for lift in ("auto", "pixel"))
    np.testing.assert_array_equal(shown.class_id, own)
    assert (own != pixel).any(), "which would not be seen otherwise"


def test_classes_of_another_map_are_found_by_name() -> None:
    other = LabelMap("two", (LABELS.classes[0], LabelClass(1, "car", (1, 2, 3), True, (99,))))
    assert by_name(other, LABELS).tolist() == [0, 2]
    assert by_name(LABELS, other).tolist() == [0, 0, 1, 0]


def test_maps_that_number_their_classes_differently_are_matched_by_name() -> None:
    nuscenes, street = LabelMap.load("nuscenes"), LabelMap.load("street")
    shown = by_raw_id(street, nuscenes)
    assert nuscenes.names[shown[street.id_of("vegetation")]] == "vegetation"
    assert not shown[street.id_of("person")], "30 is a person in the one and vegetation in the other"


def test_the_bag_for_foxglove_holds_what_was_shown(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optional("rosbags")
    from weakseg_ros.data.bags import list_topics, read_clouds, read_raw
    from weakseg_ros.points.labelled import unpack_labelled

    assert main(["view", str(folder), "--mcap", str(tmp_path / "out"), "--every", "2"]) == 0
    assert "3 scans" in capsys.readouterr().out
    counts = {topic.name: (topic.msgtype, topic.messages) for topic in list_topics(tmp_path / "out")}
    assert counts["/labels/boxes"] == ("visualization_msgs/msg/MarkerArray", 3)
    assert counts["/classes"] == ("std_msgs/msg/String", 1)
    clouds = [cloud for _, cloud in read_clouds(tmp_path / "out", "/points")]
    np.testing.assert_array_equal(clouds[1].xyz, cloud_of(2).xyz)
    columns = unpack_labelled(next(read_raw(tmp_path / "out", "/labels/points")).data)
    np.testing.assert_array_equal(columns["class_id"], truth_of()[0])
    bits = columns["rgb"].view(np.uint32)
    assert bits[0] == 0x0000FF
    assert main(["view", str(folder), "--mcap", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_scans_that_cannot_be_read_are_left_out_of_the_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optional("rosbags")
    from rosbags import rosbag2

    from support.recorded_bags import COUNT, NEW, START_NS, STORAGE, cdr, points, split_bag
    from weakseg_ros.data.bag_types import POINT_CLOUD
    from weakseg_ros.data.bags import read_clouds

    with rosbag2.Writer(tmp_path / "bad", version=8, storage_plugin=STORAGE["mcap"]) as writer:
        connection = writer.add_connection("/points", POINT_CLOUD, typestore=NEW)
        for index in range(COUNT):
            writer.write(connection, START_NS + index, cdr(index)[:60] if index == 1 else cdr(index))
    cut = split_bag(tmp_path)
    blob = (cut / "drive_1.mcap").read_bytes()
    (cut / "drive_1.mcap").write_bytes(blob[: blob.index(points(1).tobytes())])
    assert main(["view", str(cut), str(tmp_path / "bad"), "--mcap", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert "4 scans" in told.out
    assert "weakseg view: bad: scan 1: PointCloud2: the serialized message is damaged" in told.err
    seen = [cloud.xyz for _, cloud in read_clouds(tmp_path / "out", "/points")]
    for found, index in zip(seen, (0, 2, 0, 2), strict=True):
        np.testing.assert_array_equal(found, points(index)[:, :3])


def test_the_recording_for_rerun_is_written_where_it_is_installed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optional("rerun")
    half = tmp_path / ".scans.rrd.4194304-0.new"  # of a process that was killed
    half.mkdir()
    assert main(["view", str(folder), "--rrd", str(tmp_path / "scans.rrd")]) == 0
    assert not half.exists()
    assert (tmp_path / "scans.rrd").read_bytes()[:3] == b"RRF"
    assert "5 scans" in capsys.readouterr().out
    with files_of_at_most(4096):
        assert main(["view", str(folder), "--rrd", str(tmp_path / "other.rrd")]) == 2
    assert "other.rrd: File too large" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir() if "other" in entry.name] == []
    half.mkdir()
    assert main(["view", str(folder), "--rrd", str(tmp_path / "scans.rrd")]) == 2, "it exists already"
    assert not half.exists(), "also where the file is whole, and the folder all that a killed process left"


def test_a_missing_rerun_is_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rerun", None)
    assert main(["view", str(folder), "--rrd", str(tmp_path / "scans.rrd")]) == 2
    said = capsys.readouterr().err
    assert "rerun" in said
    assert "pip install" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "no data is given"),
        (["nowhere"], "nowhere"),
        (["--live", "scans"], "leave the data out"),
        (["--live", "--mcap", "out"], "ros2 bag record"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_sentence(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", *arguments]) == 2
    said = capsys.readouterr().err
    assert part in said
    assert len(said.splitlines()) == 1


def test_a_node_that_says_its_classes_and_answers_becomes_frames() -> None:
    optional("rclpy")
    from weakseg_ros.points.input_settings import InputSettings
    from weakseg_ros.ros.live_view import NodeFrames, labels_of

    rows = [{key: row[key] for key in ("id", "name", "color", "thing")} for row in LABELS.to_rows()]
    labels = labels_of(json.dumps({"labels": "four", "classes": rows}))
    assert labels.names == LABELS.names
    assert NodeFrames("/front/weakseg", labels, (), InputSettings()).models == ("node front/weakseg",)
