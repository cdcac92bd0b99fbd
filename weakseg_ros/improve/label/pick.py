# SPDX-License-Identifier: Apache-2.0
"""From a click on the screen to the point that was meant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEAR_RAD = 0.003
"""a point so close to the ray is under the mouse, however small it is drawn"""
FARTHEST_RAD = 0.025
"""a click farther from every point than this is a click into the void"""
SURFACE_M = 0.4
"""points under the mouse so close behind the first one lie on the same surface"""


def pick(
    xyz: NDArray[np.float32],
    usable: NDArray[np.bool_],
    origin: NDArray[np.floating],
    direction: NDArray[np.floating],
    radius_m: float,
) -> int | None:
    """The index of the point of (N, 3) that a ray means, None for the void.

    `origin` and `direction` (3,) are the ray's, in the points' frame; points are drawn `radius_m` large. Of the points under
    the mouse the surface in front counts, and on it the point closest to the ray; with none there, the closest by angle.
    """
    ray = np.asarray(direction, np.float32) / np.float32(np.linalg.norm(direction))
    apart = xyz - np.asarray(origin, np.float32)
    along = apart @ ray
    aside = np.sqrt(np.maximum(np.einsum("ni,ni->n", apart, apart) - along**2, 0.0))
    ahead = usable & (along > 1e-3)
    angle = np.where(ahead, aside / np.where(ahead, along, 1.0), np.inf)
    under = np.flatnonzero(angle <= np.maximum(NEAR_RAD, radius_m / np.maximum(along, 1e-3)))
    if len(under):
        front = under[along[under] <= along[under].min() + SURFACE_M]
        return int(front[np.argmin(angle[front])])
    closest = int(np.argmin(angle)) if len(angle) else -1
    return closest if closest >= 0 and angle[closest] <= FARTHEST_RAD else None
