# SPDX-License-Identifier: Apache-2.0
"""`weakseg adapt`: the settings are read first, and torch is imported only for what they ask for."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.config import parse
from weakseg_ros.improve.adapt.config import AdaptConfig


def main(argv: Sequence[str]) -> int:
    """The verb; exit code 1 where the adapted model is refused and not written, 2 (by the error) where nothing was adapted."""
    config = parse(AdaptConfig, argv, "adapt")
    from weakseg_ros.improve.adapt.adapt import run

    return run(config)
