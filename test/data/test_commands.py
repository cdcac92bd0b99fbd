# SPDX-License-Identifier: Apache-2.0
"""ScanRefer's descriptions and Talk2Car's commands, read from small files in their owners' formats."""

from __future__ import annotations

import json

import numpy as np
import pytest

from weakseg_ros.data.scanrefer import read_scanrefer
from weakseg_ros.data.talk2car import read_talk2car
from weakseg_ros.errors import DataError
from weakseg_ros.points.object_box import ObjectBox, points_in_box

HALF = 2**-0.5
COMMAND = {
    "command": " stop behind the van ",
    "obj_name": "vehicle.car",
    "translation": [-3.0, 1.0, 20.0],  # 3 m to the left, 1 m below the camera, 20 m ahead
    "size": [2.0, 5.0, 1.8],
    "rotation": [HALF, 0.0, -HALF, 0.0],  # its front points along the camera's z, which is ahead
    "sample_token": "abc",
}


def commands(path, *rows):
    path.write_text(json.dumps({"commands": rows, "scene_tokens": []}))
    return path


def test_a_command_of_talk2car_with_its_box_in_the_axes_of_a_lidar(tmp_path):
    (found,) = read_talk2car(commands(tmp_path / "val.json", COMMAND))
    assert (found.text, found.object_name, found.sample_token) == ("stop behind the van", "vehicle.car", "abc")
    assert found.box.centre == (20.0, 3.0, -1.0)
    assert found.box.size == (5.0, 2.0, 1.8)
    assert found.box.heading_rad == pytest.approx(0.0)


def test_a_box_that_faces_right_is_turned_to_the_right(tmp_path):
    (found,) = read_talk2car(commands(tmp_path / "val.json", COMMAND | {"rotation": ["1", "0", "0", "0"]}))
    assert found.box.heading_rad == pytest.approx(-np.pi / 2)  # the camera's x


@pytest.mark.parametrize(
    "change", [{"size": [1, 2]}, {"translation": ["x", 0, 0]}, {"rotation": None}, {"rotation": [0, 0, 0, 0]}]
)
def test_a_command_without_a_box_is_named(tmp_path, change):
    with pytest.raises(DataError, match="command 1: is incomplete"):
        read_talk2car(commands(tmp_path / "val.json", COMMAND, COMMAND | change))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"commands": []}', '{"commands": 3}', pytest.param("[" * 100_000, id="nested without end")]
)
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    for read in (read_talk2car, read_scanrefer):
        with pytest.raises(DataError, match=r"x\.json"):
            read(tmp_path / "x.json")


def test_descriptions_of_scanrefer_are_expressions_about_scannet(tmp_path):
    def row(thing: str, name: str, text: str, scene: str = "scene0000_00") -> dict[str, str]:
        return {"scene_id": scene, "object_id": thing, "object_name": name, "ann_id": "0", "description": text, "token": []}

    rows = [row("4", "chair", "the chair by the door"), row("4", "chair", "a black chair"), row("9", "chair", "the far chair")]
    rows += [row("0", "table", "the table"), row("4", "chair", "the chair", "scene0001_00")]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    found = read_scanrefer(tmp_path / "x.json")
    assert [row.targets for row in found] == [(5,), (5,), (10,), (1,), (5,)]
    assert [row.case for row in found] == ["multiple", "multiple", "multiple", "unique", "unique"]
    assert [row.group for row in found] == [0, 0, 1, 2, 3]
    assert [row.confusable for row in found] == [(10,), (10,), (5,), (), ()]
    rows[1]["object_id"] = "none"
    (tmp_path / "x.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="description 1: its object_id"):
        read_scanrefer(tmp_path / "x.json")


def test_the_points_of_a_box_leave_out_the_ground_it_stands_on():
    box = ObjectBox((10.0, 5.0, 0.0), (4.0, 2.0, 1.6), np.pi / 2)
    xyz = np.array([(10, 5, 0), (10, 6.9, 0.7), (11.9, 5, 0), (10.9, 5, 0), (10, 5, -0.79), (10, 5, 0.95)], np.float32)
    assert points_in_box(xyz, box).tolist() == [True, True, False, True, False, False]
