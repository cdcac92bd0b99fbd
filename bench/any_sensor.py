# SPDX-License-Identifier: Apache-2.0
"""How a bundle holds on real scans that are changed as other drivers, mountings and sensors would change them.

    python bench/any_sensor.py SEMANTICKITTI_RANGE models/street --out runs/any_sensor.json [--half odd] [--other FOLDER ...]

The data are labelled scans in any layout that weakseg reads; the figures are IoU over all their points. --half
measures every second scan only. --other are unlabelled scans, for which the share of the ground that a filter by rule finds
and the bundle calls ground is given.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.environment import environment
from weakseg_ros.files import write_json
from weakseg_ros.measure.inputs import open_input
from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.measure.sections import GROUPS, group_of
from weakseg_ros.points.cloud import FLAG_NON_RETURN, Cloud
from weakseg_ros.points.ground import find_ground

NEAR_GROUND_M = 0.15
"""a point so near to the plane of the ground is ground by rule"""
FAR_M = 25.0
"""farther away, roads are not one plane"""


def main() -> None:
    """Measure every row and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundle")
    parser.add_argument("--out", type=Path, default=Path("runs/any_sensor.json"))
    parser.add_argument("--half", choices=("all", "even", "odd"), default="all")
    parser.add_argument("--other", type=Path, nargs="*", default=())
    asked = parser.parse_args()
    bundle = Bundle.load(asked.bundle)
    segmenter = Segmenter(bundle, instances="none", allow_no_intensity=True)
    chosen = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}[asked.half]
    scans = [(item.cloud, item.truth) for item in open_input(asked.data, bundle.labels)][chosen]
    rows = {name: measured(segmenter, [(change(cloud), truth) for cloud, truth in scans]) for name, change in CHANGES.items()}
    for name, row in rows.items():
        groups = " ".join(f"{group} {value:.2f}" for group, value in row["groups"].items())
        print(f"{name:28} merged {row['merged']:.3f} classes {row['classes']:.3f} points {row['accuracy']:.3f} | {groups}")
    ground = {path.name: ground_recall(segmenter, path) for path in asked.other}
    for name, value in ground.items():
        print(f"{name:28} ground recall {value:.3f}")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "bundle": bundle.name,
        "hash": bundle.content_hash,
        "data": str(asked.data.name),
        "half": asked.half,
        "scans": len(scans),
    }
    write_json(asked.out, {**facts, "rows": rows, "ground_recall": ground, "environment": environment()})


def measured(segmenter: Segmenter, scans: list[tuple[Cloud, NDArray[np.uint8]]]) -> dict[str, Any]:
    """Mean IoU of the groups and of the classes that are there, point accuracy, and IoU of each group."""
    names = segmenter.bundle.labels.names
    classes, groups = ConfusionMatrix(len(names)), ConfusionMatrix(len(GROUPS) + 1)
    group = groups_of(names)
    for cloud, truth in scans:
        answer = segmenter.run(cloud).class_id
        truth = np.where(cloud.valid, truth, np.uint8(0))  # points that a change took away are not asked for
        classes.add(answer, truth)
        groups.add(group[answer], group[truth])
    return {
        "merged": float(np.nanmean(groups.iou[1:])),
        "classes": classes.miou_present,
        "accuracy": classes.accuracy,
        "groups": dict(zip(GROUPS, map(float, groups.iou[1:]), strict=True)),
    }


def groups_of(names: tuple[str, ...]) -> NDArray[np.uint8]:
    """(K,) number of each class's group, from 1; 0 for a class of none."""
    numbers = {group: number for number, group in enumerate(GROUPS, 1)}
    return np.array([numbers.get(group_of(name), 0) for name in names], np.uint8)


def ground_recall(segmenter: Segmenter, path: Path) -> float:
    """Share of the points near the plane of the ground, within FAR_M, that the bundle calls ground."""
    group, found = groups_of(segmenter.bundle.labels.names), []
    for scan in open_scans(path):
        answer, xyz = segmenter.run(scan.cloud).class_id, scan.cloud.xyz
        ground = find_ground(xyz[scan.cloud.valid])
        by_rule = (np.abs(ground.height(xyz)) < NEAR_GROUND_M) & (np.hypot(xyz[:, 0], xyz[:, 1]) < FAR_M) & scan.cloud.valid
        found.append(group[answer[by_rule]] == 1)
    return float(np.concatenate(found).mean())


def _intensity(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Callable[[Cloud], Cloud]:
    return lambda cloud: dataclasses.replace(
        cloud, intensity=change(cloud.intensity).astype(np.float32), intensity_full_scale=0.0
    )


def _without_intensity(cloud: Cloud) -> Cloud:
    return dataclasses.replace(cloud, intensity=np.zeros_like(cloud.intensity), intensity_field="", intensity_full_scale=0.0)


def _moved(pitch_deg: float = 0.0, up_m: float = 0.0) -> Callable[[Cloud], Cloud]:
    cos, sin = np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))
    turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])

    def change(cloud: Cloud) -> Cloud:
        moved = cloud.xyz @ turn.T + (0.0, 0.0, up_m)
        return dataclasses.replace(cloud, xyz=np.where(cloud.valid[:, None], moved, cloud.xyz).astype(np.float32))

    return change


def _thinned(beams: int, of: int = 64, top_deg: float = 2.0, bottom_deg: float = -24.8) -> Callable[[Cloud], Cloud]:
    """Every so many of the beams, told apart by their inclination; the other points become non-returns."""

    def change(cloud: Cloud) -> Cloud:
        elevation = np.degrees(np.arctan2(cloud.xyz[:, 2], np.hypot(cloud.xyz[:, 0], cloud.xyz[:, 1])))
        beam = np.round((top_deg - elevation) / (top_deg - bottom_deg) * (of - 1)).astype(int)
        keep = cloud.valid & (beam % (of // beams) == 0)
        flags = np.where(keep | ~cloud.valid, cloud.flags, np.uint8(FLAG_NON_RETURN))
        return dataclasses.replace(cloud, xyz=np.where(keep[:, None], cloud.xyz, 0).astype(np.float32), flags=flags)

    return change


CHANGES: dict[str, Callable[[Cloud], Cloud]] = {
    "as they are": lambda cloud: cloud,
    "intensity x 255": _intensity(lambda values: values * 255),
    "intensity x 65535": _intensity(lambda values: values * 65535),
    "intensity squared": _intensity(np.square),
    "intensity removed": _without_intensity,
    "sensor 1.5 m lower": _moved(up_m=1.5),
    "sensor 1.5 m higher": _moved(up_m=-1.5),
    "pitched by 5 degrees": _moved(pitch_deg=5.0),
    "32 beams": _thinned(32),
    "16 beams": _thinned(16),
}


if __name__ == "__main__":
    main()
