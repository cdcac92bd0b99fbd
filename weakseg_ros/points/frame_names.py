# SPDX-License-Identifier: Apache-2.0
"""What the names of the frames of clouds tell: clouds in a map's frame, and clouds of several sensors in one topic."""

from __future__ import annotations

from collections.abc import Iterable

from weakseg_ros.errors import counted

OF_MAPS = ("map", "odom", "earth", "camera_init")
"""frames that stay behind where a robot moves, the last one of LOAM and its kin"""


def notes_on_frames(frame_ids: Iterable[str]) -> list[str]:
    """One sentence for each thing that is odd about the frames of some clouds of a topic."""
    frames = sorted(set(frame_ids))
    notes = [
        f"frame '{frame}' is that of a map, and a model needs clouds as they are seen from the sensor; use the topic in the "
        "sensor's own frame"
        for frame in frames
        if frame.rpartition("/")[2] in OF_MAPS
    ]
    if len(frames) > 1:
        names = ", ".join(repr(frame) for frame in frames)
        notes.append(
            f"the clouds come in {counted(len(frames), 'frame')} ({names}): several sensors share the topic, or the driver "
            "was set up anew; use a topic of one sensor in its own frame"
        )
    return notes
