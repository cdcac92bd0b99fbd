# SPDX-License-Identifier: Apache-2.0
"""`weakseg build-engine`: what a robot's first start would build for its GPU, built ahead."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from weakseg_ros.config import parse
from weakseg_ros.deploy.bundle import FP32, VARIANTS, Bundle
from weakseg_ros.deploy.engines import onnx_of
from weakseg_ros.deploy.engines.cache import cache_folder
from weakseg_ros.deploy.engines.gpu import first_gpu
from weakseg_ros.deploy.engines.plans import kept_plan, shapes_of
from weakseg_ros.errors import ConfigError, EngineError, did_you_mean, say
from weakseg_ros.registry import DEFAULT_BUNDLE


@dataclass(frozen=True)
class BuildConfig:
    """Build a bundle's TensorRT engines for this machine's GPU before the node first starts."""

    bundle: Positional[str] = DEFAULT_BUNDLE
    """Names the model: the path of its folder, or the name of an installed one."""
    engine: Literal["tensorrt", "tensorrt_rtx"] = "tensorrt"
    """Selects the library to build with."""
    variants: tuple[str, ...] = ()
    """Lists the precisions to build, from fp32, fp16 and int8-tensorrt; an empty list builds every one that the bundle has
    files for."""

    def __post_init__(self) -> None:
        for variant in self.variants:
            if variant not in (FP32, *VARIANTS):
                raise ConfigError(f"variants: unknown '{variant}'{did_you_mean(variant, (FP32, *VARIANTS))}")


def main(argv: Sequence[str]) -> int:
    """The verb; EngineError in one sentence where there is no GPU, or an engine cannot be built."""
    config = parse(BuildConfig, argv, "build-engine")
    bundle = Bundle.load(config.bundle)
    trt = importlib.import_module(config.engine)
    try:
        gpu = first_gpu()
    except EngineError as error:
        raise EngineError(f"{config.engine}: {error}; engines are built on the machine that runs them") from None
    for variant in config.variants or [each for each in bundle.variants if each != "int8"]:
        model, where = onnx_of(bundle, variant)
        plan, key = kept_plan(trt, model, where, variant, shapes_of(bundle), gpu)
        place = cache_folder()
        kept = f"kept as {place / 'plans' / key}" if place else "not cached, because this user has no home folder"
        say(f"{config.engine}:{variant}: {len(plan) / 1e6:.1f} MB for {gpu.name}, {kept}")
    return 0
