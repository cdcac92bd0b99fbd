# SPDX-License-Identifier: Apache-2.0
"""Range images: points to pixels, and pixels back to points; conventions in docs/projection.md."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import CloudError, ConfigError
from weakseg_ros.points.cloud import Cloud

BEYOND_SHARE = 0.01
"""so many of the points beyond an edge move it, where the image may be widened"""
STRAY_SHARE = 0.001
"""so many may still lie beyond a moved edge: single points are mostly wrong"""


@dataclass(frozen=True)
class RangeSpec:
    """Sets the geometry of a range image, which is what a network must know about the sensor."""

    height: int = setting(64, 1, 4096)
    """Sets the number of rows of the range image (1 to 4096)."""
    width: int = setting(2048, 1, 16384)
    """Sets the number of columns of the range image (1 to 16384)."""
    fov_up_deg: float = setting(3.0, -90.0, 90.0)
    """Sets the inclination of the upper edge in degrees, positive above the horizon (-90 to 90)."""
    fov_down_deg: float = setting(-25.0, -90.0, 90.0)
    """Sets the inclination of the lower edge in degrees, positive above the horizon (-90 to 90)."""
    fov_left_deg: float = setting(180.0, -180.0, 180.0)
    """Sets the azimuth of the left edge in degrees, positive to the left of +x (-180 to 180)."""
    fov_right_deg: float = setting(-180.0, -180.0, 180.0)
    """Sets the azimuth of the right edge in degrees, positive to the left of +x (-180 to 180)."""
    min_range_m: float = setting(0.0, 0.0)
    """Sets the range in metres below which points get no pixel (0 or more)."""
    max_range_m: float = setting(1000.0, 0.0)
    """Sets the range in metres above which points get no pixel (0 or more)."""
    rows: Literal["angle", "ring", "grid"] = "angle"
    """Selects how a point gets its row: by its inclination ('angle'), by its laser index ('ring'), or from the organised cloud
    ('grid')."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.fov_up_deg <= self.fov_down_deg:
            raise ConfigError(f"fov_up_deg: {self.fov_up_deg} must lie above fov_down_deg {self.fov_down_deg}")
        if self.fov_left_deg <= self.fov_right_deg:
            raise ConfigError(f"fov_left_deg: {self.fov_left_deg} must lie left of (above) fov_right_deg {self.fov_right_deg}")
        if self.max_range_m <= self.min_range_m:
            raise ConfigError(f"max_range_m: {self.max_range_m} must exceed min_range_m {self.min_range_m}")

    @property
    def full_circle(self) -> bool:
        """Whether the first and the last column are neighbours."""
        return self.fov_left_deg - self.fov_right_deg >= 359.9


@dataclass(frozen=True)
class RangeView:
    """Which point owns which pixel; -1 = none."""

    pixel_of_point: NDArray[np.int32]
    """(N,) flat pixel index row * W + col of every point that falls into the image, owner or not"""
    point_of_pixel: NDArray[np.int32]
    """(H, W) index of the nearest point in the pixel"""
    range_of_point: NDArray[np.float32]
    """(N,) distance from the sensor in m; NaN for unusable points"""


def nothing_seen(spec: RangeSpec) -> RangeView:
    """The view of a cloud without points, which no rule for rows can be asked about."""
    nowhere = np.full((spec.height, spec.width), -1, np.int32)
    return RangeView(np.zeros(0, np.int32), nowhere, np.zeros(0, np.float32))


def project(cloud: Cloud, spec: RangeSpec, widen: bool = False) -> RangeView:
    """Find the pixel of every point and the nearest point of every pixel; equal distances go to the smaller index.

    Points outside the field of view or the range limits, and unusable points, get no pixel. A beam that lies on the
    upper or lower edge scatters around it, so points up to half a row (at most 0.25 deg) beyond belong to the edge
    row. With `rows="ring"` the first row is the uppermost laser, whichever way the driver counts; with `rows="grid"`
    the cloud's own rows and columns are taken as they are. With `widen`, rows by angle are spread over all that the
    cloud spans, where a good part of it lies beyond the upper or lower edge; rows and columns stay as many. Raises
    CloudError where the cloud has no ring or not the grid that the spec asks for.
    """
    with np.errstate(all="ignore"):  # NaN, infinities and far-away points are sorted out below
        xyz = cloud.columns
        ranges = ranges_of(xyz, cloud.valid)
        usable = (ranges >= spec.min_range_m) & (ranges <= spec.max_range_m)
        if spec.rows == "grid":
            return _own_grid(cloud, spec, ranges, usable)
        col, in_col = _columns(xyz, spec)
        if spec.rows == "ring":
            row, in_row = _rows_by_ring(cloud, usable, spec)
        else:
            sine = xyz[2] / ranges
            row, in_row = _rows_by_angle(sine, widened(spec, sine[usable & in_col]) if widen else spec)
    pixel = np.where(usable & in_col & in_row, row * np.int32(spec.width) + col, np.int32(-1))
    return RangeView(pixel, nearest_points(pixel, ranges, spec), ranges)


def ranges_of(xyz: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(N,) distances, NaN for unusable points; `xyz` is (3, N)."""
    squares = xyz * xyz
    squares[0] += squares[1]
    squares[0] += squares[2]
    ranges: NDArray[np.float32] = np.sqrt(squares[0])
    inexact = ~((squares[0] > 1e-30) & (squares[0] < 1e37)) & valid  # squares of float32 under- or overflow
    if inexact.any():
        exact = np.linalg.norm(xyz[:, inexact].astype(np.float64), axis=0)
        ranges[inexact] = np.minimum(exact, np.finfo(np.float32).max)
    ranges[~valid] = np.nan
    return ranges


def rows_of(sine: NDArray[np.float32], up_deg: float, down_deg: float, height: int) -> NDArray[np.float32]:
    """(N,) row as a real number, 0 at the upper edge, from the sine of the inclination; float32 as in the published codes."""
    up, down = up_deg / 180.0 * math.pi, down_deg / 180.0 * math.pi
    rows: NDArray[np.float32] = np.arcsin(sine)
    rows -= np.float32(down)
    rows /= np.float32(up - down)  # above the lower edge
    np.subtract(np.float32(1.0), rows, out=rows)
    rows *= np.float32(height)
    return rows


def columns_of(azimuth: NDArray[np.float32], left_deg: float, right_deg: float, width: int) -> NDArray[np.float32]:
    """(N,) column as a real number, 0 at the left edge; float32 as in the published codes."""
    left, right = left_deg / 180.0 * math.pi, right_deg / 180.0 * math.pi
    columns: NDArray[np.float32] = np.float32(left) - azimuth
    columns /= np.float32(left - right)
    columns *= np.float32(width)
    return columns


def widened(spec: RangeSpec, sine: NDArray[np.float32]) -> RangeSpec:
    """The spec with its upper and lower edge where (N,) points end, given by the sine of their inclination.

    An edge stays where it is unless more than BEYOND_SHARE of the points lie beyond. A moved one lies on a whole degree, so that
    a sensor's frames have the same edges.
    """
    up, down, many = spec.fov_up_deg, spec.fov_down_deg, BEYOND_SHARE * len(sine)
    if np.count_nonzero(sine > math.sin(math.radians(up))) > many:
        up = math.ceil(_quantile_deg(sine, 1.0 - STRAY_SHARE))
    if np.count_nonzero(sine < math.sin(math.radians(down))) > many:
        down = math.floor(_quantile_deg(sine, STRAY_SHARE))
    return spec if (up, down) == (spec.fov_up_deg, spec.fov_down_deg) else replace(spec, fov_up_deg=up, fov_down_deg=down)


def _quantile_deg(sine: NDArray[np.float32], share: float) -> float:
    return math.degrees(math.asin(min(1.0, max(-1.0, float(np.quantile(sine, share))))))  # rounding may carry a sine beyond 1


def _rows_by_angle(sine: NDArray[np.float32], spec: RangeSpec) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    v = rows_of(sine, spec.fov_up_deg, spec.fov_down_deg, spec.height)
    row_deg = (spec.fov_up_deg - spec.fov_down_deg) / spec.height
    slack = min(0.5, 0.25 / row_deg)
    inside = (v >= -slack) & (v <= spec.height + slack)
    return np.minimum(v, spec.height - 1).astype(np.int32), inside


def _columns(xyz: NDArray[np.float32], spec: RangeSpec) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    azimuth = np.arctan2(xyz[1] + np.float32(0.0), xyz[0])  # -0.0 becomes 0.0: one direction at the rear, one column
    u = columns_of(azimuth, spec.fov_left_deg, spec.fov_right_deg, spec.width)
    inside = (u >= 0) & (u <= spec.width)
    return np.minimum(u, spec.width - 1).astype(np.int32), inside


def _rows_by_ring(cloud: Cloud, usable: NDArray[np.bool_], spec: RangeSpec) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    if cloud.ring is None:
        raise CloudError(
            "cloud: rows='ring' needs the laser index, but this cloud has no ring field; set rows to 'angle'", "no_ring"
        )
    row = cloud.ring.astype(np.int32)
    inside = row < spec.height
    if _counts_upwards(cloud, usable & inside):
        row = np.int32(spec.height - 1) - row
    return row, inside


def _counts_upwards(cloud: Cloud, usable: NDArray[np.bool_]) -> bool:
    """Whether ring 0 is the lowest laser (Velodyne) and not the uppermost (Ouster, Hesai)."""
    sample = np.flatnonzero(usable)
    sample = sample[:: max(1, len(sample) // 2048)]
    if cloud.ring is None or len(sample) < 2:
        return False
    xyz, ring = cloud.xyz[sample].astype(np.float64), cloud.ring[sample].astype(np.float64)
    inclination = np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1]))
    ring -= ring.mean()
    inclination -= inclination.mean()
    together = float(ring @ inclination)
    return together > 0.5 * math.sqrt(float(ring @ ring) * float(inclination @ inclination))


def _own_grid(cloud: Cloud, spec: RangeSpec, ranges: NDArray[np.float32], usable: NDArray[np.bool_]) -> RangeView:
    if (cloud.height, cloud.width) != (spec.height, spec.width):
        raise CloudError(
            f"cloud: rows='grid' needs an organised cloud of {spec.height} x {spec.width}, found {cloud.height} x {cloud.width}; "
            "set rows to 'angle', or height and width to the cloud's",
            "grid_size",
        )
    pixel = np.where(usable, np.arange(len(cloud), dtype=np.int32), np.int32(-1))
    return RangeView(pixel, pixel.reshape(spec.height, spec.width), ranges)


def nearest_points(pixel: NDArray[np.int32], ranges: NDArray[np.float32], spec: RangeSpec) -> NDArray[np.int32]:
    """(H, W) the point of smallest range in each pixel: one minimum over keys of range bits above index bits."""
    keys = ranges.view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(len(keys), dtype=np.uint64)
    empty = np.iinfo(np.uint64).max  # its lower half reads -1
    best = np.full(spec.height * spec.width + 1, empty, np.uint64)  # the last slot takes the points without a pixel
    np.minimum.at(best, pixel, keys)
    return best[:-1].astype(np.uint32).view(np.int32).reshape(spec.height, spec.width)
