# SPDX-License-Identifier: Apache-2.0
"""Post-hoc logit adjustment (Menon et al., ICLR 2021, equation 9 with the sign turned): how common a class is, told to a net.

Class weights make a short training learn rare classes, at the price of finding them everywhere. Adding power * log(share) to
each class's score gives the common ones their due again, without another training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from weakseg_ros.errors import ConfigError

SMALLEST_SHARE = 1e-6
"""that a class without a label is taken to have"""


@torch.no_grad()
def adjust_to_shares(net: nn.Module, counts: Sequence[int], power: float) -> None:
    """Add power * log(share of the labels) to each class's score, in place, by the bias of the last layer.

    `counts` (K,) are labelled points by class id, index 0 those without. Raises ConfigError where no layer of the net holds a
    bias for each class.
    """
    biases = [own for name, own in net.named_parameters() if name.endswith("bias") and own.shape == (len(counts),)]
    if not biases:
        raise ConfigError("class_prior: this net has no bias for each class in its last layer; leave class_prior at 0")
    shares = torch.tensor(counts[1:], dtype=torch.float64) / max(1, sum(counts[1:]))
    shift = power * shares.clamp_min(SMALLEST_SHARE).log()
    biases[-1][1:] += (shift - shift.mean()).to(biases[-1])
