# SPDX-License-Identifier: Apache-2.0
"""Clouds in .las, .laz and .feather, which optional libraries read: scales, large coordinates, nulls and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import optional
from weakseg_ros.data.cloud_files import read_cloud_file
from weakseg_ros.errors import DataError


def written_las(path: Path, offset: float = 0.0) -> Path:
    """Forty points with intensities of 16 bits, stored in steps of a millimetre."""
    laspy = optional("laspy")
    optional("lazrs")
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.scales, header.offsets = [0.001] * 3, [offset, offset, 0.0]
    data = laspy.LasData(header)
    data.x, data.y, data.z = np.arange(40) + offset, np.arange(40) * 0.5 + offset, np.full(40, -1.7)
    data.intensity = np.arange(40) * 1000
    data.write(path)
    return path


@pytest.mark.parametrize("kind", [".las", ".laz"])
def test_las_is_read_with_its_scale_and_damage_is_one_sentence(tmp_path: Path, kind: str) -> None:
    path = written_las(tmp_path / f"cloud{kind}")
    cloud = read_cloud_file(path)
    np.testing.assert_allclose(cloud.xyz[3], (3.0, 1.5, -1.7), rtol=1e-6)
    assert (cloud.intensity.max(), cloud.intensity_full_scale) == (39000.0, 65535.0)
    for name, content in {"cut": path.read_bytes()[:-77], "empty": b"", "page": b"<html>" * 100}.items():
        damaged = tmp_path / f"{name}{kind}"
        damaged.write_bytes(content)
        with pytest.raises(DataError, match=f"{name}{kind}: cannot be read as LAS .*; copy it again"):
            read_cloud_file(damaged)


def test_positions_that_float32_cannot_hold_are_said(tmp_path: Path) -> None:
    (note,) = read_cloud_file(written_las(tmp_path / "utm.las", 5_000_000.0)).notes
    assert "rounded to steps of 0.5 m; subtract an offset first" in note
    assert read_cloud_file(written_las(tmp_path / "near.las")).notes == ()


def test_feather_is_read_with_nulls_halves_and_stamps(tmp_path: Path) -> None:
    pyarrow = optional("pyarrow")
    from pyarrow import feather

    path = tmp_path / "315966265259836000.feather"
    rows = {axis: np.arange(40, dtype=np.float16) for axis in "xyz"}
    lasers = np.arange(40, dtype=np.uint8)
    feather.write_feather(pyarrow.table({**rows, "intensity": lasers, "laser_number": lasers}), path)
    cloud = read_cloud_file(path)
    assert (cloud.stamp_ns, cloud.intensity_full_scale) == (315966265259836000, 255.0)
    assert cloud.ring is not None
    assert cloud.ring.tolist() == lasers.tolist()
    feather.write_feather(pyarrow.table({**rows, "x": pyarrow.array([None, *np.arange(39.0)])}), path)
    assert read_cloud_file(path).flags[:2].tolist() == [1, 0]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="cannot be read as feather"):
        read_cloud_file(path)
    feather.write_feather(pyarrow.table({"points": [[1.0, 2.0, 3.0]] * 40}), path)
    with pytest.raises(DataError, match=r"has no column x or y or z \(has points\)"):
        read_cloud_file(path)
