# SPDX-License-Identifier: Apache-2.0
"""Our functions beside the official codes' outputs: every file under --oracles whose prefix has a check is run.

`test/oracles/<topic>.py` holds `CHECKS`: the longest key that a file's name begins with is its check. A file without
a check is skipped by name, so that a missing one is seen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from support import load_file, optional

Check = Callable[[Mapping[str, np.ndarray]], None]


TOPICS = sorted(file.stem for file in (Path(__file__).parent / "oracles").glob("*.py"))


@functools.cache
def checks_of(topic: str) -> dict[str, Check]:
    """The checks of a topic by prefix, loaded when they are asked for; none where nobody has written any."""
    if topic not in TOPICS:
        return {}
    try:
        checks: dict[str, Check] = load_file(Path(__file__).parent / "oracles" / f"{topic}.py", f"oracle_checks_{topic}").CHECKS
    except ModuleNotFoundError as error:
        optional(error.name or "")
        raise
    return checks


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "oracle_file" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("--oracles")
    files = sorted(folder.rglob("*.npz")) if folder.is_dir() else []
    names = [str(file.relative_to(folder)) for file in files]
    absent = pytest.param(None, marks=pytest.mark.skip(reason=f"no oracle files at {folder} (--oracles DIR)"))
    metafunc.parametrize("oracle_file", files or [absent], ids=names or ["absent"])


@pytest.mark.parametrize("topic", TOPICS)
def test_each_topic_has_checks(topic: str) -> None:
    assert checks_of(topic)


def test_oracle(oracle_file: Path) -> None:
    checks = checks_of(oracle_file.parent.name)
    prefixes = [prefix for prefix in checks if oracle_file.name.startswith(prefix)]
    if not prefixes:
        pytest.skip(f"no check is written for {oracle_file.parent.name}/{oracle_file.name}")
    with np.load(oracle_file) as arrays:
        checks[max(prefixes, key=len)](dict(arrays))
