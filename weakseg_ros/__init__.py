# SPDX-License-Identifier: Apache-2.0
"""LiDAR segmentation from a few clicked points, and the ROS 2 node that runs it."""

import os

# Builds of onnxruntime since 1.32 otherwise give the machine a number, keep a record of its models and send both to their maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
