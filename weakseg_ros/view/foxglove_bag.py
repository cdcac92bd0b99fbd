# SPDX-License-Identifier: Apache-2.0
"""Scans as a bag that Foxglove and RViz show as it is: labelled clouds with colours, boxes, the share of wrong points."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.errors import counted
from weakseg_ros.points.labelled import pack_labelled
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.view.frames import Recording
from weakseg_ros.view.panes import CLASSES, ERRORS, Side, box_edges, boxes_of, colors_of, share_wrong, sides_of

FRAME = "lidar"
"""the frame of everything, the sensor's own"""
LINE_LIST, LINE_M = 5, 0.05
STEP_NS = 100_000_000
"""between two scans whose stamps do not rise, as those of folders without times"""


def write_bag(frames: Recording, path: Path, problems: list[str], every: int = 1) -> str:
    """Write every n-th scan into the new folder `path`; returns a sentence on what was written. DataError where it exists.

    Scans that cannot be read are left out and told in `problems`.

    For each pane NAME: /NAME/points (x, y, z, class_id, flags, instance_id, confidence, uncertainty, rgb), /NAME/boxes
    (MarkerArray), /NAME/errors (the points in the colours of right, wrong, no label) and /NAME/wrong (the share of wrong points).
    /points has the clouds, /classes the label map as JSON.
    """
    last_ns = written = 0
    with CloudBagWriter(path, frame_id=FRAME) as bag:
        for _, shown in frames.readable(every, problems):
            written += 1
            stamp_ns = shown.cloud.stamp_ns if shown.cloud.stamp_ns > last_ns else last_ns + STEP_NS
            if not last_ns:
                bag.write_values("/classes", "std_msgs/msg/String", stamp_ns, {"data": _classes(frames.labels)})
            last_ns = stamp_ns
            cloud = replace(shown.cloud, stamp_ns=stamp_ns)
            bag.write(cloud)
            for side in sides_of(replace(shown, cloud=cloud), frames.models):
                _write_side(bag, side, frames.labels)
    return f"{path}: {counted(written, 'scan')}; open its .mcap file in Foxglove, or play it with 'ros2 bag play {path}'"


def _write_side(bag: CloudBagWriter, side: Side, labels: LabelMap) -> None:
    topic, stamp_ns = "/" + re.sub(r"\W+", "_", side.title), side.cloud.stamp_ns
    bag.write_points(f"{topic}/points", _points(side, colors_of(side, CLASSES, labels)), side.cloud)
    markers = {"markers": [_boxes(side, labels)]}
    bag.write_values(f"{topic}/boxes", "visualization_msgs/msg/MarkerArray", stamp_ns, markers)
    wrong = share_wrong(side)
    if wrong is not None:
        bag.write_points(f"{topic}/errors", _points(side, colors_of(side, ERRORS, labels)), side.cloud)
        bag.write_values(f"{topic}/wrong", "std_msgs/msg/Float32", stamp_ns, {"data": wrong})


def _boxes(side: Side, labels: LabelMap) -> dict[str, Any]:
    """One marker with the edges of all boxes; it takes the place of the scan before's."""
    found = boxes_of(side, labels)
    second, nanosecond = divmod(side.cloud.stamp_ns, 10**9)
    colors = labels.colors[found["class_id"]].repeat(24, axis=0) / 255.0
    return {
        "header": {"frame_id": FRAME, "stamp": {"sec": second, "nanosec": nanosecond}},
        "ns": "boxes",
        "type": LINE_LIST,
        "pose": {"orientation": {"w": 1.0}},
        "scale": {"x": LINE_M},
        "color": {"a": 1.0},
        "points": [dict(zip("xyz", map(float, point), strict=True)) for point in box_edges(found).reshape(-1, 3)],
        "colors": [{"r": float(r), "g": float(g), "b": float(b), "a": 1.0} for r, g, b in colors],
    }


def _points(side: Side, rgb: NDArray[np.uint8]) -> NDArray[np.void]:
    cloud, count = side.cloud, len(side.cloud)
    class_id = side.prediction if side.prediction is not None else np.zeros(count, np.uint8)
    instance = side.instance if side.instance is not None else np.zeros(count, np.uint16)
    confidence = side.confidence if side.confidence is not None else np.ones(count, np.float32)
    uncertainty = side.uncertainty if side.uncertainty is not None else np.zeros(count, np.float32)
    return pack_labelled(cloud, class_id, instance, confidence, uncertainty, cloud.flags, rgb)


def _classes(labels: LabelMap) -> str:
    rows = [{key: row[key] for key in ("id", "name", "color", "thing")} for row in labels.to_rows()]
    return json.dumps({"labels": labels.name, "classes": rows})
