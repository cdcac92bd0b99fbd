# SPDX-License-Identifier: Apache-2.0
"""Every row of registry.DATASETS keeps its contract, on a small data set in its owner's layout that each row has here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from support.grid_arrays import grid_arrays
from support.logged_frames import LABELS, frame
from weakseg_ros.data.scans import open_scans, recognised_as, splits_of
from weakseg_ros.data.sensaturban import SPLIT_OF
from weakseg_ros.errors import DataError
from weakseg_ros.improve.log.store import FrameWriter, Worth
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.registry import DATASETS


def frame_log(layouts: ModuleType, root: Path) -> None:
    with FrameWriter(root, LABELS, RangeSpec(), source="a test") as log:
        for _ in range(2):
            log.write(*frame(), Worth(0.5, "uncertain"))


def sensaturban(layouts: ModuleType, root: Path) -> None:
    layouts.write_sensaturban(root, [next(tile for tile, its in SPLIT_OF.items() if its == split) for split in ("train", "val")])


def archives(root: Path, **changes: int | bool) -> None:
    root.mkdir()
    for split, count in (("train", 2), ("val", 1)):
        np.savez(root / f"{split}.npz", **grid_arrays(count, **changes))


WRITERS: dict[str, Callable[[ModuleType, Path], object]] = {
    "frame_log": frame_log,
    "nuscenes": lambda layouts, root: layouts.write_nuscenes(root, [61, 103]),
    "s3dis": lambda layouts, root: layouts.write_s3dis(root, ["Area_1/office_1", "Area_5/office_1"]),
    "scannet": lambda layouts, root: layouts.write_scannet(root, ["scene0000_00"], ["scene0011_00"]),
    "semanticposs": lambda layouts, root: layouts.write_poss(root, ["00", "02"]),
    "sensaturban": sensaturban,
    "toronto3d": lambda layouts, root: layouts.write_toronto3d(root),
    "scans": lambda layouts, root: layouts.write_kitti(root, ["00", "08"]),
    "semantickitti_range": lambda layouts, root: archives(root, height=64, width=1024, stamps=False, top_label=19),
    "vlp32_drive": lambda layouts, root: archives(root),
}
"""by row, what writes a data set of at least two scans in the owner's layout into a folder that is not there yet"""


def test_every_row_has_a_layout_here() -> None:
    assert set(WRITERS) == set(DATASETS)


@pytest.fixture(scope="module", params=DATASETS)
def written(request: pytest.FixtureRequest, layouts: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(name of the row, folder in its layout)."""
    folder = tmp_path_factory.mktemp("rows") / "data"
    WRITERS[request.param](layouts, folder)
    return request.param, folder


def test_its_layout_is_recognised(written: tuple[str, Path]) -> None:
    name, folder = written
    assert recognised_as(folder) == name


def test_scans_are_those_of_the_keys_and_read_alike_each_time(written: tuple[str, Path]) -> None:
    scans = open_scans(written[1])
    assert len(scans) == len(scans.keys) == len(set(scans.keys)) >= 2
    assert scans.name
    assert scans.spec.height > 0
    assert scans.intensity_full_scale >= 0
    for index, key in enumerate(scans.keys):
        scan, again = scans[index], scans[index]
        assert scan.key == key
        assert len(scan.cloud) > 0
        np.testing.assert_array_equal(scan.cloud.xyz, again.cloud.xyz)
        for values, kind, end in ((scan.class_id, np.uint8, scans.labels.num_classes), (scan.instance_id, np.uint16, 1 << 16)):
            if values is not None:
                assert (values.shape, values.dtype) == ((len(scan.cloud),), kind)
                assert values.max(initial=0) < end
        assert scan.pose is None or scan.pose.shape == (4, 4)
    with pytest.raises(IndexError):
        scans[len(scans)]


def test_parts_are_of_the_whole_and_have_hashes_of_their_own(written: tuple[str, Path]) -> None:
    folder = written[1]
    whole = open_scans(folder)
    assert whole.content_hash == open_scans(folder).content_hash
    hashes = {whole.content_hash}
    for split in splits_of(folder):
        part = open_scans(folder, split)
        assert 0 < len(part) <= len(whole)
        assert set(part.keys) <= set(whole.keys)
        hashes.add(part.content_hash)
    assert len(hashes) == 1 + len(splits_of(folder))
    with pytest.raises(DataError):
        open_scans(folder, "no such part")
