# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several chapters' tests share."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracles", type=Path, default=ROOT.parent / "shared" / "oracles", help="folder of the official codes' outputs"
    )
    parser.addoption("--shared-data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of real scans")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the rig of test/ros talks over DDS, so that no file can forget the marker."""
    for item in items:
        if "rig" in getattr(item, "fixturenames", ()):
            item.add_marker("dds")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks on small images: more than one thread each only waits for the other tests' threads."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.fixture(scope="session")
def layouts() -> ModuleType:
    """layouts.py: writes tiny data sets as nuScenes, SemanticPOSS and SemanticKITTI lay them out."""
    return load_file(Path(__file__).with_name("layouts.py"))


@pytest.fixture(scope="session")
def published_projection() -> ModuleType:
    """oracles/projection.py: the projection as the published code does it."""
    return load_file(Path(__file__).with_name("oracles") / "projection.py")


@pytest.fixture(scope="session")
def mask_quality() -> ModuleType:
    """bench/mask_quality.py: how good pseudo masks are."""
    return load_file(ROOT / "bench" / "mask_quality.py")


def load_file(path: Path) -> ModuleType:
    """A file that belongs to no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
