# SPDX-License-Identifier: Apache-2.0
"""Fixed buffers for one frame on a GPU: pinned memory, one stream, one captured graph, one wait a frame.

On the device `cpu` the same class works on plain tensors, without stream or graph.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from weakseg_ros.deploy.engines import DeviceLostError, Inputs, first_line
from weakseg_ros.errors import EngineError

T = TypeVar("T")
Launch = Callable[[int], None]
"""puts the work on a CUDA stream, given as its address"""
log = logging.getLogger(__name__)


class FrameBuffers:
    """Inputs and outputs of one frame at addresses that never change.

    `inputs` and `outputs` are (shape, numpy's name of the type) by name. `launch` reads `inputs` and fills `outputs`.
    """

    def __init__(self, device: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        self._on_gpu = device != "cpu"
        self.inputs, self._up = self._pairs(inputs, device)
        self.outputs, self._down = self._pairs(outputs, device)
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None  # type: ignore[no-untyped-call]
        self._graph: Any = None

    def _pairs(self, table: Mapping[str, Any], device: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The tensors on the device, and their like in memory that the GPU reads by itself."""
        there = {name: torch.zeros(shape, dtype=getattr(torch, dtype), device=device) for name, (shape, dtype) in table.items()}
        here = {name: torch.zeros(t.shape, dtype=t.dtype, pin_memory=self._on_gpu) for name, t in there.items()}
        return there, here

    def capture(self, launch: Launch) -> None:
        """Record the work as a CUDA graph, which saves the launches of its kernels; where that fails it is launched as before."""
        if self._stream is None:
            return
        launch(self._stream.cuda_stream)  # once outside: libraries allocate on their first run
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                launch(self._stream.cuda_stream)
        except (RuntimeError, EngineError) as error:
            log.info("no CUDA graph: %s; every frame is launched kernel by kernel", first_line(error))
            return
        self._graph = graph

    def run(self, inputs: Inputs, launch: Launch) -> dict[str, Any]:
        """The outputs for one frame: arrays for arrays, tensors on the device for tensors."""
        stay = any(isinstance(values, torch.Tensor) for values in inputs.values())
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())  # who made the tensors may not be done
        with torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext():
            for name, buffer in self.inputs.items():
                values = torch.as_tensor(inputs[name])
                buffer.copy_(values if values.is_cuda else self._up[name].copy_(values), non_blocking=True)
            self._work(launch)
            if stay:
                answer: dict[str, Any] = {name: buffer.clone() for name, buffer in self.outputs.items()}
            else:
                for name, buffer in self.outputs.items():
                    self._down[name].copy_(buffer, non_blocking=True)
        if self._stream is not None:
            self._stream.synchronize()  # the one wait of a frame
        return answer if stay else {name: values.numpy().copy() for name, values in self._down.items()}

    def _work(self, launch: Launch) -> None:
        if self._graph is not None:
            self._graph.replay()
        else:
            launch(0 if self._stream is None else self._stream.cuda_stream)


def joined(parts: list[Any]) -> Any:
    """The answers for several frames as one batch, arrays or tensors."""
    return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else np.concatenate(parts)


def guarded(where: str, device: str, work: Callable[[], T], library: str) -> T:
    """What `work` returns; a GPU out of memory is cleared and asked once more.

    Raises DeviceLostError for an error of CUDA that only a new process gets rid of, EngineError for all others.
    """
    try:
        try:
            return work()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return work()
    except torch.OutOfMemoryError as error:
        raise EngineError(f"{where}: {device} is out of memory ({first_line(error)})") from None
    except RuntimeError as error:
        lost = device != "cpu" and "CUDA error" in str(error)
        raise (DeviceLostError if lost else EngineError)(f"{where}: {library} failed ({first_line(error)})") from None
