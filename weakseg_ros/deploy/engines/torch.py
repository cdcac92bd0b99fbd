# SPDX-License-Identifier: Apache-2.0
"""The engine of last resort and of the GPU: the bundle's weights in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from weakseg_ros import registry
from weakseg_ros.deploy.bundle import FP32, KIND_WEIGHTS, Bundle, BundleInfo, HeadRule
from weakseg_ros.deploy.engines import Inputs, example_inputs, first_line, run_checked
from weakseg_ros.deploy.engines.buffers import guarded
from weakseg_ros.deploy.graph import DeployGraph, split_weights
from weakseg_ros.deploy.tensors import TensorSpec
from weakseg_ros.errors import EngineError, WeaksegError, counted
from weakseg_ros.nets.heads.head import Head, Heads


class TorchEngine:
    """Runs the network itself, on the first CUDA device where there is one, else on the CPU."""

    name = "torch"

    def __init__(self, bundle: Bundle, threads: int = 0, variant: str = FP32) -> None:
        if variant != FP32:
            raise EngineError(f"torch: runs {FP32} alone, not {variant}; use another engine")
        self.variant = FP32
        self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self._where, self._bundle = str(bundle.folder), bundle
        if threads > 0:
            torch.set_num_threads(threads)
        self._graph = load_graph(bundle).to(self.device)
        self.run(example_inputs(bundle))

    def run(self, inputs: Inputs) -> dict[str, Any]:
        """See Engine.run. A GPU that is out of memory is cleared and asked once more."""
        return run_checked(self._bundle, lambda: self._run(inputs), inputs)

    def close(self) -> None:
        """See Engine.close."""
        del self._graph
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def _run(self, inputs: Inputs) -> dict[str, Any]:
        values = guarded(self._where, self.device, lambda: self._forward(inputs), self.name)
        if len(values) != len(self._bundle.info.outputs):
            due = ", ".join(self._bundle.info.outputs)
            raise EngineError(
                f"{self._where}: its network gives {counted(len(values), 'output')}, the bundle lists {due}; export it again"
            )
        return dict(zip(self._bundle.info.outputs, values, strict=True))

    @torch.inference_mode()
    def _forward(self, inputs: Inputs) -> list[Any]:
        """Numpy arrays give numpy arrays; tensors give tensors, which stay on the device."""
        stay = any(isinstance(values, torch.Tensor) for values in inputs.values())
        try:
            values = self._graph(*(torch.as_tensor(inputs[name]).to(self.device) for name in self._bundle.info.inputs))
        except TypeError as error:  # more inputs than the net's forward takes
            info = self._bundle.info
            fault = f"its net '{info.net.name}' does not take the inputs {', '.join(info.inputs)}, which the bundle lists"
            raise EngineError(f"{self._where}: {fault} ({first_line(error)}); export it again") from None
        return list(values) if stay else [value.cpu().numpy() for value in values]


def load_graph(bundle: Bundle) -> DeployGraph:
    """The bundle's network with its weights, in evaluation mode, on the CPU; EngineError where they do not fit."""
    stored, info, file = _weights(bundle), bundle.info, bundle.file_of(KIND_WEIGHTS)
    try:
        net = registry.load(registry.NETS, info.net.name)(len(info.input.channels), bundle.num_classes, **info.net.kwargs)
        heads = build_heads(info, net)
        weights, head_weights = split_weights(load_safetensors(stored))
        net.load_state_dict(weights)
        if heads is not None:
            heads.load_state_dict(head_weights)
    except SafetensorError as error:
        raise EngineError(f"{bundle.folder}/{file}: is not a safetensors file ({first_line(error)}); export it again") from None
    except WeaksegError:
        raise
    except (RuntimeError, TypeError) as error:
        raise EngineError(
            f"{bundle.folder}/{file}: does not fit the net '{info.net.name}' ({first_line(error)}); export it again"
        ) from None
    return DeployGraph(net, bundle.num_classes, info.temperature, heads).eval()


def stores_half(bundle: Bundle) -> bool:
    """Whether the bundle's weights are stored in half precision; EngineError where it has none."""
    return any(tensor.dtype == torch.float16 for tensor in load_safetensors(_weights(bundle)).values())


def _weights(bundle: Bundle) -> bytes:
    file = bundle.file_of(KIND_WEIGHTS)
    if file is None:
        raise EngineError(f"{bundle.folder}: has no weights for torch; export the model again")
    return bundle.read(file)


def build_heads(info: BundleInfo, net: nn.Module) -> Heads | None:
    """The bundle's heads behind the net, with fresh weights; None where it has none, EngineError where it does not say how."""
    built = []
    for rule in info.heads:
        if rule.kwargs is None:
            raise EngineError(
                f"{info.name}: was exported before bundles said how their heads are built ('{rule.name}'), so torch cannot run "
                "it; export the training again, or use onnxruntime"
            )
        built.append(registry.load(registry.HEADS, rule.name).behind(net, info.labels.num_classes, **rule.kwargs))
    return Heads(built) if built else None


def rules_of(heads: Heads | None) -> tuple[HeadRule, ...]:
    """What a bundle must say to build these heads again."""
    return () if heads is None else tuple(HeadRule(head.name, head.kwargs, tables_of(head)) for head in heads.each)


def tables_of(head: Head) -> dict[str, TensorSpec]:
    """What the outputs of a head of another project's making are; empty for a head that `deploy/tensors.py` describes."""
    return {name: TensorSpec(**facts) for name, facts in head.tables.items()}
