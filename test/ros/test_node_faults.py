# SPDX-License-Identifier: Apache-2.0
"""One real node process is sent every malformed cloud there is; it answers or counts, and lives on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support import PATIENCE_S
from weakseg_ros.deploy.domain import RECENT_CLOUDS
from weakseg_ros.points.labelled import unpack_labelled

N = 400
F32, F64, U8, U16 = 7, 8, 2, 4


@pytest.fixture(scope="module")
def node(rig: Any, start: Callable[..., Any], bundle: Any) -> tuple[Any, Any]:
    """In replay mode, where the order is kept and nothing is superseded, and reliable both ways."""
    reliable = rig.QoSProfile(depth=200, reliability=rig.ReliabilityPolicy.RELIABLE)
    options = ("--mode", "replay", "--reliability", "reliable", "--labels-reliability", "reliable")
    process, client = start("--bundle", str(bundle.folder), *options, client={"listen": reliable})
    return process, client.connect()


def layout(rig: Any, fields: list[tuple[str, int, int, int]], step: int, columns: dict[str, np.ndarray], order: str = "<") -> Any:
    """A cloud with these fields (name, offset, datatype, count); `columns` fill those of their name."""
    count = len(next(iter(columns.values())))
    kinds = {F32: "f4", F64: "f8", U8: "u1", U16: "u2"}
    data = np.full((count, step), 0xA5, np.uint8)
    for name, offset, datatype, _ in fields:
        if name in columns:
            values = columns[name].astype(order + kinds[datatype])
            data[:, offset : offset + values.itemsize] = values.view(np.uint8).reshape(count, -1)
    message = rig.make_cloud(np.zeros((count, 4)), point_step=step, row_step=step * count, data=data.tobytes())
    message.fields = [rig.PointField(name=n, offset=o, datatype=d, count=c) for n, o, d, c in fields]
    message.is_bigendian = order == ">"
    return message


def xyzi(points: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(("x", "y", "z", "intensity"), points.T, strict=True))


XYZ = [("x", 0, F32, 1), ("y", 4, F32, 1), ("z", 8, F32, 1)]
XYZI = [*XYZ, ("intensity", 12, F32, 1)]


def padded(rig: Any, points: np.ndarray) -> Any:
    rows = np.full((4, N // 4 * 16 + 24), 0xFF, np.uint8)
    rows[:, :-24] = points.view(np.uint8).reshape(4, -1)
    return rig.make_cloud(points, height=4, width=N // 4, row_step=N // 4 * 16 + 24, data=rows.tobytes())


# Each gives a cloud with the same N points as rig.street_points(N), in another dress
SAME_POINTS: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "3 surplus data": lambda rig, p: rig.make_cloud(p, data=p.tobytes() + b"tail"),
    "4 row_step zero": lambda rig, p: rig.make_cloud(p, row_step=0),
    "4 row_step wrong": lambda rig, p: rig.make_cloud(p, row_step=12345),
    "5 padded rows": padded,
    "6 row_step of all rows": lambda rig, p: rig.make_cloud(p, height=4, width=N // 4, row_step=16 * N),
    "6 row_step zero with rows": lambda rig, p: rig.make_cloud(p, height=4, width=N // 4, row_step=0),
    "10 float64": lambda rig, p: layout(
        rig, [("x", 0, F64, 1), ("y", 8, F64, 1), ("z", 16, F64, 1), ("intensity", 24, F32, 1)], 28, xyzi(p)
    ),
    "11 unaligned": lambda rig, p: layout(
        rig, [("y", 1, F32, 1), ("ring", 5, U16, 1), ("z", 7, F32, 1), ("intensity", 18, F32, 1), ("x", 27, F32, 1)], 31, xyzi(p)
    ),
    "12 faults in other fields": lambda rig, p: layout(
        rig, [*XYZI, ("", 12, F32, 1), ("a", 0, 99, 1), ("b", 0, U8, 0), ("b", 9, 0, 7)], 16, xyzi(p)
    ),
    "12 count zero": lambda rig, p: layout(rig, [(name, at, kind, 0) for name, at, kind, _ in XYZI], 16, xyzi(p)),
    "12 count of all points": lambda rig, p: layout(rig, [(name, at, kind, N) for name, at, kind, _ in XYZI], 16, xyzi(p)),
    "13 little-endian all the same": lambda rig, p: rig.make_cloud(p, is_bigendian=True),
    "13 big-endian": lambda rig, p: layout(rig, XYZI, 16, xyzi(p), ">"),
    "16 is_dense is no promise": lambda rig, p: rig.make_cloud(p, is_dense=False),
    "18 organised": lambda rig, p: rig.make_cloud(p, height=10, width=N // 10, row_step=16 * (N // 10)),
    "25 no frame": lambda rig, p: frame(rig, p, ""),
    "25 slash": lambda rig, p: frame(rig, p, "/lidar"),
    "25 another frame": lambda rig, p: frame(rig, p, "lidär"),
    "26 stamp zero": lambda rig, p: stamped(rig, p, 0, 0),
    "26 in the future": lambda rig, p: stamped(rig, p, 2**31 - 1, 999_999_999),
    "26 before 1970": lambda rig, p: stamped(rig, p, -5, 7),
    "26 backwards": lambda rig, p: stamped(rig, p, 3, 0),
}


def frame(rig: Any, points: np.ndarray, name: str) -> Any:
    message = rig.make_cloud(points)
    message.header.frame_id = name
    return message


def stamped(rig: Any, points: np.ndarray, seconds: int, nanoseconds: int) -> Any:
    message = rig.make_cloud(points)
    message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
    return message


@pytest.mark.parametrize("case", SAME_POINTS)
def test_a_cloud_in_another_dress_gets_the_same_labels(rig: Any, node: tuple[Any, Any], case: str) -> None:
    points = rig.street_points(N)
    plain = unpack_labelled(node[1].answer_to(rig.make_cloud(points)))
    message = SAME_POINTS[case](rig, points)
    before = bytes(message.data)
    answer = node[1].answer_to(message)
    labels = unpack_labelled(answer)
    assert (answer.header, answer.height, answer.width) == (message.header, message.height, message.width)
    assert bytes(message.data) == before
    assert len(np.unique(plain["class_id"])) > 2
    for one, other in zip(equally_certain(plain, labels), equally_certain(labels, plain), strict=True):
        np.testing.assert_array_equal(one, other)


def equally_certain(labels: np.ndarray, others: np.ndarray) -> list[Any]:
    """The columns of an answer, none of it more certain than the other answer at its most certain.

    The fit caps what a model says of its certainty, and it is measured while the first clouds are answered: the one answer may
    have been given before, and the other after it was known.
    """
    most, least = others["confidence"].max(), others["uncertainty"][others["class_id"] > 0].min()
    certain = {"confidence": np.minimum(labels["confidence"], most), "uncertainty": np.maximum(labels["uncertainty"], least)}
    return [certain.get(name, labels[name]) for name in labels]


def with_rows(points: np.ndarray, **rows: Any) -> np.ndarray:
    changed = points.copy()
    for at, row in rows.items():
        changed[int(at[1:]), :3] = row
    return changed


# name: (points, indices without a class, their possible flags)
ODD_POINTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], list[int], int]] = {
    "14 some NaN and Inf": (lambda p: with_rows(p, _3=np.nan, _7=np.inf, _9=(1, -np.inf, 2)), [3, 7, 9], 1),
    "15 all NaN": (lambda p: np.full_like(p, np.nan), list(range(N)), 1),
    "17 non-returns": (lambda p: with_rows(p, _0=0, _5=0), [0, 5], 2),
    "19 extremes": (lambda p: with_rows(p, _1=(1e30, 1, 1), _2=(-1e38, 0, 0), _3=(3e38, 3e38, 3e38)), [1, 2, 3], 4),
    "20 all the same": (lambda p: np.tile(np.float32([[10, 1, 0, 0.5]]), (N, 1)), [], 0),
    "20 all in one pixel": (lambda p: np.float32([[10, 1, 0, 0.5]]) * np.linspace(1, 2, N, dtype=np.float32)[:, None], [], 0),
    "21 one point": (lambda p: p[:1], [], 0),
    "22 intensity zero": (lambda p: p * np.float32([1, 1, 1, 0]), [], 0),
    "22 intensity far beyond": (lambda p: p * np.float32([1, 1, 1, 1e6]), [], 0),
    "22 intensity negative": (lambda p: p * np.float32([1, 1, 1, -1]), [], 0),
    "14 intensity NaN": (lambda p: p * np.float32([1, 1, 1, np.nan]), [], 0),
}


@pytest.mark.parametrize("case", ODD_POINTS)
def test_every_point_gets_an_answer(rig: Any, node: tuple[Any, Any], case: str) -> None:
    change, without_class, flag = ODD_POINTS[case]
    points = np.ascontiguousarray(change(rig.street_points(N)), np.float32)
    labels = unpack_labelled(node[1].answer_to(rig.make_cloud(points)))
    np.testing.assert_array_equal(np.column_stack([labels[name] for name in "xyz"]), points[:, :3])
    assert np.flatnonzero(labels["class_id"] == 0).tolist() == without_class
    assert (labels["flags"][without_class] & flag).all()
    assert not labels["confidence"][without_class].any()
    assert np.isfinite(labels["confidence"]).all()
    assert np.isfinite(labels["uncertainty"]).all()


def test_denormals_disturb_no_other_point(rig: Any, node: tuple[Any, Any]) -> None:
    points = rig.street_points(N)
    plain = unpack_labelled(node[1].answer_to(rig.make_cloud(points[2:])))
    points[:2, :3] = [(1e-40, 0, 0), (1e-40, -1e-42, 1e-45)]
    labels = unpack_labelled(node[1].answer_to(rig.make_cloud(points)))
    assert len(labels["class_id"]) == N
    agreement = labels["class_id"][2:] == plain["class_id"]
    assert agreement.mean() > 0.95, "a point so near hides what lies behind it in its pixel, and nothing else"


def named(*names: str) -> list[tuple[str, int, int, int]]:
    return [(name, 4 * i, F32, 1) for i, name in enumerate(names)]


HOSTILE, SHOWN = "zz\x1b]0;pwned\x07", r"zz\x1b]0;pwned\x07"
"""a name of a field or frame that would rename the terminal of whoever reads the node's log, and how it is written there"""
# name: (message, the reason under which it is counted)
BROKEN: dict[str, tuple[Callable[[Any, np.ndarray], Any], str]] = {
    "2 short data": (lambda rig, p: rig.make_cloud(p, data=p.tobytes()[:-1]), "short_data"),
    "2 no data": (lambda rig, p: rig.make_cloud(p, data=b""), "short_data"),
    "6 rows overlap": (
        lambda rig, p: rig.make_cloud(p, height=4, width=N // 4, row_step=16, data=p.astype(np.float32).tobytes() + b"x"),
        "row_step",
    ),
    "7 step zero": (lambda rig, p: rig.make_cloud(p, point_step=0), "point_step"),
    "7 step too small": (lambda rig, p: rig.make_cloud(p, point_step=11), "point_step"),
    "8 no z": (lambda rig, p: layout(rig, named("x", "y", HOSTILE, "intensity"), 16, xyzi(p)), "no_xyz"),
    "8 no fields": (lambda rig, p: rig.make_cloud(p, fields=[]), "no_xyz"),
    "12 x twice": (lambda rig, p: layout(rig, [*XYZI, ("x", 4, F32, 1)], 16, xyzi(p)), "bad_layout"),
    "12 x without a type": (lambda rig, p: layout(rig, [("x", 0, 0, 1), *XYZI[1:]], 16, {"y": p[:, 1]}), "bad_layout"),
    "12 x of an unknown type": (lambda rig, p: layout(rig, [("x", 0, 99, 1), *XYZI[1:]], 16, {"y": p[:, 1]}), "bad_layout"),
    "12 three x": (lambda rig, p: layout(rig, [*XYZI[1:], ("x", 16, F32, 3)], 28, {"y": p[:, 1]}), "bad_layout"),
    "12 y inside x": (lambda rig, p: layout(rig, [("x", 0, F32, 1), ("y", 2, F32, 1), *XYZI[2:]], 16, xyzi(p)), "bad_layout"),
    "24 absurd": (lambda rig, p: rig.make_cloud(p, height=2**32 - 1, width=2**32 - 1), "absurd_size"),
    "24 overflowing": (lambda rig, p: rig.make_cloud(p, height=2**16, width=2**16), "absurd_size"),
}


def dropped(client: Any, reason: str) -> int:
    return int(client.value("input", f"dropped {reason}") or 0)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_cloud_is_counted_and_the_next_one_answered(rig: Any, node: tuple[Any, Any], case: str) -> None:
    process, client = node
    make, reason = BROKEN[case]
    before = dropped(client, reason)
    message = make(rig, rig.street_points(N))
    client.points.publish(message)
    assert client.answer_to(rig.make_cloud(rig.street_points(N))), f"no answer after the broken cloud:\n{process.text()}"
    assert all(answer.header.stamp != message.header.stamp for answer in client.answers)
    client.wait(lambda: dropped(client, reason) == before + 1, f"the count of {reason}")
    status = client.status["input"]
    assert (status.level, reason in status.message) == (rig.DiagnosticStatus.WARN, True)


def test_a_fault_is_said_once_and_not_for_every_cloud(rig: Any, node: tuple[Any, Any]) -> None:
    process, client = node
    for _ in range(20):
        client.points.publish(layout(rig, named("x", "y", "w", "intensity"), 16, xyzi(rig.street_points(N))))
    assert client.answer_to(rig.make_cloud(rig.street_points(N)))
    lines = [line for line in process.text().splitlines() if "no field 'z'" in line]
    assert 1 <= len(lines) <= 3
    assert all("[ERROR]" in line for line in lines)
    assert "has x, y" in lines[0]


def test_an_empty_cloud_gets_an_empty_answer(rig: Any, node: tuple[Any, Any]) -> None:
    client = node[1]
    before = int(client.value("input", "empty") or 0)
    for message in (rig.make_cloud(np.zeros((0, 4))), rig.make_cloud(np.zeros((0, 4)), height=0, fields=[], point_step=0)):
        answer = client.answer_to(message)
        assert (answer.width * answer.height, answer.header) == (0, message.header)
        assert len(unpack_labelled(answer)["class_id"]) == 0
    client.wait(lambda: int(client.value("input", "empty")) == before + 2, "the count of empty clouds")


def test_missing_intensity_is_said_once(rig: Any, node: tuple[Any, Any]) -> None:
    process, client = node
    for _ in range(3):
        assert client.answer_to(layout(rig, XYZ, 12, xyzi(rig.street_points(N))))
    assert process.text().count("the clouds have no intensity") == 1


def test_integer_intensity_is_brought_to_the_models_scale(rig: Any, node: tuple[Any, Any]) -> None:
    points = rig.street_points(N)
    points[:, 3] = np.round(points[:, 3] * 255) / 255
    plain = unpack_labelled(node[1].answer_to(rig.make_cloud(points)))
    for datatype, full in ((U8, 255), (U16, 65535)):
        columns = xyzi(points) | {"intensity": np.round(points[:, 3] * full)}
        labels = unpack_labelled(node[1].answer_to(layout(rig, [*XYZ, ("intensity", 12, datatype, 1)], 14, columns)))
        np.testing.assert_allclose(labels["confidence"], plain["confidence"], atol=1e-4)


def test_two_publishers_are_served_frame_by_frame(rig: Any, node: tuple[Any, Any]) -> None:
    process, client = node
    other = rig.Client(process.namespace)
    try:
        other.wait(lambda: other.points.get_subscription_count(), "the node")
        for i in range(6):
            publisher = (client, other)[i % 2].points
            message = rig.make_cloud(rig.street_points(50 + i))
            publisher.publish(message)
            answer = client.wait(
                lambda m=message: next((a for a in client.answers if a.header.stamp == m.header.stamp), None), "an answer"
            )
            assert answer.width == 50 + i
    finally:
        other.close()


def test_a_repeated_stamp_is_answered_again(rig: Any, node: tuple[Any, Any]) -> None:
    message = rig.make_cloud(rig.street_points(N))
    assert node[1].answer_to(message)
    assert node[1].answer_to(message)


def test_a_burst_loses_nothing_in_replay_mode(rig: Any, node: tuple[Any, Any]) -> None:
    client = node[1]
    sent = [rig.make_cloud(rig.street_points(20000, seed)) for seed in range(5)]
    client.answers.clear()
    stamps = []
    for i in range(100):
        message = sent[i % 5]
        message.header.stamp = rig.next_stamp()
        stamps.append(message.header.stamp.nanosec)
        client.points.publish(message)
    client.wait(lambda: len(client.answers) >= 100, "100 answers")
    assert [answer.header.stamp.nanosec for answer in client.answers] == stamps
    client.answers.clear()


def test_millions_of_points_all_get_an_answer(rig: Any, node: tuple[Any, Any]) -> None:
    points = np.tile(rig.street_points(50_000), (100, 1))
    answer = node[1].answer_to(rig.make_cloud(points))
    labels = unpack_labelled(answer)
    assert len(labels["class_id"]) == 5_000_000
    assert (labels["class_id"] > 0).all()


def test_the_frame_of_clouds_that_lie_far_away_is_shown_and_not_obeyed(rig: Any, node: tuple[Any, Any]) -> None:
    process, client = node
    for seed in range(RECENT_CLOUDS):
        message = rig.make_cloud(rig.street_points(N, seed) + np.array([2000, 0, 0, 0], np.float32))
        message.header.frame_id = HOSTILE
        assert client.answer_to(message)
    client.wait(lambda: rf"frame '{SHOWN}'" in process.text(), "the warning that names the frame")


def test_it_is_still_the_same_healthy_process(node: tuple[Any, Any]) -> None:
    process, client = node
    assert process.process.poll() is None
    assert "internal" not in {item.key.removeprefix("dropped ") for item in client.status["input"].values}
    assert process.end() == 0
    assert "Traceback" not in process.text()
    assert "\x1b]" not in process.text(), "names that publishers chose are shown, not obeyed"


def test_a_bad_cloud_is_a_warning_for_a_while_and_a_figure_for_good(rig: Any) -> None:
    from weakseg_ros.ros.cloud_source import CloudSource
    from weakseg_ros.ros.diagnostics import FrameSummary, input_status
    from weakseg_ros.ros.params import NodeConfig

    node = rig.rclpy.create_node("listener")
    source = CloudSource(node, NodeConfig(), lambda _: None, lambda _: None)
    figures: dict[str, Any] = {"received": 9, "answered": 7, "empty": 0, "dropped": {"no_xyz": 1, "size": 1}}
    figures |= {"rate_hz": 10.0, "age_s": 0.1, "milliseconds": {}}
    for recent, level, message in (
        (("size",), rig.DiagnosticStatus.WARN, "clouds dropped: 1 size"),
        (("superseded",), rig.DiagnosticStatus.OK, "ok"),
        ((), rig.DiagnosticStatus.OK, "ok"),
    ):
        status = input_status(FrameSummary(**figures, dropping=recent), NodeConfig(), source)
        assert (status.level, status.message) == (level, message)
        assert status.values["dropped no_xyz"] == 1
    source.close()
    node.destroy_node()


def test_another_node_that_publishes_the_same_is_told(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was left over from an earlier launch."""
    from weakseg_ros.ros import publish

    monkeypatch.setattr(publish, "TWIN_AFTER_S", 0.0)
    ours, left_over = (rig.rclpy.create_node("weakseg", namespace="/twin_test", enable_rosout=False) for _ in range(2))
    outputs = publish.Outputs(ours, lossless=False)
    outputs.check_peers()
    assert outputs.problem == ""
    twin = left_over.create_publisher(rig.PointCloud2, "~/labels", 1)

    def problem() -> str:
        outputs.check_peers()
        return str(outputs.problem)

    deadline = time.monotonic() + PATIENCE_S
    while not problem() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "/twin_test/weakseg/labels: another process publishes it, too" in problem()
    left_over.destroy_publisher(twin)
    while problem() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert problem() == ""
    outputs.close()
    ours.destroy_node()
    left_over.destroy_node()


def test_the_rate_is_that_of_the_last_seconds(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause, or a driver that was set to another rate, would show for 200 clouds."""
    from weakseg_ros.ros import diagnostics

    now_s = 1000.0
    monkeypatch.setattr(diagnostics, "time", SimpleNamespace(monotonic=lambda: now_s))
    statistics = diagnostics.FrameStatistics()
    assert (statistics.snapshot().rate_hz, statistics.snapshot().age_s) == (0.0, None)
    for step_s, count in ((0.05, 200), (3600.0, 1), (0.1, 20)):
        for _ in range(count):
            now_s += step_s
            statistics.arrived()
    assert statistics.snapshot().rate_hz == pytest.approx(10.0)
    now_s += 60.0
    assert (statistics.snapshot().rate_hz, statistics.snapshot().age_s) == (0.0, pytest.approx(60.0))


if sys.byteorder != "little":  # the layouts above are spelt in little-endian
    pytestmark = pytest.mark.skip(reason="written for little-endian machines")
