# SPDX-License-Identifier: Apache-2.0
"""The three solids a street is made of, as rows of one structured array: tapered block, upright cylinder, ellipsoid.

A row stands on the centre of its bottom. `density` inf is solid; a finite density is foliage or mesh, in which a ray
stops after an exponentially distributed way (Beer-Lambert), so that some rays go through.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK, CYLINDER, ELLIPSOID = 0, 1, 2
PLAIN, GAPS, WINDOWS, GLASS = 0, 1, 2, 3

PART = np.dtype(
    [
        ("kind", "u1"),
        ("surface", "u1"),
        ("raw", "u2"),
        ("instance", "u2"),
        ("position", "f8", 3),
        ("yaw", "f8"),
        ("size", "f4", 3),
        ("taper", "f4", 3),
        ("density", "f4"),
        ("albedo", "f4"),
        ("gloss", "f4"),
        ("pattern", "f4", 4),
        ("rgb", "u1", 3),
    ]
)
"""size: half length (x), half width (y), full height (z) in m, the first one the radius of a cylinder. taper: how far the
front, the rear and both flanks of a block lean inwards per metre of height. pattern: period and share along the face,
period and share upwards, of the bars of GAPS or the panes of WINDOWS. albedo: intensity at perpendicular incidence, 0..1;
gloss: how much of it is lost at oblique incidence. rgb: what a
camera sees, black on a street."""

Parts = NDArray[np.void]


def block(raw: int, x: float, y: float, z: float, size: tuple[float, float, float], **more: Any) -> Parts:
    """One block whose bottom is centred on (x, y, z); `more` sets further fields of PART."""
    return _part(BLOCK, raw, (x, y, z), size, more)


def cylinder(raw: int, x: float, y: float, z: float, radius: float, height: float, **more: Any) -> Parts:
    """One upright cylinder that stands on (x, y, z)."""
    return _part(CYLINDER, raw, (x, y, z), (radius, radius, height), more)


def ellipsoid(raw: int, x: float, y: float, z: float, size: tuple[float, float, float], **more: Any) -> Parts:
    """One ellipsoid whose lowest point is (x, y, z), with half axes size[0], size[1] and size[2] / 2."""
    return _part(ELLIPSOID, raw, (x, y, z), size, more)


def join(parts: Iterable[Parts]) -> Parts:
    """All rows in one array; an empty one where there are none."""
    rows = list(parts)
    return np.concatenate(rows) if rows else np.zeros(0, PART)


def place(parts: Parts, position: tuple[float, float, float], yaw: float, instance: int | None = None) -> Parts:
    """A copy turned by `yaw` about its own origin and moved to `position`; a thing's parts share one instance id."""
    placed = parts.copy()
    x, y = parts["position"][:, 0], parts["position"][:, 1]
    placed["position"][:, 0] = np.cos(yaw) * x - np.sin(yaw) * y + position[0]
    placed["position"][:, 1] = np.sin(yaw) * x + np.cos(yaw) * y + position[1]
    placed["position"][:, 2] += position[2]
    placed["yaw"] += yaw
    if instance is not None:
        placed["instance"] = instance
    return placed


def relabelled(parts: Parts, raw: int) -> Parts:
    """A copy in which every part carries the raw id `raw` (a parked car's 10 becomes a moving car's 252)."""
    copy = parts.copy()
    copy["raw"] = raw
    return copy


def _part(
    kind: int, raw: int, position: tuple[float, float, float], size: tuple[float, float, float], more: dict[str, Any]
) -> Parts:
    part = np.zeros(1, PART)
    part["kind"], part["raw"], part["position"], part["size"] = kind, raw, position, size
    part["density"], part["albedo"] = np.inf, 0.3
    for name, value in more.items():
        part[name] = value
    return part
