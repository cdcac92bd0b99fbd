# SPDX-License-Identifier: Apache-2.0
"""Train the default bundle models/street64: simulate drives with several 64-beam sensors, train, export, measure.

    python bench/street64.py            (or `make street64`; about 45 minutes on two cores, 3 GB under runs/street64)

One range image serves sensors from -25 to +22.5 deg, so that the model fits a Velodyne on a car as well as an Ouster.
Training, validation and test streets have seeds of their own; the figures in the model card come from the test streets.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from shipped import train_bundle
from tqdm import tqdm

from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor

RUNS = Path("runs/street64")
BUNDLE = Path("models/street64")
SENSORS = ("hdl64e", "os1_64", "generic64", "hdl64e", "os1_128", "os1_64")
TEST_SENSORS = ("hdl64e", "os1_64", "generic64")
SPEC = RangeSpec(height=96, width=1024, fov_up_deg=23.0, fov_down_deg=-25.5, max_range_m=120.0)
MOUNT_SPREAD_M = 0.25
DRIVES = f"""
## The drives

`make street64` simulates them and trains: {", ".join(sorted(set(SENSORS)))}, each on streets of its own, mounted up to
{MOUNT_SPREAD_M} m higher or lower than usual, intensity scaled to 0..1. Nothing real was trained on, so the last column
below says what to expect of another vehicle: start from this model, and train it on a few labels of your own.
"""
FIRST_TEST_STREET = 20_000
FIRST_VAL_STREET = 10_000


@dataclasses.dataclass(frozen=True)
class Drive:
    """One street with one sensor, written to a folder of its own."""

    folder: Path
    seed: int
    sensor: str
    scans: int


def record_drive(drive: Drive) -> int:
    """Simulate and write one drive; the sensor's height varies by street and its intensity is scaled to 0..1."""
    height = np.random.default_rng([drive.seed, 64]).uniform(-MOUNT_SPREAD_M, MOUNT_SPREAD_M)
    model = load_sensor(drive.sensor)
    model = dataclasses.replace(model, mount_height_m=model.mount_height_m + height, intensity_full_scale=1.0)
    scans = simulate(SimulateConfig(drive.seed, drive.scans, stride=10, sensor=model))
    facts = {"source": f"simulated street {drive.seed}", "seed": drive.seed, "sensor": model.name}
    with ScanWriter(drive.folder, LabelMap.load("street"), SPEC, intensity_full_scale=1.0, **facts) as writer:
        for scan in scans:
            writer.write(scan.cloud, scan.raw_label, scan.pose)
    return drive.scans


def drives_of(streets: int, scans: int) -> list[Drive]:
    """Every drive: training streets, a sixth as many for validation, and the same test streets for each test sensor."""
    table = [Drive(RUNS / "train" / f"{seed:05d}", seed, SENSORS[seed % len(SENSORS)], scans) for seed in range(streets)]
    for number in range(max(streets // 8, 1)):
        seed = FIRST_VAL_STREET + number
        table.append(Drive(RUNS / "val" / f"{seed:05d}", seed, SENSORS[number % len(SENSORS)], scans))
        for sensor in TEST_SENSORS:
            seed = FIRST_TEST_STREET + number
            table.append(Drive(RUNS / f"test-{sensor}" / f"{seed:05d}", seed, sensor, scans // 2))
    return table


def report_card(real: Path | None) -> str:
    """Figures of the exported bundle on streets that it never saw, and on real scans where there are some."""
    rows = []
    data = {f"simulated, {name}": RUNS / f"test-{name}" for name in TEST_SENSORS}
    if real is not None:
        data["real, SemanticKITTI sequence 00"] = real
    for title, path in data.items():
        _, summary = evaluate(EvaluateConfig(path, bundle=str(BUNDLE), lift="knn", out=RUNS / "reports" / path.name))
        rows.append((title, summary))
    names = list(LabelMap.load("street").names[1:])
    lines = [
        DRIVES,
        "## Measured after export",
        "",
        "Over all points, with `lift: knn`, on streets that were never trained on:",
        "",
    ]
    lines += [f"| IoU | {' | '.join(title for title, _ in rows)} |", f"|---|{'---|' * len(rows)}"]
    lines.append(f"| **mean** | {' | '.join(format(summary['miou'], '.3f') for _, summary in rows)} |")
    for name in names:
        values = [summary["class_iou"].get(name) for _, summary in rows]
        lines.append(f"| {name} | {' | '.join('-' if value is None else f'{value:.3f}' for value in values)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Simulate what is not there yet, train, export, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streets", type=int, default=96, help="training streets")
    parser.add_argument("--scans", type=int, default=8, help="scans per street, one a second")
    parser.add_argument("--real", type=Path, default=None, help="folder of real SemanticKITTI scans to measure on as well")
    parser.add_argument("--simulate-only", action="store_true", help="stop after the drives are written")
    arguments = parser.parse_args()
    missing = [drive for drive in drives_of(arguments.streets, arguments.scans) if not drive.folder.exists()]
    with ProcessPoolExecutor() as pool:
        list(tqdm(pool.map(record_drive, missing), total=len(missing), desc="drives", disable=None))
    if arguments.simulate_only:
        return 0
    train_bundle(RUNS, Path("config/train/street64.yaml"), BUNDLE)
    card = BUNDLE / "MODEL_CARD.md"
    card.write_text(card.read_text() + report_card(arguments.real))
    return 0


if __name__ == "__main__":
    sys.exit(main())
