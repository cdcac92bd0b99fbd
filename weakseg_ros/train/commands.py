# SPDX-License-Identifier: Apache-2.0
"""`weakseg train` and `weakseg export`: the settings are read first, and torch is imported only for what they ask for."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.config import parse
from weakseg_ros.train.config import ExportConfig, TrainConfig


def train_main(argv: Sequence[str]) -> int:
    """The verb: train, and export the best net where the settings name a bundle."""
    config = parse(TrainConfig, argv, "train")
    from weakseg_ros.train.train import run

    return run(config)


def export_main(argv: Sequence[str]) -> int:
    """The verb: writes the bundle and says how good it is."""
    config = parse(ExportConfig, argv, "export")
    from weakseg_ros.train.export import run

    return run(config)
