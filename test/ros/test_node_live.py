# SPDX-License-Identifier: Apache-2.0
"""One node in live mode through its day: masks, parameters, other models, lifecycle abuse, overload, silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from weakseg_ros.points.cloud import decode_cdr
from weakseg_ros.points.labelled import unpack_labelled
from weakseg_ros.ros.reference import SAID, SERVICES

LOSSES = ("dropped superseded", "dropped lost_in_transport")
Start = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module")
def live(start: Start, bundle: Any) -> tuple[Any, Any]:
    """A node in live mode that several tests share; each leaves it active and as it was."""
    process, client = start("--bundle", str(bundle.folder), "--engine", "onnxruntime", ROS_PYTHON_CHECK_FIELDS="1")
    return process, client.connect()


def test_the_topics_of_the_contract_are_there(rig: Any, live: tuple[Any, Any], bundle: Any) -> None:
    _, client = live
    client.wait(lambda: client.classes, "the class names")
    told = json.loads(client.classes[-1])
    assert [row["name"] for row in told["classes"]] == list(bundle.labels.names)
    assert (told["bundle"], told["hash"]) == (bundle.name, bundle.content_hash)
    client.wait(lambda: client.value("inference", "total_p95_ms"), "latencies")
    assert set(client.status) == {"input", "inference", "model", "device", "output", "domain", "frame_log"}
    assert client.value("inference", "engine") == "onnxruntime"
    assert client.value("model", "hash") == bundle.content_hash
    assert float(client.value("inference", "total_p50_ms")) > 0


def test_masks_have_the_size_of_the_range_image(rig: Any, live: tuple[Any, Any], bundle: Any) -> None:
    from sensor_msgs.msg import Image

    _, client = live
    masks: dict[str, Any] = {}
    best_effort = rig.QoSProfile(depth=5, reliability=rig.ReliabilityPolicy.BEST_EFFORT)
    subscriptions = [
        client.node.create_subscription(Image, f"weakseg/{name}", lambda m, n=name: masks.__setitem__(n, m), best_effort)
        for name in ("class_mask", "instance_mask")
    ]
    client.wait(lambda: all(client.node.count_publishers(s.topic_name) for s in subscriptions), "the masks' publishers")
    message = rig.make_cloud(rig.street_points(5000))
    client.wait(lambda: client.answer_to(message, 0.3) and len(masks) == 2, "both masks")
    height, width = bundle.info.input.geometry.height, bundle.info.input.geometry.width
    for name, encoding, kind in (("class_mask", "8UC1", np.uint8), ("instance_mask", "16UC1", np.uint16)):
        mask = masks[name]
        assert (mask.height, mask.width, mask.encoding, mask.header) == (height, width, encoding, message.header)
        pixels = np.frombuffer(mask.data, kind).reshape(height, mask.step // kind().itemsize)
        assert pixels.shape == (height, width)
        assert set(np.unique(pixels)) <= set(range(rig.CLASSES))
    assert np.frombuffer(masks["class_mask"].data, np.uint8).any()
    for subscription in subscriptions:
        client.node.destroy_subscription(subscription)


def test_a_threshold_changes_while_it_runs(rig: Any, live: tuple[Any, Any]) -> None:
    _, client = live
    points = rig.street_points(3000)
    for _ in range(20):  # a look at the fit between two clouds changes how certain the second may be
        free = unpack_labelled(client.answer_to(rig.make_cloud(points)))
        threshold = float(np.median(free["confidence"]))
        assert client.set(min_confidence=threshold, publish_rgb=True) == ""
        strict = unpack_labelled(client.answer_to(rig.make_cloud(points)))
        assert client.set(min_confidence=0.0, publish_rgb=False) == ""
        if np.array_equal(strict["confidence"], free["confidence"]):
            break
    np.testing.assert_array_equal(strict["class_id"], free["class_id"] * (free["confidence"] >= np.float32(threshold)))
    np.testing.assert_array_equal(strict["confidence"], free["confidence"])
    np.testing.assert_array_equal(strict["rgb"].view(np.uint32) >> 16, strict["class_id"].astype(np.uint32) * 40)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"min_confidence": float("nan")}, "min_confidence"),
        ({"min_confidence": float("inf")}, "min_confidence"),
        ({"min_confidence": -0.1}, "min_confidence"),
        ({"min_confidence": 1}, "expected float, found int 1; write 1.0"),
        ({"stale_after_s": 0.0}, "stale_after_s"),
        ({"lift": "knm"}, "did you mean 'knn'"),
        ({"lift": 3}, "expected str, found int 3"),
        ({"engine": "onnxruntme"}, "did you mean 'onnxruntime'"),
        ({"publish_rgb": 1}, "expected bool, found int 1"),
        ({"mode": "replay"}, "can be changed only while the node is unconfigured"),
        ({"replay_queue": 5}, "can be changed only while the node is unconfigured"),
        ({"min_confidence": 0.9, "lift": "none"}, "lift"),
        ({"input.rotation_rpy_deg": [180, 0, 0]}, "expected 3 floats, found [180, 0, 0]; write [180.0, 0.0, 0.0]"),
        ({"min_confidence": 0.9, "autostart": False}, "autostart"),
    ],
    ids=str,
)
def test_a_wrong_value_changes_nothing_and_has_a_reason(
    rig: Any, live: tuple[Any, Any], values: dict[str, Any], reason: str
) -> None:
    from rcl_interfaces.srv import GetParameters

    _, client = live

    def current() -> Any:
        return client.call(GetParameters, "get_parameters", GetParameters.Request(names=list(values))).values

    before = current()
    assert reason in client.set(**values)
    assert current() == before
    assert client.answer_to(rig.make_cloud(rig.street_points(10)))


def test_the_page_lists_the_topics_and_services_of_the_node(live: tuple[Any, Any]) -> None:
    process, client = live
    own = f"{process.namespace}/weakseg"
    namespace = process.namespace

    def named(found: list[tuple[str, list[str]]]) -> set[tuple[str, str]]:
        return {(name.replace(own, "~"), kinds[0]) for name, kinds in found}

    said = named(client.node.get_publisher_names_and_types_by_node("weakseg", namespace))
    of_ros = {"/rosout", "/parameter_events", "~/transition_event"}
    listed = {(row.name, row.type) for row in SAID}
    assert {row for row in said if row[0] not in of_ros} <= listed
    assert {name for name, kind in listed - said if not kind.startswith("vision_msgs")} == set(), "and all of them are there"
    offered = named(client.node.get_service_names_and_types_by_node("weakseg", namespace))
    assert {(row.name, row.type) for row in SERVICES} == {row for row in offered if row[1] == "std_srvs/srv/Trigger"}


def test_parameters_explain_themselves(live: tuple[Any, Any]) -> None:
    from rcl_interfaces.srv import DescribeParameters

    names = ["min_confidence", "lift", "mode"]
    threshold, lift, mode = (
        live[1].call(DescribeParameters, "describe_parameters", DescribeParameters.Request(names=names)).descriptors
    )
    assert "class 0" in threshold.description
    assert (threshold.floating_point_range[0].from_value, threshold.floating_point_range[0].to_value) == (0.0, 1.0)
    assert lift.additional_constraints == "one of: auto, pixel, vote, knn"
    assert not mode.read_only, "it can be set while the node is unconfigured"
    assert "read at configure" in mode.description


def test_reload_takes_a_good_model_and_refuses_bad_ones(rig: Any, live: tuple[Any, Any], bundle: Any, tmp_path: Path) -> None:
    _, client = live
    points = rig.street_points(3000)
    first = unpack_labelled(client.answer_to(rig.make_cloud(points)))["class_id"]
    damaged = rig.make_bundle(tmp_path, "damaged")
    (damaged.folder / "model.onnx").write_bytes(b"")
    nameless = (
        ("", "'': holds no bundle.yaml"),
        ("a\nb", "a b: there is no such folder"),
        ("x" * 5000, "x...: File name too long; "),
    )
    for wrong, text in ((tmp_path / "absent", "no such folder"), (damaged.folder, "empty"), *nameless):
        assert client.set(bundle=str(wrong)) == ""
        response = client.reload()
        assert (response.success, text in response.message, f"{bundle.name} stays" in response.message) == (False, True, True)
        np.testing.assert_array_equal(unpack_labelled(client.answer_to(rig.make_cloud(points)))["class_id"], first)
        client.wait(lambda t=text: t in client.status["model"].message, "the diagnostic")

    other = rig.make_bundle(tmp_path, "other", seed=5)
    assert client.set(bundle=str(other.folder)) == ""
    assert client.reload().success
    assert (unpack_labelled(client.answer_to(rig.make_cloud(points)))["class_id"] != first).any()
    client.wait(lambda: json.loads(client.classes[-1])["hash"] == other.content_hash, "the new model's classes")
    client.wait(lambda: client.status["model"].level == rig.DiagnosticStatus.OK, "a healthy model")

    assert client.set(bundle=str(bundle.folder)) == ""
    assert client.reload().success
    np.testing.assert_array_equal(unpack_labelled(client.answer_to(rig.make_cloud(points)))["class_id"], first)


def test_clouds_are_answered_during_a_reload(rig: Any, live: tuple[Any, Any]) -> None:
    _, client = live
    service = client.node.create_client(rig.Trigger, "weakseg/reload")
    client.wait(service.service_is_ready, "the service")
    futures = [service.call_async(rig.Trigger.Request()) for _ in range(3)]
    while not all(future.done() for future in futures):
        assert client.answer_to(rig.make_cloud(rig.street_points(100)))
    assert all(future.result().success for future in futures)


def test_lifecycle_abuse_ends_in_a_working_node(rig: Any, live: tuple[Any, Any], tmp_path: Path, bundle: Any) -> None:
    process, client = live
    transition = rig.Transition
    assert not client.change(transition.TRANSITION_ACTIVATE), "twice"
    assert not client.change(transition.TRANSITION_CONFIGURE)
    assert not client.change(transition.TRANSITION_CLEANUP), "only from inactive"
    for _ in range(3):  # with clouds under way
        for seed in range(3):
            client.points.publish(rig.make_cloud(rig.street_points(200_000, seed)))
        assert client.change(transition.TRANSITION_DEACTIVATE)
        assert client.change(transition.TRANSITION_CLEANUP)
        assert client.state() == "unconfigured"
        assert not client.reload().success
        assert client.set(bundle=str(tmp_path)) == ""
        assert not client.change(transition.TRANSITION_CONFIGURE)
        assert client.state() == "unconfigured"
        assert client.set(bundle=str(bundle.folder)) == ""
        assert client.change(transition.TRANSITION_CONFIGURE)
        assert client.change(transition.TRANSITION_ACTIVATE)
    client.connect()
    assert client.state() == "active"
    assert "Traceback" not in process.text()


@pytest.mark.parametrize("case", ["absent", "empty", "truncated", "not an onnx", "altered", "version", "duplicate ids"])
def test_a_bad_model_leaves_the_node_alive_and_unconfigured(
    rig: Any, live: tuple[Any, Any], case: str, tmp_path: Path, bundle: Any
) -> None:
    process, client = live
    folder = tmp_path / "tiny"
    if case == "not an onnx":
        rig.write_bundle(folder, bundle.info, {"model.onnx": (rig.KIND_ONNX, b"not an onnx file")}, "x\n")
    elif case != "absent":
        rig.make_bundle(tmp_path)
        model, yaml = folder / "model.onnx", folder / "bundle.yaml"
        content, text = model.read_bytes(), yaml.read_text()
        if case in ("empty", "truncated", "altered"):
            model.write_bytes({"empty": b"", "truncated": content[:-50], "altered": content[:-1] + b"!"}[case])
        else:
            yaml.write_text(text.replace(*{"version": ("version: 2", "version: 99"), "duplicate ids": ("id: 2", "id: 1")}[case]))
    lines = len(process.text().splitlines())
    assert client.change(rig.Transition.TRANSITION_DEACTIVATE)
    assert client.change(rig.Transition.TRANSITION_CLEANUP)
    assert client.set(bundle=str(folder)) == ""
    assert not client.change(rig.Transition.TRANSITION_CONFIGURE)
    assert client.state() == "unconfigured"
    said = process.text().splitlines()[lines:]
    assert len([line for line in said if "[ERROR]" in line]) == 1, said
    assert "cannot configure" in said[-1]
    client.wait(lambda: client.status["model"].level == rig.DiagnosticStatus.ERROR, "the diagnostic")
    assert client.set(bundle=str(bundle.folder)) == ""
    assert client.change(rig.Transition.TRANSITION_CONFIGURE)
    assert client.change(rig.Transition.TRANSITION_ACTIVATE)
    client.connect()


def test_a_model_that_answers_nonsense_costs_its_frames_only(
    rig: Any, live: tuple[Any, Any], bundle: Any, tmp_path: Path
) -> None:
    process, client = live
    assert client.set(bundle=str(rig.make_bundle(tmp_path, "poisoned", poisoned=True).folder)) == ""
    response = client.reload()
    if response.success:  # an engine that does not look at its answers while it warms up
        for _ in range(12):
            client.points.publish(rig.make_cloud(rig.street_points(100)))
            client.spin(0.02)
        client.wait(lambda: int(client.value("input", "dropped engine") or 0) >= 5, "the count of lost frames")
        client.wait(
            lambda: "onnxruntime" in process.text() and "no other engine is left" in process.text(), "the end of the chain"
        )
    assert client.set(bundle=str(bundle.folder)) == ""
    assert client.reload().success
    assert client.answer_to(rig.make_cloud(rig.street_points(100)))


@pytest.mark.parametrize("name", ["000000", "000001", "000002"])
def test_real_scans_come_back_as_they_were(rig: Any, live: tuple[Any, Any], shared_data: Path, name: str) -> None:
    points = np.fromfile(shared_data / "semantickitti_seq00" / "velodyne" / f"{name}.bin", np.float32).reshape(-1, 4)
    message = rig.make_cloud(points)
    message.header.frame_id = "velodyne"
    answer = live[1].answer_to(message)
    labels = unpack_labelled(answer)
    assert (answer.header, answer.height, answer.width) == (message.header, 1, len(points))
    np.testing.assert_array_equal(np.column_stack([labels[axis] for axis in "xyz"]), points[:, :3])
    inside = labels["flags"] == 0
    assert inside.any()
    np.testing.assert_array_equal(labels["class_id"] > 0, inside)


def test_a_recorded_message_comes_back_as_it_was(rig: Any, live: tuple[Any, Any], shared_data: Path) -> None:
    from rclpy.serialization import deserialize_message

    _, client = live
    serialized = (shared_data / "pointcloud2_cdr" / "dds_message.bin").read_bytes()
    message = deserialize_message(serialized, rig.PointCloud2)
    client.points.publish(serialized)

    def found() -> Any:
        return next((answer for answer in client.answers if answer.header == message.header), None)

    answer = client.wait(found, "the answer")
    labels = unpack_labelled(answer)
    cloud = decode_cdr(serialized)
    assert (answer.height, answer.width, len(labels["x"])) == (message.height, message.width, 64000)
    np.testing.assert_array_equal(np.column_stack([labels[axis] for axis in "xyz"]), cloud.xyz)
    assert not labels["class_id"][cloud.flags != 0].any()


def test_a_burst_is_answered_with_its_newest_cloud(rig: Any, live: tuple[Any, Any]) -> None:
    _, client = live
    client.wait(lambda: client.value("input", "reliability") == "reliable", "the subscription to follow")
    clouds = [rig.make_cloud(rig.street_points(60_000, seed)) for seed in range(4)]
    client.wait(lambda: client.answer_to(clouds[0], 0.5), "an answer")
    client.spin(0.3)
    memory_before = int(client.value("device", "memory_mib"))
    before = {key: int(client.value("input", key) or 0) for key in ("received", "answered", *LOSSES)}
    client.answers.clear()
    for i in range(100):
        clouds[i % 4].header.stamp = rig.next_stamp()
        client.points.publish(clouds[i % 4])
    newest = clouds[99 % 4].header.stamp
    client.wait(lambda: any(answer.header.stamp == newest for answer in client.answers), "the answer to the newest cloud")
    assert [a.header.stamp.nanosec for a in client.answers] == sorted(a.header.stamp.nanosec for a in client.answers)
    client.spin(0.3)
    count = {key: int(client.value("input", key) or 0) - before[key] for key in before}
    assert count["received"] + count["dropped lost_in_transport"] == 100
    assert count["received"] - count["dropped superseded"] == count["answered"] < 100
    assert len(client.answers) <= count["answered"]  # they come back as best effort
    assert int(client.value("device", "memory_mib")) - memory_before < 150


def test_silence_is_stale_and_heals_by_itself(rig: Any, live: tuple[Any, Any]) -> None:
    _, client = live
    assert client.set(stale_after_s=0.4) == ""
    client.wait(lambda: client.status["input"].level == rig.DiagnosticStatus.STALE, "a stale input")
    assert "no cloud for" in client.status["input"].message

    def recovered() -> bool:
        client.points.publish(rig.make_cloud(rig.street_points(100)))
        client.spin(0.1)
        return bool(client.status["input"].level != rig.DiagnosticStatus.STALE)

    client.wait(recovered, "a recovery")
    assert client.set(stale_after_s=2.0) == ""


def test_work_goes_on_without_subscribers_and_they_may_come_back(rig: Any, live: tuple[Any, Any]) -> None:
    process, client = live
    client.node.destroy_subscription(client.labels)
    answered = int(client.value("input", "answered"))

    def counted() -> bool:
        client.points.publish(rig.make_cloud(rig.street_points(100)))
        client.spin(0.1)
        return int(client.value("input", "answered")) > answered + 2

    client.wait(counted, "clouds to be counted")
    listener = rig.Client(process.namespace)
    try:
        listener.connect()
    finally:
        listener.close()
    profile = rig.QoSProfile(depth=200, reliability=rig.ReliabilityPolicy.BEST_EFFORT)
    client.labels = client.node.create_subscription(rig.PointCloud2, "weakseg/labels", client.answers.append, profile)
    client.connect()


def test_another_sensor_than_the_models_is_said(rig: Any, live: tuple[Any, Any], layouts: ModuleType) -> None:
    _, client = live
    points, _ = layouts.street(up_deg=45.0, down_deg=-15.0)

    def noticed() -> bool:
        client.points.publish(rig.make_cloud(points))
        client.spin(0.1)
        return "trained for" in client.status["domain"].message

    client.wait(noticed, "the domain warning")
    assert client.status["domain"].level == rig.DiagnosticStatus.WARN
    client.wait(
        lambda: client.answer_to(rig.make_cloud(rig.street_points(2000)), 1) and not client.value("domain", "difference 1"),
        "calm",
    )


def test_a_sensor_that_hangs_upside_down_is_an_error_with_its_remedy(
    rig: Any, live: tuple[Any, Any], layouts: ModuleType
) -> None:
    _, client = live
    upright, _ = layouts.street()
    hung = rig.make_cloud(upright * np.float32([1, -1, -1, 1]))

    def noticed() -> bool:
        client.points.publish(hung)
        client.spin(0.1)
        return "upside down" in client.status["domain"].message

    client.wait(noticed, "the error about the frame")
    assert client.status["domain"].level == rig.DiagnosticStatus.ERROR
    assert "set rotation_rpy_deg to 180 0 0" in client.status["domain"].message
    client.wait(
        lambda: client.answer_to(rig.make_cloud(rig.street_points(2000)), 1) and not client.value("domain", "difference 1"),
        "calm",
    )


def test_the_shared_node_was_healthy_all_along(live: tuple[Any, Any]) -> None:
    process, _ = live
    assert "internal" not in process.text()
    assert process.end() == 0
    assert "Traceback" not in process.text()
