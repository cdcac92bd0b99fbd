# SPDX-License-Identifier: Apache-2.0
"""The frame log of a real node: what it keeps, what it says of it, and that nothing of it touches the answers."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.data.frame_log import read_records
from weakseg_ros.data.scans import open_scans
from weakseg_ros.improve.log.context import read_context
from weakseg_ros.improve.log.frame_folder import open_frames
from weakseg_ros.points.labelled import unpack_labelled

Start = Callable[..., tuple[Any, Any]]
GENEROUS = ("--log-per-minute", "6000", "--log-spacing-s", "0", "--log-min-distance", "0", "--log-min-free-mib", "0")


@pytest.fixture(scope="module")
def logging(start: Start, bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A node that keeps every frame it can, its client and the log's folder."""
    folder = tmp_path_factory.mktemp("log") / "frames"
    options = ("--bundle", str(bundle.folder), "--log-folder", str(folder), *GENEROUS)
    process, client = start(*options, ROS_PYTHON_CHECK_FIELDS="1")
    return process, client.connect(), folder


def kept(client: Any) -> int:
    return int(client.value("frame_log", "kept") or 0)


def test_kept_frames_are_scans_with_the_answer_beside_them(rig: Any, logging: tuple[Any, Any, Path], bundle: Any) -> None:
    _, client, folder = logging
    suggested: list[Any] = []
    client.node.create_subscription(rig.PointCloud2, "weakseg/uncertain", suggested.append, 10)
    client.wait(lambda: client.node.count_publishers("weakseg/uncertain"), "the topic of the suggested points")
    client.spin(0.3)
    message = rig.make_cloud(rig.street_points(4000))
    answer = unpack_labelled(client.answer_to(message))
    client.wait(lambda: any(m.header.stamp == message.header.stamp for m in suggested), "the suggested points")
    points = unpack_labelled(next(m for m in suggested if m.header.stamp == message.header.stamp))

    log = open_frames(folder)
    stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    record = next(r for r in log.frames if r.stamp_ns == stamp_ns)
    scan = next(scan for scan in log.scans if scan.key == record.key)
    np.testing.assert_array_equal(scan.cloud.xyz, rig.street_points(4000)[:, :3])
    class_id, _ = log.prediction(record.key)
    np.testing.assert_array_equal(class_id, answer["class_id"])
    np.testing.assert_allclose(log.uncertainty(record.key), answer["uncertainty"], atol=1e-3)
    assert (record.bundle_hash, record.frame_id) == (bundle.content_hash, "lidar")
    chosen = [suggestion.point for suggestion in record.suggestions]
    np.testing.assert_array_equal(points["x"], answer["x"][chosen])
    assert 0 < len(set(chosen)) == len(chosen) <= 30


def test_a_turned_sensor_hears_of_its_points_where_it_sent_them(rig: Any, start: Start, bundle: Any, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    turned = ("--ros-args", "-p", "input.rotation_rpy_deg:=[180.0, 0.0, 0.0]", "-p", "input.unit_m:=0.001")
    _, client = start("--bundle", str(bundle.folder), "--log-folder", str(folder), *GENEROUS, *turned)
    client = client.connect()
    suggested: list[Any] = []
    client.node.create_subscription(rig.PointCloud2, "weakseg/uncertain", suggested.append, 10)
    client.wait(lambda: client.node.count_publishers("weakseg/uncertain"), "the topic of the suggested points")
    client.spin(0.3)
    upright = rig.street_points(4000)
    sent = upright * [1000, -1000, -1000, 1]
    message = rig.make_cloud(sent.astype(np.float32))
    answer = unpack_labelled(client.answer_to(message))
    client.wait(lambda: any(m.header.stamp == message.header.stamp for m in suggested), "the suggested points")
    points = unpack_labelled(next(m for m in suggested if m.header.stamp == message.header.stamp))
    log = open_frames(folder)
    record = next(r for r in log.frames if r.stamp_ns == message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)
    chosen = [suggestion.point for suggestion in record.suggestions]
    for axis, name in enumerate("xyz"):
        np.testing.assert_allclose(answer[name], sent[:, axis], rtol=1e-6)
        np.testing.assert_allclose(points[name], sent[chosen, axis], rtol=1e-4, atol=0.05)
    scan = next(scan for scan in log.scans if scan.key == record.key)
    np.testing.assert_allclose(scan.cloud.xyz, upright[:, :3], atol=1e-3)


def test_settings_change_at_once_and_a_frame_can_be_asked_for(rig: Any, logging: tuple[Any, Any, Path]) -> None:
    _, client, folder = logging
    assert client.set(**{"log.min_score": 1.0, "log.random_share": 0.0}) == ""
    client.answer_to(rig.make_cloud(rig.street_points(500)))
    client.wait(lambda: client.value("frame_log", "dropped certain"), "a frame that is not worth it")
    before = len(open_frames(folder))
    response = client.call(rig.Trigger, "log_frame", rig.Trigger.Request())
    assert response.success, response.message
    message = rig.make_cloud(rig.street_points(501))
    client.answer_to(message)
    client.wait(lambda: kept(client) == 1, "the frame that was asked for")
    frames = {record.stamp_ns: record for record in open_frames(folder).frames}
    assert len(frames) == before + 1
    assert frames[message.header.stamp.sec * 10**9 + message.header.stamp.nanosec].reason == "asked"
    assert client.set(**{"log.min_score": 0.0, "log.random_share": 0.05}) == ""


def test_a_frame_tells_the_factor_on_its_intensity(rig: Any, logging: tuple[Any, Any, Path]) -> None:
    _, client, folder = logging
    assert client.set(**{"input.intensity_scale": 0.25}) == ""
    message = rig.make_cloud(rig.street_points(600))
    stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    assert client.call(rig.Trigger, "log_frame", rig.Trigger.Request()).success
    client.answer_to(message)
    client.wait(lambda: any(record.stamp_ns == stamp_ns for record in open_frames(folder).frames), "the frame")
    log = open_frames(folder)
    record = next(record for record in log.frames if record.stamp_ns == stamp_ns)
    cloud = log.scans[log.scans.keys.index(record.key)].cloud
    np.testing.assert_allclose(cloud.intensity, rig.street_points(600)[:, 3] * 0.25, rtol=1e-6)
    assert client.set(**{"input.intensity_scale": 0.0}) == ""


def test_a_full_log_warns_and_a_request_waits_for_room(rig: Any, logging: tuple[Any, Any, Path], tmp_path: Path) -> None:
    _, client, folder = logging
    small, seeds = tmp_path / "small", itertools.count()  # a new street each time: a known one need not be kept again

    def ask() -> str:
        response = client.call(rig.Trigger, "log_frame", rig.Trigger.Request())
        assert response.success, response.message
        return str(response.message)

    def send() -> None:
        client.answer_to(rig.make_cloud(rig.street_points(400, next(seeds))))

    assert client.set(**{"log.folder": str(small), "log.max_frames": 1}) == ""
    assert "is full" not in ask()
    full = "the log to be full of the frame that was asked for"
    client.wait(lambda: send() or client.status["frame_log"].level == rig.DiagnosticStatus.WARN, full)
    assert "the log is full" in client.status["frame_log"].message
    assert "is full" in ask()
    (first,) = small.glob("frames/[0-9]*.yaml")
    first.unlink()

    def reasons() -> list[str]:
        """Of the frames in the log after one more cloud; one that was on its way before the request may come first."""
        send()
        return [record.reason for record in dict(read_records(small, [])).values()]

    client.wait(lambda: reasons() == ["asked"], "the frame that was asked for while the log was full")
    assert client.set(**{"log.folder": str(folder), "log.max_frames": 2000}) == ""


def test_a_deleted_folder_comes_back_and_the_answers_do_not_stop(rig: Any, logging: tuple[Any, Any, Path]) -> None:
    _, client, folder = logging
    opened = "the log to be open: what is half there it removes itself"
    client.wait(lambda: client.value("frame_log", "folder") == str(folder) and client.value("frame_log", "frames") != "0", opened)
    shutil.rmtree(folder)
    stamps = []

    def send() -> bool:
        message = rig.make_cloud(rig.street_points(700))
        assert client.answer_to(message)
        stamps.append(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)
        return any(folder.glob("frames/[0-9]*.yaml"))

    client.wait(send, "the folder to be made again")
    client.wait(lambda: any(record.stamp_ns in stamps for record in open_frames(folder).frames), "a frame in it")


def test_a_folder_that_cannot_be_is_an_error_and_not_the_end(rig: Any, logging: tuple[Any, Any, Path], tmp_path: Path) -> None:
    _, client, folder = logging
    (tmp_path / "file").write_text("in the way")
    assert client.set(**{"log.folder": str(tmp_path / "file" / "log")}) == ""
    assert client.answer_to(rig.make_cloud(rig.street_points(300)))
    client.wait(lambda: client.status["frame_log"].level == rig.DiagnosticStatus.ERROR, "an error in the diagnostics")
    assert str(tmp_path / "file") in client.status["frame_log"].message
    response = client.call(rig.Trigger, "log_frame", rig.Trigger.Request())
    assert not response.success
    assert client.set(**{"log.folder": str(folder)}) == ""
    assert client.answer_to(rig.make_cloud(rig.street_points(300)))
    client.wait(lambda: kept(client) and client.status["frame_log"].level == rig.DiagnosticStatus.OK, "the log to go on")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"log.per_minute": float("nan")}, "per_minute"),
        ({"log.points": -1}, "points"),
        ({"log.when_full": "delete"}, "when_full"),
        ({"log.max_mib": 10.5}, "expected int"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused(logging: tuple[Any, Any, Path], values: dict[str, Any], reason: str) -> None:
    assert reason in logging[1].set(**values)


def test_a_parameter_file_and_the_end(rig: Any, start: Start, bundle: Any, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(
        f"/**:\n  ros__parameters:\n    log:\n      folder: {folder}\n      per_minute: 6000.0\n      min_free_mib: 0\n"
    )
    process, client = start("--bundle", str(bundle.folder), "--params-file", str(parameters))
    client.connect()
    client.wait(lambda: client.answer_to(rig.make_cloud(rig.street_points(2000))) and kept(client), "a kept frame")
    assert process.end() == 0
    assert len(open_scans(folder)) == len(open_frames(folder)) >= 1
    assert not list(folder.rglob("*.tmp"))


def test_without_a_folder_nothing_is_kept(rig: Any, start: Start, bundle: Any) -> None:
    process, client = start("--bundle", str(bundle.folder))
    client.connect()
    # the last words of the node of the test before may still be on their way
    client.wait(lambda: "frame_log" in client.status and "log.folder" in client.status["frame_log"].message, "the log's line")
    response = client.call(rig.Trigger, "log_frame", rig.Trigger.Request())
    assert not response.success
    assert "log.folder" in response.message
    assert process.end() == 0


def test_the_log_is_there_before_the_first_cloud(rig: Any, start: Start, bundle: Any, tmp_path: Path) -> None:
    folder, other = tmp_path / "frames", tmp_path / "other"
    options = ("--bundle", str(bundle.folder), "--log-folder", str(folder), "--log-min-free-mib", "0")
    process, client = start(*options, "--autostart", "false")
    assert client.change(rig.Transition.TRANSITION_CONFIGURE)
    client.wait(lambda: f"until the node is active; then in {folder}" in client.status["frame_log"].message, "the log's line")
    response = client.call(rig.Trigger, "log_frame", rig.Trigger.Request())
    assert (response.success, response.message) == (True, f"the next frame is kept in {folder}, once the node is active")
    assert client.change(rig.Transition.TRANSITION_ACTIVATE)
    client.connect()
    client.wait(lambda: client.value("frame_log", "kept asked") == "1", "the frame that was asked for")

    assert client.set(**{"log.folder": "", "log.context_topics": "/camera"}) == ""
    client.wait(lambda: "log.folder is empty" in client.status["frame_log"].message, "the log to end without a cloud")
    assert client.set(**{"log.folder": str(other)}) == ""
    assert client.call(rig.Trigger, "log_frame", rig.Trigger.Request()).message == f"the next frame is kept in {other}"
    client.wait(lambda: "log.context_topics: nothing of them is kept" in client.status["frame_log"].message, "the warning")
    assert client.set(**{"log.before_s": 1.0}) == ""
    client.wait(lambda: client.value("frame_log", "context_missing") == "/camera", "the topic that nobody publishes")

    events = client.node.create_publisher(rig.String, "weakseg/log_event", 10)
    client.wait(lambda: events.get_subscription_count(), "the node to listen to events")
    events.publish(rig.String(data="t" * 1_000_000 + ": " + "a\nb " * 100_000))
    process.wait_for_text(f"event '{'t' * 100}...'")

    def tagged() -> Any:
        assert client.answer_to(rig.make_cloud(rig.street_points(50)))
        return next((record for record in dict(read_records(other, [])).values() if record.tag), None)

    record = client.wait(tagged, "the frame of the event")
    assert (record.tag, record.note) == ("t" * 100 + "...", "a b " * 250 + "...")
    assert process.end() == 0


def test_of_two_nodes_on_one_folder_one_is_killed(rig: Any, start: Start, bundle: Any, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    options = ("--bundle", str(bundle.folder), "--log-folder", str(folder), *GENEROUS)
    nodes = [start(*options) for _ in range(2)]
    for _, client in nodes:
        client.connect()
    seeds = itertools.count()  # a new street each time: what is known already need not be kept again

    def sessions() -> set[str]:
        """The first part of a key says which node wrote it."""
        cloud = rig.make_cloud(rig.street_points(30_000, next(seeds)))
        assert all(client.answer_to(cloud) for _, client in nodes)
        return {path.name[:4] for path in folder.glob("frames/[0-9]*.yaml")}

    nodes[0][1].wait(lambda: len(sessions()) == 2, "frames of both nodes", 60.0)
    (victim, _), (survivor, client) = nodes
    victim.process.kill()
    victim.process.wait()
    del nodes[0]
    before = len(open_frames(folder))
    client.wait(lambda: sessions() and len(open_frames(folder)) > before, "another frame")
    assert survivor.end() == 0
    log = open_frames(folder)
    assert not log.problems
    assert len({record.key[:4] for record in log.frames}) == 2, "both have kept frames"
    for scan in log.scans:
        assert len(scan.cloud) == len(log.prediction(scan.key)[0]) == len(log.uncertainty(scan.key))


def test_an_event_from_outside_keeps_a_frame_with_its_tag_and_the_seconds_around_it(
    rig: Any, start: Start, bundle: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "events"
    options = ("--bundle", str(bundle.folder), "--log-folder", str(folder), "--log-per-minute", "0", "--log-min-free-mib", "0")
    context = ("--log-before-s", "30", "--log-after-s", "0.5", "--log-context-topics", "/speech")
    process, client = start(*options, *context)
    client.connect()
    speech = client.node.create_publisher(rig.String, "/speech", 10)
    events = client.node.create_publisher(rig.String, "weakseg/log_event", 10)
    client.wait(lambda: speech.get_subscription_count(), "the node to listen to the further topic")
    client.wait(lambda: events.get_subscription_count(), "the node to listen to events")
    speech.publish(rig.String(data="look out"))
    client.answer_to(rig.make_cloud(rig.street_points(300)))
    assert not any(folder.glob("frames/[0-9]*.yaml"))
    events.publish(rig.String(data="near\x1b]0;miss\x07: a dog on the road"))

    def send() -> bool:
        client.answer_to(rig.make_cloud(rig.street_points(400)))
        return any(folder.glob("frames/[0-9]*.yaml"))

    client.wait(send, "the frame of the event")
    client.wait(lambda: any(folder.glob("context/*.msgs")), "the seconds around it")
    (record,) = open_frames(folder).frames
    assert (record.reason, record.tag, record.note) == ("asked", r"near\x1b]0;miss\x07", "a dog on the road")
    assert "\x1b]" not in process.text(), "a tag that a publisher chose is shown, not obeyed"
    messages = list(read_context(folder, record.key))
    assert {message.topic for message in messages} >= {"/speech", record.sensor}
    assert any(b"look out" in message.data for message in messages)
