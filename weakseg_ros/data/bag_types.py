# SPDX-License-Identifier: Apache-2.0
"""The message types of a bag's topics: other spellings of PointCloud2, and what to do where clouds travel as something else."""

from __future__ import annotations

import re
from collections.abc import Iterable

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"

# words in a type's name, what such a message is, what gives PointCloud2
_OTHER = (
    (
        r"^point_cloud_interfaces/",
        "compressed clouds of point_cloud_transport",
        "unpack them with the plugin that packed them ('ros2 run point_cloud_transport republish --ros-args -p "
        "in_transport:=draco -p out_transport:=raw', likewise zlib, zstd or cloudini) and record the raw topic",
    ),
    (r"[Cc]loudini", "compressed clouds of cloudini", "unpack them with cloudini_ros, and record the raw topic"),
    (
        r"^livox.*/Custom",
        "Livox's own clouds",
        "start livox_ros_driver2 with xfer_format 0, which publishes PointCloud2, or convert them",
    ),
    (
        r"[Pp]acket|VelodyneScan|PandarScan|RslidarScan|SickScan|UDPPacket",
        "raw packets of a LiDAR",
        "play the bag through the sensor's driver (velodyne_pointcloud, ouster-ros, hesai, rslidar_sdk, nebula), which "
        "publishes PointCloud2, and record that",
    ),
    (r"^foxglove[._/].*PointCloud", "Foxglove's clouds", "convert them to sensor_msgs/PointCloud2 before they are read here"),
    (r"^sensor_msgs/(msg/)?PointCloud$", "clouds of the old type", "convert them with point_cloud_converter"),
    (
        r"^sensor_msgs/(msg/)?(Multi)?(EchoL|L)aser(Echo|Scan)$",
        "scans of one plane",
        "a model for clouds needs more than one plane of points",
    ),
    (
        r"^sensor_msgs/(msg/)?(Compressed)?Image$",
        "images",
        "depth images become clouds through depth_image_proc, others do not",
    ),
)


def normal(msgtype: str) -> str:
    """The type's name as ROS 2 writes it, from that of ROS 1 ('sensor_msgs/PointCloud2') or of DDS."""
    plain = msgtype.replace("::msg::dds_::", "/msg/").rstrip("_") if "::" in msgtype else msgtype
    return re.sub(r"^(\w+)/(\w+)$", r"\1/msg/\2", plain)


def hint_for(msgtypes: Iterable[str]) -> str:
    """What to do about the topics of a bag that has no PointCloud2, a clause that begins with '; ', or nothing."""
    hints = []
    for msgtype in dict.fromkeys(msgtypes):
        for pattern, what, how in _OTHER:
            if re.search(pattern, msgtype):
                hints.append(f"{msgtype} are {what}: {how}")
                break
    return "".join(f"; {hint}" for hint in dict.fromkeys(hints))
