# SPDX-License-Identifier: Apache-2.0
"""The settings of nets and heads, free of torch: the manual of `weakseg train` is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError


@dataclass(frozen=True)
class RangeNetSettings:
    """Sets RangeNet, apart from its width."""

    detach_skips: bool = False
    """Stops the gradient at the skip connections, as the released code does; the losses of the methods then have less effect on
    the encoder."""


@dataclass(frozen=True)
class SqueezeSegSettings:
    """Sets SqueezeSegV3, apart from its width."""

    layers: Literal[21, 53] = 21
    """Selects the number of layers of SqueezeSegV3; 53 is the larger net, with 25,959,588 parameters."""
    deep_supervision: bool = False
    """Trains four auxiliary heads on coarser feature maps, as published; they are not exported."""
    detach_skips: bool = False
    """Stops the gradient at the skip connections, as the released code does; the losses of the methods then have less effect on
    the encoder."""


@dataclass(frozen=True)
class QueryHeadSettings:
    """Sets the size of the query head."""

    queries: int = setting(100, 1, 1000)
    """Sets the number of queries, which limits how many objects and stuff classes the query head finds in a scan (1 to
    1000)."""
    query_width: int = setting(64, 8, 1024)
    """Sets the dimension of a query (8 to 1024), which must be a multiple of `query_heads`."""
    query_heads: int = setting(4, 1, 64)
    """Sets the number of attention heads of the query head (1 to 64)."""
    query_layers: int = setting(3, 1, 24)
    """Sets the number of decoder layers of the query head (1 to 24); the published net has 9."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.query_width % self.query_heads:
            raise ConfigError(f"query_width: {self.query_width} is not a multiple of query_heads {self.query_heads}")
