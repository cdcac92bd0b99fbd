# SPDX-License-Identifier: Apache-2.0
"""Expressions over DDS: the points come, the answer can be asked for, an empty prompt ends it, and no cloud is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support import PATIENCE_S, optional

optional("torch")
optional("onnx")

from support.told import cloud_around, told_bundle

Start = Callable[..., tuple[Any, Any]]


class Asker:
    """A client that also speaks to ~/prompt and hears ~/referred."""

    def __init__(self, rig: Any, process: Any, client: Any) -> None:
        from std_msgs.msg import String

        self.rig, self.process, self.client, self.text = rig, process, client, String
        self.referred: list[Any] = []
        reliable = rig.QoSProfile(depth=50, reliability=rig.ReliabilityPolicy.RELIABLE)
        self._prompt = client.node.create_publisher(String, "weakseg/prompt", reliable)
        heard = client.node.create_subscription(rig.PointCloud2, "weakseg/referred", self.referred.append, reliable)
        client.connect()
        client.wait(lambda: self._prompt.get_subscription_count(), "the subscriber of ~/prompt")
        client.wait(lambda: client.node.count_publishers(heard.topic_name), "the publisher of ~/referred")

    def say(self, text: str, until: str) -> None:
        """Publish an expression and wait until the node has printed that it took it."""
        self._prompt.publish(self.text(data=text))
        self.client.wait(lambda: until in self.process.text(), f"'{until}'", PATIENCE_S)

    def send(self) -> Any:
        """A cloud that is answered; its message."""
        cloud = cloud_around()
        message = self.rig.make_cloud(np.column_stack([cloud.xyz, cloud.intensity]))
        assert self.client.answer_to(message) is not None
        return message

    def points_of(self, message: Any) -> Any:
        """The answer to the expression in one cloud."""

        def same() -> Any:
            return next((each for each in self.referred if each.header.stamp == message.header.stamp), None)

        return self.client.wait(same, "the points of this cloud")

    def ask(self) -> Any:
        return self.client.call(self.rig.Trigger, "refer", self.rig.Trigger.Request())


@pytest.fixture(scope="module")
def asker(rig: Any, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Asker:
    told = told_bundle(tmp_path_factory)
    return Asker(rig, *start("--bundle", str(told.folder), "--engine", "onnxruntime", ROS_PYTHON_CHECK_FIELDS="1"))


def test_the_points_that_are_meant_come_with_each_cloud_until_the_prompt_is_empty(rig: Any, asker: Asker) -> None:
    response = asker.ask()
    assert not response.success
    assert "publish one on ~/prompt" in response.message
    asker.send()
    assert not asker.referred
    asker.say("the zebra", "looking for 'the zebra'; not known and left out: zebra")
    messages = [asker.send() for _ in range(3)]
    answers = [asker.points_of(message) for message in messages]
    assert all(answer.width > 0 for answer in answers[1:])
    names = [field.name for field in answers[-1].fields]
    assert names == ["x", "y", "z", "score", "instance_id"]
    rows = np.frombuffer(bytes(answers[-1].data), "<f4,<f4,<f4,<f4,<u2,V2")
    sent = {tuple(point) for point in np.frombuffer(bytes(messages[-1].data), "<f4").reshape(-1, 4)[:, :3].tolist()}
    assert {tuple(row)[:3] for row in rows.tolist()} <= sent
    assert ((rows["f3"] >= 0) & (rows["f3"] <= 1)).all()
    assert len(set(rows["f3"].tolist())) == 1, "a score is of the whole answer"
    response = asker.ask()
    told = json.loads(response.message)
    assert response.success
    assert (told["prompt"], told["points"]) == ("the zebra", answers[-1].width)
    assert told["stamp_ns"] == messages[-1].header.stamp.sec * 10**9 + messages[-1].header.stamp.nanosec
    asker.say("", "the search has ended")
    asker.referred.clear()
    asker.send()
    asker.send()
    assert not asker.referred


def test_another_expression_takes_over_within_two_clouds(asker: Asker) -> None:
    asker.say("the car", "looking for 'the car'")
    asker.send()
    asker.say("the person", "looking for 'the person'")
    asker.send()
    asker.send()
    assert json.loads(asker.ask().message)["prompt"] == "the person"


def test_a_model_without_a_referring_head_says_so_and_goes_on(rig: Any, start: Start, bundle: Any) -> None:
    asker = Asker(rig, *start("--bundle", str(bundle.folder), "--engine", "onnxruntime"))
    asker.say("the car", "has no referring head")
    message = rig.make_cloud(rig.street_points(200))
    assert asker.client.answer_to(message) is not None
    response = asker.ask()
    assert not response.success
    assert "has no referring head" in response.message
    assert asker.process.text().count("has no referring head") == 1
