# SPDX-License-Identifier: Apache-2.0
"""The default engine: onnxruntime, on the GPU where its build has CUDA, else on the CPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import KIND_ONNX, OUTPUTS, Bundle
from weakseg_ros.deploy.engines import DeviceLostError, check_outputs, output_names
from weakseg_ros.errors import EngineError

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
ERRORS_ONLY = 3

log = logging.getLogger(__name__)
WARM_UP_LIMIT_S = 60.0


class OnnxRuntimeEngine:
    """Runs the bundle's ONNX file; made with one warm-up run, so that a file which cannot run is refused here."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        file = bundle.file_of(KIND_ONNX)
        if file is None:
            raise EngineError(f"{bundle.folder}: has no ONNX file; run it in torch, or export the model again")
        self._where = f"{bundle.folder / file}"
        self._num_classes = bundle.num_classes
        self._names = output_names(bundle)
        self._session = open_session(bundle.read(file), threads, self._where)
        self._input = self._check_interface(bundle)
        used = self._session.get_providers()[0]
        self.device = "cuda:0" if used.startswith("CUDA") else "cpu"
        if sentence := fallen_back(onnxruntime.get_available_providers(), used):
            log.warning("%s: %s", self._where, sentence)
        spec = bundle.info.spec
        self._warm_up(np.zeros((1, len(bundle.info.channels), spec.height, spec.width), np.float32))

    def _warm_up(self, image: NDArray[np.float32]) -> None:
        """One run, ended where it takes too long: a graph may hold a loop of as many turns as it likes."""
        options = onnxruntime.RunOptions()
        limit = threading.Timer(WARM_UP_LIMIT_S, setattr, [options, "terminate", True])
        limit.daemon = True
        limit.start()
        try:
            self.run(image, options)
        except EngineError as error:
            if "terminate flag" in str(error):
                raise EngineError(f"{self._where}: gives no answer within {WARM_UP_LIMIT_S:g} s; export it again") from None
            raise
        finally:
            limit.cancel()

    def run(self, image: NDArray[np.float32], options: Any = None) -> dict[str, NDArray[Any]]:
        """See Engine.run; `options` are onnxruntime's own."""
        try:
            values = self._session.run(self._names, {self._input: image}, options)
        except Exception as error:  # onnxruntime's exceptions share no class of their own
            lost = "CUDA failure" in str(error) and "out of memory" not in str(error)
            raise (DeviceLostError if lost else EngineError)(
                f"{self._where}: onnxruntime failed ({_first_line(error)})"
            ) from None
        outputs = dict(zip(self._names, values, strict=True))
        return check_outputs(outputs, image.shape, self._num_classes, self._names[len(OUTPUTS) :])

    def close(self) -> None:
        """See Engine.close."""
        del self._session

    def _check_interface(self, bundle: Bundle) -> str:
        """The input's name; EngineError where names, shapes or classes contradict the bundle."""
        inputs, outputs = self._session.get_inputs(), [output.name for output in self._session.get_outputs()]
        spec = bundle.info.spec
        expected = [len(bundle.info.channels), spec.height, spec.width]
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not set(self._names) <= set(outputs):
            found = ", ".join([f"{entry.name} {entry.type}" for entry in inputs] + outputs)
            raise EngineError(f"{self._where}: expected one float input and the outputs {', '.join(self._names)}; found {found}")
        fixed = [size for size in inputs[0].shape[1:] if isinstance(size, int)]
        if len(inputs[0].shape) != 4 or (len(fixed) == 3 and fixed != expected):
            raise EngineError(f"{self._where}: takes images {inputs[0].shape}, the bundle describes (C, H, W) = {expected}")
        classes = self._session.get_modelmeta().custom_metadata_map.get("num_classes", str(bundle.num_classes))
        if classes != str(bundle.num_classes):
            raise EngineError(
                f"{self._where}: was exported for {classes} classes, the bundle lists {bundle.num_classes} (0 counted)"
            )
        return str(inputs[0].name)


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
