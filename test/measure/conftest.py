# SPDX-License-Identifier: Apache-2.0
"""A model whose every answer is known: what lies above the sensor is a building, what lies below is road."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import optional
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, BundleInfo, NetRule, write_bundle
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

ROAD, BUILDING, CAR = 40, 50, 10
"""raw ids"""
CONFIDENCE, UNCERTAINTY = 0.75, 0.25
SPEC = RangeSpec(16, 128, fov_up_deg=20.0, fov_down_deg=-20.0)


def three_classes() -> LabelMap:
    rows = ((0, "none", (0, 0, 0), 0), (1, "road", (255, 0, 255), ROAD), (2, "building", (255, 200, 0), BUILDING))
    classes = [LabelClass(i, name, color, False, (raw,)) for i, name, color, raw in rows]
    return LabelMap("three", (*classes, LabelClass(3, "car", (0, 0, 255), True, (CAR,))))


def known_onnx() -> bytes:
    """class_id = 2 where z > 0, else 1; confidence and uncertainty are constant."""
    optional("onnxruntime")
    onnx = optional("onnx")
    from onnx import TensorProto, helper, numpy_helper

    constants: dict[str, Any] = {"axis": np.array([1]), "zero": np.float32(0), "one": np.uint8(1)}
    constants |= {"confident": np.float32(CONFIDENCE), "unsure": np.float32(UNCERTAINTY)}
    nodes = [
        helper.make_node("Squeeze", ["image", "axis"], ["z"]),
        helper.make_node("Greater", ["z", "zero"], ["above"]),
        helper.make_node("Cast", ["above"], ["above_u8"], to=TensorProto.UINT8),
        helper.make_node("Add", ["above_u8", "one"], ["class_id"]),
        helper.make_node("Mul", ["z", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "confident"], ["confidence"]),
        helper.make_node("Add", ["nothing", "unsure"], ["uncertainty"]),
    ]
    kinds = {"class_id": TensorProto.UINT8, "confidence": TensorProto.FLOAT, "uncertainty": TensorProto.FLOAT}
    graph = helper.make_graph(
        nodes,
        "known",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 1, "H", "W"])],
        [helper.make_tensor_value_info(name, kind, ["B", "H", "W"]) for name, kind in kinds.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_bundle(folder: Path, labels: LabelMap, name: str = "known") -> Bundle:
    info = BundleInfo(
        name=name,
        input=InputSpec(geometry=SPEC, channels=("z",), mean=(0.0,), std=(1.0,), intensity=IntensityRule(required=False)),
        labels=labels,
        net=NetRule("light"),
    )
    return write_bundle(folder / name, info, {"model.onnx": (KIND_ONNX, known_onnx())}, "for tests\n")


def grid_cloud(index: int) -> Cloud:
    """16 x 128 points, one per pixel, the upper half above the sensor; the first column did not come back."""
    inclination = np.radians(20.0 - 40.0 * (np.arange(16) + 0.5) / 16)[:, None]
    azimuth = np.radians(180.0 - 360.0 * (np.arange(128) + 0.5) / 128)[None, :]
    away = 5.0 + 40.0 * (np.arange(128) / 128)[None, :] + index
    horizontal = away * np.cos(inclination)
    xyz = np.stack([horizontal * np.cos(azimuth), horizontal * np.sin(azimuth), away * np.sin(inclination) + 0 * azimuth], -1)
    xyz[:, 0] = 0.0
    stamp_ns = 1_700_000_000_000_000_000 + index * 100_000_000
    return make_cloud(
        xyz.reshape(-1, 3).astype(np.float32),
        np.ones(2048, np.float32),
        stamp_ns=stamp_ns,
        frame_id="lidar",
        height=16,
        width=128,
    )


def raw_truth(index: int) -> np.ndarray:
    """The model is right but for two columns per scan index, which are cars; non-returns have no label."""
    raw = np.where(np.arange(16)[:, None] < 8, BUILDING, ROAD) + np.zeros((16, 128), np.int64)
    raw[:, 1 : 1 + 2 * index] = CAR
    raw[:, 0] = 0
    return raw.ravel().astype(np.uint32)


@pytest.fixture(scope="session")
def known_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Read it, do not change it."""
    return make_bundle(tmp_path_factory.mktemp("bundles"), three_classes())


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled scans in `scans/`, and the same clouds as a rosbag2 in `bag/`."""
    optional("rosbags")
    from weakseg_ros.data.bag_writer import CloudBagWriter

    folder = tmp_path_factory.mktemp("recording")
    facts: dict[str, Any] = {"source": "test", "seed": 0, "intensity_full_scale": 1.0}
    with ScanWriter(folder / "scans", three_classes(), SPEC, **facts) as scans, CloudBagWriter(folder / "bag", "/top") as bag:
        for index in range(6):
            scans.write(grid_cloud(index), raw_truth(index))
            bag.write(grid_cloud(index))
    return folder
