# SPDX-License-Identifier: Apache-2.0
"""Train the default bundle models/street: simulate varied streets with a sensor drawn for each, train, export.

    python bench/street.py            (or `make street`; about 100 minutes on two quiet cores, 5 GB under runs/street)

Interrupted, it goes on where it was: streets that are there are kept, and the training is resumed from its last checkpoint.
Measure the bundle on real scans with bench/any_sensor.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shipped import train_bundle

from weakseg_ros.simulate.record import RecordConfig, record
from weakseg_ros.simulate.variety import DRAWN
from weakseg_ros.train.config import ExportConfig
from weakseg_ros.train.export import run as export

RUNS = Path("runs/street")
SETTINGS = Path("config/train/varied_streets.yaml")
STRIDE = 10
CLASS_PRIOR = 0.75
"""chosen on the even scans of semantickitti_range among 0, 0.125, 0.25, 0.375, 0.5 and 0.75"""
FIRST_STREET, FIRST_VAL_STREET = 1000, 9000
VARIANT_STREETS = 32
"""streets that the files in other arithmetic are calibrated on; the last fifth, which chose nothing else, measures them"""


def main() -> int:
    """Simulate what is not there yet, train, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streets", type=int, default=400, help="training streets")
    parser.add_argument("--scans", type=int, default=5, help="scans per street, one a second")
    parser.add_argument("--bundle", type=Path, default=Path("models/street"), help="the bundle to write")
    asked = parser.parse_args()
    varied = {"stride": STRIDE, "sensor": DRAWN, "varied": True}
    record(RecordConfig(RUNS / "train", seed=FIRST_STREET, streets=asked.streets, scans_per_street=asked.scans, **varied))
    streets = max(asked.streets // 16, 2)
    record(RecordConfig(RUNS / "val", seed=FIRST_VAL_STREET, streets=streets, scans_per_street=3, **varied))
    train_bundle(RUNS, SETTINGS, asked.bundle, CLASS_PRIOR)
    held_out = RUNS / "variants"
    record(RecordConfig(held_out, seed=FIRST_VAL_STREET, streets=VARIANT_STREETS, scans_per_street=3, **varied))
    export(ExportConfig(from_bundle=asked.bundle, scans=held_out, out=asked.bundle, overwrite=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
