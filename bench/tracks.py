# SPDX-License-Identifier: Apache-2.0
"""How long instance ids last: simulated streets at 10 Hz from a moving car, and real scans where they are there.

    python bench/tracks.py [--streets 3] [--scans 50] [--sequence ../shared/data/semantickitti_seq00]

The classes are the true ones, so that only the ids are measured; the masks are the true ones as well, or what geometric
grouping makes of the classes, with all that it splits and joins. Ids are drawn anew in each scan, then followed: with the
true pose as odometry, or without any. Prints a markdown table; the times are CPU milliseconds of one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.grouping import group_components
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.tracking import Tracker
from weakseg_ros.environment import environment
from weakseg_ros.measure.tracks import TrackQuality, object_keys
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap, instances_in
from weakseg_ros.points.lift import lift
from weakseg_ros.points.projection import RangeSpec, project
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor

FIRST_STREET = 30_021
REAL_SCANS = Path("../shared/data/semantickitti_seq00")
SENSOR = "hdl64e"


@dataclass(frozen=True)
class Frame:
    """A scan with its truth, and the ids that geometric grouping gives."""

    cloud: Cloud
    class_id: np.ndarray
    truth: np.ndarray
    """(N,) object keys"""
    masks: dict[str, np.ndarray]
    """by name, (N,) instance ids of this scan alone"""
    pose: np.ndarray | None


def frame_of(
    cloud: Cloud,
    class_id: np.ndarray,
    instance_id: np.ndarray,
    pose: np.ndarray | None,
    spec: RangeSpec,
    labels: LabelMap,
    seed: int,
) -> Frame:
    """True masks under ids that mean nothing, and those of the grouping."""
    view = project(cloud, spec)
    owner = view.point_of_pixel
    class_image = np.where(owner >= 0, class_id[owner], 0).astype(np.uint8)
    grouped = group_components(class_image, cloud.xyz, view, labels.things, full_circle=True)
    truth = object_keys(class_id, instance_id, labels.things)
    names, of_point = np.unique(truth, return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(60_000)[: len(names)].astype(np.uint16) + np.uint16(1)
    drawn[names == 0] = 0
    return Frame(cloud, class_id, truth, {"true": drawn[of_point], "grouped": lift(grouped, view, 0)}, pose)


def simulated(seed: int, scans: int) -> Iterator[Frame]:
    """The frames of one street."""
    labels, sensor = LabelMap.load("street"), load_sensor(SENSOR)
    for number, scan in enumerate(simulate(SimulateConfig(seed, scans, 1, sensor))):
        class_id, instance_id = labels.to_class(scan.raw_label), instances_in(scan.raw_label)
        yield frame_of(scan.cloud, class_id, instance_id, scan.pose, sensor.range_spec(), labels, number)


def recorded(folder: Path) -> Iterator[Frame]:
    """The labelled frames of a recording with instances that last."""
    scans = open_scans(folder)
    for number in range(len(scans)):
        scan = scans[number]
        if scan.class_id is not None and scan.instance_id is not None:
            yield frame_of(scan.cloud, scan.class_id, scan.instance_id, scan.pose, scans.spec, scans.labels, number)


def follow(frames: Iterable[Frame], labels: LabelMap, mask: str, way: str) -> tuple[TrackQuality, list[float]]:
    """Counts of one recording, and the CPU time of each update in ms; `way` is none, odometry or objects."""
    tracker, quality, laps = Tracker(labels), TrackQuality(), []
    for frame in frames:
        instance_id = frame.masks[mask]
        nothing = np.zeros(len(frame.cloud), np.float32)
        image = np.zeros((1, 1), np.uint16)
        answer = Segmentation(frame.class_id, instance_id, nothing, nothing, frame.cloud.flags, image.astype(np.uint8), image)
        begin = time.process_time()
        if way != "none":
            answer = tracker.update(answer, frame.cloud, frame.pose if way == "odometry" else None)
        laps.append((time.process_time() - begin) * 1e3)
        quality.add(answer.instance_id, frame.truth, frame.class_id > 0)
    return quality, laps


def print_rows(name: str, recordings: list[list[Frame]], labels: LabelMap) -> None:
    """One row for each kind of mask and way to follow it."""
    has_poses = all(frame.pose is not None for frames in recordings for frame in frames)
    for mask in ("true", "grouped"):
        for way in ("none", "objects", "odometry") if has_poses else ("none", "objects"):
            results = [follow(frames, labels, mask, way) for frames in recordings]
            total = sum(quality for quality, _ in results)
            figures = total.summary()
            lap = f"{median(lap for _, laps in results for lap in laps):.1f}" if way != "none" else ""
            counts = " | ".join(str(figures[key]) for key in ("seen", "found", "switches", "transfers", "fragmentations"))
            rates = f"{figures['switch_rate']:.2%} | {figures['lifetime_scans']:.1f}"
            print(f"| {name} | {mask} | {way} | {counts} | {rates} | {lap} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streets", type=int, default=3)
    parser.add_argument("--scans", type=int, default=50, help="on each street, at 10 Hz")
    parser.add_argument("--sequence", type=Path, default=REAL_SCANS, help="a recording with lasting instances")
    arguments = parser.parse_args()
    print(f"{SENSOR}, {arguments.streets} streets from {FIRST_STREET} on, {environment()['machine']}\n")
    print("| scans | masks | followed by | seen | found | switches | transfers | broken | switch rate | scans per id | ms |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    streets = range(FIRST_STREET, FIRST_STREET + arguments.streets)
    print_rows("simulated", [list(simulated(seed, arguments.scans)) for seed in streets], LabelMap.load("street"))
    if arguments.sequence.is_dir():
        print_rows("real", [list(recorded(arguments.sequence))], open_scans(arguments.sequence).labels)


if __name__ == "__main__":
    main()
