# SPDX-License-Identifier: Apache-2.0
"""Bags through the real node over DDS, and nodes that break their promise."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import PATIENCE_S
from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import DataError, ReplayError
from weakseg_ros.points.cdr import read_cdr_header
from weakseg_ros.points.cloud import decode_cdr, make_cloud
from weakseg_ros.points.labelled import unpack_labelled

CLOUDS = 8
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 50_000_000


@pytest.fixture(scope="module")
def bag(rig: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clouds of different sizes at 20 Hz."""
    path = tmp_path_factory.mktemp("bags") / "drive"
    with CloudBagWriter(path, "/recorded") as writer:
        for index in range(CLOUDS):
            points = rig.street_points(1000 + index, seed=index)
            stamp_ns = START_NS + index * PERIOD_NS
            writer.write(make_cloud(points[:, :3], points[:, 3], stamp_ns=stamp_ns, frame_id="roof"))
    return path


@pytest.fixture(scope="module")
def node(start: Callable[..., Any], bundle: Any) -> str:
    """Full name of a running node."""
    process, client = start("--bundle", str(bundle.folder), "--engine", "onnxruntime")
    client.connect()
    return f"{process.namespace}/weakseg"


def settings(**changes: Any) -> Any:
    from weakseg_ros.ros.replay_player import ReplaySettings

    return ReplaySettings(**{"lossless": True, "answer_timeout_s": 5.0, "clock": False, **changes})


def test_every_cloud_is_answered_as_the_segmenter_would(node: str, bag: Path, bundle: Any) -> None:
    from weakseg_ros.ros.replay import replay

    answers = []
    result = replay(bag, settings=settings(node=node), on_answer=answers.append)
    assert (result.sent, result.answered, result.missing) == (CLOUDS, CLOUDS, ())
    assert [answer.stamp_ns for answer in answers] == [START_NS + i * PERIOD_NS for i in range(CLOUDS)]
    assert result.duration_s >= (CLOUDS - 1) * PERIOD_NS * 1e-9
    assert len(result.latency_samples_ms) == CLOUDS
    segmenter = Segmenter(bundle, engine="onnxruntime")
    for answer in answers:
        expected = segmenter.run(decode_cdr(answer.sent))
        np.testing.assert_array_equal(unpack_labelled(answer.message)["class_id"], expected.class_id)
        assert answer.message.header.frame_id == read_cdr_header(answer.sent).frame_id == "roof"
    segmenter.close()


def test_the_verb_writes_what_it_counted(node: str, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "replay.json"
    code = weakseg(["replay", str(bag), "--node", node, "--lossless", "--rate", "20", "--no-clock", "--out", str(out)])
    assert code == 0
    assert f"{CLOUDS} clouds sent, {CLOUDS} answered, 0 without an answer" in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert written["answered"] == CLOUDS
    assert written["latency_ms"]["p50"] <= written["latency_ms"]["p99"]


def test_several_bags_are_played_one_after_another_and_a_bad_one_has_a_row(node: str, bag: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "replay.json", tmp_path / "bad.mcap"
    bad.write_bytes(b"no bag")
    options = ["--node", node, "--lossless", "--rate", "20", "--no-clock", "--out", str(out)]
    assert weakseg(["replay", str(bad), str(bag), *options]) == 1
    rows = json.loads(out.read_text())
    assert "bad.mcap" in rows[0]["problem"]
    assert rows[1]["answered"] == CLOUDS


def test_evaluation_through_a_running_node_agrees_with_the_direct_one(node: str, bag: Path, bundle: Any, tmp_path: Path) -> None:
    from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate
    from weakseg_ros.ros.live import live_answers

    config = EvaluateConfig(
        data=bag, bundle=str(bundle.folder), live=True, attach=True, node=node, rate=20.0, engine="onnxruntime", out=tmp_path
    )
    report, summary = evaluate(config, live=live_answers)
    assert summary["live"]["sent"] == summary["live"]["answered"] == summary["scans"] == CLOUDS
    assert summary["agreement_with_direct"]["share"] == 1.0
    assert "Answer time over DDS" in report.read_text()


@pytest.mark.parametrize("stamp_ns", [START_NS, 0])
def test_clouds_of_one_stamp_are_compared_each_with_its_own_answer(
    rig: Any, node: str, bundle: Any, tmp_path: Path, stamp_ns: int
) -> None:
    """Ouster's first clouds share a stamp, other drivers never set it."""
    from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate
    from weakseg_ros.ros.live import live_answers

    with CloudBagWriter(tmp_path / "drive") as writer:
        for index in range(4):
            points = rig.street_points(1000 - 100 * index, seed=index)
            writer.write(make_cloud(points[:, :3], points[:, 3], stamp_ns=stamp_ns, frame_id="roof"))
    config = EvaluateConfig(
        **{"data": tmp_path / "drive", "bundle": str(bundle.folder), "engine": "onnxruntime", "out": tmp_path / "report"},
        **{"live": True, "attach": True, "node": node, "rate": 20.0},
    )
    _, summary = evaluate(config, live=live_answers)
    assert (summary["scans"], summary["live"]["answered"], summary["partial"]) == (4, 4, False)
    agreement = summary["agreement_with_direct"]
    assert agreement["points"] == agreement["same"] == sum(1000 - 100 * index for index in range(4))


def test_evaluation_starts_and_ends_a_node_of_its_own(bag: Path, bundle: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", str(bag), "--bundle", str(bundle.folder), "--live", "--rate", "20", "--engine", "onnxruntime"]
    assert weakseg([*arguments, "--out", str(out)]) == 0
    assert json.loads((out / "summary.json").read_text())["agreement_with_direct"]["share"] == 1.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_node_is_left_over_when_an_evaluation_is_ended(
    number: signal.Signals, rig: Any, bag: Path, bundle: Any, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "weakseg_ros", "evaluate", str(bag), "--bundle", str(bundle.folder), "--live"]
    process = subprocess.Popen([*command, "--rate", "0.01", "--out", str(tmp_path)], stderr=subprocess.DEVNULL)
    client = rig.Client("/watcher")
    name = f"weakseg_evaluate_{process.pid}"
    client.wait(lambda: name in client.node.get_node_names(), "the node")
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == (-number if number == signal.SIGKILL else 128 + number)
    client.wait(lambda: name not in client.node.get_node_names(), "the node's end")
    client.close()


def test_the_clock_runs_with_the_bag(rig: Any, node: str, bag: Path) -> None:
    from rosgraph_msgs.msg import Clock

    from weakseg_ros.data.bags import read_raw
    from weakseg_ros.ros.replay_player import Player

    client = rig.Client("/listener")
    ticks: list[int] = []
    client.node.create_subscription(Clock, "/clock", lambda m: ticks.append(m.clock.sec * 10**9 + m.clock.nanosec), 20)
    done = threading.Event()
    with Player(settings(node=node, clock=True)) as player:
        player.connect("/recorded")
        client.wait(lambda: client.node.count_publishers("/clock") > 0, "the clock's publisher")
        time.sleep(0.5)  # the publisher has to find the listener, too
        thread = threading.Thread(target=lambda: (player.play(read_raw(bag, "/recorded")), done.set()))
        thread.start()
        client.wait(done.is_set, "the end of the replay")
        thread.join()
        client.wait(lambda: START_NS + (CLOUDS - 1) * PERIOD_NS in ticks, "the last tick")
    client.close()
    assert ticks == sorted(ticks)


@pytest.mark.parametrize(
    "recorded_ns",
    [
        [0, START_NS, START_NS + PERIOD_NS],
        [START_NS, START_NS - 7200 * 10**9, START_NS + 2**61],
        [2**62, 2**62 + PERIOD_NS, 2**62 + 2 * PERIOD_NS],
    ],
    ids=["before the first tick of a simulation", "set back and forth", "beyond what ROS can say"],
)
def test_steps_of_a_clock_are_not_waited_for(rig: Any, node: str, bag: Path, recorded_ns: list[int]) -> None:
    from weakseg_ros.data.bags import read_raw
    from weakseg_ros.ros.replay_player import Player

    clouds = [message._replace(stamp_ns=stamp) for message, stamp in zip(read_raw(bag), recorded_ns, strict=False)]
    results: list[Any] = []

    def play() -> None:
        with Player(settings(node=node, clock=True)) as player:
            player.connect("/recorded")
            player.play(clouds)
            results.append(player.result())

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    client = rig.Client("/listener")
    client.wait(lambda: not thread.is_alive(), "the end of the replay")
    client.close()
    assert [result.answered for result in results] == [3]


def test_without_a_node_it_says_what_is_there(rig: Any, bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert weakseg(["replay", str(bag), "--node", "nobody", "--start-timeout-s", "0.5"]) == 2
    said = capsys.readouterr().err
    assert "nobody: no active node of that name within 0.5 s" in said
    assert "cloud topics:" in said


def test_a_wrong_topic_is_refused_before_anything_is_sent(rig: Any, bag: Path) -> None:
    from weakseg_ros.ros.replay import replay

    with pytest.raises(DataError, match="/recorded"):
        replay(bag, topic="/other", settings=settings(start_timeout_s=0.0))


class Careless:
    """A node that looks like ours and answers as it pleases: `answers(number of the cloud, message)`."""

    def __init__(self, rig: Any, name: str, answers: Callable[[int, Any], Any]) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import PointCloud2
        from std_msgs.msg import String

        self._client = rig.Client(f"/{name}")
        ros = self._node = rig.rclpy.create_node("weakseg", namespace=f"/{name}")
        kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._classes = ros.create_publisher(String, "~/classes", kept)
        self._classes.publish(String(data="{}"))
        labels = ros.create_publisher(PointCloud2, "~/labels", 10)
        self._count = 0

        def on_cloud(message: Any) -> None:
            answer = answers(self._count, message)
            self._count += 1
            if answer is not None:
                labels.publish(answer)

        ros.create_subscription(PointCloud2, "points", on_cloud, 10)
        self._executor = rig.SingleThreadedExecutor()
        self._executor.add_node(ros)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        self._client.close()


@pytest.fixture
def careless(rig: Any) -> Iterator[Callable[[str, Callable[[int, Any], Any]], None]]:
    opened: list[Careless] = []
    yield lambda name, answers: opened.append(Careless(rig, name, answers))
    for thing in opened:
        thing.close()


def test_missing_answers_fail_loudly_with_their_stamps(
    careless: Callable[..., None], bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    careless("forgetful", lambda number, cloud: None if number in (2, 5) else cloud)
    options = ["--lossless", "--answer-timeout-s", "0.5", "--no-clock", "--rate", "20"]
    assert weakseg(["replay", str(bag), "--node", "forgetful/weakseg", *options]) == 2
    said = capsys.readouterr().err
    assert f"answered {CLOUDS - 2} of {CLOUDS} clouds" in said
    for index in (2, 5):
        assert f"{(START_NS + index * PERIOD_NS) // 10**9}.{(START_NS + index * PERIOD_NS) % 10**9:09d}" in said


def test_a_silent_node_is_given_up_soon(careless: Callable[..., None], bag: Path) -> None:
    from weakseg_ros.ros.replay import replay

    careless("silent", lambda number, cloud: None)
    with pytest.raises(ReplayError, match=r"answered 0 of 3 clouds"):
        replay(bag, settings=settings(node="silent/weakseg", answer_timeout_s=0.3))


def test_missing_answers_are_only_counted_without_lossless(careless: Callable[..., None], bag: Path) -> None:
    from weakseg_ros.ros.replay import replay

    careless("lossy", lambda number, cloud: None if number == 1 else cloud)
    result = replay(bag, settings=settings(node="lossy/weakseg", lossless=False))
    assert result.answered == CLOUDS - 1
    assert result.missing == (START_NS + PERIOD_NS,)


def test_an_answer_of_another_shape_is_an_error(careless: Callable[..., None], bag: Path) -> None:
    from weakseg_ros.ros.replay import replay

    def shorten(number: int, cloud: Any) -> Any:
        cloud.width -= 1
        return cloud

    careless("shortening", shorten)
    with pytest.raises(ReplayError, match=r"is 1 x 999 in frame 'roof', the cloud was 1 x 1000"):
        replay(bag, settings=settings(node="shortening/weakseg"))


def test_a_live_evaluation_says_why_its_node_dropped_the_clouds(rig: Any, bag: Path, tmp_path: Path) -> None:
    demanding = rig.make_bundle(tmp_path, intensity=rig.IntensityRule(required=True, full_scale=1.0))
    without = tmp_path / "without"
    with CloudBagWriter(without) as writer:
        writer.write(make_cloud(rig.street_points(500)[:, :3] * 1000, stamp_ns=START_NS, frame_id="roof"))
    arguments = ["evaluate", str(without), "--bundle", str(demanding.folder), "--live", "--out", str(tmp_path / "report")]
    command = [sys.executable, "-m", "weakseg_ros", *arguments, "--intensity-field", "reflectivity"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no field 'reflectivity'" in done.stderr


def test_a_live_evaluation_takes_clouds_in_as_it_is_told(rig: Any, bundle: Any, tmp_path: Path) -> None:
    millimetres = tmp_path / "millimetres"
    with CloudBagWriter(millimetres) as writer:
        points = rig.street_points(500)
        writer.write(make_cloud(points[:, :3] * [1000, -1000, -1000], points[:, 3], stamp_ns=START_NS, frame_id="roof"))
    arguments = ["evaluate", str(millimetres), "--bundle", str(bundle.folder), "--live", "--out", str(tmp_path / "report")]
    assert weakseg([*arguments, "--rotation-rpy-deg", "180", "0", "0", "--unit-m", "0.001", "--intensity-scale", "0.5"]) == 0
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    agreement = summary["agreement_with_direct"]
    assert agreement["points"] == agreement["same"] == 500
    assert summary["points_without_class"]["total"] < 50, "in millimetres all of them are out of range"


def test_an_attached_node_that_takes_clouds_in_otherwise_is_refused(node: str, bag: Path, bundle: Any, tmp_path: Path) -> None:
    arguments = ["evaluate", str(bag), "--bundle", str(bundle.folder), "--live", "--attach", "--node", node]
    command = [sys.executable, "-m", "weakseg_ros", *arguments, "--unit-m", "0.5", "--out", str(tmp_path / "report")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unit_m: the node has 1.0, this evaluation 0.5" in done.stderr
