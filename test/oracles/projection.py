# SPDX-License-Identifier: Apache-2.0
"""Projection and network input beside lidar-bonnetal's and COARSE3D's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from weakseg_ros.deploy.frontends.range_numpy import raw_planes
from weakseg_ros.deploy.input_spec import PLANES, InputSpec, IntensityRule
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import RangeSpec, RangeView, columns_of, nearest_points, ranges_of, rows_of

Arrays = Mapping[str, np.ndarray]

OFFICIAL = PLANES[:4]
"""x, y, z, intensity: what the official code takes from a cloud"""


def project_official(cloud: Cloud, spec: RangeSpec, code: Literal["lidar-bonnetal", "coarse3d"] = "lidar-bonnetal") -> RangeView:
    """Project as the published code does, to reproduce its numbers; docs/projection.md says what is wrong with it.

    Points outside the field of view are clamped into the edge rows and columns, the signs of the field of view's
    edges are ignored, and -0.0 at the rear lands in the last column. lidar-bonnetal (also SalsaNext, SqueezeSegV3)
    knows no left and right edge; COARSE3D does. Its masks are `view.point_of_pixel > 0`, which loses point 0.
    """
    with np.errstate(all="ignore"):
        xyz = np.ascontiguousarray(cloud.xyz.T)
        ranges = ranges_of(xyz, cloud.valid)
        azimuth = np.arctan2(xyz[1], xyz[0])
        if code == "coarse3d":
            left, right = abs(spec.fov_left_deg), -abs(spec.fov_right_deg)
            u = columns_of(azimuth, left, right, spec.width)
        else:
            u = (-azimuth / math.pi + 1.0) * 0.5 * spec.width
        v = rows_of(xyz[2] / ranges, abs(spec.fov_up_deg), -abs(spec.fov_down_deg), spec.height)
        row = np.clip(v, 0, spec.height - 1).astype(np.int32)
        col = np.clip(u, 0, spec.width - 1).astype(np.int32)
    pixel = np.where(ranges > 0, row * np.int32(spec.width) + col, np.int32(-1))
    return RangeView(pixel, nearest_points(pixel, ranges, spec), ranges)


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
    planes = raw_planes(cloud, view)[: len(OFFICIAL)]
    image = np.concatenate([np.take(np.append(view.range_of_point, 0), view.point_of_pixel, mode="wrap")[None], planes])
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
    channels = ("range", *OFFICIAL)
    stated = {"mean": tuple(arrays["mean"].tolist()), "std": tuple(arrays["std"].tolist())}
    spec = InputSpec(geometry=RangeSpec(), channels=channels, intensity=IntensityRule(False), **stated)
    mask = arrays["proj_mask"] == 1
    planes = {**dict(zip("xyz", np.moveaxis(arrays["proj_xyz"], -1, 0), strict=True)), "intensity": arrays["proj_remission"]}
    np.testing.assert_allclose(np.stack(spec.image(planes, mask, np)), arrays["net_input"], rtol=1e-6, atol=1e-6)


CHECKS = {
    "bonnetal_laserscan": check_laserscan,
    "coarse3d_range_projection": check_range_projection,
    "bonnetal_network_input": check_network_input,
}
