# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several chapters' tests share."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock, Timeout
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("support")

from support import EXTRAS, load_file
from support.browser import chromium

ROOT = Path(__file__).resolve().parent.parent
SLOW = {
    *("benchmark", "train", "test_demo.py", "test_killed.py", "test_fuzzed.py", "test_doctor.py", "test_retrain.py"),
    *("test_retrain_data.py", "test_unwritable.py", "test_reading_options.py", "test_many_bags.py"),
}
"""folders and files whose tests train, or take a minute; a single test elsewhere says @pytest.mark.slow"""
LONGEST = (
    *("test_docs_blocks.py", "test_killed.py", "test_demo.py", "test_soak.py", "test_node_start.py", "test_train.py"),
    *(
        "test_retrain.py",
        "test_benchmark_report.py",
        "test_benchmark.py",
        "test_adapt.py",
        "test_label_page.py",
        "test_export.py",
    ),
)
"""the files that take longest, the longest first"""

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracles", type=Path, default=ROOT.parent / "shared" / "oracles", help="folder of the official codes' outputs"
    )
    parser.addoption("--shared-data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of real scans")


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """A file whose optional library is not installed here is skipped, with the library's name as the reason."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    missing = re.search(r"No module named '(\w+)|import of (\w+) halted", str(report.longrepr)) if report.failed else None
    if missing and (missing[1] or missing[2]) in EXTRAS:
        report.outcome, report.result = "skipped", []
        report.longrepr = (str(collector.path), 0, f"Skipped: {missing[1] or missing[2]} is not installed")


def pytest_configure(config: pytest.Config) -> None:
    """Tests that run beside others leave the cores to them: threads of one process that wait for each other would spin.

    The garbage collector looks after each 50,000 new objects instead of 700: with the libraries of all tests in one process it
    would take a third of the time.
    """
    gc.set_threshold(50_000, 20, 10)
    if os.environ.get("PYTEST_XDIST_WORKER"):
        os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Markers that no file can forget: who asks for the rig of test/ros talks over DDS, who asks for a browser starts one.

    Where several processes share the tests, the longest files come first, so that none of them is left for the end.
    """
    for item in items:
        for fixture, marker in (("rig", "dds"), ("browser", "browser")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
        if SLOW & set(Path(item.path).relative_to(ROOT / "test").parts):
            item.add_marker("slow")
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; see support.browser."""
    with chromium() as opened:
        yield opened


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
def bench_beside() -> ModuleType:
    """bench/beside.py: two pieces of work timed in turn."""
    return load_file(ROOT / "bench" / "beside.py")


@pytest.fixture(scope="session")
def mask_quality() -> ModuleType:
    """bench/mask_quality.py: how good pseudo masks are."""
    return load_file(ROOT / "bench" / "mask_quality.py")


@pytest.fixture(scope="session")
def panoptic_real() -> ModuleType:
    """bench/panoptic_real.py: masks from one click each on real objects."""
    return load_file(ROOT / "bench" / "panoptic_real.py")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this test run alone, for child processes, too."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def same_engine_everywhere() -> Iterator[None]:
    """`auto` is onnxruntime for the tests and their child processes: what is fastest on a CPU may calculate in bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEAKSEG_AUTO", "onnxruntime")
        yield


@pytest.fixture(scope="session")
def doctors_view() -> Callable[[str], list[Any]]:
    """What doctor finds of the libraries and of ROS here, each found out once, in the processes that it starts for that."""
    from weakseg_ros import doctor

    checks = {"check_libraries": doctor.check_libraries, "check_ros": doctor.check_ros}
    return functools.cache(lambda name: list(checks[name]()))


@pytest.fixture
def known_machine(doctors_view: Callable[[str], list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what doctor says about data and models: it has looked at the libraries before."""
    for name in ("check_libraries", "check_ros"):
        monkeypatch.setattr(f"weakseg_ros.doctor.{name}", functools.partial(doctors_view, name))


@contextlib.contextmanager
def free_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test run on this machine has at the same time."""
    for number in random.Random(os.getpid()).sample(range(1, 102), 101):
        with contextlib.suppress(Timeout), FileLock(Path(tempfile.gettempdir()) / f"weakseg_domain_{number}.lock", timeout=0):
            yield number
            return
    pytest.fail("all ROS domains from 1 to 101 are taken by other test runs")


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """The domain of test/ros."""
    with free_domain() as number:
        yield number


@pytest.fixture(scope="module")
def own_domain() -> Iterator[int]:
    """A domain for the nodes of one file that are not those of test/ros."""
    with free_domain() as number:
        yield number
