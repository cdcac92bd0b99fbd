# SPDX-License-Identifier: Apache-2.0
"""The default engine: onnxruntime, on the GPU where its build has CUDA, else on the CPU; and its GPU providers by name."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import FP32, Bundle
from weakseg_ros.deploy.engines import DeviceLostError, Inputs, example_inputs, first_line, onnx_of, run_checked
from weakseg_ros.deploy.engines.cache import cache_folder
from weakseg_ros.deploy.tensors import TensorSpec
from weakseg_ros.errors import EngineError, counted

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = (CUDA, "CPUExecutionProvider")
ERRORS_ONLY = 3
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"

log = logging.getLogger(__name__)
WARM_UP_LIMIT_S = 60.0
_ONNX_TYPES = {"float32": "float"}
"""numpy's names where ONNX has others"""


class OnnxRuntimeEngine:
    """Runs the bundle's ONNX file; made with one warm-up run, so that a file which cannot run is refused here."""

    name = "onnxruntime"
    providers: tuple[Any, ...] = PROVIDERS
    """of onnxruntime, the first that can be used is taken; a pair brings its options"""

    def __init__(self, bundle: Bundle, threads: int = 0, variant: str = FP32) -> None:
        model, self._where = onnx_of(bundle, variant)
        self._bundle, self.variant = bundle, variant
        self._session = open_session(model, threads, self._where, self.providers)
        self._check_interface()
        used = self._session.get_providers()[0]
        self.device = "cpu" if used == PROVIDERS[-1] else "cuda:0"
        self._check_provider(used)
        self._warm_up(example_inputs(bundle))

    def _check_provider(self, used: str) -> None:
        """Say where a build for CUDA runs on the CPU all the same."""
        if sentence := fallen_back(onnxruntime.get_available_providers(), used):
            log.warning("%s: %s", self._where, sentence)

    def run(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """See Engine.run."""
        return run_checked(self._bundle, lambda: self._run(inputs), inputs)

    def close(self) -> None:
        """See Engine.close."""
        del self._session

    def _warm_up(self, inputs: Inputs) -> None:
        """One run, ended where it takes too long: a graph may hold a loop of as many turns as it likes."""
        options = onnxruntime.RunOptions()
        limit = threading.Timer(WARM_UP_LIMIT_S, setattr, [options, "terminate", True])
        limit.daemon = True
        limit.start()
        try:
            run_checked(self._bundle, lambda: self._run(inputs, options), inputs)
        except EngineError as error:
            if "terminate flag" in str(error):
                raise EngineError(f"{self._where}: gives no answer within {WARM_UP_LIMIT_S:g} s; export it again") from None
            raise
        finally:
            limit.cancel()

    def _run(self, inputs: Inputs, options: Any = None) -> dict[str, NDArray[Any]]:
        names = list(self._bundle.info.outputs)
        try:
            values = self._session.run(names, {name: inputs[name] for name in self._bundle.info.inputs}, options)
        except Exception as error:  # onnxruntime's exceptions share no class of their own
            lost = "CUDA failure" in str(error) and "out of memory" not in str(error)
            raise (DeviceLostError if lost else EngineError)(f"{self._where}: onnxruntime failed ({first_line(error)})") from None
        return dict(zip(names, values, strict=True))

    def _check_interface(self) -> None:
        """EngineError where the file's names, types, shapes or classes contradict the bundle."""
        info = self._bundle.info
        inputs = {entry.name: entry for entry in self._session.get_inputs()}
        outputs = [output.name for output in self._session.get_outputs()]
        if set(inputs) != set(info.inputs) or not set(info.outputs) <= set(outputs):
            expected = f"the inputs {', '.join(info.inputs)} and the outputs {', '.join(info.outputs)}"
            raise EngineError(f"{self._where}: expected {expected}; found {', '.join([*inputs, *outputs])}")
        for name, spec in info.inputs.items():
            _check_input(self._where, inputs[name], spec, info.sizes)
        classes = self._session.get_modelmeta().custom_metadata_map.get("num_classes", str(self._bundle.num_classes))
        if classes != str(self._bundle.num_classes):
            raise EngineError(
                f"{self._where}: was exported for {counted(classes, 'class')}, "
                f"but the bundle lists {self._bundle.num_classes} (including class 0)"
            )


class OnnxRuntimeCudaEngine(OnnxRuntimeEngine):
    """onnxruntime with its CUDA provider, and nothing else: where the GPU cannot be used it is refused."""

    name = "onnxruntime_cuda"
    providers: tuple[Any, ...] = (CUDA, "CPUExecutionProvider")

    def _check_provider(self, used: str) -> None:
        due = self.providers[0] if isinstance(self.providers[0], str) else self.providers[0][0]
        if used == due:
            return
        if due not in onnxruntime.get_available_providers():
            raise EngineError(f"{self.name}: this build of onnxruntime has no {due}; install onnxruntime-gpu")
        raise EngineError(f"{self.name}: {due} could not use the GPU, so {used} was used; check the driver with nvidia-smi")


class OnnxRuntimeTensorRtEngine(OnnxRuntimeCudaEngine):
    """onnxruntime with its TensorRT provider, which builds an engine when it is opened."""

    name = "onnxruntime_tensorrt"

    def __init__(self, bundle: Bundle, threads: int = 0, variant: str = FP32) -> None:
        options: dict[str, Any] = {"trt_cuda_graph_enable": True}
        if (folder := cache_folder()) is not None:
            options |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder / "onnxruntime_tensorrt")}
            options |= {"trt_engine_cache_prefix": f"{bundle.content_hash[:16]}_{variant}", "trt_timing_cache_enable": True}
        self.providers = ((TENSORRT, options), CUDA, "CPUExecutionProvider")
        super().__init__(bundle, threads, variant)


def _check_input(where: str, found: Any, spec: TensorSpec, sizes: Mapping[str, int]) -> None:
    """EngineError where an input of the file has another type or shape than the bundle's table says."""
    if found.type != f"tensor({_ONNX_TYPES.get(spec.dtype, spec.dtype)})":
        raise EngineError(f"{where}: takes '{found.name}' as {found.type}, the bundle describes {spec.dtype}")
    due = [sizes.get(symbol) for symbol in spec.shape]
    fits = len(found.shape) == len(due) and all(
        not isinstance(size, int) or expected in (None, size) for size, expected in zip(found.shape, due, strict=True)
    )
    if not fits:
        described = ", ".join(str(sizes.get(symbol, symbol)) for symbol in spec.shape)
        raise EngineError(f"{where}: takes '{found.name}' of {found.shape}, the bundle describes ({described})")


def fallen_back(available: Sequence[str], used: str) -> str:
    """A sentence where this build of onnxruntime has CUDA and a session runs without it all the same; empty elsewhere."""
    if PROVIDERS[0] not in available or used == PROVIDERS[0]:
        return ""
    return (
        "runs on the CPU, although this onnxruntime is built for CUDA: it could not use the GPU; check the driver "
        "(nvidia-smi) and that CUDA and cuDNN are of the versions that onnxruntime-gpu asks for"
    )


def open_session(model: bytes, threads: int, where: str, providers: Sequence[Any] = PROVIDERS) -> onnxruntime.InferenceSession:
    """A session for the content of an ONNX file, on the first available provider; EngineError where it is no ONNX file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    # Waiting threads sleep instead of spinning: the robot's other processes, and our own ROS thread, need the cores too.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(_FOLDER_OF_WEIGHTS, os.devnull)  # a single file is all that there is
    available = onnxruntime.get_available_providers()
    usable = [each for each in providers if (each if isinstance(each, str) else each[0]) in available]
    try:
        return onnxruntime.InferenceSession(model, options, usable)
    except Exception as error:  # onnxruntime's exceptions share no class of their own
        raise EngineError(f"{where}: is not a model that onnxruntime can load ({first_line(error)}); export it again") from None
