# SPDX-License-Identifier: Apache-2.0
"""How objects are followed from scan to scan; apart from the tracker, so that a list of settings costs no more to read."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True)
class TrackSettings:
    """Sets when an object counts as one that was seen before."""

    max_age_s: float = setting(1.5, 0.0, 60.0)
    """Sets how long in seconds an object may stay unseen before it is dropped; if it returns later, it gets a new id."""
    cell_m: float = setting(0.4, 0.05, 10.0)
    """Sets the cell size in metres of the bird's-eye grid on which the overlap of two objects is measured; overlap on a second
    grid, with cells five times as large, counts half."""
    reach_m: float = setting(0.7, 0.0, 20.0)
    """Sets the search radius in metres around the predicted position of an object."""
    reach_m_s: float = setting(4.0, 0.0, 50.0)
    """Sets how fast the search radius grows while an object is unseen, in metres per second."""
    gain: float = setting(0.35, 0.01, 1.0)
    """Sets the weight of a new velocity measurement in the velocity estimate of an object."""
    max_objects: int = setting(300, 1, 2000)
    """Limits the number of objects tracked in a scan; the smallest ones beyond it get a new id in every scan."""

    def __post_init__(self) -> None:
        check_ranges(self)
