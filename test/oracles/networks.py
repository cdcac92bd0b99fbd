# SPDX-License-Identifier: Apache-2.0
"""Networks beside the official modules: same weights by recipe, same outputs; same number of parameters."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from weakseg_ros.nets.heads.projector import Projector, resize
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.nets.published import rangenet_modules, salsanext_modules, squeezesegv3_modules
from weakseg_ros.nets.rangenet import RangeNet21, RangeNet53
from weakseg_ros.nets.salsanext import SalsaNext
from weakseg_ros.nets.squeezesegv3 import SqueezeSegV3

OFFICIAL_THREADS = 2
"""what the official outputs were computed with; RangeNet's float32 results lie up to 5e-4 from those of float64"""


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


def check_net(net: nn.Module, modules: Mapping[str, str], data: Mapping[str, np.ndarray]) -> NetOutput:
    """Fill the net by the recipe, compare names and number of parameters, and answer for the file's input."""
    used = load_recipe(net.eval(), modules)
    assert sorted(used) == sorted(map(str, data["state_names"]))
    assert sum(p.numel() for p in net.parameters()) == int(data["n_params"])
    with torch.no_grad(), threads(OFFICIAL_THREADS):
        return net(torch.from_numpy(data["input"]))


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads: another number sums in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def check_logits(ours: torch.Tensor, logits: np.ndarray, probabilities: np.ndarray | None = None) -> None:
    np.testing.assert_allclose(ours, logits, rtol=1e-3, atol=1e-4 * np.abs(logits).max())
    if probabilities is not None:
        np.testing.assert_allclose(torch.softmax(ours, 1), probabilities, atol=2e-4)


def check_salsanext(data: Mapping[str, np.ndarray]) -> None:
    out = check_net(SalsaNext(data["input"].shape[1], int(data["nclasses"])), salsanext_modules(), data)
    check_logits(out.logits, data["logits"], data["output_softmax"])


def check_rangenet21(data: Mapping[str, np.ndarray]) -> None:
    out = check_net(RangeNet21(data["input"].shape[1], int(data["nclasses"])), rangenet_modules(21), data)
    check_logits(out.logits, data["logits"], data["output_softmax"])
    assert [stage.shape for stage in out.stages] == [tuple(shape) for shape in data["skip_shapes"][: len(out.stages)]]


def check_squeezesegv3_21(data: Mapping[str, np.ndarray]) -> None:
    net = SqueezeSegV3(data["input"].shape[1], int(data["nclasses"]), deep_supervision=True)
    out = check_net(net, squeezesegv3_modules(21), data)
    check_logits(out.logits, data["logits_final"], data["softmax_final"])
    for ours, name in zip(out.auxiliary, ("logits_x1", "logits_x2", "logits_x3", "logits_x4"), strict=True):
        step = ours.shape[-1] // data[name].shape[-1]
        check_logits(ours[..., ::step], data[name])
    shapes = [*data["skip_shapes"], data["bottleneck_shape"]]
    assert [stage.shape for stage in out.stages] == [tuple(shape) for shape in shapes]
    bottleneck = out.stages[-1]
    ours = torch.stack((bottleneck.mean(), bottleneck.std(), bottleneck.abs().max()))
    np.testing.assert_allclose(ours, data["bottleneck_stat"], rtol=1e-3)


def check_salsanextproto(data: Mapping[str, np.ndarray]) -> None:
    """SalsaNext with COARSE3D's projector: the prediction, and the embedding at every pixel."""
    image, classes, dim = torch.from_numpy(data["input"]), int(data["nclasses"]), int(data["proj_dim"])
    net = SalsaNext(image.shape[1], classes).eval()
    projector = Projector(net.stage_channels, dim).eval()
    used = load_recipe(net, salsanext_modules() | {"classifier": "cls_head"})
    used += load_recipe(projector, {"mix": "projector.proj.0", "norm": "projector.proj.1", "out": "projector.proj.3"})
    memory = {"prototypes", "feat_norm.weight", "feat_norm.bias", "mask_norm.weight", "mask_norm.bias"}
    assert sorted({*used} | memory) == sorted(map(str, data["state_names"]))
    with torch.no_grad():
        out = net(image)
        embedding = resize(F.normalize(projector(out), dim=1), image.shape[-2:])
    np.testing.assert_allclose(torch.softmax(out.logits, 1), data["pred_2d"], atol=2e-4)
    np.testing.assert_allclose(embedding, data["feat_2d"], atol=2e-4)


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
