# SPDX-License-Identifier: Apache-2.0
"""Plans are what TensorRT builds from an ONNX file for one GPU: built once, kept in the user's cache, rebuilt where damaged.

One path for TensorRT 10.12 and later, 11, and TensorRT-RTX: networks are strongly typed, so the arithmetic stands in the ONNX
file and no precision is ever asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines import example_inputs, first_line
from weakseg_ros.deploy.engines.cache import Cache
from weakseg_ros.deploy.engines.gpu import Gpu
from weakseg_ros.errors import EngineError
from weakseg_ros.files import sha256_of_parts

log = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]
OLDEST = (10, 12)
"""TensorRT; RTX counts its own versions"""


def shapes_of(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """The shapes of one frame's inputs; EngineError where the bundle leaves a size open."""
    for name, spec in bundle.info.inputs.items():
        for symbol in spec.shape:
            if not symbol.isdigit() and symbol != "B" and symbol not in bundle.info.sizes:
                raise EngineError(f"{bundle.folder}: the size '{symbol}' of its input '{name}' is not fixed; use onnxruntime")
    return {name: values.shape for name, values in example_inputs(bundle).items()}


def plan_key(model: bytes, library: str, gpu: Gpu | None, variant: str, shapes: Shapes) -> str:
    """What a plan holds for: the ONNX file's content, the library's version, the GPU, the arithmetic and the shapes.

    The driver is no part of it: a plan outlives it.
    """
    sizes = [f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items())]
    return sha256_of_parts([model, library, *_of_gpu(gpu), variant, *sizes])


def _of_gpu(gpu: Gpu | None) -> list[str]:
    return ["any GPU"] if gpu is None else [gpu.name, "{}.{}".format(*gpu.capability)]


def library_of(trt: Any) -> str:
    """Name and version of a TensorRT module; EngineError where it is too old."""
    name = trt.__name__
    numbers = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if name == "tensorrt" and numbers < OLDEST:
        raise EngineError(f"tensorrt: is {trt.__version__}, at least {OLDEST[0]}.{OLDEST[1]} is needed; update it")
    return f"{name} {trt.__version__}"


def kept_plan(trt: Any, model: bytes, where: str, variant: str, shapes: Shapes, gpu: Gpu | None) -> tuple[bytes, str]:
    """(plan, its key in the cache), built where there is none yet; of several processes one builds it."""
    library = library_of(trt)
    key = plan_key(model, library, gpu, variant, shapes)
    timings = Cache("timings")
    timings_key = sha256_of_parts([library, *_of_gpu(gpu)])

    def make() -> bytes:
        log.info("%s: %s builds its engine, which may take minutes; it is kept for later starts", where, library)
        start = time.perf_counter()
        plan, measured = build_plan(trt, model, where, shapes, timings.get(timings_key) or b"")
        log.info("%s: built in %.1f s, %.1f MB", where, time.perf_counter() - start, len(plan) / 1e6)
        if measured:
            timings.put(timings_key, measured)
        return plan

    return Cache("plans").get_or_make(key, make), key


def forget_plan(key: str) -> None:
    """Remove a plan that the library does not take."""
    Cache("plans").forget(key)


def build_plan(trt: Any, model: bytes, where: str, shapes: Shapes, timings: bytes = b"") -> tuple[bytes, bytes]:
    """(plan, timing cache) for the content of an ONNX file; EngineError with the library's words where it cannot."""
    logger = errors_of(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)  # the network must outlive it
    if not parser.parse(model):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)) or "no reason given"
        raise EngineError(f"{where}: {trt.__name__} cannot read it ({reasons}); export the model again, or use onnxruntime")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for i in range(network.num_inputs):
        name = network.get_input(i).name
        if name not in shapes:
            raise EngineError(f"{where}: has the input '{name}', which the bundle does not describe; export the model again")
        profile.set_shape(name, shapes[name], shapes[name], shapes[name])
    config.add_optimization_profile(profile)
    known = _timing_cache(config, timings) if trt.__name__ == "tensorrt" else None  # RTX times nothing
    try:
        plan = builder.build_serialized_network(network, config)
    except Exception as error:  # the library's own exceptions, out of memory among them
        raise EngineError(f"{where}: {trt.__name__} cannot build it ({first_line(error)}); use onnxruntime") from None
    if plan is None:
        raise EngineError(f"{where}: {trt.__name__} cannot build it ({logger.text()}); use onnxruntime")
    return bytes(plan), b"" if known is None else bytes(known.serialize())


def _timing_cache(config: Any, content: bytes) -> Any:
    """What the library timed before on this GPU, so that it is not timed again; None where it keeps none."""
    cache = config.create_timing_cache(content)
    return cache if cache is not None and config.set_timing_cache(cache, False) else None


def errors_of(trt: Any) -> Any:
    """A logger that keeps the library's errors, to be told in one sentence, and passes nothing on."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message)

        def text(self) -> str:
            return (self.errors or ["no reason given"])[-1].strip().splitlines()[0]

    return Logger()
