# SPDX-License-Identifier: Apache-2.0
"""SemanticPOSS: SemanticKITTI's layout, and beside each scan a `tag` that says where its points lie in the sensor's grid.

sequences/02/velodyne/000001.bin   (N, 4) float32 x, y, z in m and intensity 0..255, in the order of the grid
sequences/02/labels/000001.label   (N,) uint32
sequences/02/tag/000001.tag        (40 * 1800,) one byte each, 1 where the grid holds a point: N of them
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.recordings_check import POSS_COUNTS
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.data.scans import ScanFolder, recordings
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import read_regular
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

T = TypeVar("T", np.uint8, np.uint16)

TAG_FOLDER = "tag"
INTENSITY_FULL_SCALE = 255.0


class SemanticPoss(ScanFolder):
    """One recording of SemanticPOSS, each scan as the organised 40 x 1800 grid of a Pandora, non-returns included.

    Labels are those of config/labels/semanticposs.yaml, one per slot of the grid. DataError where a tag is missing or
    marks another number of points than its scan has.
    """

    official_splits: ClassVar[dict[str, tuple[str, ...]]] = {"train": ("00", "01", "03", "04", "05"), "val": ("02",)}
    published_counts: ClassVar[dict[str, int]] = POSS_COUNTS
    grid = RangeSpec(40, 1800, fov_up_deg=15.0, fov_down_deg=-25.0, max_range_m=1000.0, rows="grid")

    def __init__(self, folder: Path, labels: LabelMap | None = None, name: str = "") -> None:
        super().__init__(folder, labels or LabelMap.load("semanticposs"), name)
        self.spec = self.grid
        self.intensity_full_scale = INTENSITY_FULL_SCALE

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """True where a recording under the folder has tags."""
        return any((recording / TAG_FOLDER).is_dir() for _, recording in recordings(folder))

    def __getitem__(self, index: int) -> Scan:
        scan = super().__getitem__(index)
        slots = self._slots(scan.key, len(scan.cloud))
        height, width = self.spec.height, self.spec.width
        xyz, intensity = np.zeros((height * width, 3), np.float32), np.zeros(height * width, np.float32)
        xyz[slots], intensity[slots] = scan.cloud.xyz, scan.cloud.intensity
        cloud = make_cloud(
            xyz,
            intensity,
            np.repeat(np.arange(height, dtype=np.uint16), width),
            stamp_ns=scan.cloud.stamp_ns,
            frame_id=scan.cloud.frame_id,
            height=height,
            width=width,
            intensity_full_scale=INTENSITY_FULL_SCALE,
        )
        class_id, instance_id = scan.class_id, scan.instance_id
        if class_id is not None and instance_id is not None:
            class_id, instance_id = _scatter(class_id, slots), _scatter(instance_id, slots)
        return Scan(scan.key, cloud, class_id, instance_id, scan.pose)

    def _slots(self, key: str, count: int) -> NDArray[np.bool_]:
        """(40 * 1800,) True where the scan's points lie, in their order."""
        path = self.folder / TAG_FOLDER / f"{key}.tag"
        try:
            slots: NDArray[np.bool_] = np.frombuffer(read_regular(path), np.uint8) != 0
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); copy the data set again") from None
        if slots.size != self.spec.height * self.spec.width or slots.sum() != count:
            grid = f"{self.spec.height} x {self.spec.width}"
            raise DataError(
                f"{path}: marks {slots.sum()} of {counted(slots.size, 'slot')}, its scan has "
                f"{counted(count, 'point')} in {grid}; copy both again"
            )
        return slots


def _scatter(values: NDArray[T], slots: NDArray[np.bool_]) -> NDArray[T]:
    spread = np.zeros(slots.size, values.dtype)
    spread[slots] = values
    return spread
