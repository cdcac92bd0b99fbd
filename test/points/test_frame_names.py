# SPDX-License-Identifier: Apache-2.0
"""What the frames of clouds tell by their names."""

from __future__ import annotations

import pytest

from weakseg_ros.points.frame_names import notes_on_frames


@pytest.mark.parametrize("frame", ["map", "robot_1/odom", "/camera_init"])
def test_a_frame_of_a_map_is_no_sensors(frame: str) -> None:
    (note,) = notes_on_frames([frame, frame])
    assert note.startswith(f"frame '{frame}' is that of a map")


def test_one_topic_is_of_one_sensor() -> None:
    (note,) = notes_on_frames(["rear", "front", "rear"])
    assert "the clouds come in 2 frames ('front', 'rear'): several sensors share the topic" in note


@pytest.mark.parametrize("frame", ["", "velodyne", "os_sensor", "base_link", "odometry_lidar", "mapper"])
def test_of_other_frames_nothing_is_said(frame: str) -> None:
    assert notes_on_frames([frame]) == []
