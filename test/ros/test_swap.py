# SPDX-License-Identifier: Apache-2.0
"""Another model while clouds come in: the node follows models/current, loses no frame, and keeps the old one over a bad one."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.errors import EngineError
from weakseg_ros.improve.retrain.versions import Versions
from weakseg_ros.points.labelled import unpack_labelled
from weakseg_ros.registry import ENGINES
from weakseg_ros.ros.model import Model, open_segmenter
from weakseg_ros.ros.params import NodeConfig

PERIOD_S = 0.1
ENGINE = """
import threading
from weakseg_ros.errors import EngineError

opening, swapped = threading.Event(), threading.Event()

class Plain:
    name = device = "plain"
    def __init__(self, bundle, threads=0):
        pass
    def run(self, image):
        raise EngineError("the engine has caught a cold")
    def close(self):
        pass

class Slow(Plain):
    name = device = "slow"
    def __init__(self, bundle, threads=0):
        opening.set()
        assert swapped.wait(20)
"""


@pytest.fixture(scope="module")
def versions(rig: Any, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Three good models of which the first is current, the last with classes of its own, and a damaged one."""
    models = tmp_path_factory.mktemp("models")
    for number in range(2):
        rig.make_bundle(models / "versions", f"tiny-{number}", seed=number)
    few = rig.LabelMap("few", tuple(rig.LabelClass(i, f"kind {i}", (i, i, i), False, (i,)) for i in range(3)))
    rig.make_bundle(models / "versions", "few-1", labels=few)
    damaged = rig.make_bundle(models / "versions", "damaged-1")
    (damaged.folder / "model.onnx").write_bytes(b"cut")
    versions = Versions(models)
    versions.promote(models / "versions" / "tiny-0")
    return versions


@pytest.fixture(scope="module")
def watched(rig: Any, start: Callable[..., Any], versions: Versions) -> tuple[Any, Any]:
    """A node that follows models/current, reliable both ways, so that a cloud without an answer is the node's own loss."""
    reliable = rig.QoSProfile(depth=200, reliability=rig.ReliabilityPolicy.RELIABLE)
    options = (
        "--engine",
        "onnxruntime",
        "--publish-rgb",
        "true",
        "--reliability",
        "reliable",
        "--labels-reliability",
        "reliable",
    )
    arguments = ("--bundle", str(versions.pointer), "--watch-bundle", "0.1", *options)
    process, client = start(*arguments, client={"listen": reliable})
    return process, client.connect()


def at_work(client: Any) -> str:
    return json.loads(client.classes[-1])["hash"] if client.classes else ""


def test_promoting_swaps_the_model_between_two_frames(rig: Any, watched: tuple[Any, Any], versions: Versions) -> None:
    _, client = watched
    points = rig.street_points(2000)
    expected = {}
    client.answers.clear()
    sent = []
    for name in ("tiny-0", "tiny-1", "few-1", "tiny-0"):
        folder = versions.models / "versions" / name
        if versions.current != folder.resolve():
            versions.promote(folder)
        digest = rig.Bundle.load(folder).content_hash
        frames = 0
        while frames < 5 or at_work(client) != digest:  # clouds go on while it loads, and a while after
            assert frames < 1500, "the new model never came"
            message = rig.make_cloud(points)
            sent.append(message.header.stamp)
            client.points.publish(message)
            client.spin(PERIOD_S)
            client.wait(lambda: len(client.answers) >= len(sent), "the answer")  # none is superseded, however slow the machine
            frames += 1
        expected[name] = unpack_labelled(client.answers[-1])["class_id"]
    assert [answer.header.stamp for answer in client.answers] == sent
    known = [classes.tobytes() for classes in expected.values()]
    assert len(set(known)) == 3
    assert all(unpack_labelled(answer)["class_id"].tobytes() in known for answer in client.answers), "a mixture of two models"
    assert client.value("input", "dropped superseded") in ("", "0")
    assert client.value("input", "dropped internal") == ""
    client.answers.clear()


def test_a_bad_bundle_leaves_the_old_one_and_is_said_once(rig: Any, watched: tuple[Any, Any], versions: Versions) -> None:
    process, client = watched
    points = rig.street_points(500)
    before = unpack_labelled(client.answer_to(rig.make_cloud(points)))["class_id"]
    announced = at_work(client)
    good = os.readlink(versions.pointer)
    link = versions.models / ".link"
    for target, reason in (
        ("versions/damaged-1", "its hash is"),
        ("versions/absent", "leads to versions/absent, which no longer exists"),
    ):
        link.symlink_to(target)
        os.replace(link, versions.pointer)
        client.wait(lambda reason=reason: reason in client.status["model"].message, "the reason in the diagnostics")
        assert client.status["model"].level == rig.DiagnosticStatus.ERROR
        assert "tiny" in client.status["model"].message
        assert "stays" in client.status["model"].message
        client.spin(0.5)  # several looks
        assert process.text().count(reason) == 1
        np.testing.assert_array_equal(unpack_labelled(client.answer_to(rig.make_cloud(points)))["class_id"], before)
    link.symlink_to(good)
    os.replace(link, versions.pointer)
    client.wait(lambda: client.status["model"].level == rig.DiagnosticStatus.OK, "a healthy model")
    assert at_work(client) == announced
    assert client.answer_to(rig.make_cloud(points))


def test_it_ends_well_while_a_swap_is_under_way(rig: Any, watched: tuple[Any, Any], versions: Versions) -> None:
    process, client = watched
    versions.promote(versions.models / "versions" / "tiny-1")
    client.points.publish(rig.make_cloud(rig.street_points(2000)))
    client.spin(0.12)
    assert process.end() == 0
    assert "Traceback" not in process.text()


def test_another_engine_for_the_old_model_does_not_undo_a_swap(rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swap_engines.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ENGINES, "plain", "swap_engines:Plain")
    monkeypatch.setitem(ENGINES, "slow", "swap_engines:Slow")
    old, new = (rig.make_bundle(tmp_path, name, seed=seed) for seed, name in enumerate(("old", "new")))
    config = NodeConfig(engine="plain, slow")
    model = Model(open_segmenter(config, old))
    events = importlib.import_module("swap_engines")
    with ThreadPoolExecutor() as pool:
        falling = pool.submit(model.fall_back, config, "it has caught a cold")
        assert events.opening.wait(20)
        model.replace(open_segmenter(config, new))
        events.swapped.set()
        with pytest.raises(EngineError, match=r"new .* was loaded meanwhile and stays in use"):
            falling.result(20)
    assert (model.bundle.name, model.engine) == ("new", "plain")
    assert model.refused == []
    model.fall_back(config, "it has caught a cold")
    assert (model.bundle.name, model.engine) == ("new", "slow")
    assert model.refused == ["plain: it has caught a cold"]
    model.close()


def test_each_way_to_be_absent_is_tried_once(tmp_path: Path) -> None:
    """So that the diagnostics tell the latest one."""
    from weakseg_ros.ros.watch import BundleWatch

    watch, place = BundleWatch(), tmp_path / "current"
    for change in (lambda: None, lambda: place.symlink_to("/nowhere"), lambda: (place.unlink(), place.write_text("x"))):
        change()
        assert [watch.changed(str(place)) for _ in range(2)] == [True, False]
