# SPDX-License-Identifier: Apache-2.0
"""`weakseg simulate --rooms --out FOLDER`: floors of buildings, as scans of a robot's sensor, as a bag, or in S3DIS's layout."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from weakseg_ros.config import check_ranges, dump_yaml, parse, setting
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.scan_files import MANIFEST
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.errors import ConfigError, DataError, counted, say
from weakseg_ros.files import check_can_write, content_of, put_in_place, sha256_of_parts, staged, sweep, write_atomic
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.progress import Progress
from weakseg_ros.simulate.lidar import SensorModel, Shift
from weakseg_ros.simulate.rooms.area_files import write_room
from weakseg_ros.simulate.rooms.building import build_floor
from weakseg_ros.simulate.rooms.camera import CameraModel
from weakseg_ros.simulate.rooms.scans import SPEED_M_S, Tour, scan_at, scan_room
from weakseg_ros.simulate.rooms.sensors import ANY_INDOOR, camera_of, lidar_of
from weakseg_ros.simulate.variety import DRAWN, draw_shift
from weakseg_ros.simulate.workers import in_order
from weakseg_ros.yaml_files import read_yaml

log = logging.getLogger(__name__)

ROOMS = "--rooms"
LABELS = "s3dis"
MOST_AREAS = 6
"""areas that S3DIS has"""
AREA_FACTS = "simulated.yaml"
"""beside the rooms of a simulated area: the settings that it was made with"""


@dataclass(frozen=True)
class AreaFacts:
    """What an area was made with."""

    source: str
    seed: int
    floor: int
    points: int


@dataclass(frozen=True)
class RoomsConfig:
    """Simulate floors of buildings with S3DIS's 13 classes, seen by a robot's LiDAR or depth camera, or scanned room by
    room."""

    rooms: bool = True
    """Simulates a building; without it, streets are simulated."""
    view: Literal["lidar", "camera", "s3dis"] = "lidar"
    """Selects what is written: 'lidar' and 'camera' write labelled scans of a robot that drives through the rooms, and 's3dis'
    writes one scan of each complete room in the text files of S3DIS's aligned layout."""
    out: Path | None = None
    """Names the output folder; with several floors, each gets its own folder in it."""
    bag: Path | None = None
    """Names the new rosbag2 folder for the robot's clouds, one floor after the other."""
    seed: int = setting(0, 0)
    """Seeds the first building (0 or more); the following buildings use the following seeds."""
    buildings: int = setting(1, 1, 10000)
    """Sets the number of buildings (1 to 10000), each with its own colours and materials."""
    floors: int = setting(1, 1, 100)
    """Sets the number of floors in each building (1 to 100)."""
    scans: int = setting(100, 1)
    """Sets the number of scans on each floor (1 or more); at the end of its path, the robot starts over."""
    step_m: float = setting(0.5, 0.01, 50.0)
    """Sets the distance that the robot drives between two scans, in metres (0.01 to 50)."""
    sensor: str = "vlp16"
    """Selects the LiDAR model: the name of an installed one (config/sensors), the path of a YAML file, or 'varied' for a
    different one on every floor; it is mounted 0.3 to 1.2 m above the floor, and with 'varied' every other scan is taken from a
    random position."""
    columns: int = setting(0, 0, 16384)
    """Sets the number of shots per turn of the LiDAR (1 to 16384); 0 uses the sensor's own."""
    camera: CameraModel = field(default_factory=CameraModel)
    """Sets the depth camera."""
    shift: Shift = field(default_factory=Shift)
    """Sets the domain shift of the LiDAR: intensity, lost rays and noise."""
    points: int = setting(60000, 1000, 5000000)
    """Sets the approximate number of points of each room in S3DIS's layout (1000 to 5000000)."""
    topic: str = "/points"
    """Names the topic of the clouds in the bag."""
    workers: int = setting(0, 0, 256)
    """Sets the number of worker processes (1 to 256); 0 starts one per core, at most 8."""
    overwrite: bool = False
    """Replaces scans, areas and bags that already exist."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.out is None and self.bag is None:
            raise ConfigError("out: nothing would be written; give --out FOLDER, --bag FOLDER, or both")
        if self.view == "s3dis" and (self.out is None or self.bag is not None):
            raise ConfigError("view: rooms in S3DIS's layout are written as folders only; give --out FOLDER and no --bag")
        if self.view == "s3dis" and self.buildings * self.floors > MOST_AREAS:
            wanted = self.buildings * self.floors
            raise ConfigError(
                f"buildings: S3DIS's layout has {MOST_AREAS} areas, and {wanted} floors were asked for; ask for fewer"
            )

    def tours(self) -> list[Tour]:
        """The robot's way through each floor, building by building."""
        seeds = range(self.seed, self.seed + self.buildings)
        return [self._tour(seed, floor) for seed in seeds for floor in range(self.floors)]

    def _tour(self, seed: int, floor: int) -> Tour:
        if self.view == "camera":
            camera, height, pitch = camera_of(self.camera, seed, floor)
            return Tour(seed, floor, self.scans, self.step_m, camera, height, pitch)
        sensor, height = lidar_of(self.sensor, seed, floor)
        sensor = dataclasses.replace(sensor, columns=self.columns) if self.columns else sensor
        drawn = self.sensor == DRAWN and self.shift == Shift()
        shift = dataclasses.replace(draw_shift(seed), clutter=0.0) if drawn else self.shift
        return Tour(seed, floor, self.scans, self.step_m, sensor, height, shift=shift, anywhere=self.sensor == DRAWN)

    @property
    def spec(self) -> RangeSpec | None:
        """The range image of all floors; None = that of each floor's sensor."""
        return ANY_INDOOR if self.view == "lidar" and self.sensor == DRAWN else None


def simulate_rooms(argv: Sequence[str]) -> int:
    """The verb `weakseg simulate --rooms`; returns the exit code."""
    config = parse(RoomsConfig, argv, f"simulate {ROOMS}")
    if config.view == "s3dis":
        count = record_areas(config)
        say(f"{config.out}: {counted(count, 'room')} in S3DIS's layout; next: weakseg benchmark {config.out}")
        return 0
    count = record_tours(config)
    if config.out:
        say(f"{config.out}: {counted(count, 'labelled scan')} of {config.view} clouds; next: weakseg train {config.out}")
    if config.bag:
        say(f"{config.bag}: {counted(count, 'cloud')} on {config.topic}; next: weakseg replay {config.bag}")
    return 0


def record_tours(config: RoomsConfig) -> int:
    """Drive through every floor and write what the sensor sees; returns the number of scans."""
    for place, option in ((config.out, "--out"), (config.bag, "--bag")):
        if place is not None:
            check_can_write(place, option)
    tours = config.tours()
    if config.out and len(tours) > 1 and (config.out / "velodyne").exists():
        raise DataError(f"{config.out}: is a single recording, but several floors need a folder each; choose another one")
    wanted = tours if config.bag else [tour for tour in tours if not _is_there(config, tour)]
    if len(wanted) < len(tours):
        log.info("%s: holds %d of the %d floors already; they are kept", config.out, len(tours) - len(wanted), len(tours))
    scans = in_order(scan_at, ((tour, index) for tour in wanted for index in range(tour.scans)), config.workers)
    with ExitStack() as stack:
        stack.callback(scans.close)
        bag = stack.enter_context(CloudBagWriter(config.bag, config.topic, overwrite=config.overwrite)) if config.bag else None
        bar: Progress[None] = stack.enter_context(Progress(what="simulate", unit="scan", total=len(wanted) * config.scans))
        floor_ns = round(1e9 * config.scans * config.step_m / SPEED_M_S)
        for number, tour in enumerate(wanted):
            with _writer(config, tour) as writer:
                for scan in islice(scans, tour.scans):
                    if writer is not None:
                        writer.write(scan.cloud, scan.raw_label, scan.pose)
                    if bag is not None:
                        bag.write(dataclasses.replace(scan.cloud, stamp_ns=scan.cloud.stamp_ns + number * floor_ns))
                    bar.update()
    return len(tours) * config.scans


def record_areas(config: RoomsConfig) -> int:
    """Scan every room of every floor into Area_1, Area_2, ...; an area appears whole. Returns the number of rooms."""
    assert config.out is not None
    check_can_write(config.out, "--out")
    total = 0
    for number, tour in enumerate(config.tours(), 1):
        area = config.out / f"Area_{number}"
        names = [placed.name for placed in build_floor(tour.seed, tour.floor).rooms]
        total += len(names)
        facts = AreaFacts("weakseg simulate --rooms", tour.seed, tour.floor, config.points)
        if not _may_write_area(area, facts, config.overwrite):
            log.info("%s: already exists and is kept", area)
            continue
        tasks = ((tour.seed, tour.floor, room, config.points) for room in range(len(names)))
        scans = in_order(scan_room, tasks, config.workers)
        with ExitStack() as stack:
            stack.callback(scans.close)
            fresh = stack.enter_context(staged(area))
            for name, scan in zip(names, Progress(scans, what=area.name, unit="room", total=len(names)), strict=True):
                write_room(fresh, name, scan)
            write_atomic(fresh / AREA_FACTS, dump_yaml(facts))
            put_in_place(fresh, area)
    return total


def _may_write_area(area: Path, facts: AreaFacts, overwrite: bool) -> bool:
    """False where the area is there as it would be written. Raises DataError for one that may not be replaced."""
    if not content_of(area):
        sweep(area)
        return True
    known = read_yaml(area / AREA_FACTS) if (area / AREA_FACTS).is_file() else None
    if known == dataclasses.asdict(facts) and not overwrite:
        return False
    if known is None:
        raise DataError(f"{area}: was not simulated by this program; choose another folder")
    if not overwrite:
        raise DataError(f"{area}: was simulated with other settings; choose another folder, or give --overwrite")
    return True


def _folder(config: RoomsConfig, tour: Tour) -> Path | None:
    many = config.buildings * config.floors > 1
    return config.out and (config.out / f"building_{tour.seed:04d}_{tour.floor}" if many else config.out)


def _source(tour: Tour) -> str:
    return (
        f"weakseg simulate --rooms, building {tour.seed}, floor {tour.floor}, settings {sha256_of_parts([dump_yaml(tour)])[:12]}"
    )


def _is_there(config: RoomsConfig, tour: Tour) -> bool:
    """Whether an earlier call with the same settings has recorded this floor already."""
    folder = _folder(config, tour)
    if folder is None or config.overwrite or not (folder / MANIFEST).is_file():
        return False
    content = read_yaml(folder / MANIFEST)
    known = {"source": _source(tour), "count": tour.scans, "complete": True}
    return isinstance(content, dict) and known.items() <= content.items()


def _writer(config: RoomsConfig, tour: Tour) -> AbstractContextManager[ScanWriter | None]:
    """What writes the scans of a floor; None where they are there already, or not asked for."""
    folder = _folder(config, tour)
    if folder is None or _is_there(config, tour):
        return nullcontext()
    sensor = tour.sensor
    name, full_scale = (sensor.name, sensor.intensity_full_scale) if isinstance(sensor, SensorModel) else ("depth_camera", 1.0)
    return ScanWriter(
        folder,
        LabelMap.load(LABELS),
        config.spec or sensor.range_spec(),
        source=_source(tour),
        seed=tour.seed,
        intensity_full_scale=full_scale,
        sensor=name,
        overwrite=config.overwrite,
    )
