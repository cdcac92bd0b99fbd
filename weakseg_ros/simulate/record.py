# SPDX-License-Identifier: Apache-2.0
"""`weakseg simulate --out FOLDER`: drive through procedural streets and record labelled scans, a bag, or both."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro

from weakseg_ros.config import check_ranges, dump_yaml, parse, setting
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.expressions import Expression, expression_lines, read_expressions
from weakseg_ros.data.scan_files import EXPRESSIONS, MANIFEST
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.errors import ConfigError, DataError, counted, say
from weakseg_ros.files import check_can_write, sha256_of_parts
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.progress import Progress
from weakseg_ros.registry import DEFAULT_BUNDLE
from weakseg_ros.simulate.drive import SimulateConfig, SimulatedScan, check_length, scan_at
from weakseg_ros.simulate.expressions import expressions_of
from weakseg_ros.simulate.grammar import Words
from weakseg_ros.simulate.lidar import Shift, load_sensor
from weakseg_ros.simulate.rooms.record import ROOMS, simulate_rooms
from weakseg_ros.simulate.scene_graph import scene_of
from weakseg_ros.simulate.street import Street, build_street
from weakseg_ros.simulate.variety import ANY_SENSOR, DRAWN, draw_sensor, draw_shift
from weakseg_ros.simulate.workers import in_order
from weakseg_ros.yaml_files import read_yaml

log = logging.getLogger(__name__)

LABELS = "street"
Described = tuple[SimulatedScan, list[Expression]]
"""a scan, and what was said of it"""


@dataclass(frozen=True)
class RecordConfig:
    """Drive through procedural streets with a simulated LiDAR, and record labelled scans, a rosbag2 (mcap), or both."""

    out: Path | None = None
    """Names the output folder for the scans; with several streets, each gets its own folder in it."""
    bag: Path | None = None
    """Names the new rosbag2 folder for the clouds, one street after the other."""
    seed: int = setting(0, 0)
    """Seeds the first street (0 or more); the following streets use the following seeds."""
    streets: int = setting(1, 1, 10000)
    """Sets the number of streets to simulate (1 to 10000)."""
    scans_per_street: Annotated[int, tyro.conf.arg(aliases=["--scans"])] = setting(100, 1)
    """Sets the number of scans on each street (1 or more)."""
    stride: int = setting(1, 1, 1000)
    """Keeps only every N-th sweep of the sensor (1 to 1000); 5 at 10 Hz gives one scan every 0.5 s."""
    sensor: str = "generic64"
    """Selects the sensor model: the name of an installed one (config/sensors), the path of a YAML file, or 'varied' for a
    different sensor, mounting height and intensity curve on every street."""
    varied: bool = False
    """Makes the streets more varied, with low plants, clipped hedges, walls, sheds, groups of people, kerbs and different
    materials."""
    columns: int = setting(0, 0, 16384)
    """Sets the number of columns of the range image (1 to 16384); 0 uses the sensor's own."""
    shift: Shift = field(default_factory=Shift)
    """Sets the domain shift relative to a clear day: intensity, lost rays, noise and fog."""
    topic: str = "/points"
    """Names the topic of the clouds in the bag."""
    expressions: int = setting(0, 0, 1000)
    """Sets the number of English expressions about objects to write for each scan (0 to 1000); scans with few objects get
    fewer."""
    expression_words: Words = "training"
    """Selects the vocabulary of the expressions: 'training', or 'test' for additional synonyms that never occur in training."""
    workers: int = setting(0, 0, 256)
    """Sets the number of worker processes (1 to 256); 0 starts one per core, at most 8."""
    overwrite: bool = False
    """Replaces scans and bags that already exist."""
    rooms: bool = False
    """Simulates a building with rooms instead of streets; 'weakseg simulate --rooms --help' shows its settings."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.out is None and self.bag is None:
            raise ConfigError("out: nothing would be written; give --out FOLDER, --bag FOLDER, or both")
        if self.expressions and self.out is None:
            raise ConfigError("expressions: they are written with scans, not to a bag; add --out FOLDER")

    def drives(self) -> list[SimulateConfig]:
        """One drive per street."""
        return [self._drive(seed) for seed in range(self.seed, self.seed + self.streets)]

    def _drive(self, seed: int) -> SimulateConfig:
        drawn = self.sensor == DRAWN
        sensor = draw_sensor(seed) if drawn else load_sensor(self.sensor)
        sensor = dataclasses.replace(sensor, columns=self.columns) if self.columns else sensor
        shift = draw_shift(seed) if drawn and self.shift == Shift() else self.shift
        return SimulateConfig(seed, self.scans_per_street, self.stride, sensor, shift, self.varied)


def record(config: RecordConfig) -> int:
    """Drive and write; returns the number of scans. Raises ConfigError where a street is too short for its scans."""
    for place, option in ((config.out, "--out"), (config.bag, "--bag")):
        if place is not None:
            check_can_write(place, option)
    drives = config.drives()
    for drive in drives:
        check_length(drive)
    if config.out and len(drives) > 1 and (config.out / "velodyne").exists():
        raise DataError(f"{config.out}: is a single recording, but each street needs its own folder; choose another folder")
    sensor, total = drives[0].sensor, len(drives) * config.scans_per_street
    there = [drive for drive in drives if _is_there(config, drive)]
    if there:
        log.info("%s: holds %d of the %d drives already; they are kept", config.out, len(there), len(drives))
    wanted = drives if config.bag else [drive for drive in drives if drive not in there]
    street_ns = round(1e9 * config.scans_per_street * config.stride / sensor.rate_hz)
    asked = (config.expressions, config.expression_words)
    tasks = ((drive, index, *asked) for drive in wanted for index in range(drive.scans))
    scans = in_order(_scan, tasks, config.workers)
    with ExitStack() as stack:
        stack.callback(scans.close)
        bag = stack.enter_context(CloudBagWriter(config.bag, config.topic, overwrite=config.overwrite)) if config.bag else None
        bar: Progress[None] = stack.enter_context(
            Progress(what="simulate", unit="scan", total=len(wanted) * config.scans_per_street)
        )
        for number, drive in enumerate(wanted):
            rows: list[Expression] = []
            with _writer(config, drive) as writer:
                for scan, said in islice(scans, drive.scans):
                    if writer is not None:
                        writer.write(scan.cloud, scan.raw_label, scan.pose)
                    first = 1 + max((row.group for row in rows), default=-1)
                    rows += [dataclasses.replace(row, group=first + row.group) for row in said]
                    if bag is not None:
                        bag.write(dataclasses.replace(scan.cloud, stamp_ns=scan.cloud.stamp_ns + number * street_ns))
                    bar.update()
                if writer is not None and config.expressions:
                    writer.write_lines(EXPRESSIONS, expression_lines(rows))
    return total


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    if ROOMS in argv:
        return simulate_rooms([word for word in argv if word != ROOMS])
    config = parse(RecordConfig, argv, "simulate")
    count = record(config)
    if config.out and config.expressions:
        rows = read_expressions(config.out)
        say(f"{config.out}: {counted(len(rows), 'expression')}, of which {sum(not row.targets for row in rows)} match nothing")
    if config.out:
        say(
            f"{config.out}: {counted(count, 'labelled scan')} on {counted(config.streets, 'street')}; "
            f"next: weakseg train {config.out}"
        )
    if config.bag:
        say(
            f"{config.bag}: {counted(count, 'cloud')} on {config.topic}; next: weakseg "
            f"evaluate {config.bag} --bundle {DEFAULT_BUNDLE}"
        )
    return 0


def _folder(config: RecordConfig, drive: SimulateConfig) -> Path | None:
    return config.out and (config.out / f"street_{drive.seed:04d}" if config.streets > 1 else config.out)


def _source(config: RecordConfig, drive: SimulateConfig) -> str:
    settings = sha256_of_parts([dump_yaml(drive)])[:12]
    said = f", {counted(config.expressions, 'expression')} a scan, {config.expression_words} words" if config.expressions else ""
    return f"weakseg simulate, street {drive.seed}, stride {drive.stride}, settings {settings}{said}"


def _is_there(config: RecordConfig, drive: SimulateConfig) -> bool:
    """Whether an earlier call with the same settings has recorded this drive already."""
    folder = _folder(config, drive)
    if folder is None or config.overwrite or not (folder / MANIFEST).is_file():
        return False
    content = read_yaml(folder / MANIFEST)
    known = {"source": _source(config, drive), "count": drive.scans, "complete": True}
    return isinstance(content, dict) and known.items() <= content.items()


def _writer(config: RecordConfig, drive: SimulateConfig) -> AbstractContextManager[ScanWriter | None]:
    """What writes the scans of a drive; None where they are there already, or not asked for."""
    folder = _folder(config, drive)
    if folder is None or _is_there(config, drive):
        return nullcontext()
    return ScanWriter(
        folder,
        LabelMap.load(LABELS),
        ANY_SENSOR if config.sensor == DRAWN else drive.sensor.range_spec(),
        source=_source(config, drive),
        seed=drive.seed,
        intensity_full_scale=drive.sensor.intensity_full_scale,
        sensor=drive.sensor.name,
        overwrite=config.overwrite,
    )


def _scan(drive: SimulateConfig, index: int, expressions: int, words: Words) -> Described:
    street = _street(drive.seed, drive.varied)
    scan = scan_at(street, drive, index)
    if not expressions:
        return scan, []
    seed = (drive.seed << 16) + index * drive.stride
    return scan, expressions_of(scene_of(street, drive, index, scan), f"{index:06d}", expressions, seed, words)


@lru_cache(maxsize=2)
def _street(seed: int, varied: bool) -> Street:
    return build_street(seed, varied)
