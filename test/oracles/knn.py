# SPDX-License-Identifier: Apache-2.0
"""The vote of the nearest pixels beside RangeNet++'s."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from weakseg_ros.points.lift import KnnSettings, vote


def check_knn(arrays: Mapping[str, np.ndarray]) -> None:
    settings = KnnSettings(
        search=int(arrays["search"]),
        neighbours=int(arrays["knn"]),
        sigma_px=float(arrays["sigma"]),
        cutoff_m=float(arrays["cutoff"]),
        official=True,
    )
    pixel = arrays["v"] * arrays["proj_argmax"].shape[1] + arrays["u"]
    ours = vote(arrays["proj_argmax"], arrays["proj_range"], arrays["unproj_range"], pixel, True, settings)
    sure = arrays["tie_free_mask"]
    np.testing.assert_array_equal(ours[sure], arrays["labels_out"][sure])


CHECKS = {"knn": check_knn}
