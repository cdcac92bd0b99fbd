# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk: bags, scans, frame logs and published data sets, one file each."""
