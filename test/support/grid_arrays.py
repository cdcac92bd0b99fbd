# SPDX-License-Identifier: Apache-2.0
"""The arrays of an archive of organised grids, as `vlp32_drive` and `semantickitti_range` hold them."""

from __future__ import annotations

import numpy as np


def grid_arrays(
    count: int = 2, height: int = 32, width: int = 240, stamps: bool = True, top_label: int = 10
) -> dict[str, np.ndarray]:
    """Those of a VLP-32C drive, or others; the first row of each grid is empty."""
    rng = np.random.default_rng(count)
    xyz = rng.normal(0, 10, (count, height, width, 3)).astype(np.float32)
    xyz[:, 0] = 0
    stored = {
        "xyz": xyz,
        "intensity": rng.integers(0, 256, (count, height, width)).astype(np.float32),
        "label": rng.integers(0, top_label + 1, (count, height, width)).astype(np.uint8),
    }
    return {**stored, "stamp_ns": np.arange(count) + 10**18} if stamps else stored
