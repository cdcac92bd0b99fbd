# SPDX-License-Identifier: Apache-2.0
"""What papers report for the rows of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True)
class Published:
    """Sets one published figure to show beside the row with the same method and label ratio."""

    method: str
    """Names the method as the benchmark does, for example erda."""
    net: str
    """Names the net as the paper does, for example RandLA-Net."""
    miou: float = setting(0.0, 0.0, 100.0)
    """States the published mIoU in percent (0 to 100)."""
    ratio: float = setting(1.0, 0.0, 1.0)
    """States the label ratio of the figure (0 to 1); 1 means all labels."""
    source: str = ""
    """Names the paper and the table that the figure comes from."""
    ours: str = ""
    """Names the benchmark's net to compare it with; an empty string means any net."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def is_of(self, method: str, net: str, ratio: float) -> bool:
        """Whether a row of the benchmark is what the paper reports on."""
        return (self.method, self.ratio) == (method, ratio) and self.ours in ("", net)
