# SPDX-License-Identifier: Apache-2.0
"""The embeddings of a projector at the image's pixels, for methods that compare pixels with prototypes.

The embedding has half the image's rows and columns. A training needs it at some pixels only, so it is interpolated
there, and never over the whole image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SHORTEST = 1e-12


def at_some_pixels(embedding: Tensor, pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Vectors (B, D, h, w), scaled to length 1 and enlarged to H x W, at flat indices (n,) into B * H * W: (n, D) float32.

    Only these are made. A vector between the pixels of the small image is a little shorter than 1.
    """
    rows, columns = embedding.shape[-2:]
    height, width = size
    image, row, column = pixels // (height * width), pixels // width % height, pixels % width
    above, below, lower = _neighbours(row, height, rows)
    left, right, righter = _neighbours(column, width, columns)
    corners = torch.stack((above * columns + left, above * columns + right, below * columns + left, below * columns + right), 1)
    corners = corners + (image * rows * columns)[:, None]
    upper, lefter = 1.0 - lower, 1.0 - righter
    shares = torch.stack((upper * lefter, upper * righter, lower * lefter, lower * righter), 1)
    table = embedding.permute(0, 2, 3, 1).flatten(0, 2).float()  # (B * h * w, D)
    lengths = torch.linalg.vector_norm(table, dim=1).clamp_min(_SHORTEST)
    return F.embedding_bag(corners, table, per_sample_weights=shares / lengths[corners], mode="sum")


def _neighbours(position: Tensor, full: int, small: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two lines of the small map beside a line of the full one, and the share of the second (align_corners)."""
    place = position.float() * ((small - 1) / max(full - 1, 1))
    first = place.long().clamp_max(small - 1)
    return first, (first + 1).clamp_max(small - 1), place - first
