# SPDX-License-Identifier: Apache-2.0
"""How right labels are that go to other scans of a street where things move: copied ones, and objects clicked in all scans.

    python bench/other_scans.py --seeds 7 11 30001        (about a minute on one core)

Simulated drives with labels, instances and exact poses. Of the copied labels of countable objects it counts the wrong ones;
of objects that were clicked once while seven scans were labelled together, those that are not on the clicked object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.improve.label.carry import carried, carried_over
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.frame_source import FrameSource
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.simulate.drive import SimulateConfig, SimulatedScan, simulate
from weakseg_ros.simulate.lidar import SensorModel
from weakseg_ros.weak.scan_poses import moved

STREET = LabelMap.load("street")
SCANS, OPEN = 7, 3
NEAREST_POINTS, WITHIN_M = 50, 25.0
"""objects with fewer points, or farther away, are not clicked"""


def main() -> int:
    """Print the counts of all drives as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 11, 30001])
    parser.add_argument("--stride", type=int, default=5, help="sweeps of 0.1 s from one scan to the next")
    parser.add_argument("--beams", type=int, default=32)
    options = parser.parse_args()
    copied: dict[str, Counter[str]] = {}
    clicked: Counter[str] = Counter()
    sensor = SensorModel(name="bench", beams=options.beams, columns=1024)
    for seed in options.seeds:
        scans = list(simulate(SimulateConfig(seed=seed, scans=SCANS, stride=options.stride, sensor=sensor)))
        with tempfile.TemporaryDirectory() as folder:
            state = opened(Path(folder) / "drive", scans, sensor)
            for step in range(1, SCANS):
                row = copied.setdefault(f"{0.1 * options.stride * step:.1f} s later", Counter())
                row.update(copy(state, scans, step))
            clicked.update(click_objects(state, scans))
    print(json.dumps({"copied": copied, "clicked": clicked}, indent=2))
    return 0


def opened(folder: Path, scans: list[SimulatedScan], sensor: SensorModel) -> PageState:
    """The page on a folder of the scans, which do not tell their labels."""
    spec = sensor.range_spec()
    with ScanWriter(folder, STREET, spec, source="bench", seed=0, intensity_full_scale=1.0) as out:
        for scan in scans:
            out.write(scan.cloud, pose=scan.pose)
    source = FrameSource(folder)
    return PageState(ClickStore(folder, source.labels), source)


def copy(state: PageState, scans: list[SimulatedScan], step: int) -> Counter[str]:
    """Labels of the first scan that go to a later one."""
    first, later = scans[0], scans[step]
    frames = [state.source.frame(state.source.keys[number]) for number in (0, step)]
    raw = np.where(STREET.to_class(first.raw_label) > 0, first.raw_label, 0).astype(np.uint32)
    found = carried_over(frames[0], raw, frames[1], np.linalg.inv(later.pose) @ first.pose, STREET)
    known, usable = np.flatnonzero(raw), np.flatnonzero(frames[1].cloud.valid)
    there = moved(frames[0].cloud.xyz[known], first.pose, later.pose)
    points, every = carried(there, raw[known], frames[1].cloud.xyz[usable])
    of_all, true_of_all = STREET.to_class(every), STREET.to_class(later.raw_label)[usable[points]]
    class_id, true = STREET.to_class(found.raw), STREET.to_class(later.raw_label)[found.points]
    thing, all_things = STREET.things[class_id], STREET.things[of_all]
    return Counter(
        {
            "labels": int(thing.sum()),
            "wrong": int((thing & (class_id != true)).sum()),
            "objects left out": len(found.moved),
            "labels with nothing left out": int(all_things.sum()),
            "wrong with nothing left out": int((all_things & (of_all != true_of_all)).sum()),
        }
    )


def click_objects(state: PageState, scans: list[SimulatedScan]) -> Counter[str]:
    """One click in the middle of each object near the open scan, with all scans labelled together."""
    state.open(state.source.keys[OPEN])
    state.toggle_together()
    state.choose_mode("object")
    class_id, instance = STREET.to_class(scans[OPEN].raw_label), scans[OPEN].raw_label >> 16
    every = np.concatenate([scans[state.source.keys.index(scan.frame.key)].raw_label for scan in state.scans])
    count: Counter[str] = Counter()
    for number in np.unique(instance[STREET.things[class_id] & (instance > 0)]):
        own = np.flatnonzero((instance == number) & STREET.things[class_id])
        places = state.frame.cloud.xyz[own]
        if len(own) < NEAREST_POINTS or np.linalg.norm(places.mean(axis=0)) > WITHIN_M:
            continue
        state.mask = None
        state.press(int(class_id[own[0]]))
        state._click_object(int(own[np.argmin(np.linalg.norm(places - np.median(places, axis=0), axis=1))]))
        if state.mask is not None:
            count["objects"] += 1
            for where, points in (
                ("open scan", state.mask.points < len(instance)),
                ("others", state.mask.points >= len(instance)),
            ):
                labelled = every[state.mask.points[points]]
                count[f"{where}: labels"] += len(labelled)
                count[f"{where}: of another class"] += int((STREET.to_class(labelled) != state.mask.class_id).sum())
                count[f"{where}: of another object"] += int((labelled >> 16 != number).sum())
            count["scans"] += len(state.scans.split(state.mask.points))
            count["scans left out"] += state.mask.left_out
    return count


if __name__ == "__main__":
    sys.exit(main())
