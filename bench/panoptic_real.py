# SPDX-License-Identifier: Apache-2.0
"""Masks from one click per object on real scans that nothing was learned from: by rule, and by a distance learned elsewhere.

    python bench/panoptic_real.py SCANS [--run runs/panoptic/runs/learned_3-s1]

SCANS is a folder of scans with true objects, e.g. a few of SemanticKITTI. The click lies on a random point of each object;
several draws are averaged. Writes OUT/real.json, with the share of objects that straight distance misses, and
OUT/real_masks_0.png, ....
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.data.scans import open_scans
from weakseg_ros.environment import environment
from weakseg_ros.files import write_json
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.train.click_segmenter import ClickSegmenter
from weakseg_ros.weak.masks_by_rule import ClickSettings

MARGIN_M = 3.0
GATE = 0.2
"""share of objects that straight distance must miss before a learned distance can be worth much"""
SIZES = {"below 50 points": (0, 50), "50 to 499 points": (50, 500), "500 points and more": (500, 1 << 62)}


@dataclass(frozen=True)
class Found:
    """One object, clicked once."""

    way: str
    class_name: str
    points: int
    iou: float


def objects_of(scan: Scan, labels: LabelMap, least: int) -> list[NDArray[np.int64]]:
    """The points of each true object that has at least so many; objects of two classes are two, whatever their numbers."""
    assert scan.class_id is not None
    if scan.instance_id is None:
        return []
    own = scan.instance_id.astype(np.int64) * labels.num_classes + scan.class_id
    name = np.where(labels.things[scan.class_id] & (scan.instance_id > 0), own, 0)
    return [np.flatnonzero(name == number) for number in np.unique(name[name > 0]) if (name == number).sum() >= least]


def draw_clicks(scan: Scan, objects: list[NDArray[np.int64]], seed: int) -> NDArray[np.int64]:
    """A random point that a ray reached, of each object."""
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(points[scan.cloud.valid[points]]) for points in objects], np.int64)


def gate(found: Sequence[Found], way: str = "straight") -> dict[str, Any]:
    """The share of clicked objects whose mask by straight distance has an IoU below 0.5, in all, by class and by size.

    Where it is below GATE, no distance can gain much, since most masks are matches already.
    """
    ours = [one for one in found if one.way == way]

    def share(chosen: Sequence[Found]) -> float:
        return round(float(np.mean([one.iou < 0.5 for one in chosen])), 4)

    parts = {name: [one for one in ours if one.class_name == name] for name in sorted({one.class_name for one in ours})}
    parts |= {name: [one for one in ours if low <= one.points < high] for name, (low, high) in SIZES.items()}
    whole = share(ours)
    return {"below_half": whole, "opens": whole >= GATE, "parts": {name: share(part) for name, part in parts.items() if part}}


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
    results: list[Found] = []
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
                    iou = float(own[points].sum() / (own.sum() + len(points) - own[points].sum()))
                    results.append(Found(name, labels.names[int(scan.class_id[points[0]])], len(points), iou))
            if seed == 0:
                arguments.out.mkdir(parents=True, exist_ok=True)
                picture(scan, objects, found, clicks).savefig(arguments.out / f"real_masks_{index}.png", dpi=100)
    ious = {name: [one.iou for one in results if one.way == name] for name in ways}
    if not results:
        sys.exit(f"{arguments.scans}: has no object of {arguments.least} points or more; give scans with instances")
    summary = {
        "scans": len(scans),
        "draws": arguments.draws,
        "objects": len(ious["surface"]) // arguments.draws,  # over all scans
        "mean_iou": {name: round(float(np.mean(values)), 4) for name, values in ious.items()},
        "above_half": {name: round(float(np.mean(np.array(values) > 0.5)), 4) for name, values in ious.items()},
        "gate": gate(results),
        "median_ms": {name: round(float(np.median(values)), 1) for name, values in times_ms.items()},
        "environment": environment(),
    }
    write_json(arguments.out / "real.json", summary)
    print("\n".join(f"{name:9} mean IoU {value:.3f}" for name, value in summary["mean_iou"].items()))
    said = "leaves room for a learned distance" if summary["gate"]["opens"] else "leaves a learned distance little to gain"
    print(f"gate: straight distance misses {100 * summary['gate']['below_half']:.0f} % of the clicked objects, which {said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
