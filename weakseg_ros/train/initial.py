# SPDX-License-Identifier: Apache-2.0
"""Weights to start a training from: a bundle's, or those of a checkpoint of the published nets; nothing is unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.torch import load_graph
from weakseg_ros.errors import ConfigError, counted
from weakseg_ros.nets.published import published_modules
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.lift import Lift
from weakseg_ros.train.config import TrainConfig

HEADS = ("classifier", "coarse_classifiers")
"""modules of the nets whose first dimension is the class"""
LEAST_SHARE = 0.5
"""of the weights besides the heads that must fit"""
WHERE_WEIGHTS_LIE = ("state_dict", "model_state_dict", "model", "net", "weights")
_PARTS = {"backbone": "backbone.", "segmentation_decoder": "decoder.", "segmentation_head": "head."}
"""the files of a lidar-bonnetal model folder, and how its modules are called together"""

_SAVE = "torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class Initial:
    """Weights by our names, and what is known about them."""

    weights: dict[str, Tensor]
    names: tuple[str, ...] = ()
    """of the classes, 0 included; empty where nobody knows"""
    channels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    lift: Lift = "pixel"
    """how points get their class from its image"""
    ranks: bool = False
    level: bool = False


def read_initial(config: TrainConfig) -> Initial:
    """What `config.init` names; ConfigError where it is nothing that the training's net can begin with."""
    source = Path(config.init)
    if source.is_file() or any((source / part).is_file() for part in _PARTS):
        modules = published_modules(config.net, int(config.net_arguments.get("layers", 21)))
        return Initial(_by_our_names(_read_state(source), modules))
    bundle = Bundle.load(config.init)
    info = bundle.info
    if info.net.name != config.net:
        raise ConfigError(
            f"init: {config.init} holds a '{info.net.name}', but the training's net is '{config.net}'; add --net {info.net.name}"
        )
    weights = load_graph(bundle).net.state_dict()
    spec = info.input
    ranks = spec.intensity.ranks
    return Initial(dict(weights), info.labels.names, spec.channels, spec.mean, spec.std, spec.lift, ranks, spec.level)


def options_for_its_input(initial: Initial, config: TrainConfig) -> str:
    """What a command needs so that the net sees what its first weights know; empty where it does, and where nobody knows."""
    if not initial.channels:
        return ""
    wanted = [] if initial.channels == config.channels else [f"--channels {' '.join(initial.channels)}"]
    if "intensity" in initial.channels and initial.ranks != (config.intensity == "ranks"):
        wanted.append(f"--intensity {'ranks' if initial.ranks else 'scaled'}")
    if initial.level != config.level:
        wanted.append("--level" if initial.level else "--no-level")
    return " ".join(wanted)


def begin_with(net: nn.Module, initial: Initial, labels: LabelMap, where: str) -> str:
    """Put the weights into the net where names and shapes agree; class heads row by row, by the names of the classes.

    Returns a sentence on what was taken over and what was not. Raises ConfigError where that is less than half of the net.
    """
    state = net.state_dict()
    rows = [(ours, initial.names.index(name)) for ours, name in enumerate(labels.names) if name in initial.names]
    taken, fresh, body = 0, [], 0
    size = sum(tensor.numel() for name, tensor in state.items() if name.split(".")[0] not in HEADS)
    for name, tensor in state.items():
        theirs, is_head = initial.weights.get(name), name.split(".")[0] in HEADS
        if theirs is not None and is_head and initial.names and theirs.shape[1:] == tensor.shape[1:]:
            state[name] = _rows_of(tensor, theirs, rows)
        elif theirs is not None and theirs.shape == tensor.shape:
            state[name] = theirs.to(tensor.dtype)
            body += 0 if is_head else tensor.numel()
        else:
            fresh.append(name)
            continue
        taken += 1
    if body < LEAST_SHARE * size:
        raise ConfigError(
            f"init: only {taken} of the net's {counted(len(state), 'tensor')} match "
            f"{where} by name and shape, too few to start from; "
            "check --net, --net-width and the settings of the net"
        )
    net.load_state_dict(state)
    return _sentence(where, taken, len(state), fresh, initial, labels)


def _rows_of(ours: Tensor, theirs: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    joined = ours.clone()
    for to, row in rows:
        joined[to] = theirs[row].to(ours.dtype)
    return joined


def _sentence(where: str, taken: int, total: int, fresh: list[str], initial: Initial, labels: LabelMap) -> str:
    text = f"starts from {taken} of {counted(total, 'tensor')} of {where}"
    text += f"; no match, so random: {', '.join(fresh[:4])}{' and more' if len(fresh) > 4 else ''}" if fresh else ""
    if not initial.names:
        return f"{text}; the file names no classes, so a head of the same size is copied unchanged"
    new = [name for name in labels.names[1:] if name not in initial.names]
    return text + (f"; classes initialised at random: {', '.join(new)}" if new else "; all classes are copied by name")


def _by_our_names(state: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights under the names of our modules, where they have those of the published code."""
    ours = {official: module for module, official in modules.items()}
    named = {}
    for name, tensor in state.items():
        module, _, kind = name.removeprefix("module.").rpartition(".")
        named[f"{ours.get(module, module)}.{kind}" if module else kind] = tensor
    return named


def _read_state(source: Path) -> dict[str, Tensor]:
    if source.is_dir():
        present = {part: prefix for part, prefix in _PARTS.items() if (source / part).is_file()}
        return {
            f"{prefix}{name}": tensor for part, prefix in present.items() for name, tensor in _read_state(source / part).items()
        }
    if source.suffix == ".safetensors":
        try:
            return dict(load_file(source))
        except SafetensorError as error:
            raise ConfigError(f"init: {source} is not a valid safetensors file ({error}); copy it again") from None
    if source.suffix == ".onnx":
        raise ConfigError(f"init: {source} is an ONNX file, which cannot be trained further; name a checkpoint or a bundle")
    return _plain_tensors(_read_checkpoint(source), source)


def _read_checkpoint(source: Path) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ConfigError(
            f"init: {source} contains more than tensors, and unpickling it could run any code; "
            f"if you trust it, save only its weights: {_SAVE}"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"init: {source} is not a checkpoint that torch can read ({first}); name a bundle or a state dict"
        ) from None


def _plain_tensors(content: Any, source: Path) -> dict[str, Tensor]:
    inner = next((content[key] for key in WHERE_WEIGHTS_LIE if isinstance(content, Mapping) and key in content), content)
    tensors = {str(k): v for k, v in inner.items() if isinstance(v, Tensor)} if isinstance(inner, Mapping) else {}
    if not tensors:
        raise ConfigError(
            f"init: {source} contains no named tensors; save a state dict: torch.save(model.state_dict(), 'weights.pth')"
        )
    return tensors
