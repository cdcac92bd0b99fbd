# SPDX-License-Identifier: Apache-2.0
"""Train the default bundle for indoor robots, models/rooms: simulate buildings with a sensor drawn for each floor, train, export.

    python bench/rooms.py             (or `make rooms`; about 40 minutes on two quiet cores, 2 GB under runs/rooms)

Interrupted, it goes on where it was: floors that are there are kept, and the training is resumed from its last checkpoint. The
test buildings, whose seeds neither training nor validation saw, are for `weakseg evaluate runs/rooms/test --bundle models/rooms`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from weakseg_ros.config import load_yaml
from weakseg_ros.simulate.rooms.record import RoomsConfig, record_tours
from weakseg_ros.simulate.variety import DRAWN
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import export_run
from weakseg_ros.train.run_folder import RunFolder
from weakseg_ros.train.train import train

RUNS = Path("runs/rooms")
SETTINGS = Path("config/train/rooms.yaml")
STEP_M = 5.3
"""way between two scans: each shows another place"""
FIRST, FIRST_VAL, FIRST_TEST = 1000, 9000, 30000
CLASS_PRIOR = 0.0


def main() -> int:
    """Simulate what is not there yet, train, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--buildings", type=int, default=200, help="training buildings, of one floor each")
    parser.add_argument("--scans", type=int, default=8, help="scans on each floor")
    parser.add_argument("--bundle", type=Path, default=Path("models/rooms"), help="the bundle to write")
    asked = parser.parse_args()
    few = max(asked.buildings // 16, 2)
    for name, seed, buildings in (("val", FIRST_VAL, few), ("test", FIRST_TEST, 2 * few), ("train", FIRST, asked.buildings)):
        varied = {"sensor": DRAWN, "step_m": STEP_M, "scans": asked.scans}
        record_tours(RoomsConfig(out=RUNS / name, seed=seed, buildings=buildings, **varied))
    config = load_yaml(TrainConfig, SETTINGS, TrainConfig(data=RUNS / "train", out=RUNS / "run"))
    run = train(dataclasses.replace(config, resume=RunFolder(RUNS / "run").has_checkpoint()))
    export_run(run.path, asked.bundle, half=True, class_prior=CLASS_PRIOR)
    return 0


if __name__ == "__main__":
    sys.exit(main())
