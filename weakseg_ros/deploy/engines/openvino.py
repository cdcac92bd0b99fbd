# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU: the fastest engine on CPUs with matrix units (AMX), not on others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import FP32, Bundle, kind_of
from weakseg_ros.deploy.engines import Inputs, example_inputs, first_line, onnx_of, run_checked
from weakseg_ros.errors import EngineError

BF16 = "bf16"
"""computed from the float32 file, on CPUs that have it"""
FILES = {FP32: kind_of(FP32), BF16: kind_of(FP32), "int8": kind_of("int8")}
"""the kind of file for each arithmetic that this engine is asked for"""


class OpenVinoEngine:
    """Runs the bundle's ONNX file on the CPU; made with one warm-up run."""

    name = "openvino"
    device = "cpu"

    def __init__(self, bundle: Bundle, threads: int = 0, variant: str = FP32) -> None:
        import openvino

        if variant not in FILES:
            raise EngineError(f"openvino: runs {', '.join(FILES)} on a CPU, not {variant}; use another engine")
        model, self._where = onnx_of(bundle, variant, FILES[variant])
        self._bundle, self.variant = bundle, variant
        core = openvino.Core()
        if variant == BF16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError("openvino: this CPU does not compute in bf16; use another variant")
        # float32 is asked for by name: on some CPUs OpenVINO would round to bf16 unasked
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if variant == BF16 else "f32"}
        settings |= {"PERFORMANCE_HINT": "LATENCY", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
        try:
            read = core.read_model(model)
            self._check_interface(read)
            self._request = core.compile_model(read, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise EngineError(
                f"{self._where}: is not a model that openvino can load ({first_line(error)}); export it again"
            ) from None
        self.run(example_inputs(bundle))

    def run(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """See Engine.run."""
        return run_checked(self._bundle, lambda: self._run(inputs), inputs)

    def close(self) -> None:
        """See Engine.close."""
        del self._request

    def _run(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        try:
            # the caller may keep the answer, so it is copied out of the request's own memory
            found: Mapping[Any, NDArray[Any]] = self._request.infer({name: inputs[name] for name in self._bundle.info.inputs})
        except RuntimeError as error:
            raise EngineError(f"{self._where}: openvino failed ({first_line(error)})") from None
        return {name: found[name].copy() for name in self._bundle.info.outputs}

    def _check_interface(self, model: Any) -> None:
        """EngineError where the file's names contradict the bundle; shapes and types are held against it in the warm-up."""
        info = self._bundle.info
        inputs, outputs = ({name for port in ports for name in port.get_names()} for ports in (model.inputs, model.outputs))
        if set(info.inputs) != inputs or not set(info.outputs) <= outputs:
            expected = f"the inputs {', '.join(info.inputs)} and the outputs {', '.join(info.outputs)}"
            raise EngineError(f"{self._where}: expected {expected}; found {', '.join(sorted(inputs | outputs))}")
