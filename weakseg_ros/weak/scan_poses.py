# SPDX-License-Identifier: Apache-2.0
"""Where the sensor was at each scan of a data set: as the data say, as a file says, or estimated from the scans.

Scans whose surfaces do not lie on those of the scan before, once both are moved by their poses, begin a new drive: nothing
is propagated over such a border, whatever the poses say.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.pose_files import format_pose
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.data.side_files import poses_by_scan
from weakseg_ros.errors import DataError
from weakseg_ros.extras import need
from weakseg_ros.files import write_atomic
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.progress import Progress

log = logging.getLogger(__name__)

PoseSource = Literal["auto", "data", "estimated"]
Points = NDArray[np.floating[Any]]

LARGEST_RANGE_M = 100.0
SAME_SURFACE_M, SAME_SURFACE_SHARE = 0.1, 0.01
"""so near, the latter times its range, a point lies on a surface of the other scan"""
ASIDE_M = 2.5
LEAST_GAIN = 1.6
"""times as many points lie on the scan before as if the sensor had been ASIDE_M elsewhere; 2.0 to 4.4 were seen in drives,
0.9 to 1.4 between scans of different places"""
LEAST_GAIN_ABOVE, LEAST_SHARE_ABOVE = 2.6, 0.3
"""the same for the points above the ground, which lies on itself wherever the sensor is; of scans 0.8 s apart with exact poses
2.8 to 6.6 and 0.5 to 0.9 were seen, of different streets up to 2.4 and 0.14, of wrong poses on one street up to 2.5"""
FEWEST_ABOVE = 50
"""points above the ground, fewer of which say nothing"""
MOST_COMPARED = 1500
"""points of a scan that are compared with the scan before"""
LONGEST_STEP = 10.0
"""times the period before, for which a motion is expected to go on; after longer gaps the sensor may be anywhere"""


_OTHER_HAND = np.array([1.0, -1.0, 1.0], np.float32)
MIRRORED = (
    "; with y mirrored they match, so the scans are left-handed (as CARLA's) and the poses are not: write the scans again with "
    "y negated, e.g. by 'weakseg import --mirror y'"
)


@dataclass(frozen=True)
class ScanPoses:
    """The poses of S scans, each within its own drive."""

    matrices: NDArray[np.float64]
    """(S, 4, 4) sensor to the frame of the drive, m"""
    drive: NDArray[np.int64]
    """(S,) which scans belong together, by number; poses of different drives have nothing to do with each other"""
    source: str
    """where the poses come from, in words"""

    @property
    def content_hash(self) -> str:
        """Another one where the poses are others."""
        return hashlib.sha256(np.round(self.matrices, 6).tobytes() + self.drive.tobytes()).hexdigest()

    def of(self, indices: Sequence[int]) -> ScanPoses:
        """Those of some of the scans."""
        return ScanPoses(self.matrices[list(indices)], self.drive[list(indices)], self.source)


def poses_of_scans(scans: ScanSet, source: PoseSource = "auto", file: Path | None = None) -> ScanPoses:
    """The poses of all scans, and which of them belong to one drive.

    `file` is in one of the forms of `pose_files.WHAT_IS_READ` and wins over `source`. 'auto' takes the poses of the data where
    every scan has one, and estimates them otherwise. Raises DataError where 'data' or the file does not hold a pose for each
    scan, and MissingLibraryError where poses have to be estimated without the library for it.
    """
    if file is not None:
        return _with_drives(scans, _from_file(scans, file), f"{file}")
    given = None if source == "estimated" else _given(scans)
    if given is not None:
        return _with_drives(scans, given, "the data")
    if source == "data":
        raise DataError(
            f"{scans.name}: not every scan has a pose; estimate them with propagate.poses 'estimated', or name a file with "
            "propagate.poses_file"
        )
    return _with_drives(scans, estimate_poses(scans), "estimated from the scans")


def write_poses(path: Path, poses: ScanPoses) -> None:
    """Write a poses.txt in KITTI's layout: the upper three rows of each pose as one line."""
    write_atomic(path, "".join(format_pose(pose) + "\n" for pose in poses.matrices))


def estimate_poses(scans: ScanSet) -> NDArray[np.float64]:
    """(S, 4, 4) by point-to-point registration against a local map (KISS-ICP, Vizzo et al., RA-L 2023), recording by recording.

    The motion that is expected between two scans is the one before, scaled by their stamps. Raises MissingLibraryError
    without kiss-icp.
    """
    need("kiss_icp")
    poses = np.tile(np.eye(4), (len(scans), 1, 1))
    bar: Progress[None] = Progress(what="poses", unit="scan", total=len(scans))
    for numbers in _recordings(scans.keys):
        odometry = _Odometry()
        for number in numbers:
            poses[number] = odometry.register(scans[number].cloud)
            bar.update()
    bar.close()
    return poses


class _Odometry:
    """KISS-ICP with expected motions that respect the scans' stamps."""

    def __init__(self) -> None:
        from kiss_icp.config import KISSConfig
        from kiss_icp.kiss_icp import KissICP

        config = KISSConfig()
        config.data.deskew, config.data.max_range = False, LARGEST_RANGE_M
        config.mapping.voxel_size = LARGEST_RANGE_M / 100.0
        config.registration.max_num_threads = 1  # so that the same scans give the same poses
        self._icp = KissICP(config)
        self._stamp_ns, self._period_ns = 0, 0

    def register(self, cloud: Cloud) -> NDArray[np.float64]:
        """(4, 4) the pose of the next scan; the one before where the scan has no point."""
        if cloud.valid.any():
            period = cloud.stamp_ns - self._stamp_ns if self._stamp_ns else 0
            if self._period_ns > 0 and period > 0:
                self._icp.last_delta = scaled_motion(self._icp.last_delta, min(period / self._period_ns, LONGEST_STEP))
            self._icp.register_frame(np.ascontiguousarray(cloud.xyz[cloud.valid], np.float64), np.zeros(0))
            self._stamp_ns, self._period_ns = cloud.stamp_ns, period
        pose: NDArray[np.float64] = np.array(self._icp.last_pose)
        return pose


def scaled_motion(motion: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """A motion (4, 4) that goes on for `factor` times as long: translation and angle scaled."""
    from scipy.spatial.transform import Rotation

    scaled = np.eye(4)
    scaled[:3, 3] = factor * motion[:3, 3]
    scaled[:3, :3] = Rotation.from_rotvec(factor * Rotation.from_matrix(motion[:3, :3]).as_rotvec()).as_matrix()
    return scaled


def recording_of(key: str) -> str:
    """The recording that a scan belongs to, by its key: '08' of '08/000012', '' of '000012'."""
    return key.rpartition("/")[0]


def _recordings(keys: Sequence[str]) -> list[list[int]]:
    """The numbers of each recording's scans, in order."""
    groups: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(recording_of(key), []).append(number)
    return list(groups.values())


def _given(scans: ScanSet) -> NDArray[np.float64] | None:
    """(S, 4, 4) as the scans say; None where one of them says nothing."""
    poses = []
    for number in range(len(scans)):
        pose = scans[number].pose
        if pose is None:
            return None
        poses.append(pose)
    return np.array(poses)


def _from_file(scans: ScanSet, file: Path) -> NDArray[np.float64]:
    if not file.is_file():
        raise DataError(f"{file}: there is no such file of poses; check propagate.poses_file")
    stamps_ns = [scans[number].cloud.stamp_ns for number in range(len(scans))]
    return poses_by_scan(file, [key.rpartition("/")[2] for key in scans.keys], stamps_ns)


def _with_drives(scans: ScanSet, matrices: NDArray[np.float64], source: str) -> ScanPoses:
    """The poses, cut into drives where recordings end and where neighbouring scans do not lie on each other."""
    drive = np.zeros(len(scans), np.int64)
    count = 0
    broken: list[str] = []
    mirrored = 0
    for numbers in _recordings(scans.keys):
        before: NDArray[np.float32] | None = None
        for place, number in enumerate(numbers):
            xyz = scans[number].cloud.xyz[scans[number].cloud.valid]
            if before is not None and not lies_on(before, moved(xyz, matrices[number], matrices[numbers[place - 1]])):
                broken.append(scans.keys[number])
                count += 1
                mirrored += lies_on(
                    before * _OTHER_HAND, moved(xyz * _OTHER_HAND, matrices[number], matrices[numbers[place - 1]])
                )
            drive[number] = count
            before = xyz
        count += 1
    if broken:
        log.warning(
            "%s: %d of %d scans do not match the previous scan with these poses (%s), so no labels are propagated to them; "
            "the first: %s%s",
            scans.name,
            len(broken),
            len(scans),
            source,
            broken[0],
            MIRRORED if mirrored > len(broken) / 2 else "",
        )
    return ScanPoses(matrices, drive, source)


def lies_on(before: NDArray[np.float32], xyz: NDArray[np.float32]) -> bool:
    """Whether points (N, 3) m, moved into the frame of the scan before (M, 3), lie on its surfaces better than beside its place.

    All points are compared first. Between scans that are far apart most of them are ground, whose rings lie on each other
    nowhere and everywhere alike, and only what stands above it tells one place from another.
    """
    if not len(before) or not len(xyz):
        return False
    here, aside = _shares(before, xyz)
    if here > 0.0 and here >= LEAST_GAIN * aside:
        return True
    from weakseg_ros.weak.ground import ground_points  # here for the same reason as scipy below

    before, xyz = before[~ground_points(before)], xyz[~ground_points(xyz)]
    if min(len(before), len(xyz)) < FEWEST_ABOVE:
        return False
    here, aside = _shares(before, xyz)
    return here >= LEAST_SHARE_ABOVE and here >= LEAST_GAIN_ABOVE * aside


def _shares(before: NDArray[np.float32], xyz: NDArray[np.float32]) -> tuple[float, float]:
    """The share of points (N, 3) on the surfaces of the scan before (M, 3), and its mean as if the sensor were ASIDE_M aside."""
    from scipy.spatial import cKDTree  # here, since 'weakseg train --help' reads the settings above and needs no scipy

    tree = cKDTree(before)
    sample = xyz[:: max(1, len(xyz) // MOST_COMPARED)]
    near = SAME_SURFACE_M + SAME_SURFACE_SHARE * np.linalg.norm(sample, axis=1)

    def share(ahead: float, left: float) -> float:
        return float((tree.query(sample + np.array([ahead, left, 0.0]))[0] <= near).mean())

    aside = [share(*place) for place in ((ASIDE_M, 0.0), (-ASIDE_M, 0.0), (0.0, ASIDE_M), (0.0, -ASIDE_M))]
    return share(0.0, 0.0), float(np.mean(aside))


def moved(xyz: Points, pose: NDArray[np.float64], into: NDArray[np.float64]) -> NDArray[np.float32]:
    """Points (N, 3) of a sensor at `pose` (4, 4) as a sensor at `into` (4, 4) sees them, m."""
    turn = np.linalg.inv(into) @ pose
    return (xyz @ turn[:3, :3].T + turn[:3, 3]).astype(np.float32)
