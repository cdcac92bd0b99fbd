# SPDX-License-Identifier: Apache-2.0
"""Logit adjustment shifts each class's score by its share's logarithm, and nothing else."""

from __future__ import annotations

import pytest

from support import optional

torch = optional("torch")

from torch import nn

from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.build import build_net
from weakseg_ros.nets.class_prior import adjust_to_shares

COUNTS = (7, 900, 90, 10)
CHANNELS, MEAN, STD = ("range", "x", "y", "z", "intensity"), (0.0,) * 5, (1.0,) * 5


@pytest.mark.parametrize("name", ["light", "salsanext", "rangenet21", "squeezesegv3"])
def test_scores_move_by_the_logarithm_of_the_share(name: str) -> None:
    torch.manual_seed(0)
    net = build_net(name, CHANNELS, MEAN, STD, len(COUNTS), {}).eval()
    image = torch.randn(1, 5, 32, 64)
    with torch.no_grad():
        before = net(image).logits
        adjust_to_shares(net, COUNTS, 0.5)
        moved = net(image).logits - before
    expected = 0.5 * torch.tensor(COUNTS[1:]).div(1000.0).log()
    steps = moved[0, 1:] - moved[0, 1:2]  # relative to the first class
    assert torch.allclose(steps, (expected - expected[0])[:, None, None].expand_as(steps), atol=1e-3)


def test_a_net_without_a_bias_for_each_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="no bias for each class"):
        adjust_to_shares(nn.Conv2d(3, 4, 1, bias=False), COUNTS, 0.5)
