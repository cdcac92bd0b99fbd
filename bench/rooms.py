# SPDX-License-Identifier: Apache-2.0
"""Train the default bundle for indoor robots, models/rooms: simulate buildings with a sensor drawn for each floor, train, export.

    python bench/rooms.py             (or `make rooms`; about 40 minutes on two quiet cores, 2 GB under runs/rooms)

Interrupted, it goes on where it was: floors that are there are kept, and the training is resumed from its last checkpoint. The
test buildings, whose seeds neither training nor validation saw, are for `weakseg evaluate runs/rooms/test --bundle models/rooms`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shipped import train_bundle

from weakseg_ros.simulate.rooms.record import RoomsConfig, record_tours
from weakseg_ros.simulate.variety import DRAWN

RUNS = Path("runs/rooms")
SETTINGS = Path("config/train/rooms.yaml")
STEP_M = 5.3
"""way between two scans: each shows another place"""
FIRST, FIRST_VAL, FIRST_TEST = 1000, 9000, 30000


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
    train_bundle(RUNS, SETTINGS, asked.bundle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
