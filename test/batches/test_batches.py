# SPDX-License-Identifier: Apache-2.0
"""From scans to batches: projection, labels, augmentation, the order of scans, the survey."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.batches.augment import augment_images, move_points
from weakseg_ros.batches.batches import ScanImages, label_image, make_batch, raw_image, scans_of_step, step_generator, untold
from weakseg_ros.batches.mixing import OBJECT_PLANE, WEIGHT_PLANE
from weakseg_ros.batches.settings import NO_AUGMENTATION, AugmentConfig
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.deploy.frontends.range_numpy import range_input
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule, plain_spec
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec, project
from weakseg_ros.train.survey import survey

SPEC = RangeSpec(16, 64, fov_up_deg=15.0, fov_down_deg=-15.0)
SECTOR = RangeSpec(16, 64, fov_up_deg=15.0, fov_down_deg=-15.0, fov_left_deg=45.0, fov_right_deg=-45.0)
LABELS = LabelMap("toy", tuple(LabelClass(i, f"class{i}", (i, i, i), False, (i,)) for i in range(4)))
CHANNELS = ("range", "x", "y", "z", "intensity")


class ToyScans:
    """Random scans around the sensor, as a data set."""

    name, keys, labels, content_hash, intensity_full_scale = "toy", ("a", "b", "c"), LABELS, "0", 1.0

    def __init__(self, spec: RangeSpec = SPEC, labelled: float = 1.0) -> None:
        self.spec, self.labelled = spec, labelled

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Scan:
        rng = np.random.default_rng(index)
        direction = rng.normal(size=(600, 3)) * (1, 1, 0.2)
        xyz = direction / np.linalg.norm(direction, axis=1)[:, None] * rng.uniform(2, 50, (600, 1))
        xyz[:10] = 0.0
        labels = rng.integers(1, 4, 600) * (rng.random(600) < self.labelled)
        return Scan(self.keys[index], make_cloud(xyz, rng.random(600)), labels.astype(np.uint8), None, None)


def images(augment: AugmentConfig = NO_AUGMENTATION, spec: RangeSpec = SPEC, **kwargs: float) -> ScanImages:
    return ScanImages(ToyScans(spec), lambda scan: scan.class_id, spec, augment, **kwargs)


def raw(count: int = 3, spec: RangeSpec = SPEC) -> tuple[torch.Tensor, torch.Tensor]:
    return images(spec=spec).draw(range(count), np.random.default_rng(0))


def test_a_batch_is_what_the_robot_feeds_its_net() -> None:
    stated = {"mean": (12.0, 1.0, 0.5, -1.0, 0.3), "std": (10.0, 9.0, 8.0, 2.0, 0.2), "intensity": IntensityRule(False)}
    spec = InputSpec(geometry=SPEC, channels=CHANNELS, **stated)
    batch = make_batch(spec, *raw())
    for i, scan in enumerate(ToyScans()[i] for i in range(3)):
        view = project(scan.cloud, SPEC)
        expected = range_input(scan.cloud, view, spec)
        np.testing.assert_allclose(batch.image[i], expected, atol=1e-5)
        np.testing.assert_array_equal(batch.mask[i], view.point_of_pixel >= 0)
        np.testing.assert_array_equal(batch.labels[i], label_image(scan.class_id, view))


def test_labels_follow_the_nearest_point_and_clicks_just_behind_it() -> None:
    cloud = make_cloud([[10, 0, 0], [10.2, 0, 0], [30, 0, 0], [0, 10, 0], [0, 20, 0]])
    view = project(cloud, SPEC)
    owner = {tuple(rc): int(view.point_of_pixel[tuple(rc)]) for rc in np.argwhere(view.point_of_pixel >= 0)}
    pixel_of = {index: rc for rc, index in owner.items()}
    behind = label_image(np.array([0, 2, 3, 0, 3], np.uint8), view)
    assert behind[pixel_of[0]] == 2  # the click 0.2 m behind counts, the one at 30 m does not
    assert behind[pixel_of[3]] == 0  # 10 m behind is another surface
    assert label_image(np.array([1, 2, 3, 0, 0], np.uint8), view)[pixel_of[0]] == 1
    assert (label_image(np.array([1, 2, 3, 1, 2], np.uint8), view) > 0).sum() == 2


def test_a_hidden_click_goes_to_the_pixel_beside_it() -> None:
    post = [[5.0, 0.1, -0.2]]  # hides the click
    wall = [[8.0, y, -0.32] for y in np.arange(-2.0, 2.0, 0.2)] + [[8.0, 0.16, -0.33]]
    ground = [[20.0, y, -2.0] for y in np.linspace(-15, 15, 400)]
    cloud = make_cloud(post + wall + ground)
    click = len(post) + len(wall) - 1
    labels, numbers = np.zeros(len(cloud), np.uint8), np.zeros(len(cloud), np.uint16)
    labels[click], numbers[click] = 2, 7
    view = project(cloud, SPEC)
    assert view.point_of_pixel.ravel()[view.pixel_of_point[click]] == 0
    image, seen = raw_image(cloud, labels, untold(SPEC, 0.0), numbers)
    (at,) = np.argwhere(seen)
    assert seen[tuple(at)] == 2
    assert image[OBJECT_PLANE][tuple(at)] == 7
    assert np.linalg.norm(image[:3, at[0], at[1]] - cloud.xyz[click]) < 0.5
    far = cloud.xyz.copy()
    far[1:click] += (0.0, 0.0, 3.0)  # nothing of the wall is near
    assert not raw_image(make_cloud(far), labels, untold(SPEC, 0.0), numbers)[1].any()
    every = np.ones(len(cloud), np.uint8)
    np.testing.assert_array_equal(raw_image(cloud, every, untold(SPEC, 0.0), numbers)[1], label_image(every, view))


def test_points_that_drop_out_are_no_clicks_where_each_counts() -> None:
    geometry, labels = raw()
    geometry = torch.cat((geometry, torch.zeros_like(geometry[:, :1])), dim=1)  # with a plane of objects
    few = labels * (torch.arange(labels[0].numel()).view(labels[0].shape) % 40 == 0)
    config = dataclasses.replace(NO_AUGMENTATION, drop=0.9)
    _, kept = augment_images(geometry.clone(), few.clone(), SPEC, config, np.random.default_rng(2))
    assert torch.equal(kept, few)
    _, dense = augment_images(geometry.clone(), labels.clone(), SPEC, config, np.random.default_rng(2))
    assert (dense > 0).sum() < (labels > 0).sum()


def test_no_switch_no_change() -> None:
    geometry, labels = raw()
    same_geometry, same_labels = augment_images(geometry.clone(), labels.clone(), SPEC, NO_AUGMENTATION, np.random.default_rng(1))
    torch.testing.assert_close(same_geometry, geometry, atol=1e-5, rtol=1e-5)
    assert torch.equal(same_labels, labels)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([SPEC, SECTOR]))
def test_augmentation_keeps_empty_pixels_empty_and_labels_on_points(seed: int, spec: RangeSpec) -> None:
    geometry, labels = raw(spec=spec)
    geometry, labels = augment_images(geometry, labels, spec, AugmentConfig(), np.random.default_rng(seed))
    empty = (geometry[:, :3] == 0).all(dim=1)
    assert (geometry[:, 3][empty] == 0).all()
    assert (labels[empty] == 0).all()
    assert geometry.shape[2:] == labels.shape[1:] == (spec.height, spec.width)
    assert torch.isfinite(geometry).all()


@pytest.mark.parametrize("spec", [SPEC, SECTOR])
@pytest.mark.parametrize("switch", [{"flip": 1.0}, {"turn": 0.5}, {"flip": 1.0, "turn": 0.3}])
def test_mirrored_and_turned_images_are_images_of_mirrored_and_turned_points(spec: RangeSpec, switch: dict[str, float]) -> None:
    """Coordinates and columns must move together: projecting the moved points again gives the same columns."""
    config = dataclasses.replace(NO_AUGMENTATION, **switch)
    geometry, labels = augment_images(*raw(spec=spec), spec, config, np.random.default_rng(5))
    for image, label in zip(geometry, labels, strict=True):
        points = image.permute(1, 2, 0)[(image[:3] != 0).any(dim=0)].numpy()
        again, _ = raw_image(make_cloud(points[:, :3], points[:, 3]), np.zeros(len(points), np.uint8), untold(spec, 0.0))
        filled = (again[:3] != 0).any(axis=0)
        measured = slice(0, 4)  # the height comes from the scan as it was; noise has no ground that could be found again
        agree = np.isclose(again[measured], image[measured].numpy(), atol=1e-4).all(axis=0)[filled].mean()
        assert agree > 0.97  # a point on the border of two columns may change sides by rounding
        assert (label > 0).any()


def test_turning_a_sector_leaves_entering_columns_empty() -> None:
    config = dataclasses.replace(NO_AUGMENTATION, turn=0.5)
    before, _ = raw(spec=SECTOR)
    after, _ = augment_images(before.clone(), raw(spec=SECTOR)[1], SECTOR, config, np.random.default_rng(3))
    counts = [((image[:, :3] != 0).any(dim=1)).sum() for image in (before, after)]
    assert counts[1] < counts[0]


def test_mix_takes_columns_of_the_neighbour_with_their_labels() -> None:
    geometry, labels = raw()
    config = dataclasses.replace(NO_AUGMENTATION, mix=1.0)
    mixed, mixed_labels = augment_images(geometry.clone(), labels.clone(), SPEC, config, np.random.default_rng(2))
    for i in range(3):
        own = (mixed[i] == geometry[i]).all(dim=0).all(dim=0)
        other = (mixed[i] == geometry[i - 1]).all(dim=0).all(dim=0)
        assert (own | other).all()
        assert SPEC.width // 8 <= other.sum() <= SPEC.width // 2 + 2
        source = torch.where(own, labels[i], labels[i - 1])
        assert torch.equal(mixed_labels[i], source)


def test_drop_and_crop() -> None:
    config = dataclasses.replace(NO_AUGMENTATION, drop=0.5, crop_columns=24)
    geometry, labels = augment_images(*raw(), SPEC, config, np.random.default_rng(2))
    assert geometry.shape == (3, 5, 16, 24)
    assert labels.shape == (3, 16, 24)
    whole, _ = augment_images(*raw(), SPEC, dataclasses.replace(config, drop=0.0), np.random.default_rng(2))
    kept = (geometry != 0).sum() / (whole != 0).sum()
    assert 0.5 < kept < 1.0


def test_moved_points_are_a_rigid_motion_with_scale() -> None:
    cloud = ToyScans()[0].cloud
    config = AugmentConfig(where="points", shift_m=5.0)
    moved = move_points(cloud, config, np.random.default_rng(4))
    assert (moved.valid == cloud.valid).all()
    pairs = np.flatnonzero(cloud.valid)[:2], np.flatnonzero(cloud.valid)[2:4]
    before = np.linalg.norm(cloud.xyz[pairs[0]] - cloud.xyz[pairs[1]], axis=1)
    after = np.linalg.norm(moved.xyz[pairs[0]] - moved.xyz[pairs[1]], axis=1)
    assert np.ptp(after / before) < 1e-4
    assert abs((after / before)[0] - 1) <= config.scale + 1e-6


def test_coarse3d_moves_points_as_published() -> None:
    """Half of the draws leave each of the seven motions out; the rest stay inside the published bounds."""
    cloud = make_cloud([[10, 0, 0], [0, 10, 0], [0, 0, 10], [1, 1, 1]])
    found = np.array(
        [move_points(cloud, AugmentConfig(where="coarse3d"), np.random.default_rng(seed)).xyz for seed in range(400)]
    )
    mirrored = np.linalg.det(found[:, :3] - found[:, 3:]) < 0
    assert 0.4 < mirrored.mean() < 0.6
    distances = np.linalg.norm(found[:, 0] - found[:, 1], axis=1)
    np.testing.assert_allclose(distances, np.hypot(10, 10), rtol=1e-5)
    lift = found[:, 3, 2]
    assert lift.min() > 1 - 1 - 0.6
    assert lift.max() < 1 + 0.6
    untouched = np.isclose(found[:, 3], 1.0, atol=1e-6).all(axis=1).mean()
    assert 0 < untouched < 0.05  # 2^-7 of the draws


def test_point_augmentation_projects_anew_and_needs_a_projection() -> None:
    moving = images(AugmentConfig(where="points", mix=0.0))
    first, _ = moving.draw([0], np.random.default_rng(0))
    second, _ = moving.draw([0], np.random.default_rng(1))
    assert not torch.equal(first, second)
    with pytest.raises(ConfigError, match="grid"):
        images(AugmentConfig(where="points"), dataclasses.replace(SPEC, rows="grid"))


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(where="points")])
def test_the_cache_changes_nothing(augment: AugmentConfig) -> None:
    cached, uncached = images(augment), images(augment, cache_gib=0.0)
    for step in range(3):
        ours, theirs = (source.draw([0, 2], step_generator(step, 0, 7)) for source in (cached, uncached))
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 3), st.integers(0, 5))
def test_every_scan_is_seen_equally_often_by_all_processes_together(count: int, batch: int, world: int, seed: int) -> None:
    steps = -(-2 * count // (batch * world))
    drawn = [scans_of_step(s, count, batch, rank, world, seed) for s in range(steps) for rank in range(world)]
    seen = np.concatenate(drawn)[: 2 * count]
    assert (np.bincount(seen, minlength=count) == 2).all()


@pytest.mark.parametrize("augment", [NO_AUGMENTATION, AugmentConfig(), AugmentConfig(where="points", mix=1.0)])
def test_objects_follow_their_labels_and_no_number_stands_in_two_scans(augment: AugmentConfig) -> None:
    class Objects(ToyScans):
        def __getitem__(self, index: int) -> Scan:  # object 7 * class is all that has the class
            scan = super().__getitem__(index)
            return dataclasses.replace(scan, instance_id=(7 * scan.class_id).astype(np.uint16))

    source = ScanImages(Objects(), lambda scan: scan.class_id * (np.arange(600) % 2 == 0), SPEC, augment, instances=True)
    spec = plain_spec(SPEC, ("range",), IntensityRule(False))
    batch = make_batch(spec, *source.draw(range(3), np.random.default_rng(0)))
    assert torch.equal(batch.instances > 0, batch.labels > 0)
    numbers = [set(scan.unique().tolist()) - {0} for scan in batch.instances]
    assert len(set.union(*numbers)) == sum(map(len, numbers)) >= 9
    for number in set.union(*numbers):
        assert len(batch.labels[batch.instances == number].unique()) == 1
    if augment.mix == 1.0:
        assert max(map(len, numbers)) > 3  # objects of two scans, still apart
    if not augment.mix:
        assert list(map(len, numbers)) == [3, 3, 3]
    assert make_batch(spec, *raw()).instances is None


def test_draws_depend_on_seed_step_and_process_only() -> None:
    draws = {
        (seed, step, rank): step_generator(step, rank, seed).random() for seed in (0, 1) for step in (0, 1) for rank in (0, 1)
    }
    assert len(set(draws.values())) == 8
    assert draws[1, 0, 1] == step_generator(0, 1, 1).random()


def test_survey_counts_and_measures() -> None:
    statistics = survey(images(), CHANNELS, LABELS.num_classes)
    values: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for scan in (ToyScans()[i] for i in range(3)):
        view = project(scan.cloud, SPEC)
        plain = plain_spec(SPEC, CHANNELS, IntensityRule(False))
        values.append(range_input(scan.cloud, view, plain)[:, view.point_of_pixel >= 0])
        labels.append(scan.class_id[scan.cloud.valid])
    table = np.concatenate(values, axis=1)
    np.testing.assert_allclose(statistics.mean, table.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(statistics.std, table.std(axis=1), rtol=1e-5)
    assert statistics.class_counts == tuple(np.bincount(np.concatenate(labels), minlength=4))
    assert statistics.label_ratio == 1.0
    assert 0 < statistics.clouds.filled_share < 1
    assert list(statistics.clouds.range_m.values()) == sorted(statistics.clouds.range_m.values())


def test_a_scan_on_another_intensity_scale_than_its_set_counts_as_the_net_sees_it() -> None:
    class InBytes(ToyScans):
        def __getitem__(self, index: int) -> Scan:
            scan = super().__getitem__(index)
            brighter = dataclasses.replace(scan.cloud, intensity=scan.cloud.intensity * 255, intensity_full_scale=255.0)
            return dataclasses.replace(scan, cloud=brighter)

    plain, in_bytes = (
        survey(ScanImages(scans, lambda scan: scan.class_id, SPEC, NO_AUGMENTATION), CHANNELS, LABELS.num_classes)
        for scans in (ToyScans(), InBytes())
    )
    np.testing.assert_allclose(in_bytes.mean, plain.mean, rtol=1e-5)
    np.testing.assert_allclose(list(in_bytes.clouds.intensity.values()), list(plain.clouds.intensity.values()), rtol=1e-5)


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    statistics = survey(images(), ("valid", "range"), LABELS.num_classes)
    assert statistics.mean[0] == 0.0
    assert statistics.std[0] == 1.0


@pytest.mark.parametrize("labels", [lambda scan: None, lambda scan: np.zeros(len(scan.cloud), np.uint8)])
def test_nothing_labelled_is_refused(labels) -> None:
    source = ScanImages(ToyScans(), labels, SPEC, NO_AUGMENTATION)
    with pytest.raises(DataError, match="none of the 3 training scans has a labelled point"):
        survey(source, CHANNELS, LABELS.num_classes)


def test_weights_of_labels_reach_the_batch_and_given_labels_win_their_pixel() -> None:
    """Two points of one pixel: the nearer one's label was carried there, the farther one's was given."""
    cloud = make_cloud(np.array([[10.0, 0, 0], [10.05, 0, 0], [0, 10.0, 0], [0, -10.0, 0]]), np.ones(4))
    labels, weight = np.array([1, 2, 3, 0], np.uint8), np.array([0.25, 1.0, 0.5, 0.0], np.float32)
    image, chosen = raw_image(cloud, labels, untold(SPEC, 0.0), weight=weight)
    view = project(cloud, SPEC)
    pixels = np.unravel_index(view.pixel_of_point, (SPEC.height, SPEC.width))
    assert chosen[pixels].tolist() == [2, 2, 3, 0]
    assert image[WEIGHT_PLANE][pixels].tolist() == [1.0, 1.0, 0.5, 0.0]
    batch = make_batch(
        plain_spec(SPEC, CHANNELS, IntensityRule(required=False)), torch.from_numpy(image)[None], torch.from_numpy(chosen)[None]
    )
    assert batch.weights is not None
    assert ((batch.weights[0] > 0) == (batch.labels[0] > 0)).all()


def test_weights_follow_their_labels_through_augmentation() -> None:
    class Weighted(ToyScans):
        def __getitem__(self, index: int) -> Scan:
            scan = super().__getitem__(index)
            assert scan.class_id is not None
            return dataclasses.replace(scan, label_weight=scan.class_id.astype(np.float32) / 4)

    augment = AugmentConfig(mix=1.0, bands=1.0, drop=0.3, flip=0.5, turn=0.5)
    source = ScanImages(Weighted(), lambda scan: scan.class_id, SPEC, augment, weights=True)
    geometry, labels = source.draw(range(3), np.random.default_rng(0))
    assert len(labels.unique()) == 4
    torch.testing.assert_close(geometry[:, WEIGHT_PLANE], labels / 4)
    assert not source.points(0)[1].any()  # none of them was given
    unweighted = ScanImages(ToyScans(), lambda scan: scan.class_id, SPEC, augment, weights=True)
    geometry, labels = unweighted.draw(range(3), np.random.default_rng(0))
    torch.testing.assert_close(geometry[:, WEIGHT_PLANE], (labels > 0).float())
