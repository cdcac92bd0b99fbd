# SPDX-License-Identifier: Apache-2.0
"""The names that the modules of published nets have in the code they were published with, so that their weights can be read."""

from __future__ import annotations

from weakseg_ros.nets.rangenet import BLOCKS

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


RESIDUAL = {"inner.0": "conv1", "inner.1": "bn1", "outer.0": "conv2", "outer.1": "bn2"}
ADAPTIVE = {
    "attention.0": "attention_x.0",
    "attention.1": "attention_x.1",
    "mix.0": "position_mlp_2.0",
    "mix.1": "position_mlp_2.1",
    "smooth.0": "position_mlp_2.3",
    "smooth.1": "position_mlp_2.4",
}


def decoder_modules(enlarge: tuple[str, ...]) -> dict[str, str]:
    """The decoder that RangeNet and SqueezeSegV3 share; `enlarge` names the first layer of each stage."""
    names: dict[str, str] = {}
    for i, layer in enumerate(enlarge):
        official = f"decoder.dec{5 - i}."
        names |= {f"decoder.{i}.0": official + layer, f"decoder.{i}.1": official + "bn"}
        names |= {f"decoder.{i}.3.{part}": f"{official}residual.{theirs}" for part, theirs in RESIDUAL.items()}
    return names


def rangenet_modules(layers: int) -> dict[str, str]:
    """Our module name -> the official one, for every convolution and norm of RangeNet."""
    names = {"stem.0": "backbone.conv1", "stem.1": "backbone.bn1", "classifier": "head.1"}
    for i, blocks in enumerate(BLOCKS[layers]):
        official = f"backbone.enc{i + 1}."
        names |= {f"encoder.{i}.0.0": official + "conv", f"encoder.{i}.0.1": official + "bn"}
        for j in range(blocks):
            names |= {f"encoder.{i}.{j + 1}.{part}": f"{official}residual_{j}.{theirs}" for part, theirs in RESIDUAL.items()}
    return names | decoder_modules(("upconv",) * 5)


def squeezesegv3_modules(layers: int) -> dict[str, str]:
    """Our module name -> the official one, for every convolution and norm of SqueezeSegV3."""
    names = {"stem.0": "backbone.conv1", "stem.1": "backbone.bn1", "classifier": "head5.1"}
    names |= {f"coarse_classifiers.{i}": f"head{i + 1}.1" for i in range(4)}
    for i, blocks in enumerate(BLOCKS[layers]):
        official = f"backbone.enc{i + 1}."
        names |= {f"narrow.{i}.0": official + "conv", f"narrow.{i}.1": official + "bn"}
        for j in range(blocks):
            names |= {f"adaptive.{i}.{j}.{part}": f"{official}residual_{j}.{theirs}" for part, theirs in ADAPTIVE.items()}
    return names | decoder_modules(("conv", "conv", "upconv", "upconv", "upconv"))


def published_modules(net: str, layers: int = 21) -> dict[str, str]:
    """Our module name -> the official one for a row of registry.NETS; empty for nets of our own."""
    if net == "salsanext":
        return salsanext_modules()
    if net.startswith("rangenet"):
        return rangenet_modules(int(net.removeprefix("rangenet")))
    return squeezesegv3_modules(layers) if net == "squeezesegv3" else {}
