# SPDX-License-Identifier: Apache-2.0
"""The settings of pieces, free of scipy: the help of `weakseg train` is made of them."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True)
class PieceSettings:
    """Sets how a label spreads to its piece, the connected surface around it."""

    reach_m: float = setting(0.0, 0.0, 100.0)
    """Sets the largest distance in metres from a label at which the points of its piece take it (0 to 100); 0 turns this off."""
    gap_m: float = setting(0.2, 0.0, 10.0)
    """Sets the gap in metres between neighbouring points at which a piece above the ground ends (0 to 10)."""
    gap_share: float = setting(0.01, 0.0, 1.0)
    """Sets the same gap as a share of the range (0 to 1); the larger of this and `gap_m` applies."""
    ground_cell_m: float = setting(1.0, 0.05, 100.0)
    """Sets the edge length in metres of the cells that divide the ground into pieces (0.05 to 100)."""
    weight: float = setting(0.5, 0.0, 1.0)
    """Sets the loss weight of a piece's label next to the click (0 to 1); original labels weigh 1."""
    half_labels: float = setting(1000.0, 1.0, 1e9)
    """Sets the number of original labels of a class at which the weight of its pieces is halved (1 to 1000000000)."""

    def __post_init__(self) -> None:
        check_ranges(self)
