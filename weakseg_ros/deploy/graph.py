# SPDX-License-Identifier: Apache-2.0
"""What a robot runs: a network, and behind it class, confidence and uncertainty per pixel. Needs torch."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weakseg_ros.nets.heads.head import Heads

OF_HEADS = "extra/"
"""begins the names of the tensors that belong to the heads; no tensor of a net is called so"""


class DeployGraph(nn.Module):
    """A trained net as the ONNX file and the torch engine run it: image in, answers per pixel out.

    What the `heads` answer follows the three, by the names in their `outputs`.

    `image` (B, C, H, W) f32, normalised, 0 where no point is; out: `class_id` u8 = 1 + argmax over the logits of classes
    1..K-1, `confidence` f32 = the largest probability p, `uncertainty` f32 = -sum(p log p) / log(K-1), all (B, H, W), with
    p = softmax(logits[:, 1:] / temperature).
    """

    ones: Tensor

    def __init__(self, net: nn.Module, num_classes: int, temperature: float = 1.0, heads: Heads | None = None) -> None:
        super().__init__()
        self.net = net
        self.heads = heads
        self.sharpness = 1.0 / temperature
        self.entropy_scale = 1.0 / math.log(max(num_classes - 1, 2))
        self.register_buffer("ones", torch.ones(1, num_classes - 1, 1, 1), persistent=False)

    def forward(self, image: Tensor, *further: Tensor) -> tuple[Tensor, ...]:
        """The three answers, and those of the heads; a net that takes more than an image gets its `further` inputs in order.

        With z = (x - max x) / T, S = sum exp z: confidence = 1 / S and entropy = log S - sum(z exp z) / S. Written so that
        onnxruntime is fast on CPUs: its Softmax over channels costs seven times as much at 20 x 64 x 2048, its ReduceSum ten
        times a convolution with ones, its ReduceMax twice a chain of maxima.
        """
        out = self.net(image, *further)
        scores = out.logits[:, 1:]  # (B, K-1, H, W)
        peak = functools.reduce(torch.maximum, scores.split(1, dim=1))  # (B, 1, H, W)
        shifted = (scores - peak) * self.sharpness
        odds = shifted.exp()
        total = self._sum(odds)  # (B, H, W)
        entropy = total.log() - self._sum(shifted * odds) / total
        class_id = (scores.argmax(dim=1) + 1).to(torch.uint8)  # cast last: TensorRT has bytes at its borders only
        more = () if self.heads is None else self.heads(out)
        return class_id, 1.0 / total, (entropy * self.entropy_scale).clamp(0.0, 1.0), *more

    def _sum(self, values: Tensor) -> Tensor:
        return nn.functional.conv2d(values, self.ones.to(values.dtype))[:, 0]


def join_weights(net: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a net and of its heads, for one file."""
    return {**net, **{OF_HEADS + name: tensor for name, tensor in heads.items()}}


def split_weights(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(net, heads) of what `join_weights` joined."""
    heads = {name.removeprefix(OF_HEADS): tensor for name, tensor in weights.items() if name.startswith(OF_HEADS)}
    return {name: tensor for name, tensor in weights.items() if not name.startswith(OF_HEADS)}, heads
