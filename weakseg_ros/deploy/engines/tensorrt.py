# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's TensorRT, 10.12 and later, and TensorRT-RTX: the bundle's ONNX file built for this GPU, see plans.py."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import Any

from weakseg_ros.deploy.bundle import FP32, Bundle
from weakseg_ros.deploy.engines import Inputs, example_inputs, onnx_of, run_checked
from weakseg_ros.deploy.engines.gpu import first_gpu
from weakseg_ros.deploy.engines.plans import errors_of, forget_plan, kept_plan, shapes_of
from weakseg_ros.errors import EngineError

log = logging.getLogger(__name__)


class TensorRtEngine:
    """Runs a plan frame by frame on the first GPU; made with one warm-up run. Needs torch for memory, streams and graphs."""

    name = "tensorrt"
    device = "cuda:0"

    def __init__(self, bundle: Bundle, threads: int = 0, variant: str = FP32) -> None:
        trt = importlib.import_module(self.name)
        model, self._where = onnx_of(bundle, variant)
        try:
            gpu = first_gpu()  # a runtime without a GPU would end the process
        except EngineError as error:
            raise EngineError(f"{self.name}: {error}") from None
        from weakseg_ros.deploy.engines.buffers import FrameBuffers, guarded, joined

        self._bundle, self.variant, self._guarded, self._joined = bundle, variant, guarded, joined
        shapes = shapes_of(bundle)
        self._logger = errors_of(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._load(lambda: kept_plan(trt, model, self._where, variant, shapes, gpu))
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{self._where}: {self.name} has no memory to run it ({self._logger.text()})")
        self._buffers = guarded(self._where, self.device, lambda: FrameBuffers(self.device, *self._tables(shapes)), self.name)
        for name, tensor in {**self._buffers.inputs, **self._buffers.outputs}.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        self._buffers.capture(self._launch)
        self.run(example_inputs(bundle))

    def run(self, inputs: Inputs) -> dict[str, Any]:
        """See Engine.run. A batch is run frame by frame."""
        return run_checked(self._bundle, lambda: self._run(inputs), inputs)

    def close(self) -> None:
        """See Engine.close."""
        del self._buffers, self._context, self._engine, self._runtime

    def _load(self, plan_and_key: Any) -> Any:
        """The plan as the library's engine; one that it does not take any more is built anew, once."""
        for _ in range(2):
            plan, key = plan_and_key()
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is not None:
                return engine
            log.warning("%s: the cached engine does not match this %s or GPU; it is built again", self._where, self.name)
            forget_plan(key)
        raise EngineError(f"{self._where}: {self.name} does not take the engine that it built ({self._logger.text()})")

    def _tables(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(shape, type) of inputs and outputs by name, from the engine; EngineError where the bundle describes others."""
        for name, shape in shapes.items():
            self._context.set_input_shape(name, shape)
        found = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        info = self._bundle.info
        if found != {*info.inputs, *info.outputs}:
            raise EngineError(f"{self._where}: expected {', '.join([*info.inputs, *info.outputs])}; found {', '.join(found)}")
        shape_of = {name: tuple(self._context.get_tensor_shape(name)) for name in found}
        inputs, outputs = (
            {name: (shape_of[name], spec.dtype) for name, spec in table.items()} for table in (info.inputs, info.outputs)
        )
        return inputs, outputs

    def _launch(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise EngineError(f"{self._where}: {self.name} failed ({self._logger.text()})")

    def _run(self, inputs: Inputs) -> dict[str, Any]:
        count = len(next(iter(inputs.values())))
        frames = [
            self._guarded(self._where, self.device, lambda i=i: self._frame(inputs, i), self.name)  # type: ignore[misc]
            for i in range(count)
        ]
        return frames[0] if count == 1 else {name: self._joined([frame[name] for frame in frames]) for name in frames[0]}

    def _frame(self, inputs: Inputs, number: int) -> dict[str, Any]:
        return self._buffers.run({name: values[number : number + 1] for name, values in inputs.items()}, self._launch)


class TensorRtRtxEngine(TensorRtEngine):
    """The same with TensorRT-RTX, which is on PyPI; it builds in seconds."""

    name = "tensorrt_rtx"
