# SPDX-License-Identifier: Apache-2.0
"""The settings of nets and heads, free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError


@dataclass(frozen=True)
class QueryHeadSettings:
    """Size of the query head."""

    queries: int = setting(100, 1, 1000)
    """most objects and stuff classes that it can find in a scan"""
    query_width: int = setting(64, 8, 1024)
    """length of a query, a multiple of query_heads"""
    query_heads: int = setting(4, 1, 64)
    """heads of its attention"""
    query_layers: int = setting(3, 1, 24)
    """times that the queries look at the scan; the published net does so 9 times"""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.query_width % self.query_heads:
            raise ConfigError(f"query_width: {self.query_width} is no multiple of query_heads {self.query_heads}")
