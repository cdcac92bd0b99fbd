# SPDX-License-Identifier: Apache-2.0
"""A small data set for tables."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three streets of two scans each."""
    from weakseg_ros.simulate.record import main as simulate  # it writes bags: a conftest needs no optional library

    folder = tmp_path_factory.mktemp("street") / "scans"
    argv = ["--out", str(folder), "--streets", "3", "--scans", "2", "--stride", "10", "--columns", "64", "--workers", "1"]
    assert simulate(argv) == 0
    return folder
