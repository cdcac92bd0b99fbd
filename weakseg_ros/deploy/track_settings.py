# SPDX-License-Identifier: Apache-2.0
"""How objects are followed from scan to scan; apart from the tracker, so that a list of settings costs no more to read."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True)
class TrackSettings:
    """When an object of one scan is that of an earlier one."""

    max_age_s: float = setting(1.5, 0.0, 60.0)
    """Seconds for which an object may stay unseen; one that returns later gets a new id."""
    cell_m: float = setting(0.4, 0.05, 10.0)
    """Cell size in metres of the bird's-eye grid on which the overlap of two objects is measured; overlap in cells five
    times as large counts half."""
    reach_m: float = setting(0.7, 0.0, 20.0)
    """Search radius in metres around an object's predicted position."""
    reach_m_s: float = setting(4.0, 0.0, 50.0)
    """Growth of the search radius in metres for every second since the object was last seen."""
    gain: float = setting(0.35, 0.01, 1.0)
    """Weight of a newly measured velocity in the estimated velocity of an object."""
    max_objects: int = setting(300, 1, 2000)
    """Maximum number of objects tracked in a scan; the smallest beyond it get a new id in every scan."""

    def __post_init__(self) -> None:
        check_ranges(self)
