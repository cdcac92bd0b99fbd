# SPDX-License-Identifier: Apache-2.0
"""A scan as pictures: its range image and its top view, coloured by class, by error or by uncertainty.

Every picture is RGBA, transparent where nothing is, so that it lies well on a light and on a dark page.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.projection import RangeView

Picture = NDArray[np.uint8]

RIGHT = (70, 140, 110)
WRONG = (230, 60, 50)
MEANT = (230, 60, 50)
"""what an expression means"""
UNSURE = (245, 170, 20)
WITHOUT = (128, 128, 128)
TOP_VIEW_M = 35.0
TOP_VIEW_PIXELS = 420


@dataclass(frozen=True)
class ScanPictures:
    """PNG files of one scan by caption: range images (wide) and top views (square)."""

    key: str
    note: str
    strips: dict[str, bytes]
    tops: dict[str, bytes]


def scan_pictures(
    key: str,
    note: str,
    xyz: NDArray[np.float32],
    view: RangeView,
    colors: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    uncertainty: NDArray[np.float32],
) -> ScanPictures:
    """Predicted beside truth and errors, or beside uncertainty where there is no truth.

    `xyz` (N, 3) m in the sensor's frame; `colors` (K, 3) by class; the others (N,) in the points' order.
    """
    looks = {"predicted": class_colors(predicted, colors)}
    if truth is not None:
        looks["truth"] = class_colors(truth, colors)
        looks["errors"] = error_colors(predicted, truth)
    looks["uncertainty"] = uncertainty_colors(uncertainty, predicted > 0)
    strips = {name: png(range_picture(look, view)) for name, look in looks.items()}
    in_top = [name for name in looks if truth is None or name != "uncertainty"]
    return ScanPictures(key, note, strips, {name: png(top_view(xyz, looks[name])) for name in in_top})


def class_colors(class_id: NDArray[np.uint8], colors: NDArray[np.uint8]) -> Picture:
    """(N, 4) RGBA by class; points without a class are grey and faint."""
    palette = np.concatenate([colors, np.full((len(colors), 1), 255, np.uint8)], axis=1)
    palette[0] = (*WITHOUT, 70)
    return palette[class_id]


def error_colors(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Picture:
    """(N, 4) RGBA: right, wrong, and faint grey where the truth says nothing."""
    picture = np.empty((len(truth), 4), np.uint8)
    picture[:] = (*RIGHT, 90)
    picture[predicted != truth] = (*WRONG, 255)
    picture[truth == 0] = (*WITHOUT, 50)
    return picture


def uncertainty_colors(uncertainty: NDArray[np.float32], known: NDArray[np.bool_]) -> Picture:
    """(N, 4) RGBA: the more uncertain, the more opaque amber; points without an answer faint grey."""
    picture = np.empty((len(uncertainty), 4), np.uint8)
    picture[:, :3] = UNSURE
    picture[:, 3] = np.clip(20 + 235 * np.nan_to_num(uncertainty), 0, 255).astype(np.uint8)
    picture[~known] = (*WITHOUT, 50)
    return picture


def range_picture(look: Picture, view: RangeView) -> Picture:
    """(H, W, 4) the look (N, 4) of the point that owns each pixel."""
    owner = view.point_of_pixel
    picture = np.zeros((*owner.shape, 4), np.uint8)
    picture[owner >= 0] = look[owner[owner >= 0]]
    return picture


def top_view(xyz: NDArray[np.float32], look: Picture, half_side_m: float = TOP_VIEW_M, pixels: int = TOP_VIEW_PIXELS) -> Picture:
    """(pixels, pixels, 4) seen from above, forward is up, left is left; the highest point of a pixel is drawn last.

    Each point covers 2 x 2 pixels, so that sparse rings stay visible.
    """
    picture = np.zeros((pixels, pixels, 4), np.uint8)
    near = np.flatnonzero(np.isfinite(xyz).all(axis=1) & (np.abs(xyz[:, :2]) < half_side_m).all(axis=1) & xyz.any(axis=1))
    near = near[np.argsort(xyz[near, 2], kind="stable")]
    scale = (pixels - 2) / (2 * half_side_m)
    row = ((half_side_m - xyz[near, 0]) * scale).astype(np.int64)
    col = ((half_side_m - xyz[near, 1]) * scale).astype(np.int64)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        picture[row + down, col + right] = look[near]
    return picture


def png(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, picture, format="png")
    return buffer.getvalue()
