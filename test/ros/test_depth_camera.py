# SPDX-License-Identifier: Apache-2.0
"""A depth camera's organised clouds with packed colours through the node and a net on points: every point is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from support import optional
from weakseg_ros.deploy.bundle import KIND_WEIGHTS, BundleInfo, NetRule, write_bundle
from weakseg_ros.deploy.frontends import make_frontend
from weakseg_ros.deploy.input_spec import IntensityRule, plain_spec
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.crops import PointsSpec
from weakseg_ros.points.encode import fill_message, pack_cloud
from weakseg_ros.points.labelled import LABELLED_DTYPE
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

HEIGHT, WIDTH = 24, 32
LABELS = LabelMap("three", tuple(LabelClass(i, f"class {i}", (i, 9, 0), i == 1, (i,)) for i in range(4)))


def points_bundle(folder: Path) -> Path:
    """A net on points with fresh weights, for the torch engine."""
    optional("torch")
    from safetensors.torch import save

    from weakseg_ros.nets.randlanet import RandLaNet

    points = PointsSpec(grid_m=0.05, points=4096, neighbours=8, ratios=(4, 4))
    spec = plain_spec(RangeSpec(HEIGHT, WIDTH), ("x", "y", "z", "red", "green", "blue"), IntensityRule(False), points=points)
    net = RandLaNet(len(spec.channels), LABELS.num_classes, width=8, layers=2)
    inputs = dict(make_frontend(spec, LABELS).inputs)
    info = BundleInfo(
        name="camera", input=spec, inputs=inputs, labels=LABELS, net=NetRule("randlanet", {"width": 8, "layers": 2})
    )
    return write_bundle(folder / "camera", info, {"weights.safetensors": (KIND_WEIGHTS, save(net.state_dict()))}, "test\n").folder


def camera_message(rig: Any, seed: int) -> Any:
    """One image of a camera that looks along x at a room, an eighth of it without depth."""
    from sensor_msgs.msg import PointCloud2, PointField

    rng = np.random.default_rng(seed)
    row, col = np.divmod(np.arange(HEIGHT * WIDTH), WIDTH)
    depth = 2.0 + np.sin(col / 5.0) + rng.normal(0, 0.01, len(row))
    xyz = np.stack([depth, (WIDTH / 2 - col) / WIDTH * depth, (HEIGHT / 2 - row) / WIDTH * depth], 1).astype(np.float32)
    xyz[rng.random(len(xyz)) < 0.125] = np.nan
    cloud = make_cloud(xyz, rgb=rng.integers(0, 256, (len(xyz), 3)), height=HEIGHT, width=WIDTH, frame_id="camera")
    message = PointCloud2()
    fill_message(message, pack_cloud(cloud), cloud, PointField)
    message.header.stamp = rig.next_stamp()
    return message, cloud


def test_every_point_of_a_depth_camera_is_answered(rig: Any, start: Any, tmp_path: Path) -> None:
    _, client = start("--bundle", str(points_bundle(tmp_path)), "--engine", "torch")
    client.wait(lambda: client.points.get_subscription_count() and client.node.count_publishers(client.labels.topic_name), "node")
    client.wait(lambda: client.answer_to(camera_message(rig, 0)[0], seconds=0.5), "a first answer")
    for seed in range(1, 4):
        message, cloud = camera_message(rig, seed)
        answer = client.answer_to(message)
        assert answer is not None
        assert (answer.height, answer.width, answer.point_step) == (HEIGHT, WIDTH, LABELLED_DTYPE.itemsize)
        points = np.frombuffer(bytes(answer.data), LABELLED_DTYPE)
        np.testing.assert_array_equal(points["class_id"] > 0, cloud.valid)
        assert ((points["confidence"] > 0) == cloud.valid).all()
        np.testing.assert_array_equal(points["x"], cloud.xyz[:, 0])
