# SPDX-License-Identifier: Apache-2.0
"""The engine of last resort and of the GPU: the bundle's weights in PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from weakseg_ros import registry
from weakseg_ros.deploy.bundle import KIND_WEIGHTS, OUTPUTS, Bundle, BundleInfo
from weakseg_ros.deploy.engines import DeviceLostError, check_outputs, output_names
from weakseg_ros.deploy.graph import DeployGraph, split_weights
from weakseg_ros.errors import EngineError, WeaksegError


class TorchEngine:
    """Runs the network itself, on the first CUDA device where there is one, else on the CPU."""

    name = "torch"

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self._where = str(bundle.folder)
        self._num_classes = bundle.num_classes
        self._names = output_names(bundle)
        if threads > 0:
            torch.set_num_threads(threads)
        self._graph = load_graph(bundle).to(self.device)
        spec = bundle.info.spec
        self.run(np.zeros((1, len(bundle.info.channels), spec.height, spec.width), np.float32))

    def run(self, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """See Engine.run. A GPU that is out of memory is cleared and asked once more."""
        try:
            try:
                values = self._forward(image)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                values = self._forward(image)
        except torch.OutOfMemoryError as error:
            raise EngineError(f"{self._where}: {self.device} is out of memory ({_first_line(error)})") from None
        except RuntimeError as error:
            lost = self.device != "cpu" and "CUDA error" in str(error)
            raise (DeviceLostError if lost else EngineError)(f"{self._where}: torch failed ({_first_line(error)})") from None
        outputs = dict(zip(self._names, values, strict=True))
        return check_outputs(outputs, image.shape, self._num_classes, self._names[len(OUTPUTS) :])

    def close(self) -> None:
        """See Engine.close."""
        del self._graph
        if self.device != "cpu":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _forward(self, image: NDArray[np.float32]) -> list[NDArray[Any]]:
        tensor = torch.from_numpy(image).to(self.device)
        return [value.cpu().numpy() for value in self._graph(tensor)]


def load_graph(bundle: Bundle) -> DeployGraph:
    """The bundle's network with its weights, in evaluation mode, on the CPU; EngineError where they do not fit."""
    stored, info, file = _weights(bundle), bundle.info, bundle.file_of(KIND_WEIGHTS)
    try:
        net = registry.load(registry.NETS, info.net.name)(len(info.channels), bundle.num_classes, **info.net.kwargs)
        extra = _extra(info, net) if info.outputs else None
        weights, extra_weights = split_weights(load_safetensors(stored))
        net.load_state_dict(weights)
        if extra is not None:
            extra.load_state_dict(extra_weights)
    except SafetensorError as error:
        raise EngineError(f"{bundle.folder}/{file}: is no safetensors file ({_first_line(error)}); export it again") from None
    except WeaksegError:
        raise
    except (RuntimeError, TypeError) as error:
        raise EngineError(
            f"{bundle.folder}/{file}: does not fit the net '{info.net.name}' ({_first_line(error)}); export it again"
        ) from None
    return DeployGraph(net, bundle.num_classes, info.temperature, extra).eval()


def stores_half(bundle: Bundle) -> bool:
    """Whether the bundle's weights are stored in half precision; EngineError where it has none."""
    return any(tensor.dtype == torch.float16 for tensor in load_safetensors(_weights(bundle)).values())


def _weights(bundle: Bundle) -> bytes:
    file = bundle.file_of(KIND_WEIGHTS)
    if file is None:
        raise EngineError(f"{bundle.folder}: has no weights for torch; export the model again")
    return bundle.read(file)


def _extra(info: BundleInfo, net: nn.Module) -> nn.Module:
    """What the bundle's method adds behind the net, with fresh weights; EngineError where it adds other outputs."""
    of_rule = importlib.import_module("weakseg_ros.methods.combined").of_rule
    method = of_rule(info.method.name, info.method.options, net, info.labels, torch.ones(info.labels.num_classes))
    extra: nn.Module | None = method.deployable()
    found: tuple[str, ...] = getattr(extra, "outputs", ())
    if extra is None or found != info.outputs:
        raise EngineError(
            f"method '{info.method.name}': adds {', '.join(found) or 'nothing'}, the bundle lists {', '.join(info.outputs)}; "
            "export the model again"
        )
    return extra


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
