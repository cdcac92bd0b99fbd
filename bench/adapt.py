# SPDX-License-Identifier: Apache-2.0
"""What `weakseg adapt` brings: adapt on half of the places without their labels, test on the other half, before and after.

    python bench/adapt.py SEMANTICKITTI_RANGE models/street64 --out runs/adapt.json [--reverse] [further options of weakseg adapt]

The data are a folder with `train.npz`, of which every scan is another place. Even places are adapted to and odd ones tested,
or with --reverse the other way round. The figures are IoU over all test points.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from weakseg_ros.cli import main as weakseg
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.environment import environment
from weakseg_ros.files import write_json
from weakseg_ros.measure.inputs import open_input
from weakseg_ros.measure.metrics import ConfusionMatrix

MERGED = {
    "ground": ("road", "parking", "sidewalk", "terrain", "other-ground", "lane-marking"),
    "structure": ("building", "fence", "other-structure"),
    "plants": ("vegetation", "trunk"),
    "vehicles": ("car", "truck", "bus", "other-vehicle", "bicycle", "motorcycle"),
    "people": ("person", "bicyclist", "motorcyclist"),
    "poles": ("pole", "traffic-sign"),
}


def figures(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """IoU by class, their mean over the classes that are there, and the same of merged classes."""
    names = bundle.labels.names
    confusion, merged = ConfusionMatrix(len(names)), ConfusionMatrix(len(MERGED) + 1)
    group_of = {name: number for number, group in enumerate(MERGED.values(), 1) for name in group}
    group = np.array([group_of.get(name, 0) for name in names], np.uint8)
    segmenter = Segmenter(bundle, instances="none")
    for item in open_input(folder, bundle.labels):
        answer = segmenter.run(item.cloud).class_id
        confusion.add(answer, item.truth)
        merged.add(group[answer], group[item.truth])
    segmenter.close()
    return {
        "merged_mean": float(np.nanmean(merged.iou[1:])),
        "merged": {name: float(iou) for name, iou in zip(MERGED, merged.iou[1:], strict=True)},
        "miou_present": confusion.miou_present,
        "accuracy": confusion.accuracy,
        "iou": {name: float(iou) for name, iou in zip(names[1:], confusion.iou[1:], strict=True)},
    }


def halves(data: Path, folder: Path) -> tuple[Path, Path]:
    """The places with even and with odd numbers, as two data sets of the same kind."""
    with np.load(data / "train.npz") as archive:
        arrays = dict(archive)
    for part, name in enumerate(("even", "odd")):
        (folder / name).mkdir()
        np.savez(folder / name / "train.npz", **{key: values[part::2] for key, values in arrays.items()})
    return folder / "even", folder / "odd"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundle")
    parser.add_argument("--out", type=Path, default=Path("runs/adapt.json"))
    parser.add_argument("--reverse", action="store_true", help="adapt to the odd places, test on the even ones")
    asked, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as place:
        adapt_on, test_on = halves(asked.data, Path(place))[:: -1 if asked.reverse else 1]
        mine, report = Path(place) / "mine", asked.out.with_suffix("")
        before = figures(Bundle.load(asked.bundle), test_on)
        words = ["--bundle", asked.bundle, "--out", str(mine), "--report", str(report), *options]
        code = weakseg(["adapt", str(adapt_on), *words])
        after = figures(Bundle.load(mine), test_on) if code == 0 else None
    row = {"adapted_on": adapt_on.name, "tested_on": test_on.name, "exit_code": code, "before": before, "after": after}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked.out, {"bundle": asked.bundle, "options": options, **row, "environment": environment()})
    for name in ("merged_mean", "miou_present", "accuracy"):
        print(f"{name}: {before[name]:.3f} -> {after[name]:.3f}" if after else f"{name}: {before[name]:.3f}, refused")


if __name__ == "__main__":
    main()
