# SPDX-License-Identifier: Apache-2.0
"""What is particular to one net; what all share is in test_registry_contract."""

from __future__ import annotations

import pytest
import torch

from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.light import LightNet
from weakseg_ros.nets.salsanext import SalsaNext


def parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_salsanext_has_the_published_size() -> None:
    assert parameters(SalsaNext(5, 20)) == 6_711_572


def test_salsanext_half_width_has_about_a_quarter_of_the_parameters() -> None:
    assert parameters(SalsaNext(5, 20, width=16)) == pytest.approx(6_711_572 / 4, rel=0.01)


def test_salsanext_padding_is_zeros_at_the_right_and_bottom() -> None:
    net, image = SalsaNext(5, 4, width=8).eval(), torch.randn(1, 5, 20, 40)
    padded = torch.zeros(1, 5, 32, 48)
    padded[..., :20, :40] = image
    torch.testing.assert_close(net(image).logits, net(padded).logits[..., :20, :40], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("net", "width"), [(LightNet, 24), (LightNet, 0), (SalsaNext, 7)])
def test_a_width_that_does_not_fit_is_refused(net: type[torch.nn.Module], width: int) -> None:
    with pytest.raises(ConfigError, match="net_width"):
        net(5, 20, width=width)


def test_light_net_sees_far_and_near() -> None:
    """A pixel's answer depends on its neighbours at full resolution and on context some forty columns away."""
    torch.manual_seed(0)
    net = LightNet(1, 3, width=16).eval()
    image = torch.randn(1, 1, 32, 256, requires_grad=True)
    net(image).logits[0, 1, 16, 128].backward()
    reached = image.grad[0, 0].abs().sum(dim=0).nonzero()[:, 0]
    assert reached.min() <= 128 - 40
    assert reached.max() >= 128 + 40
    assert image.grad[0, 0, 16, 127] != 0


def test_light_net_folds_on_cpus() -> None:
    """Every convolution but the classifier is followed by its BatchNorm, kernels are 3 or 1, channels multiples of 16."""
    net = LightNet(5, 20)
    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == len(convs) - 1
    assert {conv.kernel_size for conv in convs} == {(1, 1), (3, 3)}
    assert all(conv.out_channels % 16 == 0 for conv in convs[:-1])
