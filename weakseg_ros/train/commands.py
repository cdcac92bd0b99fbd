# SPDX-License-Identifier: Apache-2.0
"""`weakseg train`, `export` and `wrap`: settings are read first; torch is imported only for what they ask for."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.config import parse
from weakseg_ros.train.config import ExportConfig, TrainConfig
from weakseg_ros.train.wrap_config import WrapConfig


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


def wrap_main(argv: Sequence[str]) -> int:
    """The verb: writes a bundle around an ONNX file of another project and says what is not known of it."""
    config = parse(WrapConfig, argv, "wrap")
    from weakseg_ros.train.wrap import run

    return run(config)
