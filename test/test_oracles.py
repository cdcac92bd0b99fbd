# SPDX-License-Identifier: Apache-2.0
"""Our functions beside the official codes' outputs: every file under --oracles whose prefix has a check is run.

`test/oracles/<topic>.py` holds `CHECKS`: the longest key that a file's name begins with is its check. A file without
a check is skipped by name, so that a missing one is seen.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

Check = Callable[[Mapping[str, np.ndarray]], None]


def load_checks() -> dict[str, dict[str, Check]]:
    checks = {}
    for file in sorted((Path(__file__).parent / "oracles").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"oracle_checks_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        checks[file.stem] = module.CHECKS
    return checks


CHECKS = load_checks()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = metafunc.config.getoption("--oracles")
    files = sorted(folder.rglob("*.npz")) if folder.is_dir() else []
    names = [str(file.relative_to(folder)) for file in files]
    absent = pytest.param(None, marks=pytest.mark.skip(reason=f"no oracle files at {folder} (--oracles DIR)"))
    metafunc.parametrize("oracle_file", files or [absent], ids=names or ["absent"])


def test_oracle(oracle_file: Path) -> None:
    checks = CHECKS.get(oracle_file.parent.name, {})
    prefixes = [prefix for prefix in checks if oracle_file.name.startswith(prefix)]
    if not prefixes:
        pytest.skip(f"no check is written for {oracle_file.parent.name}/{oracle_file.name}")
    with np.load(oracle_file) as arrays:
        checks[max(prefixes, key=len)](dict(arrays))
