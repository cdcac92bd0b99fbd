# SPDX-License-Identifier: Apache-2.0
"""Checks of the oracle files in coarse3d/: our functions beside COARSE3D's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from weakseg_ros.learn.protocols import clicks_of_ratio, group_voxels, label_voxels
from weakseg_ros.points.labels import LabelMap


def check_weak_label(arrays: Mapping[str, np.ndarray]) -> None:
    """Sparse labels by voxel: the same voxels, the same number of clicks, the same labels after the recorded draw."""
    xyz, voxel_m = arrays["scan"][:, :3], float(arrays["voxel_size"])
    class_id = LabelMap.load("semantickitti").to_class(arrays["label_raw"])
    np.testing.assert_array_equal(class_id, arrays["label_mapped"])

    voxels = group_voxels(xyz, voxel_m)
    np.testing.assert_array_equal(arrays["voxels_sorted_unique"][voxels.voxel_of_point], arrays["point2voxel"])
    np.testing.assert_array_equal(voxels.first_point, arrays["voxel_first_point_index"])
    np.testing.assert_array_equal(class_id[voxels.first_point], arrays["voxel_label_first_point"])
    candidates = np.flatnonzero(class_id[voxels.first_point])
    np.testing.assert_array_equal(candidates, arrays["valid_voxel_index"])

    drawn = arrays["sampled_voxel_index"]
    assert clicks_of_ratio(len(xyz), float(arrays["label_ratio"]), len(candidates)) == arrays["num_sampled_voxels"] == len(drawn)
    labelled = label_voxels(class_id, voxels, drawn, bool(arrays["voxel_propagation"]))
    np.testing.assert_array_equal(labelled, arrays["weak_label"])
    assert np.count_nonzero(labelled) == arrays["num_labelled_points"]


CHECKS = {"weak_label": check_weak_label}
