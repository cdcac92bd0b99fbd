# SPDX-License-Identifier: Apache-2.0
"""The default engine: onnxruntime, on the GPU where its build has CUDA, else on the CPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle
from weakseg_ros.deploy.engines import DeviceLostError, Inputs, example_inputs, run_checked
from weakseg_ros.deploy.tensors import TensorSpec
from weakseg_ros.errors import EngineError

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
ERRORS_ONLY = 3

log = logging.getLogger(__name__)
WARM_UP_LIMIT_S = 60.0
_ONNX_TYPES = {"float32": "float"}
"""numpy's names where ONNX has others"""


class OnnxRuntimeEngine:
    """Runs the bundle's ONNX file; made with one warm-up run, so that a file which cannot run is refused here."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        file = bundle.file_of(KIND_ONNX)
        if file is None:
            raise EngineError(f"{bundle.folder}: has no ONNX file; run it in torch, or export the model again")
        self._where, self._bundle = f"{bundle.folder / file}", bundle
        self._session = open_session(bundle.read(file), threads, self._where)
        self._check_interface()
        used = self._session.get_providers()[0]
        self.device = "cuda:0" if used.startswith("CUDA") else "cpu"
        if sentence := fallen_back(onnxruntime.get_available_providers(), used):
            log.warning("%s: %s", self._where, sentence)
        self._warm_up(example_inputs(bundle))

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
            raise (DeviceLostError if lost else EngineError)(
                f"{self._where}: onnxruntime failed ({_first_line(error)})"
            ) from None
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
                f"{self._where}: was exported for {classes} classes, the bundle lists {self._bundle.num_classes} (0 counted)"
            )


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


def open_session(model: bytes, threads: int, where: str, providers: Sequence[str] = PROVIDERS) -> onnxruntime.InferenceSession:
    """A session for the content of an ONNX file, on the first available provider; EngineError where it is no ONNX file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    # Waiting threads sleep instead of spinning: the robot's other processes, and our own ROS thread, need the cores too.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(model, options, [provider for provider in providers if provider in available])
    except Exception as error:  # onnxruntime's exceptions share no class of their own
        raise EngineError(f"{where}: is no model that onnxruntime can load ({_first_line(error)}); export it again") from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
