# SPDX-License-Identifier: Apache-2.0
"""`weakseg import DATA --out FOLDER`: any bag, or files of clouds, become a folder of scans, to label, train on or evaluate."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from weakseg_ros.config import parse, setting
from weakseg_ros.data.bag_files import is_bag
from weakseg_ros.data.bag_odometry import BagOdometry
from weakseg_ros.data.bags import PartialBagError, find_cloud_topic, read_clouds
from weakseg_ros.data.bare_spec import field_of_view
from weakseg_ros.data.cloud_files import READERS, cloud_files, read_cloud_file
from weakseg_ros.data.many_bags import EXIT_PARTIAL, Row, Runner, are_whole, bags_for, each_bag, one_by_one, only_here
from weakseg_ros.data.other_forms import below, foreign
from weakseg_ros.data.ray_settings import RaySettings, anywhere
from weakseg_ros.data.scan_files import MANIFEST
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.side_files import DEFAULT_PERIOD_NS
from weakseg_ros.errors import CloudError, DataError, counted, say
from weakseg_ros.files import check_can_write
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.frame_names import notes_on_frames
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.layout import INTENSITY_NAMES
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.points.reading import moved
from weakseg_ros.points.rings import ring_is_row
from weakseg_ros.points.sanity import LEVELLED, findings
from weakseg_ros.progress import Progress
from weakseg_ros.registry import DEFAULT_BUNDLE

MARGIN_DEG = 1.0
LEFT_OUT = {"empty", "without odometry"}
"""why clouds are left out although nothing is wrong with them"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportConfig(RaySettings):
    """Convert a bag or cloud files to a folder of scans (SemanticKITTI's layout with a manifest)."""

    bag: Annotated[Path, tyro.conf.Positional]
    """Names the bag (rosbag2 folder, .mcap, .db3, ROS 1 .bag), or a folder or single file of .bin, .pcd, .ply, .npy, .npz, .las
    or .feather."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Lists further bags; each becomes its own folder of scans in the output folder."""
    topic: str = ""
    """Names the PointCloud2 topic to import; it may be empty if the bag has only one."""
    out: Path | None = None
    """Names the output folder for the scans; the default is the bag's name with '_scans' appended, in the current folder."""
    columns: tuple[str, ...] = ()
    """Lists the columns of .bin and .npy files, for example x y z intensity ring; an empty list detects them where possible."""
    every: int = setting(1, 1)
    """Keeps only every N-th cloud (1 or more; 1 keeps all)."""
    limit: int = setting(0, 0)
    """Stops after this many scans (1 or more); 0 imports all of them."""
    label_map: str = setting("semantickitti", was="labels")
    """Selects the label map for labels that are added later: the name of an installed one, or the path of a YAML file."""
    odometry: str = ""
    """Selects the topic of nav_msgs/Odometry in the bag from which each scan gets the sensor's pose, so that labels can travel
    from scan to scan; an empty string writes no poses."""
    odometry_extrinsic: str = ""
    """Sets the pose of the LiDAR in the body frame of that topic, as 'x y z roll pitch yaw' in metres and radians; an empty
    string takes the LiDAR's axes as parallel to the body's."""
    overwrite: bool = False
    """Replaces scans that already exist in the output folder."""

    @property
    def folder(self) -> Path:
        """Where the scans go."""
        is_glob = "*" in self.bag.name and not self.bag.exists()
        first = self.bag.absolute().parent if is_glob or self.more else self.bag.resolve()
        return self.out or Path(f"{first.stem}_scans")


@dataclass
class ImportReport:
    """What became of a bag's clouds."""

    written: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """clouds left out, by reason"""
    damage: str = ""
    """why the bag could not be read to its end"""
    notes: list[str] = field(default_factory=list)
    """what was assumed about the clouds, from the first one"""

    @property
    def is_whole(self) -> bool:
        """Whether the bag was sound to its end, and every cloud of it, or every file, could be read."""
        return not self.damage and not set(self.skipped) - LEFT_OUT


def import_data(config: ImportConfig) -> ImportReport:
    """Write the clouds of a bag or of files as scans; what cannot be read is counted. Raises DataError where no cloud is left."""
    return import_bag(config) if is_bag(config.bag) else import_files(config)


def import_bag(config: ImportConfig) -> ImportReport:
    """Write the clouds of one topic as scans; of a damaged bag, what can be read of it.

    Clouds that cannot be decoded or hold no point are left out and counted. Raises DataError where no cloud is left.
    """
    topic, report = find_cloud_topic(config.bag, config.topic), ImportReport()
    if config.columns:
        raise DataError("columns: a bag names its fields itself; leave --columns out")
    what, poses = f"topic '{topic.name}'", None
    clouds = _keep_usable(config, topic.name, report)
    if config.odometry:
        poses = BagOdometry(config.bag, config.odometry, config.odometry_extrinsic, config)
        clouds = _with_a_pose(clouds, poses, report)
    return _write(config, clouds, topic.messages, f"{config.bag.name} {topic.name}", what, report, poses)


def import_files(config: ImportConfig) -> ImportReport:
    """Write each file of clouds as one scan, in the order of their numbers; see `cloud_files.read_cloud_file`."""
    if not config.bag.exists():
        raise DataError(f"{config.bag}: there is no such file or folder; check the path")
    files, report = cloud_files(config.bag), ImportReport()
    if not files:
        kinds = ", ".join(READERS)
        what_to_do = foreign(config.bag) or below(config.bag, is_bag).removeprefix("; ") or "give one or the other"
        raise DataError(f"{config.bag}: is not a bag and holds no point cloud files ({kinds}); {what_to_do}")
    if config.odometry:
        raise DataError("odometry: point cloud files have none; leave --odometry out")
    if config.topic:
        raise DataError("topic: point cloud files have no topics; leave --topic out")
    clouds = _readable(config, files, report)
    return _write(config, clouds, len(files), f"{len(files)} {files[0].suffix} files of {config.bag.name}", "folder", report)


def _readable(config: ImportConfig, files: Sequence[Path], report: ImportReport) -> Iterator[Cloud]:
    """The clouds of some files; one that cannot be read ends the import where it is the first, and is counted otherwise."""
    for index, file in enumerate(files[:: config.every]):
        try:
            cloud = read_cloud_file(file, config.columns, config.intensity_field)
        except DataError as error:
            if not index:
                raise
            log.warning("left out: %s", error)
            report.skipped["unreadable"] += 1
            continue
        if not len(cloud):
            report.skipped["empty"] += 1
            continue
        stamp_ns = cloud.stamp_ns or index * config.every * DEFAULT_PERIOD_NS
        yield moved(dataclasses.replace(cloud, stamp_ns=stamp_ns), config)


def _with_a_pose(clouds: Iterator[Cloud], poses: BagOdometry, report: ImportReport) -> Iterator[Cloud]:
    """Those of the clouds at whose time the odometry tells where the sensor was; the others are counted."""
    for cloud in clouds:
        if poses.pose_at(cloud.stamp_ns) is not None:
            yield cloud
        else:
            report.skipped["without odometry"] += 1


def _write(
    config: ImportConfig,
    clouds: Iterator[Cloud],
    messages: int,
    source: str,
    what: str,
    report: ImportReport,
    poses: BagOdometry | None = None,
) -> ImportReport:
    """Write `clouds` as scans; `source` is for the manifest, `what` for the error where there is none."""
    check_can_write(config.folder, "--out")
    labels = LabelMap.load(config.label_map)
    first = next(clouds, None)
    if first is None:
        reasons = [f"{count} {reason}" for reason, count in report.skipped.items()] + [report.damage] * bool(report.damage)
        why = ", ".join(reasons) or "it is empty"
        raise DataError(f"{config.bag}: {what} has no usable cloud ({why}); check the topic, and what wrote it")
    report.notes = [*first.notes, *_note_on_rings(first), *_notes_on_points(first), *_note_on_intensity(first, config)]
    total = -(-messages // config.every)
    with ScanWriter(
        config.folder,
        labels,
        guess_spec(first),
        source=source,
        seed=None,
        intensity_full_scale=first.intensity_full_scale * (config.intensity_scale or 1.0),
        overwrite=config.overwrite,
    ) as writer:
        for cloud in Progress(chain([first], clouds), what="import", unit="scan", total=min(total, config.limit or total)):
            pose = None if poses is None else poses.pose_at(cloud.stamp_ns)
            writer.write(_scaled(cloud, config.intensity_scale), pose=pose)
            report.written += 1
            if report.written == config.limit:
                break
    return report


def _keep_usable(config: ImportConfig, topic: str, report: ImportReport) -> Iterator[Cloud]:
    def count_bad(index: int, error: CloudError) -> None:
        if error.reason not in report.skipped:
            log.warning("%s (further ones of this kind are only counted)", error)
        report.skipped[error.reason] += 1

    try:
        for _, cloud in read_clouds(config.bag, topic, config.intensity_field, count_bad, config.every):
            if len(cloud):
                yield moved(cloud, config)
            else:
                report.skipped["empty"] += 1
    except PartialBagError as error:
        report.damage = str(error)


def _scaled(cloud: Cloud, factor: float) -> Cloud:
    """The cloud with its intensity multiplied; 0 = as the driver gave it."""
    return dataclasses.replace(cloud, intensity=cloud.intensity * np.float32(factor)) if factor else cloud


def _note_on_rings(cloud: Cloud) -> list[str]:
    """A sentence where the cloud has a laser's index that is no row, or nothing."""
    if cloud.ring is None or cloud.height > 1 or ring_is_row(cloud):
        return []
    lasers = len(np.unique(cloud.ring[cloud.valid]))
    return [
        f"the laser index (0 to {lasers - 1}) does not order the points by inclination; the rows of the image follow the angle"
    ]


def _notes_on_points(cloud: Cloud) -> list[str]:
    """Sentences on clouds without a usable point, or in another frame or unit than their sensor's in metres."""
    usable = cloud.xyz[cloud.valid]
    if not len(usable):
        return ["no point of the first cloud is usable, all are non-finite or at the origin; see the driver"]
    odd = [str(found) for found in findings(usable, cloud.frame_id) if found.kind not in LEVELLED]
    return odd + notes_on_frames([cloud.frame_id])


def _note_on_intensity(cloud: Cloud, config: ImportConfig) -> list[str]:
    values = cloud.intensity[cloud.valid]
    if cloud.intensity_field and len(values) > 1 and (values.min() == values.max() or values.min() < 0):
        same = values.min() == values.max()
        found = f"is {values[0]:g} in all points" if same else f"is below 0 in {np.mean(values < 0):.0%} of the points"
        where = f"field '{cloud.intensity_field}' {found} of the first cloud, so it may not be what the sensor measured"
        return [f"{where}; --intensity-field chooses another, or '' none"]
    if cloud.intensity_field or config.intensity_field != "auto":
        return []
    names = ", ".join(INTENSITY_NAMES)
    return [f"the clouds have no intensity by a usual name ({names}); --intensity-field names it where there is one"]


def guess_spec(cloud: Cloud) -> RangeSpec:
    """A range image that suits the sensor of `cloud`: rows and columns from its grid or rings, angles from its points.

    64 rows over the angles where the cloud is neither organised nor has rings that are rows; the default where it has no
    point.
    """
    x, y, z = (cloud.xyz[cloud.valid, axis].astype(np.float64) for axis in range(3))
    if not len(x):
        return RangeSpec()
    rings = len(np.unique(cloud.ring)) if cloud.ring is not None and ring_is_row(cloud) else 0
    organised = 1 < cloud.height <= cloud.width
    height = cloud.height if organised else rings if rings > 1 else 64
    width = cloud.width if organised else 2 ** round(np.log2(len(cloud) / rings)) if rings > 1 else 2048
    edges = field_of_view(np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x)), MARGIN_DEG)
    return edges.spec(int(np.clip(height, 1, 4096)), int(np.clip(width, 1, 16384)))


def main(argv: Sequence[str], runner_of: Callable[[RaySettings, Path], Runner] = only_here) -> int:
    """The verb, where `runner_of` tells where many bags are worked on.

    Exit code 1 where a bag was damaged and only a part of it could be written.
    """
    config = parse(ImportConfig, argv, "import")
    if "" in argv and config.bag == Path():  # what a shell makes of a variable that is not set
        raise DataError("no data is given; name a bag or files of clouds ('weakseg import drive --out scans')")
    bags = bags_for(config, config.bag, config.more)
    if bags:
        return 0 if are_whole(import_many(config, bags, runner_of(config, config.folder))) else EXIT_PARTIAL
    report = import_data(config)
    _say(config, report)
    if report.is_whole:
        say(f"next: weakseg evaluate {config.folder} --bundle {DEFAULT_BUNDLE}")
    return 0 if report.is_whole else EXIT_PARTIAL


def import_many(config: ImportConfig, bags: Sequence[Path], over: Runner = one_by_one) -> list[Row]:
    """Import each bag into a folder of its own; one that was imported whole with these settings is not imported again."""
    out = config.folder
    asked = {"settings": str(anywhere(config, out=Path(), bag=Path(), more=(), overwrite=False))}

    def work(bag: Path, name: str) -> Row:
        again = config.overwrite or (out / name / MANIFEST).is_file()  # this program's scans of that bag
        one = replace(config, bag=bag, more=(), out=out / name, overwrite=again)
        report = import_data(one)
        _say(one, report)
        return {"complete": report.is_whole, "scans": report.written, "left_out": dict(report.skipped), "damage": report.damage}

    def is_there(name: str) -> bool:
        return not config.overwrite and (out / name / MANIFEST).is_file()

    rows = each_bag(bags, out, asked, work, lambda row: counted(row["scans"], "scan"), is_there, over=over, fetch=config.fetch)
    say(f"{counted(len(rows), 'bag')} in {out}, {sum(row['complete'] for row in rows)} of them complete")
    return rows


def _say(config: ImportConfig, report: ImportReport) -> None:
    for note in report.notes:
        say(f"note: {note}")
    for reason, count in report.skipped.items():
        say(f"left out: {count} {reason}")
    say(f"{counted(report.written, 'scan')} in {config.folder}")
    if report.damage:
        say(f"incomplete: {report.damage}")
