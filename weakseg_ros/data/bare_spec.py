# SPDX-License-Identifier: Apache-2.0
"""The range image of a folder that does not say which sensor its scans are of, from the scans themselves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_files import MANIFEST, read_points
from weakseg_ros.errors import DataError, counted
from weakseg_ros.points.projection import RangeSpec

log = logging.getLogger(__name__)

SCANS_LOOKED_AT = 3
MARGIN_DEG = 0.5
OUTSIDE_ALLOWED = 0.02
"""share of the points outside the image of an HDL-64E up to which a sensor is taken for one"""
SPAN_NEEDED = 0.6
"""share of its field of view that the points must fill to be taken for an HDL-64E's"""
LASER_GAP_DEG = 0.05
"""points whose inclinations are farther apart than this come from two lasers"""
LASERS = (8, 200)
FULL_CIRCLE_DEG = 300.0
"""a sweep that covers at least this is taken to be a full turn"""


@lru_cache(maxsize=64)
def spec_of_bare(files: tuple[Path, ...]) -> RangeSpec:
    """A range image that holds the points of these .bin files, of which a few are read, and a sentence on it in the log.

    SemanticKITTI's HDL-64E (64 x 2048, -25..3 deg) where the points lie in its field of view and fill it, else field of view,
    rows and columns as measured.
    """
    scans = _readable(files)
    if not scans:
        return RangeSpec()
    inclination = [np.degrees(np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1]))) for xyz in scans]
    spec = _measured(scans, inclination)
    usual = RangeSpec()
    everything = np.concatenate(inclination)
    outside = np.mean((everything > usual.fov_up_deg + MARGIN_DEG) | (everything < usual.fov_down_deg - MARGIN_DEG))
    span = (spec.fov_up_deg - spec.fov_down_deg) / (usual.fov_up_deg - usual.fov_down_deg)
    is_usual = outside <= OUTSIDE_ALLOWED and span >= SPAN_NEEDED and spec.full_circle
    how = "assumed to be those of an HDL-64E, which they match" if is_usual else f"measured from {counted(len(scans), 'scan')}"
    chosen = usual if is_usual else spec
    log.info(
        "%s: has no %s, so field of view and rows are %s: %d x %d, %g..%g deg; 'train' sets them with --height, --width, "
        "--fov-up-deg, --fov-down-deg",
        files[0].parent.parent,
        MANIFEST,
        how,
        chosen.height,
        chosen.width,
        chosen.fov_down_deg,
        chosen.fov_up_deg,
    )
    return chosen


def _readable(files: Sequence[Path]) -> list[NDArray[np.float64]]:
    """Positions (N, 3), m, of the returns of a few files, evenly spread; damaged ones are named where they are opened."""
    scans = []
    for number in np.unique(np.linspace(0, len(files) - 1, min(SCANS_LOOKED_AT, len(files))).round().astype(int)):
        try:
            xyz = read_points(files[number])[:, :3].astype(np.float64)
        except DataError:
            continue
        xyz = xyz[np.isfinite(xyz).all(axis=1)]
        xyz = xyz[(np.abs(xyz) < 1e6).all(axis=1) & xyz.any(axis=1)]
        scans += [xyz] if len(xyz) else []
    return scans


def _measured(scans: Sequence[NDArray[np.float64]], inclination: Sequence[NDArray[np.float64]]) -> RangeSpec:
    azimuth = np.concatenate([np.degrees(np.arctan2(xyz[:, 1], xyz[:, 0])) for xyz in scans])
    edges = field_of_view(np.concatenate(inclination), azimuth, MARGIN_DEG)
    rows = max(map(_lasers, inclination))
    known = LASERS[0] <= rows <= LASERS[1]
    per_row = max(map(len, scans)) / rows
    columns = int(np.clip(2 ** round(float(np.log2(max(1.0, per_row)))), 256, 2048)) if known and edges.is_full_turn else 2048
    return edges.spec(rows if known else 64, columns)


class FieldOfView(NamedTuple):
    """Where a sensor's points lie, with a margin; signed angles in deg as in RangeSpec."""

    up_deg: float
    down_deg: float
    left_deg: float
    right_deg: float
    is_full_turn: bool

    def spec(self, height: int, width: int) -> RangeSpec:
        """A range image of this size over it."""
        return RangeSpec(
            height=height,
            width=width,
            fov_up_deg=self.up_deg,
            fov_down_deg=self.down_deg,
            fov_left_deg=self.left_deg,
            fov_right_deg=self.right_deg,
        )


def field_of_view(inclination_deg: NDArray[np.float64], azimuth_deg: NDArray[np.float64], margin_deg: float) -> FieldOfView:
    """What holds all but a thousandth of the points at each edge, whose angles are (N,) each; a wide one is a full turn."""
    low, high = np.percentile(inclination_deg, (0.1, 99.9))
    right, left = np.percentile(azimuth_deg, (0.1, 99.9))
    full = bool(left - right >= FULL_CIRCLE_DEG)
    return FieldOfView(
        up_deg=min(90.0, round(float(high) + margin_deg, 1)),
        down_deg=max(-90.0, round(float(low) - margin_deg, 1)),
        left_deg=180.0 if full else min(180.0, round(float(left) + margin_deg, 1)),
        right_deg=-180.0 if full else max(-180.0, round(float(right) - margin_deg, 1)),
        is_full_turn=full,
    )


def _lasers(inclination: NDArray[np.float64]) -> int:
    """How many clusters the inclinations of one scan fall into: its lasers, where they look in directions of their own."""
    return int(np.count_nonzero(np.diff(np.sort(inclination)) > LASER_GAP_DEG)) + 1
