# SPDX-License-Identifier: Apache-2.0
"""What the verbs of bench/kill_sweep.py read: the smallest scans, bags, run and bundles there are."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from fuzz_inputs import tiny_bundle
from kill_place import quietly

SENSOR = "name: tiny\nbeams: 8\ncolumns: 64\nmount_height_m: 1.6\n"
WIDE = "name: wide\nbeams: 24\ncolumns: 256\nmount_height_m: 1.7\n"
ARCH_CFG = """dataset:
  sensor: {fov_up: 3, fov_down: -25, img_prop: {height: 8, width: 64}, img_means: [0, 0, 0, 0, 0], img_stds: [1, 1, 1, 1, 1]}
"""
DATA_CFG = """labels: {0: unlabeled, 40: road, 50: building}
learning_map: {0: 0, 40: 1, 50: 2}
learning_map_inv: {0: 0, 1: 40, 2: 50}
learning_ignore: {0: true, 1: false, 2: false}
"""
STREETS, STREETS_OF_DEMO, FLOORS = (0, 1, 2), (900, 901, 902, 910, 911, 912, 913), 2
"""seeds of the streets, and the first floors of building 0, that the cases drive through"""
TRAIN = (
    *("--steps", "3", "--warmup-steps", "1", "--batch-size", "1", "--net-width", "16", "--validate-every", "1"),
    *("--log-every", "1", "--accelerator", "cpu", "--precision", "32-true", "--hold-out", "0.4"),
)
ENGINE = ("--engine", "onnxruntime")
REFERRING = (
    *("--cache", "cache", "--training.burn-in", "1", "--training.steps", "2", "--training.batch", "2"),
    *("--training.scans-per-batch", "1", "--training.width", "8", "--training.layers", "1"),
)
TABLE, READY = "table.yaml", ".ready"
"""settings of a benchmark, and what is prepared last"""


def prepare_data(data: Path, trained: bool, referring: bool) -> None:
    """The smallest scans, bags, run, bundles and table; a bundle that cannot run where nobody runs it."""
    (data / "tiny.yaml").write_text(SENSOR)
    sensor = ["--sensor", str(data / "tiny.yaml"), "--workers", "1"]
    quietly(["simulate", "--scans", "5", "--out", "sim", "--bag", "bag", "--stride", "5", *sensor])
    quietly(["simulate", "--scans", "3", "--out", "other", "--seed", "1", *sensor])
    quietly(["simulate", "--scans", "3", "--bag", "bag_b", "--seed", "2", *sensor])
    if trained:
        quietly(["train", str(data / "sim"), "--out", "run", "--out-bundle", "bundle", *TRAIN])
        quietly(["select", str(data / "sim"), "--bundle", "bundle", "--out", "log", "--frames", "2", "--points", "2"])
        for name in ("eval_a", "eval_b"):
            quietly(["evaluate", str(data / "sim"), "--bundle", "bundle", "--out", name, *ENGINE])
        bags = [str(data / "bag"), str(data / "bag_b"), "--bundle", "bundle", "--out", "eval_bags", *ENGINE]
        quietly(["evaluate", *bags])
        write_table_settings(data / TABLE)
        quietly(["benchmark", str(data / "sim"), "--config", str(data / TABLE), "--out", "table"])
        shutil.copytree(data / "sim", data / "kitti" / "sequences" / "11")
        for name in ("00", "01"):
            shutil.copytree(data / "sim", data / "folds" / "sequences" / name)
        rooms_and_expressions(data / "scannet")
        foreign_model(data)
    else:
        tiny_bundle(data / "bundle")
    if referring:
        (data / "wide.yaml").write_text(WIDE)
        told = ["--expressions", "8", "--scans", "2", "--out", "told", "--workers", "1", "--sensor", str(data / "wide.yaml")]
        quietly(["simulate", *told])
        quietly(["train-referring", "told", "--out-bundle", "refer", "--bundle", "bundle", *REFERRING])
    (data / READY).touch()


def write_table_settings(path: Path) -> None:
    """The settings of a benchmark of one short training."""
    table: dict[str, Any] = {"nets": ["light"], "methods": ["supervised"], "ratios": [0.05], "seeds": [0], "step_turns": 0}
    table["train"] = {
        "steps": 3,
        "warmup_steps": 1,
        "batch_size": 1,
        "net_width": 16,
        "validate_every": 1,
        "precision": "32-true",
    }
    path.write_text(json.dumps({**table, "hold_out": 0.4}))


def rooms_and_expressions(folder: Path) -> None:
    """Two scenes as ScanNet and ScanRefer publish them."""
    sys.path.append(str(Path(__file__).resolve().parent.parent / "test"))
    layouts = importlib.import_module("layouts")
    layouts.write_scannet(folder, ["scene0000_00"], ["scene0011_00"])
    layouts.write_scanrefer(folder, {"train": ["scene0000_00"], "val": ["scene0011_00"]})


def foreign_model(folder: Path) -> None:
    """An ONNX file of another project, that one convolution is, and its two descriptions."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight, bias = np.eye(3, 5, dtype=np.float32)[..., None, None], np.zeros(3, np.float32)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 8, 64]) for n, c in (("scan", 5), ("logits", 3))]
    node = helper.make_node("Conv", ["scan", "weight", "bias"], ["logits"])
    stored = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph([node], "foreign", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "other.onnx")
    (folder / "arch_cfg.yaml").write_text(ARCH_CFG)
    (folder / "data_cfg.yaml").write_text(DATA_CFG)


def drive_with_odometry(path: Path) -> None:
    """A bag of two clouds, and poses before, between and after them."""
    import numpy as np

    from weakseg_ros.data.bag_messages import header_values
    from weakseg_ros.data.bag_writer import CloudBagWriter
    from weakseg_ros.data.places import ODOMETRY
    from weakseg_ros.points.cloud import make_cloud

    rng = np.random.default_rng(0)
    with CloudBagWriter(path, "/points") as bag:
        for number in range(5):
            stamp_ns = 50_000_000 * (number + 1)
            if number % 2:
                bag.write(make_cloud(rng.normal(size=(20, 3)), rng.random(20), stamp_ns=stamp_ns, frame_id="lidar"))
            pose = {"position": {"x": 0.1 * number}, "orientation": {"w": 1.0}}
            values = {"header": header_values(stamp_ns, "odom"), "pose": {"pose": pose}}
            bag.write_values("/odom", ODOMETRY, stamp_ns, values)
