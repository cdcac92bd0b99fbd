# SPDX-License-Identifier: Apache-2.0
"""How objects are followed from scan to scan; apart from the tracker, so that a list of settings costs no more to read."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True)
class TrackSettings:
    """When an object of one scan is that of an earlier one."""

    max_age_s: float = setting(1.5, 0.0, 60.0)
    """an object unseen for longer gets a new id when it comes back"""
    cell_m: float = setting(0.4, 0.05, 10.0)
    """points in one square of this size, seen from above, overlap; half of it is asked of squares five times as large"""
    reach_m: float = setting(0.7, 0.0, 20.0)
    """how far from where it was expected an object may be"""
    reach_m_s: float = setting(4.0, 0.0, 50.0)
    """and how much farther with every second since it was seen"""
    gain: float = setting(0.35, 0.01, 1.0)
    """share of a newly measured velocity in an object's own"""
    max_objects: int = setting(300, 1, 2000)
    """of more objects in one scan the largest are followed, the others get a new id every time"""

    def __post_init__(self) -> None:
        check_ranges(self)
