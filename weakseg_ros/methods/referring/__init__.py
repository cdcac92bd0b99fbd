# SPDX-License-Identifier: Apache-2.0
"""Referring segmentation: losses of masks that a sentence names, and how a teacher labels sentences without a mask."""
