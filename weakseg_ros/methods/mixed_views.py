# SPDX-License-Identifier: Apache-2.0
"""What a student sees and learns: images mixed of two scans, and the answers of a teacher that saw the scans whole.

Kong et al., LaserMix for Semi-Supervised LiDAR Semantic Segmentation, CVPR 2023: bands of inclination of two scans are
interleaved, and the teacher's classes are mixed in the same way. Xiao et al., PolarMix, NeurIPS 2022: sectors and objects.
Unal et al., Scribble-Supervised LiDAR Semantic Segmentation, CVPR 2022, section 3.3: pseudo-labels are chosen by class and
range, since one threshold leaves nothing of rare classes and of far points.

A mixed pixel is a pixel of one of the scans, untouched, so the network's channels need not be known here.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from weakseg_ros.batches.batches import Batch
from weakseg_ros.batches.mixing import band_pixels, from_other, sector_pixels
from weakseg_ros.methods.settings import ConfidenceSettings, ViewSettings


def confident_classes(probs: Tensor, mask: Tensor, range_m: Tensor | None, settings: ConfidenceSettings) -> Tensor:
    """Pseudo-labels (B, H, W) i64, 0 = none, from a teacher's probabilities (B, K, H, W) at the pixels of `mask` (B, H, W).

    A pixel counts where its confidence is at least `sure`, or where it is among the share of the most confident pixels of
    its class and range band over the whole batch; never below `least`. `range_m` (B, H, W) may be missing: one band then.
    """
    confidence, guess = probs[:, 1:].max(dim=1)  # (B, H, W), classes from 0
    pixels = mask.flatten().nonzero()[:, 0]  # (P,)
    sure, group = confidence.flatten()[pixels], guess.flatten()[pixels]
    if range_m is not None and settings.range_bands_m:
        edges = torch.tensor(settings.range_bands_m, device=range_m.device)
        group = group * (len(edges) + 1) + torch.bucketize(range_m.flatten()[pixels], edges)
    taken = (sure >= settings.sure) | most_confident(sure, group, settings.share)
    taken &= sure >= settings.least
    chosen = torch.zeros_like(guess).flatten()
    chosen[pixels[taken]] = guess.flatten()[pixels[taken]] + 1
    return chosen.view_as(guess)


def most_confident(confidence: Tensor, group: Tensor, share: float) -> Tensor:
    """(P,) bool: the share of each group, rounded up, with the largest confidence; confidence (P,), group (P,) whole numbers."""
    order = confidence.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]  # by group, the surest first
    counts = torch.bincount(group)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(order), device=order.device) - first[group[order]]
    quota = (counts.double() * share).ceil().long()
    return torch.zeros_like(order, dtype=torch.bool).index_put_((order,), place < quota[group[order]])


def mixed_view(
    batch: Batch, soft: Tensor, things: Tensor, settings: ViewSettings, rng: np.random.Generator
) -> tuple[Batch, Tensor]:
    """The batch and the teacher's probabilities (B, K, H, W), mixed alike; each scan with the one before it.

    `things` (B, H, W) bool are the pixels that may be pasted into another scan, where they are the nearest. Pixels that are
    dropped lose image, label and mask. What says which object a pixel belongs to is left out.
    """
    taken = mixing_pixels(batch, things, settings, rng).to(batch.image.device)
    image, labels, mask = (from_other(taken, part) for part in (batch.image, batch.labels, batch.mask))
    xyz, weights = (None if part is None else from_other(taken, part) for part in (batch.xyz, batch.weights))
    mask = mask & _kept(mask, settings.drop)
    view = Batch(image * mask[:, None], labels * mask, mask, xyz, weights=None if weights is None else weights * mask)
    return view, from_other(taken, soft)


def mixing_pixels(batch: Batch, things: Tensor, settings: ViewSettings, rng: np.random.Generator) -> Tensor:
    """(B, H, W) bool, where each scan's pixels are those of the scan before; bands and sectors together are a chessboard."""
    shape = batch.labels.shape
    bands = band_pixels(shape, settings.bands, settings.band_counts, rng)
    taken: Tensor = bands.logical_xor(sector_pixels(shape, settings.sectors, 0.0, rng))
    if batch.xyz is None or len(batch.labels) == 1:
        return taken
    range_m = range_of(batch)
    free = range_m.masked_fill(~batch.mask, torch.inf)
    other = range_m.roll(1, 0)
    nearer = (things & batch.mask).roll(1, 0) & (other < free)
    pasted = torch.from_numpy(rng.random(shape[0]) < settings.objects)
    return taken.logical_or(nearer.cpu() & pasted[:, None, None])


def range_of(batch: Batch) -> Tensor:
    """(B, H, W) m, the distance of each pixel's point, 0 where none is; the batch must say where its points are."""
    assert batch.xyz is not None
    distance: Tensor = torch.linalg.vector_norm(batch.xyz, dim=1)
    return distance


def with_pseudo_labels(batch: Batch, pseudo: Tensor) -> Batch:
    """The batch with pseudo-labels (B, H, W), 0 = none, beside its own: given labels win over them, they win over carried ones.

    A pseudo-label counts as much as a given label.
    """
    if batch.weights is None:
        return dataclasses.replace(batch, labels=torch.where(batch.labels > 0, batch.labels, pseudo))
    taken = (pseudo > 0) & (batch.weights < 1.0)
    weights = torch.where(taken, 1.0, batch.weights)
    return dataclasses.replace(batch, labels=torch.where(taken, pseudo, batch.labels), weights=weights)


def _kept(mask: Tensor, drop: float) -> Tensor:
    """(B, H, W) bool: a share of each scan's pixels, up to `drop`, is lost."""
    most = drop * torch.rand(len(mask), 1, 1, device=mask.device)
    return torch.rand(mask.shape, device=mask.device) >= most
