# SPDX-License-Identifier: Apache-2.0
"""Crops for networks on points: they cover the scans evenly, repeat with their seed, and keep labels where they were."""

from __future__ import annotations

import numpy as np
import pytest

from support import optional

torch = optional("torch")
from weakseg_ros.batches.batches import step_generator, untold
from weakseg_ros.batches.point_crops import PointCrops
from weakseg_ros.batches.settings import NO_AUGMENTATION, AugmentConfig
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.deploy.input_spec import IntensityRule, plain_spec
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.crops import PointsSpec
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.weak.protocols import SparseConfig, draw_scan

LABELS = LabelMap("three", tuple(LabelClass(i, f"class {i}", (i, 0, 0), False, (i,)) for i in range(4)))
POINTS = PointsSpec(grid_m=0.2, points=128, neighbours=4, ratios=(4, 2))
RANGE = RangeSpec(8, 32)
CHANNELS = ("x", "y", "z", "red")
SPEC = plain_spec(RANGE, CHANNELS, IntensityRule(False), points=POINTS)


class Rooms:
    """Two rooms of many points and a cupboard of few; the class is the third of the red, so that it can be read from it."""

    name, labels, spec, intensity_full_scale, content_hash = "rooms", LABELS, RANGE, 0.0, "x"
    keys = ("0", "1", "2")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Scan:
        rng = np.random.default_rng(index)
        xyz = rng.uniform(0, (4, 4, 0.1), (40 if index == 2 else 3000, 3)).astype(np.float32)
        class_id = (np.floor(xyz[:, 0] / 0.2).astype(int) % 3 + 1).astype(np.uint8)
        return Scan(self.keys[index], make_cloud(xyz, rgb=np.repeat(class_id[:, None] * 80, 3, 1)), class_id, None, None)


def crops(augment: AugmentConfig = NO_AUGMENTATION, **kwargs: object) -> PointCrops:
    told = untold(RANGE, 0.0, points=POINTS)
    return PointCrops(Rooms(), lambda scan: scan.class_id, RANGE, augment, told=told, **kwargs)


def test_a_round_sees_every_place_and_short_crops_are_padded_without_labels() -> None:
    source = crops()
    numbers = [n for step in range(13) for n in source.of_step(step, 2, 0, 1, seed=5)]
    assert {n >> 32 for n in numbers} == {0, 1, 2}
    batch = source.batch(
        SPEC, [next(n for n in numbers if n >> 32 == 2), next(n for n in numbers if n >> 32 == 0)], step_generator(0, 0, 5)
    )
    assert batch.image.shape == (2, len(CHANNELS), 1, 128)
    assert batch.labels.shape == batch.mask.shape == (2, 1, 128)
    own = int(batch.mask[0].sum())
    assert own <= 40
    assert not batch.labels[0][~batch.mask[0]].any()
    assert batch.mask[1].all()
    assert len(batch.further) == 4 * len(POINTS.ratios)
    torch.testing.assert_close(batch.xyz[:, :, 0].mean(dim=2), torch.zeros(2, 3), atol=1e-4, rtol=0)


def test_labels_stay_with_their_points() -> None:
    source = crops(AugmentConfig(flip=1.0, turn=0.5, tilt_deg=0.0))
    batch = source.batch(SPEC, source.of_step(0, 3, 0, 1, seed=1), step_generator(0, 0, 1))
    red = batch.image[:, CHANNELS.index("red")] * 255 / 80
    torch.testing.assert_close(red[batch.mask], batch.labels[batch.mask].float(), atol=0.51, rtol=0)


def test_the_same_step_of_the_same_seed_is_the_same_batch_cached_or_not() -> None:
    first, second = crops(AugmentConfig()), crops(AugmentConfig(), cache_gib=0.0)
    for source in (first, second):
        source.of_step(3, 2, 0, 1, seed=2)  # as a resumed run asks for a later step first
    batches = [source.batch(SPEC, source.of_step(30, 2, 1, 2, seed=2), step_generator(30, 1, 2)) for source in (first, second)]
    for ours, theirs in zip((batches[0].image, *batches[0].further), (batches[1].image, *batches[1].further), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert first.of_step(0, 4, 0, 1, seed=2) != first.of_step(0, 4, 0, 1, seed=3)


def test_processes_share_a_round() -> None:
    source = crops()
    whole = source.of_step(0, 6, 0, 1, seed=0)
    assert [n for rank in range(3) for n in source.of_step(0, 2, rank, 3, seed=0)] == whole


def test_colours_may_be_lost_and_what_moves_images_alone_is_refused() -> None:
    source = crops(AugmentConfig(color_drop=1.0))
    batch = source.batch(SPEC, source.of_step(0, 1, 0, 1, seed=1), step_generator(0, 0, 1))
    assert not batch.image[:, CHANNELS.index("red")].any()
    wrong = crops(AugmentConfig(where="coarse3d"))
    with pytest.raises(ConfigError, match="coarse3d"):
        wrong.batch(SPEC, wrong.of_step(0, 1, 0, 1, seed=1), step_generator(0, 0, 1))


def test_a_share_of_the_cells_of_each_class_is_drawn() -> None:
    scan = Rooms()[0]
    config = SparseConfig(protocol="per_class", ratio=0.1, grid_m=0.2)
    drawn = draw_scan(scan, LABELS, config)
    source = PointCrops(
        Rooms(),
        lambda scan: draw_scan(scan, LABELS, config).class_id,
        RANGE,
        NO_AUGMENTATION,
        told=untold(RANGE, 0.0, points=POINTS),
    )
    prepared = source.prepared(0)
    dense = crops().prepared(0).labels
    for wanted in (1, 2, 3):
        cells = np.count_nonzero(dense == wanted)
        assert np.count_nonzero(drawn.class_id == wanted) == max(int(0.1 * cells), 1)
        assert np.count_nonzero(prepared.labels == wanted) == max(int(0.1 * cells), 1)
    assert np.array_equal(drawn.class_id[drawn.clicks], scan.class_id[drawn.clicks])
    assert config.folder_name == "per_class-0.1-g0.2-s0"
