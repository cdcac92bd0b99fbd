# SPDX-License-Identifier: Apache-2.0
"""Label files beside a bag: which message each belongs to, also where messages are lost or cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import optional

optional("rosbags")

from rosbags import rosbag2

from support.recorded_bags import COUNT, NEW, START_NS, STORAGE, cdr, points, split_bag, write
from weakseg_ros.data.bag_types import POINT_CLOUD
from weakseg_ros.data.bags import PartialBagError
from weakseg_ros.errors import DataError
from weakseg_ros.measure.inputs import Item, numbers_of, open_input
from weakseg_ros.points.labels import LabelMap

MAP = LabelMap.load("semantickitti")


def label(folder: Path, count: int = COUNT) -> Path:
    """One file for each cloud, whose labels are all the raw id of its number: car, bicycle, bus."""
    folder.mkdir()
    for index in range(count):
        np.full(len(points(index)), (10, 11, 13)[index], np.uint32).tofile(folder / f"{index:06d}.label")
    return folder


def read(bag: Path, labels: Path) -> tuple[list[Item], DataError | None]:
    items: list[Item] = []
    try:
        items.extend(open_input(bag, MAP, label_folder=labels))
    except DataError as error:
        return items, error
    return items, None


def test_labels_are_not_given_to_other_clouds_where_a_part_of_the_bag_is_missing(tmp_path: Path) -> None:
    bag, labels = split_bag(tmp_path), label(tmp_path / "labels")
    items, error = read(bag, labels)
    assert (len(items), error) == (COUNT, None)
    (bag / "drive_1.mcap").unlink()
    items, error = read(bag, labels)
    assert [item.cloud.stamp_ns % 10 for item in items] == [0]
    text = "clouds before message 1 are lost, so which label file belongs to it is not known; leave the label files out"
    assert text in str(error)
    (source,) = [open_input(bag, MAP, label_folder=labels)]
    assert source.item(0).truth is not None
    with pytest.raises(DataError, match="clouds before message 1 are lost"):
        source.item(1)
    (bag / "drive_0.mcap").unlink()
    assert read(bag, labels)[0] == []


def test_labels_of_a_bag_that_was_cut_off_are_given_to_the_clouds_that_are_left(tmp_path: Path) -> None:
    bag, labels = split_bag(tmp_path), label(tmp_path / "labels")
    blob = (bag / "drive_2.mcap").read_bytes()
    (bag / "drive_2.mcap").write_bytes(blob[: blob.index(points(2).tobytes())])
    items, error = read(bag, labels)
    assert [int(item.truth[0]) for item in items if item.truth is not None] == [1, 2]
    assert isinstance(error, PartialBagError)


@pytest.mark.parametrize(
    ("names", "count", "of_scan"),
    [
        ([0, 2], 3, {0: 0, 2: 1}),
        ([0, 1], 3, {0: 0, 1: 1}),
        ([1, 2], 3, {1: 0, 2: 1}),
        ([1, 2], 5, {0: 0, 1: 1}),
        ([1, 2, 3], 3, {0: 0, 1: 1, 2: 2}),
        ([5, 9], 2, {0: 0, 1: 1}),
        ([100, 250], 200, {0: 0, 1: 1}),
    ],
)
def test_labels_belong_to_scans_by_number_only_where_some_have_none(
    tmp_path: Path, names: list[int], count: int, of_scan: dict[int, int]
) -> None:
    files = [tmp_path / f"{name:06d}.label" for name in names]
    assert numbers_of(files, count) == list(of_scan)


def test_labels_without_a_file_for_a_message_that_cannot_be_read_are_given_by_their_numbers(tmp_path: Path) -> None:
    labels = label(tmp_path / "labels")
    (labels / "000001.label").unlink()
    with rosbag2.Writer(tmp_path / "drive", version=8, storage_plugin=STORAGE["mcap"]) as writer:
        connection = writer.add_connection("/points", POINT_CLOUD, typestore=NEW)
        for index in range(COUNT):
            writer.write(connection, START_NS + index, cdr(index)[:60] if index == 1 else cdr(index))
    items, error = read(tmp_path / "drive", labels)
    assert error is None
    assert [(item.index, int(item.truth[0])) for item in items if item.truth is not None] == [(0, 1), (2, 5)]
    items, error = read(write(tmp_path / "sound"), labels)
    assert len(items) == 1
    assert "has more clouds than label files (2), none for message 1; label all of them" in str(error)
