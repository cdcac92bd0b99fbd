# SPDX-License-Identifier: Apache-2.0
"""Expressions about simulated scans: true of one object and of no other, the same from the same seed, in many words."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from weakseg_ros.cli import main
from weakseg_ros.data.expressions import read_expressions
from weakseg_ros.data.scan_sets import check
from weakseg_ros.data.scans import open_scans
from weakseg_ros.simulate import phrases
from weakseg_ros.simulate.expressions import expressions_of
from weakseg_ros.simulate.forms import Form, answer, confusable_with, context_of, draw_form
from weakseg_ros.simulate.grammar import Speaker, say_form
from weakseg_ros.simulate.scene_graph import SceneGraph, SceneObject
from weakseg_ros.simulate.scene_relations import Facts

SENSOR = "name: tiny\nbeams: 24\ncolumns: 256\nmount_height_m: 1.7\n"
CAR, TRUCK, PERSON = (4.5, 1.8, 1.5), (9.0, 2.5, 3.4), (0.5, 0.5, 1.7)
FACING_US = np.pi - 0.05

STREET = SceneGraph(
    [
        SceneObject(1, "car", 8.0, 4.0, FACING_US, CAR, zone="parking"),
        SceneObject(2, "car", 15.0, 4.0, FACING_US, CAR, zone="parking"),
        SceneObject(3, "car", 20.0, -0.3, 0.0, CAR, moving=True, zone="road"),
        SceneObject(4, "truck", 13.0, -5.0, 0.0, TRUCK, zone="parking"),
        SceneObject(5, "person", 11.0, -7.5, 0.0, PERSON, moving=True, zone="sidewalk"),
        SceneObject(6, "person", 30.0, 9.0, 0.0, PERSON, zone="sidewalk"),
        SceneObject(0, "tree", 30.0, 11.0, 0.0, (0.4, 0.4, 5.0), zone=""),
        SceneObject(7, "car", -9.0, 0.4, 0.0, CAR, moving=True, zone="road"),
        SceneObject(8, "car", 40.0, 3.4, FACING_US, CAR, moving=True, zone="road"),
    ]
)


@pytest.mark.parametrize(
    ("form", "instance"),
    [
        (Form("truck"), 4),
        (Form("car"), None),
        (Form("bus"), 0),
        (Form("car", side="left", order="first"), 1),
        (Form("car", side="left", order="second"), 2),
        (Form("car", side="left", order="last"), None),  # the oncoming one may be taken as on the left or as ahead
        (Form("car", side="left", motion="parked", order="last"), 2),
        (Form("car", side="ahead", motion="moving"), None),  # the oncoming one is nearly straight ahead, too
        (Form("car", side="ahead", motion="same_way"), 3),
        (Form("car", motion="oncoming"), 8),
        (Form("car", side="behind_us"), 7),
        (Form("car", side="right"), 0),
        (Form("person", relation="beside", anchor=Form("truck")), 5),
        (Form("person", relation="near", anchor=Form("tree")), 6),
        (Form("person", motion="walking"), 5),
        (Form("person", motion="standing"), 6),
        (Form("person", motion="walking_away"), 5),
        (Form("car", relation="behind", anchor=Form("car", side="left", order="first")), 2),  # the first one faces us
        (Form("car", relation="in_front", anchor=Form("car", side="left", order="second")), 1),
        (Form("vehicle", order="biggest"), 4),
        (Form("person", order="nearest"), 5),
        (Form("person", metres=30), 6),
        (Form("person", order="third"), 0),
        (Form("truck", relation="opposite", anchor=Form("car", side="left", order="second")), 4),
    ],
)
def test_what_is_said_means_the_object_that_a_listener_would_take(form, instance):
    """0: nothing in the scene can be meant; None: not clear which."""
    index = answer(form, Facts(STREET))
    found = None if index is None else 0 if index < 0 else int(STREET.instance[index])
    assert found == instance


def mirror(scene: SceneGraph) -> SceneGraph:
    return SceneGraph([dataclasses.replace(each, y_m=-each.y_m, heading_rad=-each.heading_rad) for each in scene.objects])


def other_side(form: Form) -> Form:
    def swap(name: str) -> str:
        return name.replace("left", "?").replace("right", "left").replace("?", "right")

    anchor = form.anchor and other_side(form.anchor)
    return dataclasses.replace(form, side=swap(form.side), relation=swap(form.relation), anchor=anchor)


def test_a_mirrored_scene_has_the_same_answers_with_left_and_right_exchanged():
    facts, mirrored, rng = Facts(STREET), Facts(mirror(STREET)), np.random.default_rng(0)
    forms = [draw_form(facts, int(rng.integers(6)), rng) for _ in range(300)]
    assert sum("left" in form.side + form.relation for form in forms) > 30
    assert [answer(form, facts) for form in forms] == [answer(other_side(form), mirrored) for form in forms]


def test_context_and_confusable_objects_are_named():
    facts, form = Facts(STREET), Form("person", relation="beside", anchor=Form("truck"))
    assert context_of(form, facts, 4) == (4,)
    assert confusable_with(form, STREET, 4) == (6,)
    assert confusable_with(Form("car", side="right"), STREET, -1) == (1, 2, 3, 7, 8)


def test_rows_have_the_answer_of_their_form_and_follow_from_the_seed():
    rows = expressions_of(STREET, "000000", 200, 3)
    assert rows == expressions_of(STREET, "000000", 200, 3) != expressions_of(STREET, "000000", 200, 4)
    assert {row.case for row in rows} == {"unique", "multiple", "none"}
    assert 0.05 < sum(row.case == "none" for row in rows) / len(rows) < 0.2
    for row in rows:
        assert set(row.targets) <= set(STREET.instance[STREET.instance > 0])
        assert not set(row.targets) & {*row.confusable}
        assert (row.case == "unique") == (row.targets in [(4,)] and not row.confusable)
    groups = {row.group: row.targets for row in rows}
    assert all(groups[row.group] == row.targets for row in rows)
    assert len(rows) > len(groups) == len({row.group for row in rows})


def held_out_words() -> set[str]:
    tables = [value for name, value in vars(phrases).items() if name.isupper()]
    texts = [text for table in tables for text in (table.values() if isinstance(table, dict) else [table])]
    texts = [each for text in texts for each in (text if isinstance(text, tuple) else [text])]
    marked = {way for text in texts for way in re.findall(r"~([^|{}]+)", text)}
    common = " ".join(re.sub(r"~[^|{}]+", "", text) for text in texts)
    return {word for way in marked for word in way.split() if not re.search(rf"\b{re.escape(word)}\b", common)}


def test_training_never_shows_the_words_that_are_held_out_for_the_test():
    words = held_out_words()
    assert {"automobile", "halt", "footpath"} <= words
    training, test = expressions_of(STREET, "0", 300, 1), expressions_of(STREET, "0", 300, 1, "test")
    assert not any(row.held_out for row in training)
    assert not [row.text for row in training if words & set(re.findall(r"[\w-]+", row.text))]
    shown = [row for row in test if words & set(re.findall(r"[\w-]+", row.text))]
    assert len(shown) > 60
    assert all(row.held_out for row in shown)


def test_every_slot_of_a_phrase_is_filled():
    rng, facts = np.random.default_rng(5), Facts(STREET)
    texts = [say_form(draw_form(facts, int(rng.integers(6)), rng), Speaker(rng, "test")) for _ in range(2000)]
    assert not [text for text in texts if re.search(r"[<>{}|~]|  ", text)]


def test_simulate_writes_expressions_whose_answers_are_instances_of_the_scan(tmp_path, capsys):
    sensor = tmp_path / "tiny.yaml"
    sensor.write_text(SENSOR)
    arguments = ["simulate", "--seed", "2", "--streets", "2", "--scans", "2", "--stride", "20", "--sensor", str(sensor)]
    arguments += ["--expressions", "20", "--workers", "1"]
    assert main([*arguments, "--out", str(tmp_path / "sim")]) == 0
    said = capsys.readouterr().out
    scans, rows = open_scans(tmp_path / "sim"), read_expressions(tmp_path / "sim")
    assert f"{len(rows)} expressions" in said
    assert not check(scans)
    assert {row.scan for row in rows} <= set(scans.keys)
    assert len(rows) > 30
    for key in scans.keys:
        scan = scans[scans.keys.index(key)]
        present = set(np.unique(scan.instance_id)) - {0}
        named = [row for row in rows if row.scan == key]
        assert all({*row.targets, *row.context, *row.confusable} <= present for row in named)
    assert main([*arguments, "--out", str(tmp_path / "sim")]) == 0  # is there already
    assert read_expressions(tmp_path / "sim") == rows


def test_a_bag_alone_has_no_place_for_expressions(tmp_path, capsys):
    assert main(["simulate", "--bag", str(tmp_path / "bag"), "--expressions", "5"]) == 2
    assert "add --out FOLDER" in capsys.readouterr().err
