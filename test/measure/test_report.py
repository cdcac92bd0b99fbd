# SPDX-License-Identifier: Apache-2.0
"""The report: readable without anything else, right way up, and honest in words."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate
from weakseg_ros.measure.latency import StageTimes, describe, histogram
from weakseg_ros.measure.pictures import RIGHT, WRONG, class_colors, error_colors, png, range_picture, top_view
from weakseg_ros.measure.report import render
from weakseg_ros.measure.verdict import next_steps, verdict
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.projection import RangeSpec, project


class Page(HTMLParser):
    """Collects every address and every open tag of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")]
        self.links += [(value or "")[1:] for name, value in attrs if name == "href" and (value or "").startswith("#")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{self.getpos()}: </{tag}> closes something else"


@pytest.fixture(scope="module")
def evaluated(recording: Path, known_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """(report, summary) of the known model on the known scans."""
    out = tmp_path_factory.mktemp("report")
    path, summary = evaluate(EvaluateConfig(data=recording / "scans", bundle=str(known_bundle.folder), out=out))
    return path.read_text(), summary


def test_the_page_needs_nothing_else(evaluated: tuple[str, dict[str, Any]]) -> None:
    text, summary = evaluated
    page = Page(text)
    assert not page.open
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert len(page.addresses) == 4 * 7  # the typical and three worst scans: four range images, three top views
    assert page.tags.count("script") == 3  # the packed scan, its viewer, and the sorting of tables
    assert not re.search(r"https?://|fetch\(|import\(|XMLHttpRequest", text)
    assert page.links
    assert set(page.links) <= set(page.ids)
    assert "@import" not in text
    for word in (summary["bundle"]["hash"], summary["data_hash"], "road", "building", "car", "What to do next"):
        assert word in text


def test_strange_names_cannot_break_the_page(evaluated: tuple[str, dict[str, Any]]) -> None:
    _, summary = evaluated
    evil = "<script>alert(1)</script>"
    hostile = {**summary, "title": evil, "notes": [evil], "story": {evil: evil}, "partial": True, "partial_reason": evil}
    text = render(hostile)
    assert evil not in text
    assert Page(text).tags.count("script") == 1


def test_the_verdict_names_what_is_weak_and_what_to_do(evaluated: tuple[str, dict[str, Any]]) -> None:
    _, summary = evaluated
    said = verdict(summary)
    assert said.level == "good"
    assert "reliable on road and building" in said.headline
    assert "unreliable on car" in said.headline
    steps = next_steps(summary, "models/yard", "drive")
    assert any("Label more of car" in step.text for step in steps)
    assert "weakseg evaluate drive --bundle models/yard --live" in [step.command for step in steps]


def test_a_time_of_many_digits_has_no_decimals_that_break_its_tile(evaluated: tuple[str, dict[str, Any]]) -> None:
    _, summary = evaluated
    page = render({**summary, "latency_warm_ms": {**summary["latency_warm_ms"], "p50": 1157.04, "p95": 62.37}})
    assert "<b>1157 ms</b>" in page
    assert "95 % within 62.4 ms" in page


def test_without_labels_the_first_step_is_a_command_that_runs(evaluated: tuple[str, dict[str, Any]]) -> None:
    _, summary = evaluated
    unlabelled = {**summary, "labelled_scans": 0, "data": {**summary["data"], "path": "drive", "topic": "/points"}}
    page = render(unlabelled)
    for verb in ("select", "evaluate"):
        assert f"weakseg {verb} drive --topic /points --bundle" in page


def test_slow_and_partial_results_come_with_a_warning(evaluated: tuple[str, dict[str, Any]]) -> None:
    _, summary = evaluated
    slow = {**summary, "latency_warm_ms": {**summary["latency_warm_ms"], "p50": 120.0, "p95": 250.0}}
    assert "falls behind a 10 Hz sensor" in verdict(slow).detail
    cold = {**summary, "latency_ms": {"total": {**summary["latency_ms"]["total"], "p95": 9e4}}}
    assert verdict(cold).detail == verdict(summary).detail, "the first scan, on which the engine warms up, does not count"
    broken = {**slow, "partial": True, "partial_reason": "drive.mcap: cut off"}
    texts = [step.text for step in next_steps(broken, "b", "d")]
    assert texts[0] == "Repair the data first: drive.mcap: cut off"
    assert any("250 ms" in text for text in texts)


def test_top_view_has_forward_up_and_left_left() -> None:
    xyz = np.array([[20, 0, 0], [0, 20, 0], [0, 0, 0], [np.nan, 1, 1], [500, 0, 0]], np.float32)
    look = np.array([[1, 0, 0, 255], [2, 0, 0, 255], [3, 0, 0, 255], [4, 0, 0, 255], [5, 0, 0, 255]], np.uint8)
    picture = top_view(xyz, look, half_side_m=40.0, pixels=82)
    rows, cols = np.nonzero(picture[..., 0] == 1)
    assert rows.max() < 30
    assert 38 <= cols.min() <= cols.max() <= 43
    rows, cols = np.nonzero(picture[..., 0] == 2)
    assert cols.max() < 30
    assert 38 <= rows.min() <= rows.max() <= 43
    assert set(np.unique(picture[..., 0])) == {0, 1, 2}


def test_the_highest_point_of_a_pixel_is_drawn() -> None:
    xyz = np.array([[10, 0, 2.0], [10, 0, -1.0]], np.float32)
    picture = top_view(xyz, np.array([[9, 0, 0, 255], [7, 0, 0, 255]], np.uint8))
    assert set(np.unique(picture[..., 0])) == {0, 9}


def test_a_range_picture_shows_the_owner_of_each_pixel_and_is_clear_elsewhere() -> None:
    cloud = make_cloud(np.array([[10, 0, 0], [20, 0, 0], [0, 10, 0]], np.float32))
    view = project(cloud, RangeSpec(4, 8, fov_up_deg=10.0, fov_down_deg=-10.0))
    picture = range_picture(np.array([[1, 1, 1, 255], [2, 2, 2, 255], [3, 3, 3, 255]], np.uint8), view)
    assert sorted(picture[..., 0][picture[..., 3] > 0]) == [1, 3]
    assert picture.shape == (4, 8, 4)
    assert np.count_nonzero(picture[..., 3]) == 2


def test_errors_are_red_and_the_unlabelled_faint() -> None:
    look = error_colors(np.array([1, 2, 1], np.uint8), np.array([1, 1, 0], np.uint8))
    assert tuple(look[0, :3]) == RIGHT
    assert tuple(look[1]) == (*WRONG, 255)
    assert look[2, 3] < look[0, 3] < look[1, 3]


def test_a_png_reads_back_as_it_was() -> None:
    from matplotlib.image import imread

    picture = np.random.default_rng(0).integers(0, 255, (5, 9, 4)).astype(np.uint8)
    picture[..., 3] = 255
    back = imread(io.BytesIO(png(picture)))
    np.testing.assert_array_equal((back * 255).round().astype(np.uint8), picture)


def test_classes_keep_their_colours_and_class_0_is_faint() -> None:
    colors = np.array([[0, 0, 0], [9, 8, 7]], np.uint8)
    look = class_colors(np.array([1, 0], np.uint8), colors)
    assert tuple(look[0]) == (9, 8, 7, 255)
    assert look[1, 3] < 128


def test_percentiles_and_histogram_of_times() -> None:
    times = StageTimes()
    for milliseconds in range(1, 101):
        times.add({"engine": float(milliseconds)})
    figures = (times + StageTimes({"engine": [1000.0], "lift": [1.0]})).summary()
    assert figures["engine"]["max"] == 1000.0
    assert figures["engine"]["p50"] == 51.0
    assert figures["lift"]["count"] == 1
    assert describe([]) == {"count": 0}
    counts, edges = histogram([5.0] * 99 + [400.0], bins=10)
    assert counts.sum() == 100
    assert edges[-1] < 400.0
    assert histogram([])[0].sum() == 0
    assert histogram([3.0, 3.0])[0].sum() == 2


def test_no_figure_of_the_page_is_left_unformatted(evaluated: tuple[str, dict[str, Any]]) -> None:
    text = re.sub(r"<script.*?</script>", "", re.sub(r"data:image/png;base64,[^\"]+", "", evaluated[0]), flags=re.S)
    assert not re.search(r"\d\.\d{5,}", text), "a raw float on the page"
    assert "None" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
