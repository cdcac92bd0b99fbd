# SPDX-License-Identifier: Apache-2.0
"""LiDAR segmentation from a few clicked points, and the ROS 2 node that runs it."""

__version__ = "0.1.0"
