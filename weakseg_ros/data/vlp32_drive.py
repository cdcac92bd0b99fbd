# SPDX-License-Identifier: Apache-2.0
"""The VLP-32C drive: train.npz and val.npz of a front sector."""

from __future__ import annotations

from weakseg_ros.data.grid_archive import ArchiveFormat, GridArchive
from weakseg_ros.points.projection import RangeSpec


class Vlp32Drive(GridArchive):
    """A drive with a Velodyne VLP-32C at 10 Hz, front sector, labelled by a camera network: noisy, as weak labels are."""

    format = ArchiveFormat(
        spec=RangeSpec(32, 240, fov_up_deg=10.5, fov_down_deg=-16.5, fov_left_deg=24.5, fov_right_deg=-22.5, rows="grid"),
        intensity_full_scale=255.0,
        labels="vlp32",
        class_of_stored=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0),
        has_stamps=True,
        frame_id="velodyne",
    )
