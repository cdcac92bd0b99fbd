# SPDX-License-Identifier: Apache-2.0
"""Scans in 3D in the browser, and as files for other viewers: labels, predictions, uncertainty, objects and errors."""
