# SPDX-License-Identifier: Apache-2.0
"""Mixed scans: every pixel comes from one of the two, with its label; pasted objects lie where a turned sensor sees them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.batches.augment import augment_images
from weakseg_ros.batches.batches import ScanImages, raw_image, untold
from weakseg_ros.batches.mixing import OBJECT_PLANE, mix_bands, mix_sectors, paste_objects, turn
from weakseg_ros.batches.settings import NO_AUGMENTATION, AugmentConfig
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.deploy.input_spec import PLANES
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

SPEC = RangeSpec(16, 48, fov_up_deg=15.0, fov_down_deg=-15.0)
SECTOR = dataclasses.replace(SPEC, fov_left_deg=45.0, fov_right_deg=-45.0)
CAR, PERSON = 2, 3


def scan_images(
    count: int, seed: int = 0, planes: int = len(PLANES), spec: RangeSpec = SPEC
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw images of random clouds whose points all have a label; a plane more numbers objects apart."""
    pairs = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        direction = rng.normal(size=(900, 3)) * (1, 1, 0.15)
        xyz = direction / np.linalg.norm(direction, axis=1)[:, None] * rng.uniform(2, 50, (900, 1))
        label = rng.integers(1, 4, 900).astype(np.uint8)
        pairs.append(raw_image(make_cloud(xyz, rng.random(900)), label, untold(spec, 0.0)))
    geometry = torch.from_numpy(np.stack([g for g, _ in pairs]))
    labels = torch.from_numpy(np.stack([y for _, y in pairs]))
    if planes > OBJECT_PLANE:
        number = torch.arange(1, count + 1)[:, None, None] * (labels == CAR)
        geometry = torch.cat((geometry, number[:, None].float()), dim=1)
    return geometry, labels


def sources(mixed: torch.Tensor, geometry: torch.Tensor, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(H, W) each: the pixel is the scan's own; it is the other scan's."""
    return (mixed[i] == geometry[i]).all(dim=0), (mixed[i] == geometry[i - 1]).all(dim=0)


@given(st.integers(2, 9), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_bands_alternate_between_two_scans(bands: int, seed: int) -> None:
    geometry, labels = scan_images(3)
    mixed, mixed_labels = mix_bands(geometry, labels, 1.0, (bands,), np.random.default_rng(seed))
    for i in range(3):
        own, other = sources(mixed, geometry, i)
        rows_own, rows_other = own.all(dim=1), other.all(dim=1)
        assert (rows_own | rows_other).all()
        changes = int((rows_own[1:] != rows_own[:-1]).sum())
        assert changes == bands - 1
        lengths = torch.unique_consecutive(rows_own, return_counts=True)[1]
        assert lengths.max() - lengths.min() <= 1  # bands of equal inclination
        assert torch.equal(mixed_labels[i], torch.where(rows_own[:, None], labels[i], labels[i - 1]))


def test_the_number_of_bands_varies_and_either_scan_may_begin() -> None:
    geometry, labels = scan_images(2)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        mixed, _ = mix_bands(geometry, labels, 1.0, (3, 4, 5, 6), rng)
        own = sources(mixed, geometry, 0)[0].all(dim=1)
        seen.add((int((own[1:] != own[:-1]).sum()) + 1, bool(own[0])))
    assert seen == {(bands, first) for bands in (3, 4, 5, 6) for first in (True, False)}


def test_a_sector_of_the_published_size() -> None:
    geometry, labels = scan_images(2)
    for seed in range(10):
        mixed, _ = mix_sectors(geometry, labels, 1.0, 0.5, np.random.default_rng(seed))
        own, other = (which.all(dim=0) for which in sources(mixed, geometry, 0))
        assert (int(own.sum()), int(other.sum())) == (24, 24)
        assert int((own != own.roll(1)).sum()) == 2  # one piece, perhaps over the seam


@pytest.mark.parametrize("columns", [0, 7, 48, -5])
def test_turning_an_image_turns_its_points(columns: int) -> None:
    """The turned points, projected anew, fall into the pixels where they were put."""
    geometry, _ = scan_images(1)
    turned = turn(geometry[0], columns, SPEC)
    filled = (turned[:3] != 0).any(dim=0)
    points = turned.permute(1, 2, 0)[filled].numpy()
    again, _ = raw_image(make_cloud(points[:, :3], points[:, 3]), np.zeros(len(points), np.uint8), untold(SPEC, 0.0))
    measured = slice(0, 4)  # noise has no ground that could be found again
    agree = np.isclose(again[measured], turned[measured].numpy(), atol=1e-4).all(axis=0)[filled.numpy()].mean()
    assert agree > 0.97  # a point on the border of two pixels may change sides by rounding
    np.testing.assert_allclose(turned[:3].norm(dim=0).sum(), geometry[0, :3].norm(dim=0).sum(), rtol=1e-5)


@pytest.mark.parametrize("spec", [SPEC, SECTOR])
@pytest.mark.parametrize("copies", [1, 3])
def test_pasted_objects_are_turned_copies_and_the_nearest_stays(spec: RangeSpec, copies: int) -> None:
    geometry, labels = scan_images(2, planes=OBJECT_PLANE + 1, spec=spec)
    mixed, mixed_labels = paste_objects(geometry, labels, spec, 1.0, (CAR,), copies, np.random.default_rng(4))
    for i in range(2):
        new = (mixed[i] != geometry[i]).any(dim=0)
        assert new.any()
        assert (mixed_labels[i][new] == CAR).all()
        assert torch.equal(mixed_labels[i][~new], labels[i][~new])
        before, after = geometry[i, :3].norm(dim=0), mixed[i, :3].norm(dim=0)
        assert ((before == 0) | (after < before + 1e-4))[new].all()
        ranges = geometry[i - 1, :3].norm(dim=0)[labels[i - 1] == CAR]
        differences = (after[new][:, None] - ranges[None]).abs().min(dim=1).values
        assert differences.max() < 1e-4  # turning keeps the distance
        numbers = set(mixed[i, OBJECT_PLANE][new].int().tolist())
        assert 1 <= len(numbers) <= copies
        assert numbers.isdisjoint({0, 1, 2})  # copies are other objects than those that were there


def test_pasted_copies_lie_in_different_parts_of_the_circle() -> None:
    geometry, labels = torch.zeros(2, 4, 16, 48), torch.zeros(2, 16, 48, dtype=torch.uint8)
    geometry[0, :, 8, 24] = torch.tensor([10.0, 0.0, 0.0, 0.5])  # one point straight ahead, to be pasted into the empty scan
    labels[0, 8, 24] = CAR
    for seed in range(20):
        mixed, mixed_labels = paste_objects(geometry, labels, SPEC, 1.0, (CAR, PERSON), 3, np.random.default_rng(seed))
        found = torch.nonzero(mixed_labels[1])
        assert (found[:, 0] == 8).all()
        turned = sorted(int(column) for column in (found[:, 1] - 24) % 48)
        in_thirds = [[c for c in turned if 16 * third <= c <= 16 * third + 16] for third in range(3)]
        assert sum(map(bool, in_thirds)) >= 2  # a copy on the border of two thirds may fall together with the next
        assert len(turned) <= 3
        for column in turned:
            azimuth = np.pi - (column + 24) % 48 * 2 * np.pi / 48
            point = mixed[1, :3, 8, (column + 24) % 48]
            np.testing.assert_allclose(point, [10 * np.cos(azimuth), 10 * np.sin(azimuth), 0], atol=1e-4)


def test_with_probability_0_or_a_single_scan_nothing_changes() -> None:
    for count, probability in ((3, 0.0), (1, 1.0)):
        geometry, labels = scan_images(count)
        rng = np.random.default_rng(0)
        for mixed in (
            mix_sectors(geometry, labels, probability, 0.5, rng),
            mix_bands(geometry, labels, probability, (3,), rng),
            paste_objects(geometry, labels, SPEC, probability, (CAR,), 3, rng),
        ):
            assert torch.equal(mixed[0], geometry)
            assert torch.equal(mixed[1], labels)


@pytest.mark.parametrize("switch", [{"bands": 1.0}, {"paste": 1.0}, {"mix": 1.0, "mix_share": 0.5}])
def test_each_switch_is_its_own(switch: dict[str, float]) -> None:
    config = dataclasses.replace(NO_AUGMENTATION, **switch)
    geometry, labels = scan_images(2)
    ours = augment_images(geometry.clone(), labels.clone(), SPEC, config, np.random.default_rng(1), (CAR,))
    again = augment_images(geometry.clone(), labels.clone(), SPEC, config, np.random.default_rng(1), (CAR,))
    assert not torch.equal(ours[0], geometry)
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))


class TwoScans:
    """Two scans whose label map has a thing."""

    name, keys, content_hash, intensity_full_scale, spec = "two", ("a", "b"), "0", 1.0, SPEC

    def __init__(self, things: bool = True) -> None:
        rows = [LabelClass(i, f"class{i}", (i, i, i), things and i == CAR, (i,)) for i in range(4)]
        self.labels = LabelMap("toy", tuple(rows))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Scan:
        rng = np.random.default_rng(index)
        xyz = rng.normal(size=(400, 3)) * (10, 10, 1)
        return Scan(self.keys[index], make_cloud(xyz), np.full(400, index + 1, np.uint8), None, None)


def test_things_are_pasted_unless_classes_are_named() -> None:
    def classes(**changes: object) -> set[int]:
        config = dataclasses.replace(NO_AUGMENTATION, paste=1.0, **changes)
        source = ScanImages(TwoScans(), lambda scan: scan.class_id, SPEC, config)
        return set(source.draw([0], np.random.default_rng(0))[1].unique().tolist()) | set(
            source.draw([0, 1], np.random.default_rng(0))[1][0].unique().tolist()
        )

    assert classes() == {0, 1, CAR}
    assert classes(paste_classes=("class1",)) == {0, 1}
    with pytest.raises(ConfigError, match="no class 'clas2'; did you mean 'class2'"):
        classes(paste_classes=("clas2",))
    config = AugmentConfig(paste=0.5)
    with pytest.raises(ConfigError, match="'toy' has no thing classes to paste"):
        ScanImages(TwoScans(things=False), lambda scan: scan.class_id, SPEC, config)
    with pytest.raises(ConfigError, match="band_counts"):
        AugmentConfig(band_counts=())
