# SPDX-License-Identifier: Apache-2.0
"""A bundle whose loading does not end: the old model answers on, a newer reload overtakes it, and Ctrl+C ends the node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import optional
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, write_bundle
from weakseg_ros.errors import BundleError

MINUTES = 180.0


def endless(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle with a loop of 2^62 turns behind its confidence."""
    onnx = optional("onnx")
    from onnx import TensorProto as T
    from onnx import helper as h

    model = onnx.load_from_string(bundle.read("model.onnx"))
    scalar = [h.make_tensor_value_info(name, kind, []) for name, kind in (("i", T.INT64), ("c", T.BOOL), ("v", T.FLOAT))]
    ends = [h.make_tensor_value_info(name, kind, []) for name, kind in (("c_out", T.BOOL), ("v_out", T.FLOAT))]
    turn = [h.make_node("Identity", ["c"], ["c_out"]), h.make_node("Identity", ["v"], ["v_out"])]
    for node in model.graph.node:
        node.output[:] = ["once" if name == "confidence" else name for name in node.output]
    model.graph.node.extend(
        [
            h.make_node("Loop", ["turns", "always", "nought"], ["late"], body=h.make_graph(turn, "turn", scalar, ends)),
            h.make_node("Add", ["once", "late"], ["confidence"]),
        ]
    )
    model.graph.initializer.extend(
        h.make_tensor(name, kind, [], [value])
        for name, kind, value in (("turns", T.INT64, 2**62), ("always", T.BOOL, True), ("nought", T.FLOAT, 0.0))
    )
    return write_bundle(folder, bundle.info, {"model.onnx": (KIND_ONNX, model.SerializeToString())}, "for tests\n")


@pytest.fixture
def bundles(rig: Any, tmp_path: Path) -> tuple[Bundle, Bundle, Bundle]:
    """Two good ones, and an endless one."""
    good, other = (rig.make_bundle(tmp_path, name, seed=seed) for seed, name in enumerate(("good", "other")))
    return good, other, endless(good, tmp_path / "endless")


def test_a_reload_that_does_not_end_is_overtaken_and_ctrl_c_ends_the_node(
    rig: Any, start: Callable[..., Any], bundles: tuple[Bundle, Bundle, Bundle]
) -> None:
    good, other, hostile = bundles
    process, client = start("--bundle", str(good.folder), "--engine", "onnxruntime")
    client.connect()
    points = rig.street_points(200)
    assert client.set(bundle=str(hostile.folder)) == ""
    client.call(rig.GetState, "get_state", rig.GetState.Request())
    reload = client.node.create_client(rig.Trigger, "weakseg/reload")
    client.wait(reload.service_is_ready, "the service reload", MINUTES)
    client.spin(0.3)
    first = reload.call_async(rig.Trigger.Request())
    client.spin(1.0)
    assert client.answer_to(rig.make_cloud(points), MINUTES), "labels go on"
    assert client.set(bundle=str(other.folder)) == ""
    second = reload.call_async(rig.Trigger.Request())
    client.wait(second.done, "the second reload", MINUTES)
    assert second.result().success, second.result().message
    assert "other" in second.result().message
    client.wait(first.done, "an answer to the first reload", MINUTES)
    assert not first.result().success
    assert "stays" in first.result().message
    assert client.set(bundle=str(hostile.folder)) == ""
    reload.call_async(rig.Trigger.Request())
    client.spin(1.0)
    assert client.answer_to(rig.make_cloud(points), MINUTES)
    assert process.end() == 0
    assert "Traceback" not in process.text()


def test_a_node_whose_first_model_does_not_load_says_so_and_ctrl_c_ends_it(
    rig: Any, start: Callable[..., Any], bundles: tuple[Bundle, Bundle, Bundle]
) -> None:
    process, client = start("--bundle", str(bundles[2].folder), "--engine", "onnxruntime")
    client.wait(lambda: "has been loading for" in client.status["model"].message if client.status else "", "the diagnostics")
    assert client.status["model"].level == rig.DiagnosticStatus.WARN
    assert process.end() == 0
    assert "Traceback" not in process.text()


def test_loading_is_over_once_and_what_comes_late_is_not_used() -> None:
    optional("rclpy")
    from weakseg_ros.ros.loading import Loading

    go, used, ended = threading.Event(), [], []

    def work(mine: Any) -> bool:
        assert go.wait(MINUTES)
        return bool(mine.unless_given_up(lambda: used.append(1)))

    loading = Loading(work, on_end=lambda: ended.append(1)).start()
    loading.give_up("nobody waits any longer")
    go.set()
    assert loading.join()
    with pytest.raises(BundleError, match="nobody waits"):
        loading.result()
    assert (used, ended) == ([], [1])
    following = Loading(work, former=loading).start()
    assert following.over.wait(MINUTES)
    assert following.result()
    assert used == [1]
