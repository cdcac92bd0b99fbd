# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several chapters' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracles", type=Path, default=ROOT.parent / "shared" / "oracles", help="folder of the official codes' outputs"
    )
    parser.addoption("--shared-data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of real scans")


@pytest.fixture(scope="session")
def shared_data(request: pytest.FixtureRequest) -> Path:
    """The folder of real scans; tests that need it are skipped where it is absent."""
    folder: Path = request.config.getoption("--shared-data")
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder} (--shared-data DIR)")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT
