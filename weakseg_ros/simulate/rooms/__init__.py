# SPDX-License-Identifier: Apache-2.0
"""A simulated building: rooms with S3DIS's 13 classes, seen by a LiDAR, by a depth camera, or scanned room by room."""
