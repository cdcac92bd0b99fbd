# SPDX-License-Identifier: Apache-2.0
"""Label maps: what ships is right, what a user gets wrong is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from weakseg_ros.errors import ConfigError
from weakseg_ros.points.labels import LabelClass, LabelMap

SHIPPED = ["semantickitti", "vlp32", "street"]


def rows(**changes: object) -> list[dict[str, object]]:
    """Three good rows; `changes` go into the last one."""
    return [
        {"id": 0, "name": "unlabelled", "color": [0, 0, 0], "thing": False, "raw_ids": [0, 99]},
        {"id": 1, "name": "road", "color": [255, 0, 255], "thing": False, "raw_ids": [40, 60]},
        {"id": 2, "name": "car", "color": [100, 150, 245], "thing": True, "raw_ids": [10, 252], **changes},
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_maps_go_there_and_back(name: str) -> None:
    labels = LabelMap.load(name)
    ids = np.arange(labels.num_classes)
    np.testing.assert_array_equal(labels.to_class(labels.to_raw(ids)), ids)
    assert LabelMap.from_rows(labels.to_rows(), name) == labels
    assert len({row.color for row in labels.classes}) == labels.num_classes
    assert labels.colors.shape == (labels.num_classes, 3)
    assert labels.names[0] == "unlabelled"


def test_shipped_maps_know_every_semantickitti_id() -> None:
    ids = LabelMap.load("semantickitti")
    known = np.array([raw for row in ids.classes for raw in row.raw_ids], np.uint32)
    for name in SHIPPED:
        assert LabelMap.load(name).unknown_raw_ids(known) == []


def test_class_counts_and_things() -> None:
    assert [LabelMap.load(name).num_classes for name in SHIPPED] == [20, 11, 15]
    labels = LabelMap.load("semantickitti")
    np.testing.assert_array_equal(np.flatnonzero(labels.things), np.arange(1, 9))
    assert labels.id_of("other-vehicle") == 5
    with pytest.raises(ConfigError, match="did you mean 'person'"):
        labels.id_of("persn")


def test_moving_objects_join_the_parked_ones() -> None:
    labels = LabelMap.load("semantickitti")
    raw = np.array([10, 252, 40, 60, 257, 0, 1, 12345], np.uint32)
    np.testing.assert_array_equal(labels.to_class(raw), [1, 1, 9, 9, 5, 0, 0, 0])
    assert labels.unknown_raw_ids(raw) == [12345]


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.int64])
def test_instance_bits_do_not_matter(dtype: type) -> None:
    labels = LabelMap.load("street")
    raw = np.array([[10, 40], [30, 0]])
    with_instance = (raw | (7 << 16)).astype(dtype)
    np.testing.assert_array_equal(labels.to_class(with_instance), labels.to_class(raw))
    assert labels.to_class(with_instance).shape == raw.shape
    assert labels.to_raw(np.array([1], np.uint8)).dtype == np.uint16


def test_all_bits_set_is_one_id() -> None:
    assert LabelMap.load("street").unknown_raw_ids(np.array([0xFFFFFFFF], np.uint32)) == [65535]


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError, match="integers"):
        LabelMap.load("street").to_class(np.array([10.0]))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"id": 3}, r"toy\[2\].id: is 3, expected 2"),
        ({"id": 1}, "without gap or repeat"),
        ({"name": "road"}, "the name 'road' is in two rows"),
        ({"name": " "}, "name: is empty"),
        ({"color": [1, 2]}, "color: expected 3 values"),
        ({"color": [0, 0, 256]}, "each 0..255"),
        ({"raw_ids": [40]}, "raw id 40 is in two rows"),
        ({"raw_ids": [10, 10]}, "raw id 10 is in two rows"),
        ({"raw_ids": []}, "raw_ids: is empty"),
        ({"raw_ids": [0]}, "means 'no label'"),
        ({"raw_ids": [65536]}, "16 bits"),
        ({"raw_ids": [-1]}, "16 bits"),
        ({"thing": 1}, "thing: expected bool"),
        ({"colour": [1, 2, 3]}, "unknown key; did you mean 'color'"),
    ],
)
def test_a_wrong_row_is_named(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        LabelMap.from_rows(rows(**changes), "toy")


def test_maps_that_are_no_maps() -> None:
    with pytest.raises(ConfigError, match="has 0 rows"):
        LabelMap.from_rows([], "toy")
    with pytest.raises(ConfigError, match="expected a list"):
        LabelMap.from_rows({"classes": []}, "toy")  # type: ignore[arg-type]
    many = tuple(LabelClass(i, f"c{i}", (0, 0, 0), False, (i,)) for i in range(256))
    assert LabelMap("toy", many[:255]).num_classes == 255
    with pytest.raises(ConfigError, match="has 256 rows"):
        LabelMap("toy", many)


def test_load_by_path_and_by_wrong_name(tmp_path: Path) -> None:
    file = tmp_path / "yard.yaml"
    nothing = "- {id: 0, name: none, color: [0,0,0], thing: false, raw_ids: []}\n"
    file.write_text(nothing + "- {id: 1, name: pallet, color: [1,2,3], thing: true, raw_ids: [5]}\n")
    labels = LabelMap.load(file)
    assert (labels.name, labels.names) == ("yard", ("none", "pallet"))
    assert labels.to_raw(np.array([0, 1])).tolist() == [0, 5]
    with pytest.raises(ConfigError, match="did you mean 'semantickitti'"):
        LabelMap.load("semantickity")
    with pytest.raises(ConfigError, match="cannot be read"):
        LabelMap.load(tmp_path / "absent.yaml")


def test_maps_in_other_colours_have_the_same_classes() -> None:
    street = LabelMap.load("street")
    grey = LabelMap("grey", tuple(dataclasses.replace(row, color=(9, 9, 9)) for row in street.classes))
    assert street.same_classes_as(grey)
    assert not street.same_classes_as(LabelMap("fewer", street.classes[:-1]))
    renamed = dataclasses.replace(street.classes[-1], name="rider")
    assert not street.same_classes_as(LabelMap("renamed", (*street.classes[:-1], renamed)))


CONFIG = {
    "labels": {0: "nothing", 40: "road"},
    "color_map": {0: [0, 0, 0], 40: [1, 2, 3]},
    "learning_map": {0: 0, 40: 1},
    "learning_map_inv": {0: 0, 1: 40},
}


def test_a_data_config_with_numbers_in_quotes_is_read(tmp_path: Path) -> None:
    quoted = {
        name: {str(key): str(value) if name.startswith("learning") else value for key, value in part.items()}
        for name, part in CONFIG.items()
    }
    for name, content in (("plain", CONFIG), ("quoted", quoted)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    plain, other = (LabelMap.from_yaml(tmp_path / f"{name}.yaml") for name in ("plain", "quoted"))
    assert plain.classes == other.classes
    assert plain.classes[1].color == (3, 2, 1)


@pytest.mark.parametrize(
    ("part", "content", "text"),
    [
        ("learning_map", {0: 0, "road": 1}, "learning_map holds 'road'; expected a whole number"),
        ("learning_map", {0: 0, 40: [1]}, r"learning_map of 40 holds '\[1\]'"),
        ("color_map", {40: None}, r"color_map of 40 is 'None'; expected \[blue, green, red\]"),
        ("color_map", [1], "color_map is no mapping"),
        ("learning_ignore", [0], "learning_ignore is no mapping"),
    ],
)
def test_a_data_config_of_other_things_says_where(tmp_path: Path, part: str, content: object, text: str) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**CONFIG, part: content}))
    with pytest.raises(ConfigError, match=text):
        LabelMap.from_yaml(tmp_path / "a.yaml")


def test_a_row_that_lacks_something_says_what(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- {id: 0, name: a, color: [0, 0, 0], raw_ids: [0]}\n")
    with pytest.raises(ConfigError, match=r"^a\[0\]: lacks 'thing'; add it$"):
        LabelMap.from_yaml(tmp_path / "a.yaml")


def test_maps_in_json_and_under_any_name_are_read(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("yard.json", "yard.YAML", "yard.JSON", "yard")]
    for file in files:
        file.write_text(json.dumps(rows()))
        assert LabelMap.load(file).names == ("unlabelled", "road", "car")
    (tmp_path / "yard.csv").write_text("id,name\n0,unlabelled\n")
    with pytest.raises(ConfigError, match=r"yard: expected a list with one row per class.*a row reads \{id: 1"):
        LabelMap.load(tmp_path / "yard.csv")
    with pytest.raises(ConfigError, match=r"absent\.json: cannot be read"):
        LabelMap.load(tmp_path / "absent.json")


def test_a_list_of_names_is_answered_with_a_row() -> None:
    with pytest.raises(ConfigError, match=r"toy\[0\]: expected the row of a class, found str 'road'; a row reads \{id: 1"):
        LabelMap.from_rows(["road", "car"], "toy")  # type: ignore[list-item]


def test_a_class_that_would_be_lost_as_class_0_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shifted = [{**row, "id": number} for number, row in enumerate(rows()[1:])]
    (tmp_path / "shifted.yaml").write_text(yaml.safe_dump(shifted))
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(rows()))
    for name in [*SHIPPED, tmp_path / "whole.yaml"]:
        LabelMap.load(name)
    assert not caplog.records
    LabelMap.load(tmp_path / "shifted.yaml")
    assert "its class 0 is 'road', but class 0 always means unlabelled" in caplog.text


def test_a_data_config_whose_ignored_class_has_another_number_keeps_its_first_class(tmp_path: Path) -> None:
    config = {**CONFIG, "learning_map": {0: 255, 40: 0}, "learning_map_inv": {0: 40, 255: 0}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    assert LabelMap.from_yaml(tmp_path / "a.yaml").names == ("unlabelled", "road")
    config = {**CONFIG, "learning_map": {10: 0, 40: 1}, "learning_map_inv": {0: 10, 1: 40}}
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(config))
    assert LabelMap.from_yaml(tmp_path / "b.yaml").names == ("unlabelled", "10", "road")
