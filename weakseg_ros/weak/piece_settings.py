# SPDX-License-Identifier: Apache-2.0
"""The settings of pieces, free of scipy: the help of `weakseg train` is made of them."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True)
class PieceSettings:
    """Sets how a click labels the piece of the scan that it lies in."""

    reach_m: float = setting(0.0, 0.0, 100.0)
    """Sets how far from a label a point of its piece takes it, in metres (0 to 100); 0 labels no pieces."""
    gap_m: float = setting(0.2, 0.0, 10.0)
    """Sets the gap in metres between neighbouring points at which a piece above the ground ends (0 to 10)."""
    gap_share: float = setting(0.01, 0.0, 1.0)
    """Sets the same gap as a share of the range, which wins where it is larger (0 to 1)."""
    ground_cell_m: float = setting(1.0, 0.05, 100.0)
    """Sets the edge length in metres of the cells into which the ground is cut (0.05 to 100)."""
    weight: float = setting(0.5, 0.0, 1.0)
    """Sets the weight in the losses of a piece's label close to the click (0 to 1); given labels weigh 1."""
    half_labels: float = setting(1000.0, 1.0, 1e9)
    """Sets with how many given labels of a class the weight of its pieces is halved (1 to 1000000000)."""

    def __post_init__(self) -> None:
        check_ranges(self)
