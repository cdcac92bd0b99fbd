# SPDX-License-Identifier: Apache-2.0
"""The bounds of the network oracles hold on any CPU, and a net that is wrong in one detail lies far beyond them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from support import optional

torch = optional("torch")

from torch import nn


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    from importlib import util

    spec = util.spec_from_file_location("oracle_networks", Path(__file__).parent / "oracles" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wrong_eps(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def wrong_slope(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.02


def wrong_padding(net: nn.Module) -> None:
    last = [module for module in net.modules() if isinstance(module, nn.Conv2d) and module.padding == (1, 1)][-1]
    last.padding_mode = "circular"
    last._reversed_padding_repeated_twice = [1, 1, 1, 1]


def swapped_channels(net: nn.Module) -> None:
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))


NETS = ("salsanext", "rangenet21", "squeezesegv3")
WRONG = {"eps": wrong_eps, "slope": wrong_slope, "padding": wrong_padding, "channels": swapped_channels}


def made(name: str, networks: ModuleType) -> nn.Module:
    from weakseg_ros import registry

    net = registry.load(registry.NETS, name)(5, 6, width=16) if name != "squeezesegv3" else networks.SqueezeSegV3(5, 6)
    state = net.eval().state_dict()
    for key, tensor in state.items():
        if tensor.dtype.is_floating_point:
            state[key] = torch.from_numpy(networks.recipe_weights(key, tuple(tensor.shape))).to(tensor.dtype)
    net.load_state_dict(state)
    return networks.as_stored(net)


@pytest.mark.parametrize("name", NETS)
def test_float32_lies_within_and_a_wrong_net_far_beyond(name: str, networks: ModuleType) -> None:
    image = torch.randn(1, 5, 32, 64, generator=torch.Generator().manual_seed(0))
    net = made(name, networks)
    (exact,), (bound,) = networks.answers_of(net, lambda net: [net(image.double()).logits])
    with torch.no_grad():
        single = made(name, networks).float()(image).logits
    assert (single.double() - exact).abs().max() < bound
    for detail, change in WRONG.items():
        assert _apart(made(name, networks), change, image, exact) > 20 * bound, detail


def _apart(net: nn.Module, change: Callable[[nn.Module], None], image: torch.Tensor, exact: torch.Tensor) -> float:
    change(net)
    with torch.no_grad():
        return float((net(image.double()).logits - exact).abs().max())
