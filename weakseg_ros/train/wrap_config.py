# SPDX-License-Identifier: Apache-2.0
"""The settings of `weakseg wrap`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class WrapConfig:
    """Make a bundle from an ONNX file of another project."""

    model: Positional[Path]
    """Names the ONNX file of a net that maps a range image (B, C, H, W) to class scores or probabilities (B, K, H, W)."""
    spec: Path
    """Names the YAML file that describes the range image: lidar-bonnetal's arch_cfg.yaml, or a file with the fields of a
    range image, channels, mean and std."""
    label_map: str
    """Selects the label map by name or YAML file, with the classes in the order of the net's output channels;
    lidar-bonnetal's data_cfg.yaml is one."""
    out: Path = Path("models/wrapped")
    """Names the bundle folder to write; a symbolic link is never replaced, and a bundle is replaced only with `overwrite`."""
    overwrite: bool = False
    """Replaces the bundle at `out`."""
    data: Path | None = None
    """Names the folder of scans on which the wrapped model is compared with the original; None compares them on random
    noise."""
    name: str = ""
    """Sets the name of the bundle; an empty string uses the name of its folder."""
