# SPDX-License-Identifier: Apache-2.0
"""The report's groups, costly classes, objects, recordings and 3D view, and the comparison of two runs."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.browser import new_tab
from weakseg_ros.cli import main
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.measure.compare import compare, in_words
from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate
from weakseg_ros.measure.merge import merge
from weakseg_ros.measure.scan3d import MOST_POINTS, RECORD, UNIT_M, pack_scan
from weakseg_ros.measure.sections import costly_classes, group_of, group_rows, object_rows
from weakseg_ros.measure.tally import Tally
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap


@pytest.fixture(scope="module")
def run(recording: Path, known_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(folder, summary) of the known model on the known scans."""
    out = tmp_path_factory.mktemp("sections") / "one"
    summary = evaluate(EvaluateConfig(data=recording / "scans", bundle=str(known_bundle.folder), out=out))[1]
    return out, summary


@pytest.mark.parametrize("name", ["semantickitti", "street", "nuscenes", "semanticposs", "vlp32"])
def test_the_classes_of_shipped_maps_have_the_group_that_a_person_expects(name: str) -> None:
    groups = {row.name: group_of(row.name) for row in LabelMap.load(name).classes[1:]}
    expected = {"road": "ground", "sidewalk": "ground", "building": "structure", "vegetation": "plants", "car": "vehicles"}
    expected |= {"truck": "vehicles", "bicycle": "vehicles", "person": "people", "bicyclist": "people", "pole": "poles"}
    expected |= {
        "motorcyclist": "people",
        "trunk": "plants",
        "traffic-sign": "poles",
        "pedestrian": "people",
        "two-wheeler": "vehicles",
    }
    assert {known: groups[known] for known in expected if known in groups} == {k: v for k, v in expected.items() if k in groups}


def test_a_truck_called_car_is_right_within_its_group() -> None:
    names = ("car", "truck", "road")
    counts = np.zeros((4, 4), int)
    counts[1, 1], counts[1, 2], counts[3, 3], counts[1, 3] = 6, 4, 10, 2
    summary = {
        "labelled_scans": 1,
        "confusion_matrix": counts.tolist(),
        "classes": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
    }
    rows = {row["name"]: row for row in group_rows(summary)}
    assert rows["vehicles"]["iou"] == pytest.approx(10 / 12)
    assert rows["vehicles"]["members"] == ["car", "truck"]
    assert rows["ground"]["iou"] == pytest.approx(10 / 12)
    assert group_rows({**summary, "labelled_scans": 0}) == []


def test_classes_are_ordered_by_the_points_they_lose() -> None:
    rows = [
        {"name": "road", "truth_points": 1000, "recall": 0.9, "taken_for": None},
        {"name": "person", "truth_points": 20, "recall": 0.0, "taken_for": None},
        {"name": "car", "truth_points": 100, "recall": 1.0, "taken_for": None},
    ]
    found = costly_classes({"classes": rows})
    assert [(row["name"], row["lost"]) for row in found] == [("road", 100), ("person", 20)]


def test_the_summary_says_what_is_labelled_which_objects_and_what_the_first_scan_took(run: tuple[Path, dict[str, Any]]) -> None:
    summary = run[1]
    assert summary["labelled_share"] == pytest.approx(127 / 128, abs=1e-3)
    assert summary["latency_warm_ms"]["count"] == 5
    assert summary["cold_start_ms"] > 0
    assert object_rows({"panoptic": {"objects": [{"found": 0, "missed": 0, "invented": 0}]}}) == []


def test_the_median_is_without_the_first_scan_of_each_process() -> None:
    first, second = Tally(2), Tally(2)
    for tally, times in ((first, (900.0, 1.0, 2.0)), (second, (800.0, 3.0))):
        for milliseconds in times:
            tally._add_times({"engine": milliseconds})
    both = Tally.from_mapping((first + second).to_mapping(), "here")
    assert sorted(both.warm_ms) == [1.0, 2.0, 3.0]
    alone = Tally(2)
    alone._add_times({"engine": 7.0})
    assert alone.warm_ms == [7.0]


def test_a_packed_scan_reads_back_and_is_thinned_evenly() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-60, 60, (MOST_POINTS + 5000, 3)).astype(np.float32)
    xyz[7] = np.nan
    count = len(xyz)
    class_id = rng.integers(0, 5, count).astype(np.uint8)
    nothing = np.zeros((0, 0), np.uint8)
    instance, values = np.zeros(count, np.uint16), np.full(count, 0.5, np.float32)
    answer = Segmentation(class_id, instance, values, values, np.zeros(count, np.uint8), nothing, instance[:0].reshape(0, 0))
    packed = pack_scan("7", make_cloud(xyz), answer, None)
    records = np.frombuffer(base64.b64decode(packed.points), RECORD)
    assert packed.of == count - 1
    assert len(records) == packed.count <= MOST_POINTS
    assert not packed.has_truth
    usable = np.flatnonzero(np.isfinite(xyz).all(axis=1))[::2]
    np.testing.assert_allclose(records["xyz"] * UNIT_M, xyz[usable], atol=UNIT_M)
    np.testing.assert_array_equal(records["predicted"], class_id[usable])
    assert set(records["uncertainty"]) == {127}


def test_a_merged_report_has_a_row_with_a_link_for_each_recording(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(run[0], tmp_path / "all" / name)) for name in ("drive a", "b")]
    for folder in folders:
        content = json.loads((folder / "summary.json").read_text())
        content["data"]["name"] = folder.name
        (folder / "summary.json").write_text(json.dumps(content))
    report, summary = merge(folders, tmp_path / "all")
    assert [row["name"] for row in summary["recordings"]] == ["drive a", "b"]
    assert summary["recordings"][0]["miou_present"] == run[1]["miou_present"]
    assert 'href="drive%20a/report.html"' in report.read_text()
    assert "<h2>Recordings</h2>" in report.read_text()


@pytest.mark.browser
def test_tables_sort_and_the_scan_turns_in_a_browser(browser: Any, run: tuple[Path, dict[str, Any]]) -> None:
    tab = new_tab(browser, 1000, 800)
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto((run[0] / "report.html").as_uri())
    points = "#classes td:nth-child(6)"

    def column() -> list[int]:
        return [int(text.replace(",", "")) for text in tab.locator(points).all_inner_texts()]

    tab.click("#classes th:nth-child(6)")
    assert column() == sorted(column(), reverse=True)
    tab.click("#classes th:nth-child(6)")
    assert column() == sorted(column())
    drawn = "document.querySelector('.scan3d canvas').toDataURL()"
    before = tab.evaluate(drawn)
    tab.click("button[data-look=truth]")
    truth = tab.evaluate(drawn)
    assert truth != before
    box = tab.locator(".scan3d canvas").bounding_box()
    tab.mouse.move(box["x"] + 100, box["y"] + 100)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 220, box["y"] + 130, steps=4)
    tab.mouse.up()
    assert tab.evaluate(drawn) != truth
    assert not faults
    tab.close()


def test_a_run_beside_itself_and_beside_one_that_is_not_like_it(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = compare(run[0], run[0] / "summary.json")
    assert not same.warnings
    assert all(row.change in (0.0, None) for table in same.tables for row in table.rows)
    other = Path(shutil.copytree(run[0], tmp_path / "other"))
    content = json.loads((other / "summary.json").read_text())
    content["miou_present"] += 0.1
    content["class_iou"]["road"] -= 0.2
    (other / "summary.json").write_text(json.dumps(content))
    words = "\n".join(in_words(compare(run[0], other)))
    assert "+0.100  better" in words
    assert "-0.200  worse" in words
    content["labels"] = [{**row, "raw_ids": [900 + row["id"]]} for row in content["labels"]]
    (other / "summary.json").write_text(json.dumps(content))
    words = "\n".join(in_words(compare(run[0], other)))
    assert "the same classes with different raw ids" in words
    assert "better" not in words.replace("neither is rated better", "")
    content["environment"]["machine"] = "another"
    (other / "summary.json").write_text(json.dumps(content))
    assert "note: Engine or machine differ: the times cannot be compared." in in_words(compare(run[0], other))
    content["data_hash"] = "another"
    content["class_iou"]["tree"] = 0.5
    (other / "summary.json").write_text(json.dumps(content))
    assert main(["compare", str(run[0]), str(other), "--out", str(tmp_path / "page")]) == 0
    said = capsys.readouterr().out
    assert "note: The data differ" in said
    assert "only in the second: tree" in said
    assert "better" not in said.split("\n\n", 1)[1]
    page = (tmp_path / "page" / "compare.html").read_text()
    assert "The label maps differ" in page
    assert json.loads((tmp_path / "page" / "compare.json").read_text())["kind"] == "evaluation"


def test_trainings_and_benchmarks_compare_and_nothing_else_does(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, miou, rate in (("a", 0.4, 0.01), ("b", 0.5, 0.02)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"learning_rate: {rate}\nerda: {{weight: 0.1}}\n")
        facts = {"data": {"name": "drive", "hash": "same"}, "val": {"name": "drive", "hash": "same"}}
        (tmp_path / name / "environment.json").write_text(json.dumps(facts))
        (tmp_path / name / "labels.yaml").write_text("classes: [{id: 1, name: road, raw_ids: [40]}]")
        best = {"step": 9, "miou": miou, "miou_present": miou, "accuracy": 0.8, "class_iou": {"road": miou}}
        (tmp_path / name / "best.json").write_text(json.dumps(best))
        table = {"miou": {"erda": {"0.001": miou}}, "seeds": [1], "step_ms": {"erda": 5.0}, "data": "x", "classes": []}
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    trained = compare(tmp_path / "a", tmp_path / "b")
    assert trained.differences == (("learning_rate", "0.01", "0.02"),)
    assert trained.tables[0].rows[0].verdict == "better"
    tables = compare(tmp_path / "a.json", tmp_path / "b.json")
    assert tables.tables[0].rows[0].name == "erda, 0.1 %"
    assert tables.tables[0].rows[0].verdict == "better"
    (tmp_path / "c.json").write_text((tmp_path / "b.json").read_text().replace('"x"', '"y"'))
    apart = compare(tmp_path / "a.json", tmp_path / "c.json")
    assert (apart.warnings, apart.tables[0].rows[0].verdict) == (("The data differ (x and y).",), "")
    for wrong, part in ((str(run[0]), "compare two of the same kind"), (str(tmp_path / "none"), "cannot be read")):
        assert main(["compare", str(tmp_path / "a"), wrong]) == 2
        said = capsys.readouterr().err
        assert part in said
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "before", "after", "words", "verdict"),
    [
        (
            "environment.json",
            '"data": {"name": "a", "hash": "1"}',
            '"data": {"hash": "2"}',
            "trained on different scans",
            "better",
        ),
        (
            "environment.json",
            '"val": {"hash": "3"}',
            '"val": null',
            "validated on different scans, so neither is rated better",
            "",
        ),
        ("labels.yaml", "[40]", "[41]", "The label maps differ, so neither is rated better", ""),
    ],
)
def test_trainings_that_were_asked_differently_are_told(
    tmp_path: Path, file: str, before: str, after: str, words: str, verdict: str
) -> None:
    content = {"config.yaml": "seed: 1\n", "labels.yaml": "classes: [{id: 1, name: road, raw_ids: [40]}]"}
    content["environment.json"] = '{"data": {"name": "a", "hash": "1"}, "val": {"hash": "3"}}'
    for name, miou in (("a", 0.4), ("b", 0.5)):
        (tmp_path / name).mkdir()
        for one, text in {**content, "best.json": f'{{"miou": {miou}, "miou_present": {miou}}}'}.items():
            (tmp_path / name / one).write_text(text)
    assert not compare(tmp_path / "a", tmp_path / "b").warnings
    (tmp_path / "b" / file).write_text(content[file].replace(before, after))
    found = compare(tmp_path / "a", tmp_path / "b")
    assert [words in warning for warning in found.warnings] == [True]
    assert found.tables[0].rows[0].verdict == verdict
