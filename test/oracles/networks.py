# SPDX-License-Identifier: Apache-2.0
"""Networks beside the official modules: same weights by recipe, same outputs; same number of parameters."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from weakseg_ros.nets.heads.projector import Projector, resize
from weakseg_ros.nets.published import rangenet_modules, salsanext_modules, squeezesegv3_modules
from weakseg_ros.nets.rangenet import RangeNet21, RangeNet53
from weakseg_ros.nets.salsanext import SalsaNext
from weakseg_ros.nets.squeezesegv3 import SqueezeSegV3

DRAWS = 3
"""of rounding at random"""

Run = Callable[[nn.Module], list[torch.Tensor]]
"""what a net is asked for: tensors in float64"""


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


def as_stored(net: nn.Module) -> nn.Module:
    """The net in float64, with the float32 values that the official code had: its own rounding is then too small to see."""
    return net.float().double()


def check_net(net: nn.Module, modules: Mapping[str, str], data: Mapping[str, np.ndarray]) -> nn.Module:
    """Fill the net by the recipe, and compare names and number of parameters."""
    used = load_recipe(net.eval(), modules)
    assert sorted(used) == sorted(map(str, data["state_names"]))
    assert sum(p.numel() for p in net.parameters()) == int(data["n_params"])
    return as_stored(net)


@torch.no_grad()
def answers_of(net: nn.Module, run: Run) -> tuple[list[torch.Tensor], list[float]]:
    """What `run` makes of a float64 net, and for each tensor how far a float32 computation of it may lie off.

    A float32 sum of n products is the exact sum of products that are each off by a share of about sqrt(n) / 2**24 (Higham,
    Accuracy and Stability of Numerical Algorithms, section 3.1). So every weight is moved at random by so much, and the
    largest change that this makes to the answer, over several draws, is what rounding can do, on any CPU. Twice that is
    allowed.
    """
    exact, reach = run(net), [0.0] * len(run(net))
    for seed in range(DRAWS):
        moved = run(moved_by_rounding(net, seed))
        reach = [max(far, float((a - b).abs().max())) for far, a, b in zip(reach, moved, exact, strict=True)]
    return exact, [2.0 * far for far in reach]


def moved_by_rounding(net: nn.Module, seed: int) -> nn.Module:
    generator, moved = torch.Generator().manual_seed(seed), copy.deepcopy(net)
    for weight in moved.parameters():
        share = math.sqrt(weight[0].numel() if weight.dim() > 1 else 1) / 2**24
        weight.mul_(1.0 + share * (2.0 * torch.rand(weight.shape, generator=generator, dtype=weight.dtype) - 1.0))
    return moved


def check_close(ours: torch.Tensor, bound: float, official: np.ndarray) -> None:
    """Float64 answers beside stored float32 ones, which are rounded once more when they are stored."""
    np.testing.assert_allclose(ours.numpy(), official, rtol=2**-23, atol=bound)


def check_softmax(logits: np.ndarray, probabilities: np.ndarray) -> None:
    """The stored probabilities are the softmax of the stored logits: 20 exponentials of float32, and their sum."""
    ours = torch.softmax(torch.from_numpy(logits).double(), 1)
    np.testing.assert_allclose(ours.numpy(), probabilities, rtol=2**-14, atol=2**-20)


def logits_of(data: Mapping[str, np.ndarray]) -> Run:
    return lambda net: [net(torch.from_numpy(data["input"]).double()).logits]


def check_salsanext(data: Mapping[str, np.ndarray]) -> None:
    net = check_net(SalsaNext(data["input"].shape[1], int(data["nclasses"])), salsanext_modules(), data)
    (logits,), (bound,) = answers_of(net, logits_of(data))
    check_close(logits, bound, data["logits"])
    check_softmax(data["logits"], data["output_softmax"])


def check_rangenet21(data: Mapping[str, np.ndarray]) -> None:
    net = check_net(RangeNet21(data["input"].shape[1], int(data["nclasses"])), rangenet_modules(21), data)
    (logits,), (bound,) = answers_of(net, logits_of(data))
    check_close(logits, bound, data["logits"])
    check_softmax(data["logits"], data["output_softmax"])
    stages = net(torch.from_numpy(data["input"]).double()).stages
    assert [stage.shape for stage in stages] == [tuple(shape) for shape in data["skip_shapes"][: len(stages)]]


def check_squeezesegv3_21(data: Mapping[str, np.ndarray]) -> None:
    net = check_net(
        SqueezeSegV3(data["input"].shape[1], int(data["nclasses"]), deep_supervision=True), squeezesegv3_modules(21), data
    )
    image = torch.from_numpy(data["input"]).double()

    def run(net: nn.Module) -> list[torch.Tensor]:
        out = net(image)
        bottleneck = out.stages[-1]
        figures = torch.stack((bottleneck.mean(), bottleneck.std(), bottleneck.abs().max()))
        return [out.logits, *out.auxiliary, figures]

    (logits, *auxiliary, figures), bounds = answers_of(net, run)
    check_close(logits, bounds[0], data["logits_final"])
    check_softmax(data["logits_final"], data["softmax_final"])
    names = ("logits_x1", "logits_x2", "logits_x3", "logits_x4")
    for ours, bound, name in zip(auxiliary, bounds[1:-1], names, strict=True):
        check_close(ours[..., :: ours.shape[-1] // data[name].shape[-1]], bound, data[name])
    check_close(figures, bounds[-1], data["bottleneck_stat"])
    shapes = [*data["skip_shapes"], data["bottleneck_shape"]]
    assert [stage.shape for stage in net(image).stages] == [tuple(shape) for shape in shapes]


def check_salsanextproto(data: Mapping[str, np.ndarray]) -> None:
    """SalsaNext with COARSE3D's projector: the prediction, and the embedding at every pixel."""
    image, classes, dim = torch.from_numpy(data["input"]).double(), int(data["nclasses"]), int(data["proj_dim"])
    net = SalsaNext(image.shape[1], classes).eval()
    projector = Projector(net.stage_channels, dim).eval()
    used = load_recipe(net, salsanext_modules() | {"classifier": "cls_head"})
    used += load_recipe(projector, {"mix": "projector.proj.0", "norm": "projector.proj.1", "out": "projector.proj.3"})
    memory = {"prototypes", "feat_norm.weight", "feat_norm.bias", "mask_norm.weight", "mask_norm.bias"}
    assert sorted({*used} | memory) == sorted(map(str, data["state_names"]))

    def run(parts: nn.Module) -> list[torch.Tensor]:
        net, projector = parts
        out = net(image)
        return [torch.softmax(out.logits, 1), resize(F.normalize(projector(out), dim=1), image.shape[-2:])]

    found, bounds = answers_of(as_stored(nn.ModuleList([net, projector])), run)
    for ours, bound, name in zip(found, bounds, ("pred_2d", "feat_2d"), strict=True):
        check_close(ours, bound, data[name])


def with_prototypes(net: nn.Module, classes: int) -> nn.Module:
    """The net with our projector, and what else the official modules count: norms never trained, and the prototypes."""
    rest = (nn.LayerNorm(256), nn.LayerNorm(classes), nn.Embedding(20 * classes, 256))
    return nn.ModuleList([net, Projector(net.stage_channels), *rest])


COUNTED = {
    "SalsaNext": lambda classes: SalsaNext(5, classes),
    "RangeNet21": lambda classes: RangeNet21(5, classes),
    "RangeNet53": lambda classes: RangeNet53(5, classes),
    "SqueezeSegV3-21 (5 heads)": lambda classes: SqueezeSegV3(5, classes, deep_supervision=True),
    "SqueezeSegV3-53 (5 heads)": lambda classes: SqueezeSegV3(5, classes, layers=53, deep_supervision=True),
    "COARSE3D SalsaNextProto total (proj256,K20,frozen prototypes incl.)": lambda classes: with_prototypes(
        SalsaNext(5, classes), classes
    ),
    "COARSE3D RangeNetProto21 total": lambda classes: with_prototypes(RangeNet21(5, classes), classes),
    "COARSE3D SqueezeSegV3Proto21 total": lambda classes: with_prototypes(
        SqueezeSegV3(5, classes, deep_supervision=True), classes
    ),
}


def check_param_counts(data: Mapping[str, np.ndarray]) -> None:
    seen = set()
    for name, classes, count, norm_values in zip(
        data["model_name"], data["nclasses"], data["n_params"], data["n_bn_buffer_values"], strict=True
    ):
        if str(name) not in COUNTED:
            continue
        seen.add(str(name))
        with torch.device("meta"):
            net = COUNTED[str(name)](int(classes))
        assert sum(p.numel() for p in net.parameters()) == count, name
        assert sum(b.numel() for key, b in net.named_buffers() if "running" in key) == norm_values, name
    assert seen


CHECKS = {
    "salsanext_": check_salsanext,
    "rangenet21_": check_rangenet21,
    "squeezesegv3_21_": check_squeezesegv3_21,
    "coarse3d_salsanextproto_": check_salsanextproto,
    "param_counts": check_param_counts,
}
