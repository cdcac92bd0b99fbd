# SPDX-License-Identifier: Apache-2.0
"""`weakseg retrain`: the settings are read first, and torch is imported only for what they ask for."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.config import parse
from weakseg_ros.improve.retrain.config import RetrainConfig


def main(argv: Sequence[str]) -> int:
    """The verb; exit code 1 where the gate refuses the new bundle, 2 (by the error) where nothing could be trained."""
    config = parse(RetrainConfig, argv, "retrain")
    from weakseg_ros.improve.retrain.retrain import run

    return run(config)
