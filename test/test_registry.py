# SPDX-License-Identifier: Apache-2.0
"""What can be plugged in: every row resolves, and a wrong name is answered with the nearest."""

from __future__ import annotations

import pytest

from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.registry import DATASETS, ENGINES, FRONTENDS, HEADS, METHODS, NETS, load

ROWS = [(table, name) for table in (NETS, HEADS, METHODS, DATASETS, FRONTENDS, ENGINES) for name in table]


@pytest.mark.parametrize(("table", "name"), ROWS, ids=[name for _, name in ROWS])
def test_every_row_resolves_to_a_class(table: dict[str, str], name: str) -> None:
    assert isinstance(load(table, name), type)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^method: unknown 'supervise'; did you mean 'supervised'\?; known: "):
        load(METHODS, "supervise")
    with pytest.raises(ConfigError, match=r"^net: unknown 'zzz'; known: light, "):
        load(NETS, "zzz")


@pytest.mark.parametrize(
    ("word", "known", "told"),
    [
        ("ERDA", ["erda", "coarse3d"], "; did you mean 'erda'?"),
        ("/A/points", ["/a/points", "/b/points"], "; did you mean '/a/points'?"),
        ("car", ["Car", "truck"], "; did you mean 'Car'?"),
        ("X", ["y"], ""),
    ],
)
def test_capitals_do_not_hide_what_was_meant(word: str, known: list[str], told: str) -> None:
    assert did_you_mean(word, known) == told
