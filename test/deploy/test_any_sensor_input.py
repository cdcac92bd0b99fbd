# SPDX-License-Identifier: Apache-2.0
"""What a network is told does not change with the driver's intensity, nor with the sensor's mounting."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from weakseg_ros.batches.augment import HEIGHT_PLANE, INTENSITY_PLANE, augment_images
from weakseg_ros.batches.batches import make_batch, raw_image, untold
from weakseg_ros.batches.settings import NO_AUGMENTATION
from weakseg_ros.deploy.frontends import make_frontend
from weakseg_ros.deploy.input_spec import CHANNELS, COLORS, InputSpec, IntensityRule, plain_spec
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.intensity import ABSENT_RANK, intensity_ranks
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import SensorModel

GEOMETRY = RangeSpec(48, 256, fov_up_deg=10.0, fov_down_deg=-26.0, max_range_m=120.0)
RANKS = IntensityRule(required=False, ranks=True)
SPEC = plain_spec(GEOMETRY, tuple(name for name in CHANNELS if name not in COLORS), RANKS, level=True)


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    return next(simulate(SimulateConfig(3, 1, sensor=SensorModel(beams=48, columns=256)))).cloud


def image_of(cloud: Cloud, spec: InputSpec = SPEC) -> NDArray[np.float32]:
    inputs, _ = make_frontend(spec, LabelMap.load("street")).encode(cloud)
    image: NDArray[np.float32] = inputs["image"][0]
    return image


@pytest.mark.parametrize("change", [lambda i: i * 255, lambda i: i * 65535, np.square, np.sqrt, lambda i: 3 + 0.1 * i])
def test_no_scale_gain_gamma_or_offset_of_intensity_is_seen(cloud: Cloud, change: object) -> None:
    changed = dataclasses.replace(cloud, intensity=change(cloud.intensity).astype(np.float32))  # type: ignore[operator]
    np.testing.assert_allclose(image_of(changed), image_of(cloud), atol=1e-3)


def test_a_cloud_without_intensity_is_told_as_one_whose_levels_say_nothing(cloud: Cloud) -> None:
    none = dataclasses.replace(cloud, intensity=np.zeros_like(cloud.intensity), intensity_field="")
    flat = dataclasses.replace(cloud, intensity=np.full_like(cloud.intensity, 7.0))
    seen = image_of(none)[SPEC.channels.index("valid")] == 1
    assert (image_of(none)[SPEC.channels.index("intensity")][seen] == ABSENT_RANK).all()
    np.testing.assert_array_equal(image_of(none), image_of(flat))


def test_equal_values_share_their_rank_and_ranks_fill_zero_to_one() -> None:
    values = np.repeat(np.arange(10, dtype=np.float32), 7)
    ranks = intensity_ranks(values)
    np.testing.assert_allclose(ranks, (values + 0.5) / 10, atol=1e-6)
    assert (intensity_ranks(np.zeros(0, np.float32)) == 0).all()


@pytest.mark.parametrize(("down_m", "pitch_deg"), [(3.0, 0.0), (-1.6, 0.0), (0.0, 6.0)])
def test_height_is_that_above_the_ground_whatever_the_mounting(cloud: Cloud, down_m: float, pitch_deg: float) -> None:
    cos, sin = np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))
    turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    moved = np.where(cloud.valid[:, None], cloud.xyz @ turn.T - (0.0, 0.0, down_m), 0.0).astype(np.float32)
    channel = SPEC.channels.index("height")
    here, there = image_of(cloud)[channel], image_of(dataclasses.replace(cloud, xyz=moved))[channel]
    both = (here != 0) & (there != 0)
    assert np.median(np.abs(here - there)[both]) < 0.15


def test_a_sensor_that_sees_more_than_the_image_has_all_of_its_points_answered() -> None:
    """Before, an HDL-32E lost a third of its ground, and 90 degrees of beams half of their points."""
    wide = SensorModel(beams=48, columns=256, fov_up_deg=40.0, fov_down_deg=-50.0, vehicle_m=(0.0, 0.0, 0.0))
    seen = next(simulate(SimulateConfig(3, 1, sensor=wide))).cloud
    shares = []
    for level in (True, False):
        _, view = make_frontend(dataclasses.replace(SPEC, level=level), LabelMap.load("street")).encode(seen)
        shares.append(float(np.mean(view.pixels.pixel_of_point[seen.valid] >= 0)))
    assert shares[0] > 0.995
    assert shares[1] < 0.7


def test_training_and_robot_are_told_the_same(cloud: Cloud) -> None:
    """The whole way: scan to raw image to batch here, cloud to frontend there."""
    told = untold(GEOMETRY, 1.0, ranks=True, level=True)
    geometry, labels = raw_image(cloud, np.ones(len(cloud), np.uint8), told)
    batch = make_batch(SPEC, torch.from_numpy(geometry[None]), torch.from_numpy(labels[None]))
    np.testing.assert_allclose(
        batch.image[0].numpy(), image_of(cloud), atol=4 * 120 * 6e-8 / 0.15
    )  # four roundings of a range up to 120 m


def test_relief_is_the_step_to_the_neighbour_and_zero_at_the_edge_and_beside_gaps() -> None:
    planes = {name: np.zeros((1, 4), np.float32) for name in ("x", "y", "z", "intensity", "height")}
    planes["x"][0] = (5.0, 5.2, 0.0, 9.0)
    mask = np.array([[1, 1, 0, 1]], np.float32)
    names = ("relief_left", "relief_right", "relief_above", "bend")
    left, right, above, bend = plain_spec(RangeSpec(1, 4), names, RANKS).image(planes, mask, np)
    np.testing.assert_allclose(left[0], [0, np.tanh(-0.5), 0, 0], atol=1e-6)
    np.testing.assert_allclose(right[0], [np.tanh(0.5), 0, 0, 0], atol=1e-6)
    assert not above.any()
    assert not bend.any()


def test_augmentation_removes_intensity_drops_beams_and_errs_about_the_ground(cloud: Cloud) -> None:
    told = untold(GEOMETRY, 1.0, ranks=True)
    geometry, labels = raw_image(cloud, np.ones(len(cloud), np.uint8), told)
    several = torch.from_numpy(np.stack([geometry] * 6)), torch.from_numpy(np.stack([labels] * 6))
    config = dataclasses.replace(NO_AUGMENTATION, intensity_drop=1.0, beam_drop=1.0, ground_error_m=0.5)
    changed, _ = augment_images(several[0].clone(), several[1].clone(), GEOMETRY, config, np.random.default_rng(0), absent=0.5)
    there = (changed[:, :3] != 0).any(dim=1)
    assert (changed[:, INTENSITY_PLANE][there] == 0.5).all()
    rows = there.any(dim=2).float().mean(dim=1) / (torch.from_numpy(geometry[:3] != 0).any(dim=0).any(dim=1).float().mean())
    assert ((rows > 0.1) & (rows < 0.8)).all()
    error = (changed[:, HEIGHT_PLANE] - several[0][:, HEIGHT_PLANE])[:, :, 0]
    assert there[:, :, 0].any()
    assert error.abs().max() > 0.05
