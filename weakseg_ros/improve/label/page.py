# SPDX-License-Identifier: Apache-2.0
"""The page: what happens in any tab goes through one queue to one state, and what it changed is drawn in all tabs."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import viser

from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.colors import views_of
from weakseg_ros.improve.label.keys import CLASS_KEYS, COMMANDS, REPEATABLE, HeldKeys
from weakseg_ros.improve.label.masks import points_in_rectangle
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.improve.label.panel import ROWS, Panel
from weakseg_ros.improve.label.scene import PageScene

log = logging.getLogger(__name__)

IDLE_S = 0.2
"""after so long without an action, small pictures of frames are drawn"""
LOOK_S = 1.0
"""how often clicks of other programs are looked for"""
_NOTHING = object()
Act = Callable[[Any, Any], object]
"""an action of the page: its argument and the tab that asks"""


class Page:
    """One state on one server. `run` works off what the tabs ask for, in order, until `stop`."""

    def __init__(self, server: viser.ViserServer, state: PageState, flight_s: float = 0.35) -> None:
        self._server, self._state = server, state
        self._queue: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()  # a signal handler may put into it
        self._held = HeldKeys()
        self._view = views_of(state.frame)[0]
        server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False, control_width="large")
        server.gui.main_panel.dock_right()
        self._scene = PageScene(server, state, flight_s)
        self._panel = Panel(server, state, self.ask)
        self._actions = self._table()
        self._drawn: dict[str, Any] = {}
        self._last_fault = ""
        self._add_keys()
        self._add_clicks()
        self._draw(None)

    def ask(self, action: str, argument: Any, client: Any) -> None:
        """Queue an action of a tab."""
        self._queue.put((action, argument, client))

    def stop(self) -> None:
        """Let `run` return after what is queued."""
        self._queue.put(("", "", None))

    def run(self) -> None:
        """Work off the queue; between actions, draw what other programs have clicked."""
        drawing = True
        while True:
            try:
                action, argument, client = self._queue.get(timeout=IDLE_S if drawing else LOOK_S)
            except queue.Empty:
                drawing = self._draw_thumbnail()
                self._guard("draw", partial(self._draw, None))
                continue
            drawing = True
            if not action:
                return
            self._guard(action, partial(self._actions[action], argument, client))
            self._guard("draw", partial(self._draw, client))

    def _draw_thumbnail(self) -> bool:
        """Draw one small picture; False where all are drawn, or where one could not be."""
        drawn: list[bool] = []
        self._guard("thumbnail", lambda: drawn.append(self._panel.draw_thumbnail()))
        return bool(drawn and drawn[0])

    def _guard(self, what: str, act: Callable[[], object]) -> None:
        """Do something, and keep the page whatever comes of it."""
        try:
            act()
        except DataError as error:
            self._state.complain(str(error))
        except Exception as error:  # a person must not lose the page over one click
            if str(error) != self._last_fault:
                log.exception("the page could not do '%s'", what)
            self._last_fault = str(error)
            self._state.complain(f"'{what}' failed, and the terminal says why; earlier labels are safe.")

    def _table(self) -> dict[str, Act]:
        state, scene, panel = self._state, self._scene, self._panel
        plain: dict[str, Callable[[], None]] = {
            "skip": state.skip,
            "back": lambda: state.next_suggestion(-1),
            "mark": lambda: state.choose_mode("mark"),
            "paint": lambda: state.choose_mode("paint"),
            "objects": lambda: state.choose_mode("object"),
            "lasso": lambda: state.choose_mode("lasso"),
            "erase": lambda: state.choose_mode("erase"),
            "accept": state.accept,
            "grow": lambda: state.scale(True),
            "shrink": lambda: state.scale(False),
            "reject": state.reject,
            "undo": state.undo,
            "redo": state.redo,
            "previous": lambda: state.turn_page(-1),
            "following": lambda: state.turn_page(1),
            "finish": state.finish,
            "refresh": state.refresh,
            "around": state.toggle_around,
            "together": state.toggle_together,
            "carry_over": state.carry_over,
            "carry_on": state.carry_on,
            "accept_frame": lambda: state.review(True),
            "reject_frame": lambda: state.review(False),
            "hide": lambda: state.hide_class(state.chosen),
            "ground": state.hide_ground,
            "show_all": state.show_everything,
            "up": lambda: panel.scroll(-ROWS),
            "down": lambda: panel.scroll(ROWS),
        }
        table = {name: _without_argument(act) for name, act in plain.items()}
        return table | {
            "click": lambda argument, client: state.click(argument[0], argument[1], scene.point_size_m / 2),
            "class": lambda argument, client: state.press(int(argument)),
            "box": lambda argument, client: state.select(argument),
            "hide_class": lambda argument, client: state.hide_class(int(argument)),
            "heights": lambda argument, client: self._limit_heights(argument),
            "brush": lambda argument, client: state.resize_brush(float(argument)),
            "row": lambda argument, client: self._open_row(int(argument)),
            "view": lambda argument, client: self._choose_view(argument),
            "size": lambda argument, client: scene.resize(float(argument)),
            "number": lambda argument, client: setattr(state, "instances", argument == "1"),
            "same": lambda argument, client: setattr(state, "same_object", argument == "1"),
            "home": lambda argument, client: scene.fly_home(client),
            "above": lambda argument, client: scene.fly_above(client),
            "to_mark": lambda argument, client: scene.fly_to_mark(client),
        }

    def _open_row(self, at: int) -> None:
        if at < len(self._state.source):
            self._state.open(self._state.source.keys[at])

    def _choose_view(self, name: str) -> None:
        views = views_of(self._state.frame)
        after = views[(views.index(self._view) + 1) % len(views)] if self._view in views else views[0]
        self._view = name if name in views else after

    def _limit_heights(self, argument: str) -> None:
        low_m, high_m = map(float, argument.split())
        self._state.filters = replace(self._state.filters, low_m=low_m, high_m=high_m)

    def _add_keys(self) -> None:
        for action, key, label, modifier in COMMANDS:
            self._add_key(label, key, action, "", modifier)
        for row in self._state.labels.classes[1:]:
            class_key = CLASS_KEYS[row.id - 1] if row.id <= len(CLASS_KEYS) else None
            self._add_key(f"Class: {row.name}", class_key, "class", str(row.id))

    def _add_key(self, label: str, key: Any, action: str, argument: str, modifier: Any = None) -> None:
        async def pressed(event: Any) -> None:  # on the event loop, so that keys keep their order
            if not self._held.is_repeat(action + argument) or action in REPEATABLE:
                self.ask(action, argument, event.client)

        self._server.gui.add_command(label, hotkey=key, modifier=modifier).on_trigger(pressed)

    def _add_clicks(self) -> None:
        scene: Any = self._server.scene  # it awaits what its types want plain

        async def clicked(event: Any) -> None:
            self.ask("click", (np.array(event.ray_origin), np.array(event.ray_direction)), event.client)

        async def boxed(event: Any) -> None:
            self.ask("box", _rectangle(event), event.client)

        scene.on_click()(clicked)
        scene.on_rect_select(modifier="shift")(boxed)

    def _draw(self, client: Any) -> None:
        """Send what differs from what the tabs show; `client` is the tab whose camera follows the mark."""
        state, scene = self._state, self._scene
        key, stamp = state.frame.key, state.store.stamp
        hidden = (state.filters, stamp if state.filters.classes else None)
        if self._changed("scan", (key, self._view, hidden)):
            scene.show_scan(self._view)
        if self._changed("labels", (key, stamp, hidden)):
            scene.show_labels()
        if self._changed("around", (key, state.around, state.together, (stamp, state.filters) if state.around else None)):
            scene.show_around()
        if self._changed("lasso", state.lasso):
            scene.show_lasso()
        if self._changed("mask", state.mask):
            scene.show_mask()
        if self._changed("mark", (key, state.point, state.suggested)):
            scene.show_mark()
            if state.suggested is not None:
                scene.fly_to_mark(client)
        if self._changed("frame", key):
            self._panel.turn_to(key)
        self._panel.show(self._view)

    def _changed(self, part: str, now: Any) -> bool:
        before, self._drawn[part] = self._drawn.get(part, _NOTHING), now
        return before is not now and before != now


def _without_argument(act: Callable[[], None]) -> Act:
    return lambda argument, client: act()


def _rectangle(event: Any) -> Callable[[Any], Any]:
    """Which points (N, 3) lie in the rectangle that was drawn in a tab, as its camera saw them."""
    camera = event.client.camera
    axes = np.asarray(viser.transforms.SO3(np.array(camera.wxyz)).as_matrix(), np.float64)
    corners = (tuple(event.screen_min), tuple(event.screen_max))
    position, fov, aspect = np.array(camera.position, np.float64), float(camera.fov), float(camera.aspect)
    return lambda xyz: points_in_rectangle(xyz, position, axes, fov, aspect, corners)
