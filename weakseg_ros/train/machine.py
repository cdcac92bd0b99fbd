# SPDX-License-Identifier: Apache-2.0
"""The processes, the device and the arithmetic of a training."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision

from weakseg_ros.deploy.engines.cache import Cache
from weakseg_ros.environment import cpu_name
from weakseg_ros.errors import ConfigError, counted
from weakseg_ros.files import sha256_of_parts
from weakseg_ros.nets.build import build_net
from weakseg_ros.train.config import TrainConfig

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
HALF: dict[Precision, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
TIMED_SIZE, TIMED_CLASSES, TIMED_TURNS = (32, 512), 20, 4
WORTH_IT = 0.95
"""half precision is taken where a step takes less than this share of the time, so that noise decides nothing"""


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

    What the hardware promises is timed before it is believed, once for a net and a machine; see `step_times`. On a CPU bf16 is
    promised by matrix units (AMX) alone: with AVX-512 a step takes longer than in float32.
    """
    if config.precision != "auto":
        return config.precision, "the settings ask for it"
    if config.points_spec is not None:
        return "32-true", "a net on points reads places in metres, for which half precision is too coarse"
    if _on_cuda(config):
        name, level = torch.cuda.get_device_name(), torch.cuda.get_device_capability()[0]
        promise: tuple[Precision, str] = (
            ("bf16-mixed", f"{name} computes in bf16") if level >= 8 else ("16-mixed", f"{name} has no bf16")
        )
    elif cpu_info.is_file() and "amx_bf16" in cpu_info.read_text(encoding="utf-8", errors="replace").split():
        promise = "bf16-mixed", "this CPU has matrix units for bf16 (AMX)"
    else:
        return "32-true", "this CPU has no matrix units for bf16 (AMX), without which bf16 is slower"
    if config.devices * config.num_nodes > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return promise[0], f"{promise[1]}; it was not timed, as several processes must agree"
    return believed(promise, step_times(config, HALF[promise[0]], "cuda" if _on_cuda(config) else "cpu"))


def believed(promise: tuple[Precision, str], times: tuple[float, float]) -> tuple[Precision, str]:
    """What is promised where it is faster, else float32; `times` are milliseconds of a step in float32 and in half precision."""
    float32, half = times
    figures = f"a step of this net takes {half:.0f} ms so and {float32:.0f} ms in float32"
    if half < WORTH_IT * float32:
        return promise[0], f"{promise[1]}, and {figures}"
    return "32-true", f"{promise[1]}, but {figures}"


def step_times(config: TrainConfig, half: torch.dtype, device: str) -> tuple[float, float]:
    """Milliseconds of a small training step of the net in float32 and in `half`, timed in turn.

    They are kept in the user's cache folder, so that the same command computes alike on the same machine, busy or not.
    """
    where = torch.cuda.get_device_name() if device == "cuda" else f"{cpu_name()}, {counted(torch.get_num_threads(), 'thread')}"
    what = [config.net, json.dumps(config.net_arguments, sort_keys=True), ",".join(config.channels), str(half)]
    stored = Cache("precision").get_or_make(
        sha256_of_parts([*what, where, torch.__version__]), lambda: json.dumps(_time_steps(config, half, device)).encode()
    )
    float32_ms, half_ms = json.loads(stored)
    return float32_ms, half_ms


def _time_steps(config: TrainConfig, half: torch.dtype, device: str) -> tuple[float, float]:
    channels = len(config.channels)
    with torch.random.fork_rng():  # the training draws the same numbers, timed or not
        net = build_net(config.net, config.channels, [0.0] * channels, [1.0] * channels, TIMED_CLASSES, config.net_arguments)
        image = torch.randn(1, channels, *TIMED_SIZE, device=device)
        net = net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        laps: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(TIMED_TURNS):
            for halved, times in laps.items():
                start = time.perf_counter()
                with torch.autocast(device, half, enabled=halved):
                    loss = net(image).logits.float().square().mean()
                loss.backward()
                if device == "cuda":
                    torch.cuda.synchronize()
                if turn:
                    times.append((time.perf_counter() - start) * 1e3)
    return median(laps[False]), median(laps[True])
