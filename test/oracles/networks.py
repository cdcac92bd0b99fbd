# SPDX-License-Identifier: Apache-2.0
"""Networks beside the official modules: same weights by recipe, same outputs; same number of parameters."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from weakseg_ros.learn.nets.salsanext import SalsaNext

DILATED = {"near": ("conv2", "bn1"), "far": ("conv3", "bn2"), "farther": ("conv4", "bn3"), "fuse": ("conv5", "bn4")}
DILATED_UP = {"near": ("conv1", "bn1"), "far": ("conv2", "bn2"), "farther": ("conv3", "bn3"), "fuse": ("conv4", "bn4")}
CONTEXT = {"near": ("conv2", "bn1"), "far": ("conv3", "bn2")}


def salsanext_modules() -> dict[str, str]:
    """Our module name -> the official one, for every convolution and norm of SalsaNext."""
    blocks = [(f"context.{i}.", f"downCntx{i + 1 if i else ''}.", CONTEXT) for i in range(3)]
    blocks += [(f"encoder.{i}.block.", f"resBlock{i + 1}.", DILATED) for i in range(4)]
    blocks += [("bottom.block.", "resBlock5.", DILATED)]
    blocks += [(f"decoder.{i}.block.", f"upBlock{i + 1}.", DILATED_UP) for i in range(4)]
    names = {"classifier": "logits"}
    for ours, official, parts in blocks:
        for part, (conv, norm) in parts.items():
            names[f"{ours}{part}.0"] = official + conv
            names[f"{ours}{part}.2"] = official + norm
        if parts is not DILATED_UP:
            names[f"{ours.replace('block.', '')}shortcut.0"] = official + "conv1"
    return names


def recipe_weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that the weight recipe gives to an official name."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_mean"):
        return 0.1 * rng.standard_normal(shape)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) >= 2:
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if name.endswith("weight"):
        return rng.uniform(0.5, 1.5, shape)
    return 0.05 * rng.standard_normal(shape)


def load_recipe(net: nn.Module, modules: Mapping[str, str]) -> list[str]:
    """Fill a net by the recipe; returns the official names that were used."""
    state, used = net.state_dict(), []
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        used.append(f"{modules[module]}.{kind}")
        if kind != "num_batches_tracked":
            state[name] = torch.from_numpy(recipe_weights(used[-1], tuple(tensor.shape))).to(tensor.dtype)
    net.load_state_dict(state)
    return used


def check_salsanext(data: Mapping[str, np.ndarray]) -> None:
    image = torch.from_numpy(data["input"])
    net = SalsaNext(image.shape[1], int(data["nclasses"])).eval()
    used = load_recipe(net, salsanext_modules())
    assert sorted(used) == sorted(map(str, data["state_names"]))
    assert sum(p.numel() for p in net.parameters()) == int(data["n_params"])
    with torch.no_grad():
        logits = net(image).logits
    scale = np.abs(data["logits"]).max()
    np.testing.assert_allclose(logits, data["logits"], rtol=1e-3, atol=1e-4 * scale)
    np.testing.assert_allclose(torch.softmax(logits, 1), data["output_softmax"], atol=2e-4)


def check_param_counts(data: Mapping[str, np.ndarray]) -> None:
    rows = zip(data["model_name"], data["nclasses"], data["n_params"], data["n_bn_buffer_values"], strict=True)
    salsa = [row for row in rows if str(row[0]) == "SalsaNext"]
    assert salsa
    for _, classes, parameters, norm_values in salsa:
        net = SalsaNext(5, int(classes))
        assert sum(p.numel() for p in net.parameters()) == parameters
        assert sum(b.numel() for name, b in net.named_buffers() if "running" in name) == norm_values


CHECKS = {"salsanext_": check_salsanext, "param_counts": check_param_counts}
