# SPDX-License-Identifier: Apache-2.0
"""How objects are followed from scan to scan; apart from the tracker, so that a list of settings costs no more to read."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True)
class TrackSettings:
    """When an object of one scan is that of an earlier one."""

    max_age_s: float = setting(1.5, 0.0, 60.0)
    """Seconds for which an object may be unseen; one that comes back later gets a new id."""
    cell_m: float = setting(0.4, 0.05, 10.0)
    """Side in metres of the squares, seen from above, in which two objects overlap where both have points; squares five times as
    large count half."""
    reach_m: float = setting(0.7, 0.0, 20.0)
    """Metres that an object may be away from where it was expected."""
    reach_m_s: float = setting(4.0, 0.0, 50.0)
    """Metres by which that distance grows with every second since the object was seen."""
    gain: float = setting(0.35, 0.01, 1.0)
    """Share of a newly measured velocity in the velocity that an object is expected to keep."""
    max_objects: int = setting(300, 1, 2000)
    """Objects that are followed in one scan; of more, the smallest get a new id in every scan."""

    def __post_init__(self) -> None:
        check_ranges(self)
