# SPDX-License-Identifier: Apache-2.0
"""From scans to batches of tensors: loading, projection, augmentation."""
