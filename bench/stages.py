# SPDX-License-Identifier: Apache-2.0
"""Each stage of one cloud's way, ours beside what a user would otherwise pick, alternating in one run.

    python bench/stages.py [--scan FILE.bin] [--bundle models/street] [--runs 60]
    python bench/stages.py --runs 15 --least bench/least_ratios.json      (make ratios, in CI: fails where a ratio has fallen)

The scan is measured at three sizes: every fourth point, all, and all twice (the second turned by half a column), about 31, 124
and 249 thousand for SemanticKITTI's; without the file a simulated one of that size takes its place. Peers: ros2_numpy and pypcd4
for decoding and encoding, the projection and the vote of lidar-bonnetal (RangeNet++) written anew from their description, PyTorch
eager, and onnxruntime with the same net and with SalsaNext of half its width, for the network, DBSCAN of scikit-learn for
objects, fancy indexing of K probabilities for the lift. Prints a markdown table: p50 and p99 in ms, and the ratio of the medians.
Only the ratio should be quoted. The same figures go to runs/bench/summary.json (`ratio` and `stage_ms` of the whole scan,
`stages` of all sizes, `engine`, `machine`), beside those of end_to_end.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pypcd4
import ros2_numpy
import torch
from beside import SUMMARY, Stage, add_to_summary, bonnetal_projection, fallen, laps_beside
from end_to_end import fresh_bundle
from peers import bonnetal_vote, dbscan
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.choice import chain_of, open_engine
from weakseg_ros.deploy.engines.torch import load_graph
from weakseg_ros.deploy.frontends.range_numpy import range_input, stand
from weakseg_ros.deploy.instances import ObjectFinder
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.environment import environment
from weakseg_ros.points.cloud import Cloud, decode, make_cloud
from weakseg_ros.points.encode import fill_message
from weakseg_ros.points.image_vote import image_vote
from weakseg_ros.points.labelled import pack_labelled
from weakseg_ros.points.lift import knn_vote, lift, range_image
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor

REAL_SCAN = Path("../shared/data/semantickitti_seq00/velodyne/000000.bin")
WHOLE = "all"
Race = tuple[Stage, Mapping[str, Stage]]
"""our function, and its peers by name"""
Percentiles = dict[str, dict[str, float]]
"""p50 and p99 in ms, by who did it"""


def scan_points(file: Path) -> np.ndarray:
    """(N, 4) x, y, z in m and intensity: the file, or where it is not there a simulated scan."""
    if file.is_file():
        return np.fromfile(file, np.float32).reshape(-1, 4)
    cloud = next(iter(simulate(SimulateConfig(1, 1, sensor=load_sensor("hdl64e"))))).cloud
    columns = np.column_stack([cloud.xyz, cloud.intensity])
    return columns[cloud.valid]  # the peers' projection takes no beam without a return, as a .bin of SemanticKITTI has none


def sizes_of(points: np.ndarray, columns: int = 2048) -> dict[str, np.ndarray]:
    """The scan thinned, whole, and twice, the second time turned by half a column of its sensor."""
    turned, angle = points.copy(), np.pi / columns
    turned[:, 0] = np.cos(angle) * points[:, 0] - np.sin(angle) * points[:, 1]
    turned[:, 1] = np.sin(angle) * points[:, 0] + np.cos(angle) * points[:, 1]
    return {"a quarter": points[::4].copy(), WHOLE: points, "twice": np.concatenate([points, turned])}


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


class Stages:
    """The stages of one cloud's way through one bundle, each as a race."""

    def __init__(self, points: np.ndarray, bundle: Bundle) -> None:
        self._points, self._bundle, self._spec = points, bundle, bundle.info.input
        self._cloud: Cloud = make_cloud(points[:, :3].copy(), points[:, 3].copy())
        self._answer: Segmentation = Segmenter(bundle, watch="never").run(self._cloud)
        self._standing = stand(self._cloud, self._spec)
        self._image = range_input(self._standing.cloud, self._standing.pixels, self._spec, 1.0, self._standing.ground)

    def races(self) -> dict[str, Race]:
        """What does not depend on the network."""
        return {
            "decode": self._decode(),
            "project and fill the image": self._input(),
            "group": self._group(),
            "lift": self._lift(),
            **self._votes(),
            "encode": self._encode(),
        }

    def infer(self, salsanext: Bundle) -> Race:
        """From the network's input to its answer: the engine that `auto` takes, which does not depend on the number of points."""
        inputs = {"image": self._image[None]}
        taken, _ = open_engine(self._bundle)
        plain, _ = open_engine(self._bundle, ["onnxruntime"])
        other, _ = open_engine(salsanext, ["onnxruntime"])
        net = load_graph(self._bundle).net
        others = {"image": self._image[None, : len(salsanext.info.input.channels)]}

        def eager() -> np.ndarray:
            with torch.inference_mode():
                return net(torch.from_numpy(inputs["image"])).logits.softmax(1).numpy()

        peers = {
            "PyTorch eager": eager,
            "onnxruntime, float32": lambda: plain.run(inputs),
            "SalsaNext of half its width, onnxruntime": lambda: other.run(others),
        }
        return lambda: taken.run(inputs), peers

    def _decode(self) -> Race:
        """From the message to arrays."""
        message = velodyne_message(self._points)

        def numpify() -> np.ndarray:
            record = ros2_numpy.numpify(message)
            return np.column_stack([record["xyz"], record["intensity"]])

        def pypcd() -> np.ndarray:
            return pypcd4.PointCloud.from_msg(message).numpy(("x", "y", "z", "intensity"))

        return lambda: decode(message), {"ros2_numpy": numpify, "pypcd4": pypcd}

    def _input(self) -> Race:
        """From points to the network's input; ours finds the ground and levels the cloud, too, which the peer does not."""
        geometry = self._spec.geometry

        def bonnetal() -> np.ndarray:
            depth, xyz, remission, index, *_ = bonnetal_projection(self._points, geometry)
            stack = np.concatenate([depth[None], np.moveaxis(xyz, 2, 0), remission[None]])
            mean, std = np.float32([12, 11, 0, -1, 0.2])[:, None, None], np.float32([12, 11, 7, 1, 0.2])[:, None, None]
            return (stack - mean) / std * (index > 0)

        def ours() -> np.ndarray:
            standing = stand(self._cloud, self._spec)
            return range_input(standing.cloud, standing.pixels, self._spec, 1.0, standing.ground)

        return ours, {"lidar-bonnetal": bonnetal}

    def _group(self) -> Race:
        """From classes to objects, as the node makes them without a head for objects."""
        labels, answer, pixels = self._bundle.labels, self._answer, self._standing.pixels
        finder = ObjectFinder(labels, (), self._spec.geometry.full_circle)
        images, xyz = {"class_id": answer.class_image}, self._cloud.xyz
        return (
            lambda: finder.find(images, xyz, pixels, "components"),
            {"DBSCAN": lambda: dbscan(xyz, answer.class_id, labels.things)},
        )

    def _lift(self) -> Race:
        """From pixels back to points: class, confidence and uncertainty."""
        geometry, view = self._spec.geometry, self._standing.pixels
        random = np.random.default_rng(0)
        probabilities = random.random((self._bundle.num_classes, geometry.height, geometry.width), np.float32)
        *_, u, v = bonnetal_projection(self._points, geometry)

        def probabilities_of_points() -> tuple[np.ndarray, ...]:
            at_points = probabilities[:, v, u]
            return at_points.argmax(0), at_points.max(0), -(at_points * np.log(at_points + 1e-8)).sum(0)

        planes = (self._answer.class_image, *self._image[:2])
        return lambda: [lift(plane, view, 0) for plane in planes], {"K probabilities": probabilities_of_points}

    def _votes(self) -> dict[str, Race]:
        """The class of each point by a vote of the pixels around its own: as the default bundle asks for it, and as published."""
        view, classes = self._standing.pixels, self._answer.class_image
        inside = view.pixel_of_point >= 0
        v, u = np.divmod(view.pixel_of_point[inside].astype(np.int64), classes.shape[1])
        given = (range_image(view), view.range_of_point[inside], classes.astype(np.int64), u, v)
        tensors = [torch.from_numpy(values) for values in given]

        def bonnetal() -> Any:
            return bonnetal_vote(*tensors, self._bundle.num_classes)

        peer = {"lidar-bonnetal in torch": bonnetal}
        return {
            "lift by vote": (lambda: image_vote(classes, view, True), peer),
            "lift by kNN vote": (lambda: knn_vote(classes, view, True), peer),
        }

    def _encode(self) -> Race:
        """From the answer to the message."""
        cloud, answer = self._cloud, self._answer
        columns = [*self._points[:, :3].T, answer.class_id, answer.confidence, answer.uncertainty]
        names, types = ("x", "y", "z", "class_id", "confidence", "uncertainty"), [np.float32] * 3 + [np.uint8] + [np.float32] * 2

        def ours() -> PointCloud2:
            packed = pack_labelled(
                cloud, answer.class_id, answer.instance_id, answer.confidence, answer.uncertainty, answer.flags
            )
            out = PointCloud2()
            fill_message(out, packed, cloud, PointField)
            return out

        return ours, {"pypcd4": lambda: pypcd4.PointCloud.from_points(columns, names, types).to_msg()}


def percentiles(race: Race, runs: int) -> Percentiles:
    """Run a race."""
    laps = laps_beside(*race, runs)
    return {
        name: {"p50": round(float(np.median(of)), 3), "p99": round(float(np.percentile(of, 99)), 3)} for name, of in laps.items()
    }


def ratios(found: Percentiles) -> dict[str, float]:
    """Median of each peer over ours."""
    return {name: round(of["p50"] / found["ours"]["p50"], 2) for name, of in found.items() if name != "ours"}


def print_rows(size: str, points: int, stage: str, found: Percentiles) -> None:
    """The lines of a stage."""
    ours = found["ours"]
    for peer, ratio in ratios(found).items():
        theirs = found[peer]
        print(
            f"| {points} ({size}) | {stage} | {ours['p50']:.2f} / {ours['p99']:.2f} | {peer} | "
            f"{theirs['p50']:.2f} / {theirs['p99']:.2f} | {ratio:.1f} |",
            flush=True,
        )


def main() -> int:
    """Print the table; 1 where a ratio has fallen below what `--least` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, default=REAL_SCAN, help="a .bin of SemanticKITTI (N x 4 float32)")
    parser.add_argument("--bundle", default="models/street")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--least", type=Path, help="a JSON file of the smallest ratio by stage and peer")
    parser.add_argument("--out", type=Path, default=SUMMARY)
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    spec: RangeSpec = bundle.info.input.geometry
    machine = environment()["machine"]
    print(f"{bundle.name}, {spec.height} x {spec.width}, {bundle.num_classes} classes, {arguments.runs} runs, {machine}\n")
    print("| points | stage | ours p50 / p99, ms | peer | peer p50 / p99, ms | peer / ours |\n|---|---|---|---|---|---|")
    stages: dict[str, dict[str, Percentiles]] = {}
    for size, points in sizes_of(scan_points(arguments.scan)).items():
        way = Stages(points, bundle)
        stages[size] = {stage: percentiles(race, arguments.runs) for stage, race in way.races().items()}
        if size == WHOLE:
            with TemporaryDirectory() as scratch:
                salsanext = fresh_bundle("salsanext", Path(scratch), spec, {"width": 16})
                stages[size]["infer"] = percentiles(way.infer(salsanext), arguments.runs)
        for stage, found in stages[size].items():
            print_rows(size, len(points), stage, found)
    chain = chain_of(bundle)
    ratio = {stage: ratios(found) for stage, found in stages[WHOLE].items()}
    summary = {
        "ratio": ratio,
        "stage_ms": {stage: found["ours"]["p50"] for stage, found in stages[WHOLE].items()},
        "stages": stages,
        "engine": {"taken": chain.labels[0], "why": chain.why},
        "machine": machine,
    }
    add_to_summary(arguments.out, summary)
    wrong = fallen(ratio, json.loads(arguments.least.read_text())) if arguments.least else []
    print("".join(f"\n{sentence}" for sentence in wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
