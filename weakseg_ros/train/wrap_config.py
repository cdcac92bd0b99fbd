# SPDX-License-Identifier: Apache-2.0
"""The settings of `weakseg wrap`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class WrapConfig:
    """Make a bundle of an ONNX file from another project."""

    model: Positional[Path]
    """ONNX file that takes a range image (B, C, H, W) and answers scores or probabilities of its classes (B, K, H, W)"""
    spec: Path
    """YAML file of its range image: lidar-bonnetal's arch_cfg.yaml, or the fields of a range image with channels, mean and std"""
    label_map: str
    """its classes in the order of its channels, by name or YAML file; lidar-bonnetal's data_cfg.yaml is one"""
    out: Path = Path("models/wrapped")
    """bundle folder to write; a link is never replaced, a bundle only with `overwrite`"""
    overwrite: bool = False
    """replace the bundle that lies at `out`"""
    data: Path | None = None
    """folder of scans on which the wrapped model is compared with the original; none: noise"""
    name: str = ""
    """what the bundle calls itself; empty: the name of its folder"""
