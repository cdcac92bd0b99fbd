# SPDX-License-Identifier: Apache-2.0
"""Bags of clouds, written without ROS: rosbag2 folders (mcap) that appear when they are whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rosbags import rosbag2

from weakseg_ros.data.bag_messages import build_message, cloud_message
from weakseg_ros.data.bag_types import POINT_CLOUD
from weakseg_ros.data.bags import ros2_types, serialized
from weakseg_ros.errors import DataError
from weakseg_ros.files import move_into, put_in_place, staged
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.encode import pack_cloud

METADATA_VERSION: Literal[9] = 9


class CloudBagWriter:
    """Writes clouds into a new rosbag2 folder (mcap); a context manager, the folder appears when it ends well.

    `frame_id` replaces that of the clouds where it is given. An existing bag is replaced only with `overwrite`; a
    folder that is no bag is never removed. Raises DataError.
    """

    def __init__(self, path: Path | str, topic: str = "/points", frame_id: str = "", *, overwrite: bool = False) -> None:
        self.path, self.topic, self.frame_id = Path(path), topic, frame_id
        is_bag = (self.path / "metadata.yaml").is_file()
        if self.path.exists() and not (overwrite and is_bag):
            advice = "set overwrite, or choose another name" if is_bag else "choose another name"
            raise DataError(f"{self.path}: exists already; {advice}")
        self._overwrite = overwrite
        self._stack = ExitStack()

    def __enter__(self) -> CloudBagWriter:
        with ExitStack() as stack:
            self._fresh = stack.enter_context(staged(self.path))
            stack.push(self._publish)
            self._written = stack.enter_context(staged(self.path)) / self.path.name
            stack.push(self._gather)
            plugin = rosbag2.StoragePlugin.MCAP
            self._writer = stack.enter_context(rosbag2.Writer(self._written, version=METADATA_VERSION, storage_plugin=plugin))
            self._connections: dict[tuple[str, str], Any] = {}
            self._connection(self.topic, POINT_CLOUD)  # a bag without a cloud names its topic, too
            self._stack = stack.pop_all()
        return self

    def write(self, cloud: Cloud) -> None:
        """Append one cloud, recorded at its own stamp, in the layout of `encode.CLOUD_DTYPE`."""
        self.write_points(self.topic, pack_cloud(cloud), cloud)

    def write_points(self, topic: str, points: NDArray[np.void], cloud: Cloud) -> None:
        """Append the points of a cloud as records (N,) of any dtype, recorded at the cloud's stamp."""
        shape, frame_id = (cloud.height, cloud.width), self.frame_id or cloud.frame_id
        message = cloud_message(ros2_types(), points, shape, cloud.stamp_ns, frame_id, not cloud.flags.any())
        self._writer.write(self._connection(topic, POINT_CLOUD), cloud.stamp_ns, serialized(message))

    def write_values(self, topic: str, kind: str, stamp_ns: int, values: Mapping[str, Any]) -> None:
        """Append a message that is built from plain values, see `build_message`."""
        message = build_message(ros2_types(), kind, values)
        self.write_message(topic, kind, stamp_ns, bytes(ros2_types().serialize_cdr(message, kind)))

    def write_message(self, topic: str, kind: str, stamp_ns: int, data: bytes) -> bool:
        """Append a message as ROS 2 sent it, recorded at `stamp_ns`; False where rosbags does not know its type."""
        if kind not in ros2_types().fielddefs:
            return False
        self._writer.write(self._connection(topic, kind), stamp_ns, data)
        return True

    def describe(self, facts: Mapping[str, str]) -> None:
        """Facts about the bag, which its metadata.yaml holds as custom_data."""
        for name, value in facts.items():
            self._writer.set_custom_data(name, value)

    def _connection(self, topic: str, kind: str) -> Any:
        if (topic, kind) not in self._connections:
            self._connections[topic, kind] = self._writer.add_connection(topic, kind, typestore=ros2_types())
        return self._connections[topic, kind]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, traceback)

    def _gather(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # the writer made its folder itself, under the bag's name, which the files' names hold
            move_into(self._written, self._fresh, "metadata.yaml")

    def _publish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.path.exists() and not self._overwrite:
            raise DataError(f"{self.path}: was created by another process meanwhile; choose another name")
        if kind is None:
            put_in_place(self._fresh, self.path)
