# SPDX-License-Identifier: Apache-2.0
"""Masks from one click per object on real scans that nothing was learned from: by rule, and by a distance learned elsewhere.

    python bench/panoptic_real.py SCANS [--run runs/panoptic/runs/learned_3-s1]

SCANS is a folder of scans with true objects, e.g. a few of SemanticKITTI. The click lies on a random point of each object;
several draws are averaged. Writes OUT/real.json and OUT/real_masks_0.png, ....
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.data.scans import open_scans
from weakseg_ros.files import environment, write_json
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.train.click_segmenter import ClickSegmenter
from weakseg_ros.weak.masks_by_rule import ClickSettings

MARGIN_M = 3.0


def objects_of(scan: Scan, labels: LabelMap, least: int) -> list[NDArray[np.int64]]:
    """The points of each true object that has at least so many."""
    assert scan.class_id is not None
    if scan.instance_id is None:
        return []
    name = np.where(labels.things[scan.class_id] & (scan.instance_id > 0), scan.instance_id.astype(np.int64), 0)
    return [np.flatnonzero(name == number) for number in np.unique(name[name > 0]) if (name == number).sum() >= least]


def draw_clicks(scan: Scan, objects: list[NDArray[np.int64]], seed: int) -> NDArray[np.int64]:
    """A random point that a ray reached, of each object."""
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(points[scan.cloud.valid[points]]) for points in objects], np.int64)


def picture(
    scan: Scan, objects: list[NDArray[np.int64]], found: dict[str, NDArray[np.int32]], clicks: NDArray[np.int64]
) -> Figure:
    """The scan from above: true objects, and those of each way, with the clicks."""
    true = np.full(len(scan.cloud), -1, np.int32)
    for number, points in enumerate(objects):
        true[points] = number
    x, y = scan.cloud.xyz[:, 0], scan.cloud.xyz[:, 1]
    sides = {
        f"{axis}lim": (float(values[true >= 0].min()) - MARGIN_M, float(values[true >= 0].max()) + MARGIN_M)
        for axis, values in (("x", x), ("y", y))
    }
    figure = Figure(figsize=(14, 8), layout="constrained")
    for axes, (name, owner) in zip(figure.subplots(2, 2).ravel(), {"truth": true, **found}.items(), strict=False):
        axes.scatter(x[owner < 0], y[owner < 0], s=0.1, color="lightgrey", rasterized=True)
        axes.scatter(x[owner >= 0], y[owner >= 0], s=3.0, c=owner[owner >= 0] % 20, cmap="tab20", rasterized=True)
        axes.scatter(x[clicks], y[clicks], s=20, marker="x", color="black", linewidths=0.8)
        axes.set(title=name, aspect="equal", xlabel="x [m]", ylabel="y [m]", **sides)
    return figure


def main() -> int:
    """Measure every way on every scan and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path)
    parser.add_argument("--run", type=Path, default=None, help="run folder of point_panoptic whose distance is tried too")
    parser.add_argument("--out", type=Path, default=Path("runs/panoptic"))
    parser.add_argument("--draws", type=int, default=5, help="clicks are drawn so often")
    parser.add_argument("--least", type=int, default=1, help="points of the smallest object that is clicked")
    arguments = parser.parse_args()
    scans = open_scans(arguments.scans)
    ways = {
        "straight": ClickSegmenter(settings=ClickSettings(distance="straight", reach=0.8)),
        "surface": ClickSegmenter(),
    }
    if arguments.run is not None:
        ways["learned"] = ClickSegmenter(arguments.run)
    ious: dict[str, list[float]] = defaultdict(list)
    times_ms: dict[str, list[float]] = defaultdict(list)
    for index in range(len(scans)):
        scan, labels = scans[index], scans.labels
        if scan.class_id is None:
            continue
        objects = objects_of(scan, labels, arguments.least)
        for seed in range(arguments.draws):
            clicks, found = draw_clicks(scan, objects, seed), {}
            for name, way in ways.items():
                started = time.perf_counter()
                found[name] = way.segment(scan.cloud, clicks, scan.class_id[clicks], labels, scans.spec)
                times_ms[name].append((time.perf_counter() - started) * 1e3)
                for number, points in enumerate(objects):
                    own = found[name] == number
                    ious[name].append(own[points].sum() / (own.sum() + len(points) - own[points].sum()))
            if seed == 0:
                arguments.out.mkdir(parents=True, exist_ok=True)
                picture(scan, objects, found, clicks).savefig(arguments.out / f"real_masks_{index}.png", dpi=100)
    summary = {
        "scans": len(scans),
        "draws": arguments.draws,
        "objects": len(ious["surface"]) // arguments.draws,  # over all scans
        "mean_iou": {name: round(float(np.mean(values)), 4) for name, values in ious.items()},
        "above_half": {name: round(float(np.mean(np.array(values) > 0.5)), 4) for name, values in ious.items()},
        "median_ms": {name: round(float(np.median(values)), 1) for name, values in times_ms.items()},
        "environment": environment(),
    }
    write_json(arguments.out / "real.json", summary)
    print("\n".join(f"{name:9} mean IoU {value:.3f}" for name, value in summary["mean_iou"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
