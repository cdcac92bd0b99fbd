# SPDX-License-Identifier: Apache-2.0
"""What a user would otherwise take for some stages of a cloud's way: written anew from its description, or a library's."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN


def bonnetal_vote(
    depth: torch.Tensor, range_of_point: torch.Tensor, argmax: torch.Tensor, u: torch.Tensor, v: torch.Tensor, classes: int
) -> torch.Tensor:
    """lidar-bonnetal's way, in torch: unfold a window for every pixel, weigh, top-k, and count the votes of every class.

    `depth` and `argmax` are (H, W), the other three (N,); a window of 5, five neighbours, sigma 1, cut off at 1 m.
    """
    window, neighbours, cutoff_m = 5, 5, 1.0
    width = depth.shape[1]
    at = v * width + u
    unfolded = torch.nn.functional.unfold(depth[None, None], window, padding=window // 2)[0][:, at]
    unfolded[unfolded < 0] = float("inf")
    unfolded[window**2 // 2] = range_of_point
    offset = torch.arange(window, dtype=torch.float32) - (window - 1) / 2
    bell = torch.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / 2)
    distance = (unfolded - range_of_point).abs() * (1 - bell / bell.sum()).reshape(-1, 1)
    nearest, which = distance.topk(neighbours, dim=0, largest=False)
    around = torch.nn.functional.unfold(argmax[None, None].float(), window, padding=window // 2)[0][:, at]
    votes = around.gather(0, which).long()
    votes[nearest > cutoff_m] = classes
    counts = torch.zeros(classes + 1, len(at)).scatter_add_(0, votes, torch.ones_like(nearest))
    return counts[1:-1].argmax(0) + 1


def dbscan(xyz: NDArray[np.float32], class_id: NDArray[np.uint8], things: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) number of the object of each of the (N, 3) points, -1 = none: scikit-learn's DBSCAN within 0.5 m, class by class."""
    out, begin = np.full(len(xyz), -1, np.int64), 0
    for number in np.flatnonzero(things):
        of_class = np.flatnonzero(class_id == number)
        if len(of_class):
            found = DBSCAN(eps=0.5, min_samples=10).fit_predict(xyz[of_class])
            out[of_class] = np.where(found >= 0, found + begin, -1)
            begin += int(found.max()) + 1
    return out
