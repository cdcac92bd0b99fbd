# SPDX-License-Identifier: Apache-2.0
"""SemanticKITTI as range images: train.npz and val.npz."""

from __future__ import annotations

from weakseg_ros.data.grid_archive import ArchiveFormat, GridArchive
from weakseg_ros.points.projection import RangeSpec


class SemanticKittiRange(GridArchive):
    """SemanticKITTI scans already laid out as 64 x 1024 grids, with its 19 classes and without instances."""

    format = ArchiveFormat(
        spec=RangeSpec(64, 1024, fov_up_deg=3.0, fov_down_deg=-25.0, rows="grid"),
        intensity_full_scale=1.0,
        labels="semantickitti",
        class_of_stored=tuple(range(20)),
        has_stamps=False,
        frame_id="velodyne",
    )
