# SPDX-License-Identifier: Apache-2.0
"""The flywheel on real scans: a model of one labelled second of a drive, and the clicks that make it better.

    python bench/flywheel_real.py [--data ../shared/data/vlp32_drive] [--seeds 3] [--shard i/n] [--out runs/flywheel_real]

Ten scans of `train` in a row, from a place drawn with the seed, are labelled in full and train the model that is deployed:
one second of the drive. The pool is the rest of `train`, the test set `val`, which follows in time. Its labels come from a
camera network and are noisy, as those of a person are. Frames and points chosen by `ours` are held against random ones and
against the highest entropies. Rows are kept in OUT/rows.jsonl: an interrupted run goes on, and shards may run beside
one another.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from flywheel_loop import LoopConfig, World, loop_parser, run_and_compare, write

from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.data.scan_sets import ScanSet, Subset
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.locks import in_turn
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import export_run
from weakseg_ros.train.train import train

LABELLED = 10


def make_world(data: Path, out: Path, seed: int, steps: int) -> World:
    """Folders of a seed's base, pool and test scans, and the bundle trained on the base."""
    root = out / f"world-{seed}"
    world = World(root / "base", root / "pool", root / "test", root / "bundle")
    with in_turn(out / f".world-{seed}.lock"):
        if world.bundle.exists():  # written last, and whole
            return world
        shutil.rmtree(root, ignore_errors=True)
        scans, test = open_scans(data, "train"), open_scans(data, "val")
        first = int(np.random.default_rng(seed).integers(len(scans) - LABELLED))
        labelled = np.arange(first, first + LABELLED)
        rest = np.setdiff1d(np.arange(len(scans)), labelled)
        parts = {"base": Subset(scans, labelled.tolist()), "pool": Subset(scans, rest.tolist()), "test": test}
        for name, part in parts.items():
            copy(part, root / name)
        settings = TrainConfig(
            data=world.base,
            val_data=world.base,
            out=root / "run",
            net_width=32,
            channels=("range", "x", "y", "z", "intensity", "valid"),
            augment=AugmentConfig(turn=0.2, drop=0.2, mix=0.5),
            steps=steps,
            warmup_steps=steps // 10,
            learning_rate=4e-3,
            validate_every=0,
            seed=seed,
        )
        export_run(train(settings).path, world.bundle)
    return world


def copy(scans: ScanSet, folder: Path, with_labels: bool = True) -> None:
    """Scans as a folder of their own."""
    facts = {"source": scans.name, "seed": None, "intensity_full_scale": scans.intensity_full_scale}
    with ScanWriter(folder, scans.labels, scans.spec, **facts) as writer:
        for i in range(len(scans)):
            scan = scans[i]
            writer.write(scan.cloud, scans.labels.to_raw(scan.class_id).astype(np.uint32) if with_labels else None)


def main() -> int:
    """Run the units that are missing, then compare."""
    parser = loop_parser(__doc__.splitlines()[0], out="runs/flywheel_real", rounds=5, steps=200)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/vlp32_drive"))
    arguments = parser.parse_args()
    config = LoopConfig(arguments.rounds, arguments.frames, arguments.clicks, 0.0, arguments.steps, 1e-3)

    def world_of(seed: int) -> World:
        return make_world(arguments.data, arguments.out, seed, arguments.base_steps)

    comparison = run_and_compare(arguments, world_of, config)
    if comparison is not None:
        before = comparison["curves"]["ours"]["miou"][0]
        summary = {**comparison, "miou_before": before, "data": str(arguments.data), "loop": vars(config)}
        write(arguments.out, summary, f"Clicks on a real drive, after {LABELLED} labelled scans in a row")
    return 0


if __name__ == "__main__":
    sys.exit(main())
