# SPDX-License-Identifier: Apache-2.0
"""Objects on the wire: one box per instance, as markers for people and as detections for planners."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from weakseg_ros.points.labels import LabelMap

LIFETIME_S = 1
"""a box that no later message replaces vanishes"""
THINNEST_M = 0.05
"""viewers refuse boxes without extent"""
OPACITY = 0.5
TEXT_M = 0.5


def markers(found: NDArray[np.void], labels: LabelMap, header: Header, texts: bool = False) -> MarkerArray:
    """One cube per box (deploy.boxes.BOX_DTYPE), under its class's name and colour and its instance id.

    The first marker deletes those of the message before. With `texts` each cube has its class, id and score above it.
    """
    message = MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])
    for box in found:
        name = labels.names[box["class_id"]]
        marker = _marker(box, header, name, Marker.CUBE)
        marker.pose = _pose(box)
        marker.scale = _vector(np.maximum(box["size_m"], THINNEST_M))
        marker.color = _color(labels, box["class_id"], OPACITY)
        message.markers.append(marker)
        if texts:
            message.markers.append(_text(box, header, name, labels))
    return message


def detections(found: NDArray[np.void], header: Header, messages: ModuleType | Any) -> Any:
    """The boxes as a Detection3DArray of `messages`, which is vision_msgs.msg; class ids as in `~/label_info`."""
    array = messages.Detection3DArray(header=header)
    for box in found:
        result = messages.ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = str(box["class_id"]), float(box["score"])
        result.pose.pose = _pose(box)
        bounds = messages.BoundingBox3D(center=_pose(box), size=_vector(box["size_m"]))
        detection = messages.Detection3D(header=header, results=[result], bbox=bounds, id=str(box["instance_id"]))
        array.detections.append(detection)
    return array


def _text(box: np.void, header: Header, name: str, labels: LabelMap) -> Marker:
    marker = _marker(box, header, f"{name} text", Marker.TEXT_VIEW_FACING)
    marker.pose = _pose(box)
    marker.pose.position.z += float(box["size_m"][2]) / 2 + TEXT_M
    marker.scale.z = TEXT_M
    marker.color = _color(labels, box["class_id"], 1.0)
    marker.text = f"{name} {box['instance_id']} {box['score']:.0%}"
    return marker


def _marker(box: np.void, header: Header, namespace: str, kind: int) -> Marker:
    lifetime = Duration(sec=LIFETIME_S)
    return Marker(header=header, ns=namespace, id=int(box["instance_id"]), type=kind, action=Marker.ADD, lifetime=lifetime)


def _pose(box: np.void) -> Pose:
    half = float(box["yaw_rad"]) / 2
    x, y, z = map(float, box["centre_m"])
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(z=float(np.sin(half)), w=float(np.cos(half))))


def _vector(size: NDArray[np.float32]) -> Vector3:
    x, y, z = map(float, size)
    return Vector3(x=x, y=y, z=z)


def _color(labels: LabelMap, class_id: int, opacity: float) -> ColorRGBA:
    red, green, blue = (float(part) / 255 for part in labels.colors[class_id])
    return ColorRGBA(r=red, g=green, b=blue, a=opacity)
