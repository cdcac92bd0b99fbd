# SPDX-License-Identifier: Apache-2.0
"""The page of `weakseg view`: what a person asks of it, with and without a browser."""

from __future__ import annotations

import dataclasses
import importlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from support import PATIENCE_S, free_port, optional
from support.browser import open_page, see
from support.viewed_scans import LABELS, answer_of, cloud_of, truth_of
from weakseg_ros.deploy.referring import Referred
from weakseg_ros.measure.pictures import MEANT
from weakseg_ros.view.frames import Shown
from weakseg_ros.view.panes import FOUND, colors_of


class Still:
    """Frames that a test fills."""

    notes: tuple[str, ...] = ()
    labels = LABELS

    def __init__(self, live: bool, shown: list[Shown], models: tuple[str, ...] = ("mine",)) -> None:
        self.live, self.kept, self.models = live, shown, models

    def __len__(self) -> int:
        return len(self.kept)

    def frame(self, index: int) -> Shown:
        return self.kept[index]

    def ask(self, text: str) -> bool:
        """The person is found whatever is asked; 'unicorn' is beyond the models."""
        nobody = np.zeros(0, np.float32)
        mask = truth_of()[0] == 3
        found = Referred(mask, 0.8, 0.9, nobody, superpoints=None, chosen=np.zeros(1, np.int64))  # type: ignore[arg-type]
        asked = bool(text) and text != "unicorn"
        self.kept = [dataclasses.replace(each, found=(found if asked else None,)) for each in self.kept]
        return text != "unicorn"


@pytest.fixture
def server() -> Iterator[Any]:
    optional("viser")
    from weakseg_ros.improve.label.serve import start_server, stop_server

    made = start_server(free_port(), "view")
    yield made
    stop_server(made)


def work_off(page: Any, *asked: tuple[str, str]) -> None:
    """Let the page do what is asked, to its end."""
    for action, argument in asked:
        page.ask(action, argument, None)
    page.stop()
    worker = threading.Thread(target=page.run)
    worker.start()
    worker.join(240.0)
    assert not worker.is_alive()


def test_the_page_goes_through_time_colours_and_panes(server: Any, shown: Shown) -> None:
    page_module = importlib.import_module("weakseg_ros.view.page")
    others = [Shown(f"{index:06d}", cloud_of(index), None, None, shown.answers) for index in range(1, 3)]
    page = page_module.ViewPage(server, Still(False, [shown, *others]), "View scans", 5.0)
    assert "10.5%" in page._status.content
    assert page._drawing.look == "classes"
    work_off(page, ("look", "errors"), ("boxes", ""), ("swap", ""), ("size", "10"), ("reach", "15"), ("above", ""), ("home", ""))
    page._show_frame()
    assert "beyond 15 m" in page._status.content
    assert page._drawing.alone == 1
    assert "wrong" in page._legend.content
    work_off(page, ("frame", "2"), ("following", ""))
    page._show_frame()
    assert "000002" in page._status.content
    assert page._drawing.look == "classes"  # without labels there are no errors to show
    work_off(page, ("first", ""))
    page._show_frame()
    assert "000000" in page._status.content


def test_what_is_typed_in_is_found_drawn_and_counted(server: Any, shown: Shown) -> None:
    page_module = importlib.import_module("weakseg_ros.view.page")
    page = page_module.ViewPage(server, Still(False, [shown]), "View scans", 5.0)
    work_off(page, ("find", "the pedestrian on the right"))
    page._show_frame()
    assert page._drawing.look == FOUND
    assert "20 points found, score 0.80" in page._status.content
    assert "looked for" in page._legend.content
    colors = colors_of(page._sides[1], FOUND, LABELS)
    np.testing.assert_array_equal((colors == MEANT).all(axis=1), truth_of()[0] == 3)
    work_off(page, ("find", ""))
    page._show_frame()
    assert page._drawing.look == "classes"
    assert "found" not in page._status.content
    work_off(page, ("find", "unicorn"))
    page._show_frame()
    assert "No model here answers expressions" in page._status.content


def test_the_page_follows_a_node_until_someone_goes_back(server: Any, shown: Shown) -> None:
    page_module = importlib.import_module("weakseg_ros.view.page")
    frames = Still(True, [])
    page = page_module.ViewPage(server, frames, "View node", 5.0)
    assert "Waiting for the first cloud" in page._status.content
    frames.kept += [shown, Shown("000001", cloud_of(1), None, None, shown.answers)]
    page._next_s = 0.0
    page._step()
    assert "000001" in page._status.content
    work_off(page, ("previous", ""))
    page._show_frame()
    assert "000000" in page._status.content
    assert not page._playing


# in a browser

BRIGHT = 110
"""a point's brightest colour is above this, the dark background of the page below"""


@pytest.fixture
def page(server: Any, shown: Shown) -> Iterator[Any]:
    """The page of three scans with two models, of which the second one is always right."""
    class_id, instance = truth_of()
    both = (*shown.answers, answer_of(class_id))
    frames = [Shown(f"{index:06d}", cloud_of(9 * index), class_id, instance, both) for index in range(3)]
    made = importlib.import_module("weakseg_ros.view.page").ViewPage(
        server, Still(False, frames, ("mine", "other")), "View scans", 5.0
    )
    worker = threading.Thread(target=made.run)
    worker.start()
    yield made
    made.stop()
    worker.join(PATIENCE_S)


def drawn(tab: Any) -> np.ndarray:
    """(480, 800) True where a point is on the picture of the 3D view."""
    image = optional("PIL.Image").open(io.BytesIO(tab.locator("canvas").first.screenshot())).convert("RGB")
    return np.asarray(image).max(axis=-1) > BRIGHT


def until_drawn(tab: Any, is_due: Callable[[np.ndarray], Any]) -> np.ndarray:
    """The first picture that is as it is due."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        points = drawn(tab)
        if is_due(points):
            return points
    raise AssertionError("the 3D view never became what was due")


def test_a_person_goes_through_time_with_two_models_side_by_side(browser: Any, server: Any, page: Any) -> None:
    tab = open_page(browser, server.get_port(), "scan 1 of 3")
    assert tab.title() == "View scans"
    see(tab, r"mine: .*10\.5% of the labelled points are wrong")
    see(tab, r"other: .*0\.0% of the labelled points are wrong")
    first = until_drawn(tab, lambda points: points[:, :300].any() and points[:, 300:].any())

    tab.keyboard.press("PageDown")
    see(tab, "scan 2 of 3")
    second = until_drawn(tab, lambda points: points.any() and (points != first).any())
    tab.get_by_role("slider").first.press("End")
    see(tab, "scan 3 of 3")
    until_drawn(tab, lambda points: points.any() and (points != second).any())

    tab.get_by_text("Errors", exact=True).first.click()
    see(tab, "wrong")
    tab.keyboard.press("Home")
    see(tab, "scan 1 of 3")
    tab.close()
