# SPDX-License-Identifier: Apache-2.0
"""Each stage of one cloud's way, ours beside what a user would otherwise pick, alternating in one run.

    python bench/stages.py [--scan FILE.bin] [--bundle models/street64] [--runs 30]

Peers: ros2_numpy and pypcd4 for decoding and encoding, the projection of lidar-bonnetal (RangeNet++) written anew from
its description, PyTorch eager with softmax and argmax for the network, fancy indexing of K probabilities for the lift.
Prints a markdown table: medians in ms, and peer over ours as a ratio. Only the ratio should be quoted. The same figures, with the
engine that `auto` took, go to runs/bench/summary.json (`ratio`, `stage_ms`, `engine`, `machine`), beside those of end_to_end.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pypcd4
import ros2_numpy
import torch
from beside import SUMMARY, Stage, add_to_summary, bonnetal_projection, time_beside
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from weakseg_ros.deploy.bundle import Bundle, BundleInfo
from weakseg_ros.deploy.engines import open_engine
from weakseg_ros.deploy.engines.choice import chain_of
from weakseg_ros.deploy.engines.torch import load_graph
from weakseg_ros.deploy.frontends.range_numpy import range_input
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.files import environment
from weakseg_ros.points.cloud import Cloud, decode, make_cloud
from weakseg_ros.points.labelled import fill_message, pack_labelled
from weakseg_ros.points.lift import knn_vote, lift
from weakseg_ros.points.projection import RangeView, project

REAL_SCAN = Path("../shared/data/semantickitti_seq00/velodyne/000000.bin")
Race = tuple[Stage, dict[str, Stage]]
"""our function, and its peers by name"""


def velodyne_message(points: np.ndarray) -> PointCloud2:
    """A cloud (N, 4) as the Velodyne driver lays it out: x y z intensity ring time, 22 bytes a point, time unaligned."""
    layout = {"names": ["x", "y", "z", "intensity", "ring", "time"], "formats": ["<f4"] * 4 + ["<u2", "<f4"]}
    packed = np.zeros(len(points), np.dtype({**layout, "offsets": [0, 4, 8, 12, 16, 18], "itemsize": 22}))
    for column, name in enumerate(("x", "y", "z", "intensity")):
        packed[name] = points[:, column]
    types = [PointField.FLOAT32] * 4 + [PointField.UINT16, PointField.FLOAT32]
    names, offsets = layout["names"], (0, 4, 8, 12, 16, 18)
    fields = [PointField(name=n, offset=o, datatype=t, count=1) for n, o, t in zip(names, offsets, types, strict=True)]
    message = PointCloud2(header=Header(frame_id="velodyne"), height=1, width=len(points), fields=fields)
    message.point_step, message.row_step, message.is_dense = 22, 22 * len(points), True
    message.data.frombytes(packed.tobytes())
    return message


def decode_stage(message: PointCloud2) -> Race:
    """From the message to arrays."""

    def numpify() -> np.ndarray:
        record = ros2_numpy.numpify(message)
        return np.column_stack([record["xyz"], record["intensity"]])

    def pypcd() -> np.ndarray:
        return pypcd4.PointCloud.from_msg(message).numpy(("x", "y", "z", "intensity"))

    return lambda: decode(message), {"ros2_numpy": numpify, "pypcd4": pypcd}


def image_stage(points: np.ndarray, cloud: Cloud, info: BundleInfo) -> Race:
    """From points to the network's input."""
    spec, mean, std = info.input.geometry, np.float32(info.input.mean)[:, None, None], np.float32(info.input.std)[:, None, None]

    def bonnetal() -> np.ndarray:
        depth, xyz, remission, index, *_ = bonnetal_projection(points, spec)
        stack = np.concatenate([depth[None], np.moveaxis(xyz, 2, 0), remission[None]])
        return (stack - mean[: len(stack)]) / std[: len(stack)] * (index > 0)

    def ours() -> np.ndarray:
        return range_input(cloud, project(cloud, spec), info.input)

    return ours, {"lidar-bonnetal": bonnetal}


def infer_stage(bundle: Bundle, image: np.ndarray) -> Race:
    """From the network's input to its answer."""
    engine, _ = open_engine(bundle)
    net = load_graph(bundle).net

    def eager() -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(image[None])).logits.softmax(1).numpy()

    return lambda: engine.run({"image": image[None]}), {"PyTorch eager": eager}


def lift_stage(points: np.ndarray, view: RangeView, image: np.ndarray, answer: Segmentation, bundle: Bundle) -> Race:
    """From pixels back to points: class, confidence and uncertainty."""
    spec = bundle.info.input.geometry
    probabilities = np.random.default_rng(0).random((bundle.num_classes, spec.height, spec.width), np.float32)
    *_, u, v = bonnetal_projection(points, spec)

    def lift_probabilities() -> tuple[np.ndarray, ...]:
        at_points = probabilities[:, v, u]
        return at_points.argmax(0), at_points.max(0), -(at_points * np.log(at_points + 1e-8)).sum(0)

    return lambda: [lift(plane, view, 0) for plane in (answer.class_image, *image[:2])], {"K probabilities": lift_probabilities}


def encode_stage(points: np.ndarray, cloud: Cloud, answer: Segmentation) -> Race:
    """From the answer to the message."""
    columns = [*points[:, :3].T, answer.class_id, answer.confidence, answer.uncertainty]
    names, types = ("x", "y", "z", "class_id", "confidence", "uncertainty"), [np.float32] * 3 + [np.uint8] + [np.float32] * 2

    def encode() -> PointCloud2:
        packed = pack_labelled(cloud, answer.class_id, answer.instance_id, answer.confidence, answer.uncertainty, answer.flags)
        out = PointCloud2()
        fill_message(out, packed, cloud, PointField)
        return out

    return encode, {"pypcd4": lambda: pypcd4.PointCloud.from_points(columns, names, types).to_msg()}


def stages_of(points: np.ndarray, bundle: Bundle) -> dict[str, Race]:
    """Our function and its peers for each stage, on the same cloud."""
    info = bundle.info
    cloud = make_cloud(points[:, :3].copy(), points[:, 3].copy())
    view = project(cloud, info.input.geometry)
    image = range_input(cloud, view, info.input)
    answer = Segmenter(bundle).run(cloud)
    return {
        "decode": decode_stage(velodyne_message(points)),
        "project and fill the image": image_stage(points, cloud, info),
        "infer": infer_stage(bundle, image),
        "lift": lift_stage(points, view, image, answer, bundle),
        "lift by kNN vote": (lambda: knn_vote(answer.class_image, view, True), {}),
        "encode": encode_stage(points, cloud, answer),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, default=REAL_SCAN, help="a .bin of SemanticKITTI (N x 4 float32)")
    parser.add_argument("--bundle", default="models/street64")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=SUMMARY)
    arguments = parser.parse_args()
    points = np.fromfile(arguments.scan, np.float32).reshape(-1, 4)
    bundle = Bundle.load(arguments.bundle)
    spec = bundle.info.input.geometry
    machine = environment()["machine"]
    print(f"{len(points)} points, {spec.height} x {spec.width}, {bundle.num_classes} classes, {arguments.runs} runs, {machine}\n")
    print("| stage | ours ms | peer | peer ms | peer / ours |\n|---|---|---|---|---|")
    ratio: dict[str, dict[str, float]] = {}
    stage_ms: dict[str, float] = {}
    for stage, (ours, peers) in stages_of(points, bundle).items():
        medians = time_beside(ours, peers, arguments.runs)
        stage_ms[stage] = round(medians["ours"], 3)
        ratio[stage] = {peer: round(medians[peer] / medians["ours"], 2) for peer in peers}
        for peer in peers or {"": None}:
            figures = f"{medians[peer]:.2f} | {medians[peer] / medians['ours']:.1f}" if peer else " | "
            print(f"| {stage} | {medians['ours']:.2f} | {peer} | {figures} |", flush=True)
    chain = chain_of(bundle)
    engine = {"taken": chain.labels[0], "why": chain.why}
    add_to_summary(arguments.out, {"ratio": ratio, "stage_ms": stage_ms, "engine": engine, "machine": machine})


if __name__ == "__main__":
    main()
