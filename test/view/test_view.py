# SPDX-License-Identifier: Apache-2.0
"""What `weakseg view` shows: frames of folders and bags in any order, panes, colours, boxes, and files for other viewers."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import PATIENCE_S, free_port, optional
from support.browser import chromium, open_page, see
from weakseg_ros.cli import main
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.deploy.referring import Referred
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.measure.pictures import MEANT, RIGHT, WRONG
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.view.frames import Shown, by_name, open_recording
from weakseg_ros.view.legend import legend_html
from weakseg_ros.view.panes import DIM, FOUND, box_edges, boxes_of, colors_of, looks_of, share_wrong, sides_of

LABELS = LabelMap(
    "four",
    (
        LabelClass(0, "none", (0, 0, 0), False, (0,)),
        LabelClass(1, "road", (255, 0, 255), False, (40,)),
        LabelClass(2, "car", (0, 0, 255), True, (10,)),
        LabelClass(3, "person", (255, 30, 30), True, (30,)),
    ),
)
SCANS = 5


def cloud_of(index: int) -> Any:
    rng = np.random.default_rng(index)
    xyz = rng.uniform(-20, 20, (200, 3)).astype(np.float32)
    xyz[:, 2] = -1.5
    xyz[:40] = [8.0 + index, 2.0, -1.0] + rng.uniform(-1, 1, (40, 3)) * [2.0, 0.9, 0.5]
    xyz[40:60] = [4.0, -6.0, -0.8] + rng.uniform(-1, 1, (20, 3)) * [0.3, 0.3, 0.9]
    return make_cloud(xyz.astype(np.float32), rng.random(200, np.float32), stamp_ns=10**18 + index * 10**8, frame_id="lidar")


def truth_of() -> tuple[np.ndarray, np.ndarray]:
    """(class ids, instances): a car and a person with the same number, as label files may have them."""
    class_id = np.ones(200, np.uint8)
    class_id[:40], class_id[40:60], class_id[190:] = 2, 3, 0
    instance = np.zeros(200, np.uint16)
    instance[:60] = 1
    return class_id, instance


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "scans"
    class_id, instance = truth_of()
    raw = LABELS.to_raw(class_id).astype(np.uint32) | instance.astype(np.uint32) << 16
    with ScanWriter(path, LABELS, RangeSpec(16, 64), source="test", seed=0, intensity_full_scale=1.0) as out:
        for index in range(SCANS):
            out.write(cloud_of(index), raw)
    return path


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def bag(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rosbag2 = optional("rosbags.rosbag2")
    from weakseg_ros.data.bags import CloudBagWriter

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


def answer_of(class_id: np.ndarray) -> Segmentation:
    count = len(class_id)
    return Segmentation(
        class_id.astype(np.uint8),
        np.where(class_id == 2, 7, 0).astype(np.uint16),
        np.full(count, 0.75, np.float32),
        np.linspace(0, 1, count, dtype=np.float32),
        np.zeros(count, np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros((0, 0), np.uint16),
    )


@pytest.fixture
def shown() -> Shown:
    """A scan of which the model calls the person a car."""
    class_id, instance = truth_of()
    said = class_id.copy()
    said[40:60] = 2
    return Shown("000000", cloud_of(0), class_id, instance, (answer_of(said),))


def test_scans_of_a_bag_come_in_any_order(bag: Path) -> None:
    recording = open_recording(bag)
    assert len(recording) == SCANS
    for index in (4, 0, 3, 2, 2, 4, 1, 0):
        recording._kept.clear()
        np.testing.assert_array_equal(recording.frame(index).cloud.xyz, cloud_of(index).xyz)


def test_messages_that_were_recorded_at_one_time_are_told_apart(tmp_path: Path) -> None:
    optional("rosbags")
    from weakseg_ros.data.bag_cursor import BagCursor
    from weakseg_ros.data.bags import CloudBagWriter, read_raw

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
    from weakseg_ros.data.bags import CloudBagWriter

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


def test_classes_of_another_map_are_found_by_name() -> None:
    other = LabelMap("two", (LABELS.classes[0], LabelClass(1, "car", (1, 2, 3), True, (99,))))
    assert by_name(other, LABELS).tolist() == [0, 2]
    assert by_name(LABELS, other).tolist() == [0, 0, 1, 0]


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


def test_the_recording_for_rerun_is_written_where_it_is_installed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    optional("rerun")
    half = tmp_path / ".scans.rrd.4194304-0.new"  # of a process that was killed
    half.mkdir()
    assert main(["view", str(folder), "--rrd", str(tmp_path / "scans.rrd")]) == 0
    assert not half.exists()
    assert (tmp_path / "scans.rrd").read_bytes()[:3] == b"RRF"
    assert "5 scans" in capsys.readouterr().out
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


class Still:
    """Frames that a test fills."""

    notes: tuple[str, ...] = ()
    labels = LABELS

    def __init__(self, live: bool, shown: list[Shown], models: tuple[str, ...] = ("mine",)) -> None:
        self.live, self.kept, self.models = live, shown, models

    def __len__(self) -> int:
        return len(self.kept)

    def frame(self, index: int) -> Shown:
        return self.kept[index]

    def ask(self, text: str) -> bool:
        """The person is found whatever is asked; 'unicorn' is beyond the models."""
        nobody = np.zeros(0, np.float32)
        mask = truth_of()[0] == 3
        found = Referred(mask, 0.8, 0.9, nobody, superpoints=None, chosen=np.zeros(1, np.int64))  # type: ignore[arg-type]
        asked = bool(text) and text != "unicorn"
        self.kept = [dataclasses.replace(each, found=(found if asked else None,)) for each in self.kept]
        return text != "unicorn"


@pytest.fixture
def server() -> Iterator[Any]:
    optional("viser")
    from weakseg_ros.improve.label.serve import start_server, stop_server

    made = start_server(free_port(), "view")
    yield made
    stop_server(made)


def work_off(page: Any, *asked: tuple[str, str]) -> None:
    """Let the page do what is asked, to its end."""
    for action, argument in asked:
        page.ask(action, argument, None)
    page.stop()
    worker = threading.Thread(target=page.run)
    worker.start()
    worker.join(240.0)
    assert not worker.is_alive()


def test_the_page_goes_through_time_colours_and_panes(server: Any, shown: Shown) -> None:
    page_module = importlib.import_module("weakseg_ros.view.page")
    others = [Shown(f"{index:06d}", cloud_of(index), None, None, shown.answers) for index in range(1, 3)]
    page = page_module.ViewPage(server, Still(False, [shown, *others]), "View scans", 5.0)
    assert "10.5%" in page._status.content
    assert page._drawing.look == "classes"
    work_off(page, ("look", "errors"), ("boxes", ""), ("swap", ""), ("size", "10"), ("reach", "15"), ("above", ""), ("home", ""))
    page._show_frame()
    assert "beyond 15 m" in page._status.content
    assert page._drawing.alone == 1
    assert "wrong" in page._legend.content
    work_off(page, ("frame", "2"), ("following", ""))
    page._show_frame()
    assert "000002" in page._status.content
    assert page._drawing.look == "classes"  # without labels there are no errors to show
    work_off(page, ("first", ""))
    page._show_frame()
    assert "000000" in page._status.content


def test_what_is_typed_in_is_found_drawn_and_counted(server: Any, shown: Shown) -> None:
    page_module = importlib.import_module("weakseg_ros.view.page")
    page = page_module.ViewPage(server, Still(False, [shown]), "View scans", 5.0)
    work_off(page, ("find", "the pedestrian on the right"))
    page._show_frame()
    assert page._drawing.look == FOUND
    assert "20 points found, score 0.80" in page._status.content
    assert "looked for" in page._legend.content
    colors = colors_of(page._sides[1], FOUND, LABELS)
    np.testing.assert_array_equal((colors == MEANT).all(axis=1), truth_of()[0] == 3)
    work_off(page, ("find", ""))
    page._show_frame()
    assert page._drawing.look == "classes"
    assert "found" not in page._status.content
    work_off(page, ("find", "unicorn"))
    page._show_frame()
    assert "No model here answers expressions" in page._status.content


def test_the_page_follows_a_node_until_someone_goes_back(server: Any, shown: Shown) -> None:
    page_module = importlib.import_module("weakseg_ros.view.page")
    frames = Still(True, [])
    page = page_module.ViewPage(server, frames, "View node", 5.0)
    assert "Waiting for the first cloud" in page._status.content
    frames.kept += [shown, Shown("000001", cloud_of(1), None, None, shown.answers)]
    page._next_s = 0.0
    page._step()
    assert "000001" in page._status.content
    work_off(page, ("previous", ""))
    page._show_frame()
    assert "000000" in page._status.content
    assert not page._playing


def test_a_node_that_says_its_classes_and_answers_becomes_frames() -> None:
    optional("rclpy")
    from weakseg_ros.points.input_settings import InputSettings
    from weakseg_ros.ros.live_view import NodeFrames, labels_of

    rows = [{key: row[key] for key in ("id", "name", "color", "thing")} for row in LABELS.to_rows()]
    labels = labels_of(json.dumps({"labels": "four", "classes": rows}))
    assert labels.names == LABELS.names
    assert NodeFrames("/front/weakseg", labels, (), InputSettings()).models == ("node front/weakseg",)


# in a browser

BRIGHT = 110
"""a point's brightest colour is above this, the dark background of the page below"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(server: Any, shown: Shown) -> Iterator[Any]:
    """The page of three scans with two models, of which the second one is always right."""
    class_id, instance = truth_of()
    both = (*shown.answers, answer_of(class_id))
    frames = [Shown(f"{index:06d}", cloud_of(9 * index), class_id, instance, both) for index in range(3)]
    made = importlib.import_module("weakseg_ros.view.page").ViewPage(
        server, Still(False, frames, ("mine", "other")), "View scans", 5.0
    )
    worker = threading.Thread(target=made.run)
    worker.start()
    yield made
    made.stop()
    worker.join(PATIENCE_S)


def drawn(tab: Any) -> np.ndarray:
    """(480, 800) True where a point is on the picture of the 3D view."""
    image = optional("PIL.Image").open(io.BytesIO(tab.locator("canvas").first.screenshot())).convert("RGB")
    return np.asarray(image).max(axis=-1) > BRIGHT


def until_drawn(tab: Any, is_due: Callable[[np.ndarray], Any]) -> np.ndarray:
    """The first picture that is as it is due."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        points = drawn(tab)
        if is_due(points):
            return points
    raise AssertionError("the 3D view never became what was due")


def test_a_person_goes_through_time_with_two_models_side_by_side(browser: Any, server: Any, page: Any) -> None:
    tab = open_page(browser, server.get_port(), "scan 1 of 3")
    assert tab.title() == "View scans"
    see(tab, r"mine: .*10\.5% of the labelled points are wrong")
    see(tab, r"other: .*0\.0% of the labelled points are wrong")
    first = until_drawn(tab, lambda points: points[:, :300].any() and points[:, 300:].any())

    tab.keyboard.press("PageDown")
    see(tab, "scan 2 of 3")
    second = until_drawn(tab, lambda points: points.any() and (points != first).any())
    tab.get_by_role("slider").first.press("End")
    see(tab, "scan 3 of 3")
    until_drawn(tab, lambda points: points.any() and (points != second).any())

    tab.get_by_text("Errors", exact=True).first.click()
    see(tab, "wrong")
    tab.keyboard.press("Home")
    see(tab, "scan 1 of 3")
    tab.close()
