# SPDX-License-Identifier: Apache-2.0
"""Small bags of clouds whose points follow from their number, written with rosbags alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from rosbags import rosbag2
from rosbags.typesys import Stores, get_typestore

from weakseg_ros.data.bag_types import POINT_CLOUD
from weakseg_ros.data.bags import read_clouds

NEW, OLD = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)
START_NS = 1_700_000_000_000_000_000
COUNT = 3
STORAGE = {"mcap": rosbag2.StoragePlugin.MCAP, "sqlite3": rosbag2.StoragePlugin.SQLITE3}


def points(index: int) -> np.ndarray:
    return np.random.default_rng(index).uniform(-30, 30, (50, 4)).astype("<f4")


def message(index: int, store: object = NEW) -> object:
    types, values = store.types, points(index)
    stamp = types["builtin_interfaces/msg/Time"](sec=1_700_000_000, nanosec=index)
    old = {"seq": index} if store is OLD else {}
    fields = [types["sensor_msgs/msg/PointField"](name, 4 * i, 7, 1) for i, name in enumerate(("x", "y", "z", "intensity"))]
    return types[POINT_CLOUD](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="lidar", **old),
        **{"height": 1, "width": len(values), "fields": fields, "is_bigendian": False, "point_step": 16, "is_dense": True},
        **{"row_step": values.nbytes, "data": values.reshape(-1).view(np.uint8)},
    )


def cdr(index: int) -> bytes:
    return bytes(NEW.serialize_cdr(message(index), POINT_CLOUD))


def write(path: Path, storage: str = "mcap", packed: rosbag2.CompressionMode | None = None) -> Path:
    writer = rosbag2.Writer(path, version=8, storage_plugin=STORAGE[storage])
    if packed:
        writer.set_compression(packed, rosbag2.CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/points", POINT_CLOUD, typestore=NEW)
        for index in range(COUNT):
            writer.write(connection, START_NS + index, cdr(index))
    return path


def split_bag(folder: Path, storage: str = "mcap") -> Path:
    """A recording in three files of one cloud each, as `ros2 bag record --max-bag-size` splits it."""
    bag = write(folder / "drive", storage)
    (whole,) = (file for file in bag.iterdir() if file.suffix != ".yaml")
    content = yaml.safe_load((bag / "metadata.yaml").read_text())
    whole.unlink()
    names = [f"drive_{index}{whole.suffix}" for index in range(3)]
    for index, name in enumerate(names):
        with rosbag2.Writer(folder / name.removesuffix(whole.suffix), version=8, storage_plugin=STORAGE[storage]) as part:
            connection = part.add_connection("/points", POINT_CLOUD, typestore=NEW)
            part.write(connection, START_NS + index, cdr(index))
        (folder / name.removesuffix(whole.suffix) / name).rename(bag / name)
    content["rosbag2_bagfile_information"]["relative_file_paths"] = names
    (bag / "metadata.yaml").write_text(yaml.safe_dump(content))
    return bag


def assert_read(bag: Path, count: int = COUNT) -> None:
    clouds = [cloud for _, cloud in read_clouds(bag)]
    assert len(clouds) == count
    for index, cloud in enumerate(clouds):
        np.testing.assert_array_equal(cloud.xyz, points(index)[:, :3])
        np.testing.assert_array_equal(cloud.intensity, points(index)[:, 3])
