# SPDX-License-Identifier: Apache-2.0
"""Does novelty find what no label ever showed? One class is cut out of the training scans and looked for in others.

    python bench/novelty.py [--hide car] [--steps 600] [--seed 0] [--option prototype_momentum=0.999]

Trains a light net with COARSE3D on simulated streets of 64 x 512 whose points of the hidden class are taken away, exports
it, and segments other streets, where the class drives about. Prints for entropy, confidence and novelty how well each tells
the points of the hidden class from those of the known ones (AUROC; 0.5 = not at all), and novelty's mean over both. About
three minutes on one free core.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.config import from_mapping
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.methods.settings import Coarse3dSettings
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.simulate.drive import SimulateConfig, SimulatedScan, simulate
from weakseg_ros.simulate.lidar import load_sensor
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import export_run
from weakseg_ros.train.train import train

COLUMNS, SCANS, STRIDE = 512, 4, 15
CROP = 192
TRAIN_STREETS, TEST_STREETS = range(14), range(900, 905)
OPTIONS = {"embedding": 64, "prototype_momentum": 0.99}
"""a short training: prototypes that follow faster than by default"""
LABELS = LabelMap.load("street")


def without(scan: SimulatedScan, class_id: int) -> SimulatedScan:
    """The scan with every return from a class gone; its directions stay as non-returns."""
    kept = LABELS.to_class(scan.raw_label) != class_id
    cloud = scan.cloud
    intensity = None if cloud.intensity is None else np.where(kept, cloud.intensity, np.float32(0))
    emptied = make_cloud(
        np.where(kept[:, None], cloud.xyz, np.float32(0)), intensity, cloud.ring, height=cloud.height, width=cloud.width
    )
    return dataclasses.replace(scan, cloud=emptied, raw_label=np.where(kept, scan.raw_label, np.uint32(0)))


def record(folder: Path, streets: range, hidden: int) -> None:
    """Write a few scans of each street, without the hidden class (0 = none is hidden)."""
    sensor = dataclasses.replace(load_sensor("generic64"), columns=COLUMNS, intensity_full_scale=1.0)
    facts: dict[str, Any] = {"source": f"simulated, class {hidden} cut out", "seed": streets[0], "intensity_full_scale": 1.0}
    with ScanWriter(folder, LABELS, sensor.range_spec(), **facts) as writer:
        for street in streets:
            for scan in simulate(SimulateConfig(street, SCANS, STRIDE, sensor)):
                shown = without(scan, hidden) if hidden else scan
                writer.write(shown.cloud, shown.raw_label, shown.pose)


def compare(bundle: Bundle, folder: Path, hidden: int) -> dict[str, float]:
    """How well each score tells the hidden class's points from the others, over all scans of a folder."""
    segmenter, rows = Segmenter(bundle), []
    for scan in open_scans(folder, labels=LABELS):
        answer = segmenter.run(scan.cloud)
        known = (scan.class_id > 0) & (answer.class_id > 0)
        columns = (scan.class_id == hidden, answer.uncertainty, 1.0 - answer.confidence, answer.novelty)
        rows.append(np.stack([column[known].astype(np.float32) for column in columns], axis=1))
    new, *scores = np.concatenate(rows).T
    new = new > 0
    figures = {f"auroc_{name}": auroc(score, new) for name, score in zip(("entropy", "doubt", "novelty"), scores, strict=True)}
    novelty = scores[-1]
    return {
        **figures,
        "auroc_entropy_and_novelty": auroc(scores[0] + novelty, new),
        "novelty_of_hidden": float(novelty[new].mean()),
        "novelty_of_known": float(novelty[~new].mean()),
        "hidden_share": float(new.mean()),
    }


def main() -> None:
    """Record, train, export, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hide", default="car", choices=LABELS.names[1:])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="a setting of coarse3d")
    parser.add_argument("--keep", type=Path, help="new folder for the scans, the run and the bundle")
    arguments = parser.parse_args()
    options = OPTIONS | {name: yaml.safe_load(value) for name, value in (option.split("=", 1) for option in arguments.option)}
    hidden = LABELS.names.index(arguments.hide)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        data = {"train": (TRAIN_STREETS, hidden), "test": (TEST_STREETS, 0)}
        for name, (streets, cut) in data.items():
            record(folder / name, streets, cut)
        run = train(
            TrainConfig(
                data=folder / "train",
                out=folder / "run",
                method="coarse3d",
                coarse3d=from_mapping(Coarse3dSettings, options, "--option"),
                net_width=arguments.width,
                steps=arguments.steps,
                warmup_steps=20,
                batch_size=4,
                learning_rate=0.008,
                augment=AugmentConfig(crop_columns=CROP),
                workers=1,
                average_decay=0.98,
                validate_every=0,
                seed=arguments.seed,
            )
        )
        bundle = export_run(run.path, folder / "bundle", scans=4)
        print("  ".join(f"{name} {value:.3f}" for name, value in compare(bundle, folder / "test", hidden).items()))


def auroc(score: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive element has the higher score than a negative one, ties counting half: (N,), (N,) -> 0..1.

    0.5 = the score says nothing. NaN where one of the two kinds is missing.
    """
    values, place = np.unique(score, return_inverse=True)
    hits = np.bincount(place[positive], minlength=len(values)).astype(np.float64)
    others = np.bincount(place[~positive], minlength=len(values)).astype(np.float64)
    pairs = hits.sum() * others.sum()
    below = np.cumsum(others) - others
    return float((hits * (below + 0.5 * others)).sum() / pairs) if pairs else float("nan")


if __name__ == "__main__":
    main()
