# SPDX-License-Identifier: Apache-2.0
"""Rays against parts: each part meets only the rays of its window in the range image, nearest part first.

Ray and part are paired in flat arrays, so that the number of parts costs no Python loop. Everything is relative to the
sensor's position, along the world's axes; a ray is `t * direction`, t in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.simulate.solids import BLOCK, CYLINDER, GAPS, Parts

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Index = NDArray[np.intp]
Solution = tuple[Floats, Floats, Callable[[Index, Floats], Floats]]
"""of rays and parts of one kind: where the line enters and leaves (m along it, enter >= leave or inf where it misses), and
a function from pair indices and the stops on those rays to the cosine of incidence"""

PAIRS_PER_BATCH = 60_000
"""rays times parts that are worked on at once: small enough for the cache, large enough to hide the interpreter"""


@dataclass(frozen=True)
class Rays:
    """The rays of one sweep, row by row from the top beam, each row from the left edge of the image to the right."""

    rotation: NDArray[np.float64]
    """(3, 3) sensor to world"""
    beams_rad: NDArray[np.float64]
    """(H,) inclination of each row in the sensor's frame, falling"""
    columns: int
    left_rad: float
    """azimuth of the image's left edge"""
    step_rad: float
    """azimuth from one column to the next"""
    direction: Floats
    """(3, H * W) unit vectors along the world's axes"""

    @property
    def circle(self) -> int:
        """Number of columns in a full turn."""
        return int(np.ceil(2 * np.pi / self.step_rad - 1e-6))

    def windows(self, parts: Parts, origin: NDArray[np.float64]) -> Windows:
        """Rows and columns that can see each part, from its bounding box, widened for the sensor's tilt; nearest part first."""
        return _windows(parts, origin, self)


class RayField(Protocol):
    """What `cast` needs to know of rays that fill an image row by row, of a LiDAR or of a camera."""

    @property
    def columns(self) -> int:
        """Number of columns of the image."""

    @property
    def circle(self) -> int:
        """Number of columns after which the first one follows again; more than `columns` where the image is no full turn."""

    @property
    def direction(self) -> Floats:
        """(3, H * W) unit vectors along the world's axes."""

    def windows(self, parts: Parts, origin: NDArray[np.float64]) -> Windows:
        """The part of the image that can see each part, nearest part first."""


@dataclass(frozen=True)
class Hits:
    """Where each ray ends: arrays over the H * W rays."""

    distance: Floats
    """m along the ray, inf where it meets nothing"""
    part: Ints
    """row of the part that was met; -1 = none of them"""
    cosine: Floats
    """cosine between the ray and the surface's normal, 1 in foliage"""


def make_rays(
    rotation: NDArray[np.float64], beams_deg: NDArray[np.float64], columns: int, left_deg: float, right_deg: float
) -> Rays:
    """Rays through the H x W pixel centres of a sensor with H beams of falling inclinations, turned by `rotation` (3, 3)."""
    step = np.radians(left_deg - right_deg) / columns
    azimuth = np.radians(left_deg) - (np.arange(columns) + 0.5) * step
    beams = np.radians(beams_deg)
    flat = np.cos(beams)[:, None]
    up = np.broadcast_to(np.sin(beams)[:, None], (len(beams), columns))
    own = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), up]).reshape(3, -1)
    return Rays(rotation, beams, columns, float(np.radians(left_deg)), float(step), (rotation @ own).astype(np.float32))


def cast(parts: Parts, origin: NDArray[np.float64], rays: RayField, limit: Floats, rng: np.random.Generator) -> Hits:
    """The nearest part that each ray meets before `limit` (H * W) m; `rng` decides how deep a ray gets into foliage.

    `distance` is `limit` where no part was met.
    """
    hits = Hits(limit.astype(np.float32, copy=True), np.full(len(limit), -1, np.int32), np.ones(len(limit), np.float32))
    windows = rays.windows(parts, origin)
    for window in _batches(windows):
        for kind in np.unique(parts["kind"][window.part]):
            group = window.take(parts["kind"][window.part] == kind)
            pixel, row = _pairs(group, rays, hits.distance)
            if len(pixel):
                _meet(parts, origin, rays, group.part[row], pixel, hits, rng)
    return hits


@dataclass(frozen=True)
class Windows:
    """For each part the rectangle of the image that can see it, and a distance that it is not nearer than."""

    part: Ints
    near: Floats
    top: Ints
    height: Ints
    left: Ints
    width: Ints

    def take(self, index: NDArray[np.generic] | slice) -> Windows:
        return Windows(*(getattr(self, name)[index] for name in ("part", "near", "top", "height", "left", "width")))


def _windows(parts: Parts, origin: NDArray[np.float64], rays: Rays) -> Windows:
    up = rays.rotation[:, 2]
    tilt = float(np.hypot(up[0], up[1]))
    size = parts["size"].astype(np.float64)
    half_height = size[:, 2] / 2
    centre = parts["position"] - origin
    centre[:, 2] += half_height
    own = centre @ rays.rotation
    half_x, half_y = size[:, 0] + half_height * tilt, size[:, 1] + half_height * tilt
    half_z = half_height + np.hypot(size[:, 0], size[:, 1]) * tilt
    turn = parts["yaw"] - np.arctan2(rays.rotation[1, 0], rays.rotation[0, 0])
    cos, sin = np.cos(turn), np.sin(turn)

    along, across = np.abs(own[:, 0] * cos + own[:, 1] * sin), np.abs(own[:, 1] * cos - own[:, 0] * sin)
    near = np.hypot(np.maximum(along - half_x, 0), np.maximum(across - half_y, 0))
    far = np.hypot(along + half_x, across + half_y)
    low, high = own[:, 2] - half_z, own[:, 2] + half_z
    highest = np.arctan2(high, np.where(high > 0, near, far))
    lowest = np.arctan2(low, np.where(low > 0, far, near))
    top = np.searchsorted(-rays.beams_rad, -highest - 1e-6)
    bottom = np.searchsorted(-rays.beams_rad, -lowest + 1e-6)

    bearing = np.arctan2(own[:, 1], own[:, 0])
    corners = [(i * half_x * cos - j * half_y * sin, i * half_x * sin + j * half_y * cos) for i in (1, -1) for j in (1, -1)]
    turns = np.stack([np.arctan2(own[:, 1] + y, own[:, 0] + x) - bearing for x, y in corners])
    turns = (turns + np.pi) % (2 * np.pi) - np.pi
    left = np.floor((rays.left_rad - bearing - turns.max(axis=0)) / rays.step_rad).astype(np.int32) - 1
    width = np.ceil((turns.max(axis=0) - turns.min(axis=0)) / rays.step_rad).astype(np.int32) + 3
    width = np.where(near <= 1e-3, rays.circle, np.minimum(width, rays.circle))
    seen = np.flatnonzero(bottom > top)
    order = seen[np.argsort(near[seen], kind="stable")]
    every = Windows(np.arange(len(parts), dtype=np.int32), near.astype(np.float32), top, bottom - top, left, width)
    return every.take(order)


def _batches(windows: Windows) -> Iterator[Windows]:
    """The windows in runs of about PAIRS_PER_BATCH pairs."""
    total = np.cumsum(windows.height.astype(np.int64) * windows.width)
    start = 0
    while start < len(total):
        done = total[start - 1] if start else 0
        end = max(int(np.searchsorted(total, done + PAIRS_PER_BATCH, side="right")), start + 1)
        yield windows.take(slice(start, end))
        start = end


def _pairs(windows: Windows, rays: RayField, distance: Floats) -> tuple[Ints, Ints]:
    """Pixel and window index of every pair whose ray is not yet stopped in front of the part."""
    circle = rays.circle
    strips = np.repeat(np.arange(len(windows.part), dtype=np.int32), windows.height)
    first = np.cumsum(windows.height) - windows.height
    rows = windows.top[strips] + np.arange(len(strips)) - first[strips]
    widths = windows.width[strips]
    total = int(widths.sum())
    strip = np.repeat(np.arange(len(strips), dtype=np.int32), widths)
    begin = np.cumsum(widths) - widths
    column = (np.arange(total, dtype=np.int32) + (windows.left[strips] - begin).astype(np.int32)[strip]) % circle
    pixel = column + (rows * rays.columns).astype(np.int32)[strip]
    window = strips[strip]
    if rays.columns < circle:
        inside = column < rays.columns
        pixel, window = pixel[inside], window[inside]
    ahead = distance[pixel] > windows.near[window]
    return pixel[ahead], window[ahead]


def _meet(
    parts: Parts,
    origin: NDArray[np.float64],
    rays: RayField,
    part: Ints,
    pixel: Ints,
    hits: Hits,
    rng: np.random.Generator,
) -> None:
    """Intersect pairs of one kind and keep, in place, what is nearer than what the pixels hold."""
    direction, limit = rays.direction[:, pixel], hits.distance[pixel]
    kind = parts["kind"][part[0]]
    solve = _block if kind == BLOCK else _cylinder if kind == CYLINDER else _ellipsoid
    enter, leave, normal_of = solve(parts, origin, part, direction)
    density = parts["density"][part]
    soft = np.isfinite(density)
    enter = np.maximum(enter, np.where(soft, np.float32(0), enter))
    meets = (enter < leave) & (enter >= 0) & (enter < limit)
    index = np.flatnonzero(meets)
    depth = rng.standard_exponential(len(index), np.float32) / density[index]
    stop = enter[index] + depth
    kept = (stop <= leave[index]) & (stop < limit[index])
    kept &= ~_through_gaps(parts, origin, part[index], direction[:, index] * stop)
    index, stop = index[kept], stop[kept]
    order = np.argsort(-stop, kind="stable")  # the last write to a pixel stays, so the nearest comes last
    index, stop = index[order], stop[order]
    hits.distance[pixel[index]] = stop
    hits.part[pixel[index]] = part[index]
    hits.cosine[pixel[index]] = np.where(soft[index], np.float32(1), normal_of(index, stop))


def face_coordinates(parts: Parts, origin: NDArray[np.float64], part: Ints, point: Floats) -> tuple[Floats, Floats]:
    """Position of `point` (3, n) on its block's face: metres along the face's horizontal direction, and above the bottom."""
    centre = (parts["position"][part] - origin).astype(np.float32)
    cos, sin = np.cos(parts["yaw"][part]).astype(np.float32), np.sin(parts["yaw"][part]).astype(np.float32)
    x, y = point[0] - centre[:, 0], point[1] - centre[:, 1]
    along, across = x * cos + y * sin, y * cos - x * sin
    size = parts["size"][part]
    on_front = size[:, 0] - np.abs(along) < size[:, 1] - np.abs(across)
    return np.where(on_front, across, along), point[2] - centre[:, 2]


def in_pattern(parts: Parts, part: Ints, along: Floats, height: Floats) -> NDArray[np.bool_]:
    """Whether face positions fall on a bar (GAPS) or a pane (WINDOWS) of the part's repeating pattern."""
    pattern = parts["pattern"][part]
    period_u, share_u, period_v, share_v = (pattern[:, i] for i in range(4))
    u = along / np.maximum(period_u, 1e-3) % 1
    v = height / np.maximum(period_v, 1e-3) % 1
    inside: NDArray[np.bool_] = (u < share_u) & (np.abs(v - 0.55) < share_v / 2)
    return inside


def _through_gaps(parts: Parts, origin: NDArray[np.float64], part: Ints, point: Floats) -> NDArray[np.bool_]:
    through = np.zeros(len(part), bool)
    index = np.flatnonzero(parts["surface"][part] == GAPS)
    if len(index):
        along, _ = face_coordinates(parts, origin, part[index], point[:, index])
        pattern = parts["pattern"][part[index]]
        through[index] = along / pattern[:, 0] % 1 >= pattern[:, 1]
    return through


def _local(
    parts: Parts, origin: NDArray[np.float64], part: Ints, direction: Floats
) -> tuple[tuple[Floats, Floats, Floats], NDArray[np.float64]]:
    """Direction of each pair, and (3, M) centre of the bottom of each part, in the parts' own axes."""
    relative = parts["position"] - origin
    cos, sin = np.cos(parts["yaw"]), np.sin(parts["yaw"])
    centre = np.stack([relative[:, 0] * cos + relative[:, 1] * sin, relative[:, 1] * cos - relative[:, 0] * sin, relative[:, 2]])
    c, s = cos.astype(np.float32)[part], sin.astype(np.float32)[part]
    dx = direction[0] * c + direction[1] * s
    dy = direction[1] * c - direction[0] * s
    return (dx, dy, direction[2]), centre


def _block(parts: Parts, origin: NDArray[np.float64], part: Ints, direction: Floats) -> Solution:
    """Slab method over the six planes of a tapered block: front, rear, left, right, top, bottom."""
    (dx, dy, dz), centre = _local(parts, origin, part, direction)
    half_x, half_y, height = parts["size"].T.astype(np.float64)
    front, rear, flank = parts["taper"].T.astype(np.float64)
    x, y, z = centre
    room = np.stack(
        [half_x + x + front * z, half_x - x + rear * z, half_y + y + flank * z, half_y - y + flank * z, height + z, -z]
    )
    room = room.astype(np.float32)
    lean = parts["taper"][part]
    speeds = [dx + lean[:, 0] * dz, lean[:, 1] * dz - dx, dy + lean[:, 2] * dz, lean[:, 2] * dz - dy, dz, -dz]
    enter = np.full(len(part), -np.inf, np.float32)
    leave = np.full(len(part), np.inf, np.float32)
    face = np.zeros(len(part), np.uint8)
    for side, speed in enumerate(speeds):
        speed = np.where(np.abs(speed) < 1e-9, np.float32(1e-9), speed)
        t = room[side][part] / speed
        later = (speed < 0) & (t > enter)
        enter[later], face[later] = t[later], side
        leave = np.where(speed > 0, np.minimum(leave, t), leave)

    def normal(index: Index, _stop: Floats) -> Floats:
        tapers = lean[index]
        slope = np.choose(np.minimum(face[index], 4), [tapers[:, 0], tapers[:, 1], tapers[:, 2], tapers[:, 2], 0 * tapers[:, 0]])
        speed = np.choose(face[index], [column[index] for column in speeds])
        return np.asarray(np.abs(speed) / np.sqrt(1 + slope * slope), np.float32)

    return enter, leave, normal


def _cylinder(parts: Parts, origin: NDArray[np.float64], part: Ints, direction: Floats) -> Solution:
    relative = (parts["position"] - origin).astype(np.float32)
    x, y, z = relative[part].T
    dx, dy, dz = direction
    radius, height = parts["size"][part, 0], parts["size"][part, 2]
    flat = np.maximum(dx * dx + dy * dy, 1e-12)
    middle = (dx * x + dy * y) / flat
    off = radius * radius - (x - middle * dx) ** 2 - (y - middle * dy) ** 2
    half = np.sqrt(np.maximum(off, 0) / flat)
    dz = np.where(np.abs(dz) < 1e-9, np.float32(1e-9), dz)
    one, other = z / dz, (z + height) / dz
    side, cap = middle - half, np.minimum(one, other)
    enter = np.where(off > 0, np.maximum(side, cap), np.float32(np.inf))
    leave = np.minimum(middle + half, np.maximum(one, other))

    def normal(index: Index, _stop: Floats) -> Floats:
        on_side = np.sqrt(np.maximum(off[index] * flat[index], 0)) / radius[index]
        return np.where(side[index] >= cap[index], on_side, np.abs(dz[index])).astype(np.float32)

    return enter, leave, normal


def _ellipsoid(parts: Parts, origin: NDArray[np.float64], part: Ints, direction: Floats) -> Solution:
    (dx, dy, dz), centre = _local(parts, origin, part, direction)
    half = parts["size"].T.astype(np.float64) * np.array([[1.0], [1.0], [0.5]])
    centre[2] += half[2]
    scaled = (centre / half).astype(np.float32)
    inverse = (1 / half).astype(np.float32)
    x, y, z = (scaled[i][part] for i in range(3))
    a, b, c = dx * inverse[0][part], dy * inverse[1][part], dz * inverse[2][part]
    length = a * a + b * b + c * c
    middle = (a * x + b * y + c * z) / length
    ex, ey, ez = x - middle * a, y - middle * b, z - middle * c
    off = 1 - ex * ex - ey * ey - ez * ez
    reach = np.sqrt(np.maximum(off, 0) / length)
    enter = np.where(off > 0, middle - reach, np.float32(np.inf))

    def normal(index: Index, stop: Floats) -> Floats:
        u = np.stack([stop * a[index] - x[index], stop * b[index] - y[index], stop * c[index] - z[index]])
        gradient = u * inverse[:, part[index]]
        along = gradient[0] * dx[index] + gradient[1] * dy[index] + gradient[2] * dz[index]
        return np.asarray(np.abs(along) / np.maximum(np.sqrt((gradient * gradient).sum(axis=0)), 1e-9), np.float32)

    return enter, middle + reach, normal
