# SPDX-License-Identifier: Apache-2.0
"""One schema, one set of error messages: YAML, command line and ROS parameters go through the same loader."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weakseg_ros.config import check_ranges, dump_yaml, field_docs, from_mapping, load_yaml, parse, setting, to_mapping
from weakseg_ros.errors import ConfigError
from weakseg_ros.yaml_files import read_yaml


@dataclass(frozen=True)
class Inner:
    height: int = setting(64, 1, 4096)
    """rows"""
    mode: Literal["angle", "ring"] = setting("angle", was="how")
    """how a row
    is found"""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Outer:
    rate_hz: float = setting(10.0, 0.1, 1000.0)
    """how often"""
    inner: Inner = Inner()
    """nested"""
    beams_deg: tuple[float, ...] = ()
    """a list"""
    folder: Path | None = None
    """a path"""
    gains: tuple[float, float] = (1.0, 2.0)
    """a pair"""
    keep: bool = False
    """a switch"""
    options: dict[str, bool | float] = field(default_factory=dict)
    """names with values"""

    def __post_init__(self) -> None:
        check_ranges(self)


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"inner": {"hieght": 3}}, "train.inner.hieght: unknown key; did you mean 'height'?"),
        ({"zzz": 1}, "train.zzz: unknown key; known: rate_hz, inner, beams_deg, folder, gains, keep, options"),
        ({"rate_hz": "fast"}, "train.rate_hz: expected float, found str 'fast'"),
        ({"rate_hz": True}, "train.rate_hz: expected float, found bool 'True'"),
        ({"rate_hz": float("nan")}, "train.rate_hz: nan is outside 0.1..1000.0"),
        ({"rate_hz": float("inf")}, "train.rate_hz: inf is outside 0.1..1000.0"),
        ({"inner": {"height": 64.0}}, "train.inner.height: expected int, found float '64.0'"),
        ({"inner": {"height": 0}}, "train.inner.height: 0 is outside 1..4096"),
        ({"inner": {"mode": "rings"}}, "train.inner.mode: unknown value 'rings'; did you mean 'ring'?; known: angle, ring"),
        ({"inner": 3}, "train.inner: expected settings by name, found int"),
        ({"beams_deg": "1,2"}, "train.beams_deg: expected a list, found str '1,2'"),
        ({"beams_deg": [1.0, "x"]}, "train.beams_deg[1]: expected float, found str 'x'"),
        ({"gains": [1.0]}, "train.gains: expected 2 values, found 1"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(mapping: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_mapping(Outer, mapping, "train")
    assert str(error.value) == text


def test_a_number_with_an_exponent_is_one_though_yaml_takes_it_for_text(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("rate_hz: 1e2\nbeams_deg: [1e-3, -2.E+1]\noptions: {weight: 5e-4}\n")
    read = load_yaml(Outer, file)
    assert (read.rate_hz, read.beams_deg, read.options) == (100.0, (0.001, -20.0), {"weight": 0.0005})
    for text in ("1e", "nan", "0x1e2", "1e2 Hz"):
        with pytest.raises(ConfigError, match="expected float, found str"):
            from_mapping(Outer, {"rate_hz": text}, "train")


finite = st.floats(0.1, 1000.0)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.builds(
        Outer, finite, st.builds(Inner, st.integers(1, 4096)), st.lists(finite).map(tuple), st.just(Path("a/b")) | st.none()
    )
)
def test_settings_survive_yaml(written: Outer) -> None:
    import yaml

    assert from_mapping(Outer, yaml.safe_load(dump_yaml(written)), "x") == written
    assert from_mapping(Outer, to_mapping(written), "x") == written


def test_yaml_overrides_defaults_and_the_command_line_overrides_yaml(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("rate_hz: 5\ninner: {height: 32}\n")
    merged = parse(Outer, ["--config", str(file), "--inner.mode", "ring"], "train")
    assert merged == Outer(rate_hz=5.0, inner=Inner(32, "ring"))


def test_a_switch_is_a_bare_flag() -> None:
    assert parse(Outer, ["--keep"], "train").keep
    assert not parse(Outer, ["--no-keep"], "train", Outer(keep=True)).keep


@pytest.mark.parametrize("words", [["--keep", "False"], ["--no-keep", "yes"], ["--keep", "1", "2", "3"]])
def test_a_switch_with_a_value_is_told(words: list[str]) -> None:
    told = rf"{words[0]}: is a switch and takes no value, but '{words[1]}' follows it; write --keep or --no-keep"
    with pytest.raises(ConfigError, match=told):
        parse(Outer, words, "train")


def test_class_weights_are_no_numbers() -> None:
    from weakseg_ros.train.config import TrainConfig

    with pytest.raises(ConfigError, match=r"write --supervised\.class-weights or --supervised\.no-class-weights"):
        parse(TrainConfig, ["drive", "--supervised.class-weights", "1", "2.5"], "train")


def test_the_command_line_adds_names_to_a_mapping_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("options: {gamma: 2.0, weights: false}\n")
    assert parse(Outer, ["--config", str(file)], "train").options == {"gamma": 2.0, "weights": False}
    merged = parse(Outer, ["--config", str(file), "--options", "gamma", "1.0", "extra", "True"], "train")
    assert merged.options == {"gamma": 1.0, "weights": False, "extra": True}


@pytest.mark.parametrize("words", [["--inner.how", "ring"], ["--inner.how=ring"]])
def test_the_former_name_of_an_inner_setting_is_understood(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(Outer, words, "train").inner.mode == "ring"
    assert "weakseg train --inner.how: is now called --inner.mode; its value was used" in capsys.readouterr().err


def test_a_base_keeps_what_the_mapping_does_not_name() -> None:
    base = Outer(inner=Inner(16, "ring"))
    assert from_mapping(Outer, {"inner": {"height": 8}}, "x", base) == Outer(inner=Inner(8, "ring"))


def test_missing_and_broken_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(Outer, tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,\n")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_yaml(Outer, broken)


def test_numbers_that_both_versions_of_yaml_read_alike_are_read(tmp_path: Path) -> None:
    file = tmp_path / "numbers.yaml"
    file.write_text("[00, 07, 0x10, 1_000, '010', 2026-11-29]")
    assert read_yaml(file) == [0, 7, 16, 1000, "010", date(2026, 11, 29)]


def test_field_docs_are_the_lines_under_the_fields() -> None:
    assert field_docs(Inner) == {"height": "rows", "mode": "how a row is found"}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"rate_hz: 5\n\tkeep: true\n", r"line 2; a tab is there, indent with spaces"),
        (b"rate_hz: 5\ninner: {height: 010}\n", r"line 2: '010' is 8 in YAML 1.1 and 10 in 1.2; write the number that is meant"),
        (b"rate_hz: 1:30\n", r"line 1: '1:30' is 90 in YAML 1.1 and text in 1.2"),
        (b"rate_hz: 1:30.5\n", r"line 1: '1:30.5' is 90.5 in YAML 1.1 and text in 1.2"),
        (b"rate_hz: 5\nrate_hz: 6\n", r"line 2: 'rate_hz' is there twice"),
        (b'rate_hz: 5\nname: "a\\0b"\n', r"line 2: a null character, which no name may contain"),
        (b"name: stra\xdfe\n", r"byte 0xdf at 10 is not UTF-8\); save it as UTF-8"),
        ("rate_hz: 5\n".encode("utf-16"), "save it as UTF-8"),
    ],
)
def test_a_broken_file_is_told_with_its_line_and_cause(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=text):
        load_yaml(Outer, file)


@dataclass
class Named:
    """A setting without a default, and a text."""

    first: str
    second: str


def test_what_is_missing_and_what_yaml_made_of_a_text_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^x: lacks 'first', 'second'; add them$"):
        from_mapping(Named, {}, "x")
    with pytest.raises(ConfigError, match=r"x\.first: expected str, found bool 'False'; put it in quotes"):
        from_mapping(Named, {"first": False, "second": "b"}, "x")


def test_an_option_of_an_inner_setting_is_named_as_it_was_typed(tmp_path: Path) -> None:
    for words in (["--inner.height", "0"], ["--inner.height=0"]):
        with pytest.raises(ConfigError, match=r"^--inner\.height: 0 is outside 1\.\.4096$"):
            parse(Outer, words, "train")
    with pytest.raises(ConfigError, match=r"^rate_hz: 0\.0 is outside"):
        parse(Outer, ["--rate-hz", "0", "--inner.height", "1"], "train")
    file = tmp_path / "train.yaml"
    file.write_text("inner: {height: 0}\n")
    with pytest.raises(ConfigError, match=r"^train\.yaml\.inner\.height: 0 is outside"):
        parse(Outer, ["--config", str(file)], "train")


@dataclass(frozen=True)
class Twins:
    first: Inner = Inner()
    """one"""
    second: Inner = Inner()
    """another of the same kind"""


def test_of_two_sections_of_one_kind_the_one_that_was_typed_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--second\.height: 0 is outside"):
        parse(Twins, ["--first.mode", "ring", "--second.height", "0"], "train")


@dataclass(frozen=True)
class Renamed:
    today: Inner = field(default=Inner(), metadata={"was": "once"})
    """a section with another name in older versions"""


def test_the_former_name_of_a_section_is_understood(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert parse(Renamed, ["--once.height=3", "--once.how", "ring"], "train").today == Inner(3, "ring")
    told = capsys.readouterr().err
    assert "weakseg train --once.height: is now called --today.height; its value was used" in told
    assert "weakseg train --once.how: is now called --today.mode; its value was used" in told
    assert from_mapping(Renamed, {"once": {"height": 3}}, "x.yaml").today == Inner(3)
    assert "x.yaml.once: is now called 'today'" in caplog.text
