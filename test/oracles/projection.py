# SPDX-License-Identifier: Apache-2.0
"""Projection and network input beside lidar-bonnetal's and COARSE3D's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import RangeSpec, RangeView, channel_image, normalise, project_official

Arrays = Mapping[str, np.ndarray]


def _project(arrays: Arrays, code: Literal["lidar-bonnetal", "coarse3d"]) -> tuple[Cloud, RangeView]:
    points = arrays["points"]
    cloud = Cloud(np.ascontiguousarray(points[:, :3]), points[:, 3], np.zeros(len(points), np.uint8), width=len(points))
    spec = RangeSpec(
        height=int(arrays["H"]),
        width=int(arrays["W"]),
        fov_up_deg=float(arrays["fov_up"]),
        fov_down_deg=float(arrays["fov_down"]),
        # the official code counts azimuth to the right
        fov_left_deg=-float(arrays.get("fov_left", -180.0)),
        fov_right_deg=-float(arrays.get("fov_right", 180.0)),
    )
    return cloud, project_official(cloud, spec, code)


def _assert_same_view(arrays: Arrays, cloud: Cloud, view: RangeView, range_key: str) -> None:
    width = int(arrays["W"])
    np.testing.assert_array_equal(view.pixel_of_point // width, arrays["v"])
    np.testing.assert_array_equal(view.pixel_of_point % width, arrays["u"])
    np.testing.assert_array_equal(view.range_of_point, arrays[range_key])
    np.testing.assert_array_equal(view.point_of_pixel, arrays["proj_idx"])
    np.testing.assert_array_equal(view.point_of_pixel > 0, arrays["proj_mask_official"] == 1)
    image = channel_image(cloud, view, ["range", "x", "y", "z", "intensity"])
    image[:, view.point_of_pixel < 0] = -1  # the official code's value of empty pixels
    np.testing.assert_array_equal(image[0], arrays["proj_range"])
    if "proj_xyzi" in arrays:
        np.testing.assert_array_equal(np.moveaxis(image[1:], 0, -1), arrays["proj_xyzi"])
    else:
        np.testing.assert_array_equal(np.moveaxis(image[1:4], 0, -1), arrays["proj_xyz"])
        np.testing.assert_array_equal(image[4], arrays["proj_remission"])


def check_laserscan(arrays: Arrays) -> None:
    cloud, view = _project(arrays, "lidar-bonnetal")
    _assert_same_view(arrays, cloud, view, "unproj_range")


def check_range_projection(arrays: Arrays) -> None:
    cloud, view = _project(arrays, "coarse3d")
    _assert_same_view(arrays, cloud, view, "depth")


def check_network_input(arrays: Arrays) -> None:
    layers = [arrays["proj_range"], *np.moveaxis(arrays["proj_xyz"], -1, 0), arrays["proj_remission"]]
    ours = normalise(np.stack(layers), arrays["mean"].tolist(), arrays["std"].tolist(), arrays["proj_mask"] == 1)
    np.testing.assert_allclose(ours, arrays["net_input"], rtol=1e-6, atol=1e-6)


CHECKS = {
    "bonnetal_laserscan": check_laserscan,
    "coarse3d_range_projection": check_range_projection,
    "bonnetal_network_input": check_network_input,
}
