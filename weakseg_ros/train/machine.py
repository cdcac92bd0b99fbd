# SPDX-License-Identifier: Apache-2.0
"""The processes, the device and the arithmetic of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision

from weakseg_ros.errors import ConfigError
from weakseg_ros.train.config import TrainConfig

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def check_accelerator(config: TrainConfig) -> None:
    """Raise ConfigError where the settings ask for a GPU that is not there."""
    if config.accelerator in ("cuda", "gpu") and not torch.cuda.is_available():
        raise ConfigError(f"accelerator: '{config.accelerator}', but torch finds no CUDA device here; use auto or cpu")


def launch_fabric(config: TrainConfig) -> Fabric:
    """The processes and the arithmetic that the settings ask for."""
    machine: dict[str, Any] = {"accelerator": config.accelerator, "devices": config.devices, "num_nodes": config.num_nodes}
    precision = precision_of(config)
    if precision == "32-true":
        fabric = Fabric(**machine, precision=precision)
    else:
        fabric = Fabric(**machine, plugins=ExactInputs(precision, "cuda" if _on_cuda(config) else "cpu"))
    fabric.launch()
    return fabric


class ExactInputs(MixedPrecision):
    """Mixed precision that leaves the batch as it is: places in half precision are off by decimetres.

    What a net computes is halved by autocast all the same.
    """

    def convert_input(self, data: Any) -> Any:
        """The data themselves."""
        return data


def _on_cuda(config: TrainConfig) -> bool:
    return config.accelerator != "cpu" and torch.cuda.is_available()


def precision_of(config: TrainConfig) -> Precision:
    """The arithmetic that `auto` means on this machine; see `why_precision`."""
    return why_precision(config)[0]


def why_precision(config: TrainConfig, cpu_info: Path = Path("/proc/cpuinfo")) -> tuple[Precision, str]:
    """The arithmetic of a training, and the reason for it in words.

    On a CPU bf16 pays only with matrix units (AMX): with AVX-512 alone a step takes longer than in float32.
    """
    if config.precision != "auto":
        return config.precision, "the settings ask for it"
    if _on_cuda(config):
        name, level = torch.cuda.get_device_name(), torch.cuda.get_device_capability()[0]
        return ("bf16-mixed", f"{name} computes in bf16") if level >= 8 else ("16-mixed", f"{name} has no bf16")
    if cpu_info.is_file() and "amx_bf16" in cpu_info.read_text(encoding="utf-8", errors="replace").split():
        return "bf16-mixed", "this CPU has matrix units for bf16 (AMX)"
    return "32-true", "this CPU has no matrix units for bf16 (AMX), without which bf16 is slower"
