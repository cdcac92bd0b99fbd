# SPDX-License-Identifier: Apache-2.0
"""The page: what happens in any tab goes through one queue to one session, and what it changed is drawn in all tabs."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import viser

from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.colors import views_of
from weakseg_ros.improve.label.keys import CLASS_KEYS, COMMANDS, REPEATABLE, HeldKeys
from weakseg_ros.improve.label.panel import ROWS, Panel
from weakseg_ros.improve.label.scene import Scene
from weakseg_ros.improve.label.session import Session

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""how often clicks of other programs are looked for"""
_NOTHING = object()


class Page:
    """One session on one server. `run` works off what the tabs ask for, in order, until `stop`."""

    def __init__(self, server: viser.ViserServer, session: Session, flight_s: float = 0.35) -> None:
        self._server, self._session = server, session
        self._queue: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()  # a signal handler may put into it
        self._held = HeldKeys()
        self._view = views_of(session.frame)[0]
        server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False, control_width="large")
        server.gui.main_panel.dock_right()
        self._scene = Scene(server, session, flight_s)
        self._panel = Panel(server, session, self.ask)
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
        while True:
            try:
                action, argument, client = self._queue.get(timeout=LOOK_S)
            except queue.Empty:
                self._guard("draw", partial(self._draw, None))
                continue
            if not action:
                return
            self._guard(action, partial(self._actions[action], argument, client))
            self._guard("draw", partial(self._draw, client))

    def _guard(self, what: str, act: Callable[[], None]) -> None:
        """Do something, and keep the page whatever comes of it."""
        try:
            act()
        except DataError as error:
            self._session.complain(str(error))
        except Exception as error:  # a person must not lose the page over one click
            if str(error) != self._last_fault:
                log.exception("the page could not do '%s'", what)
            self._last_fault = str(error)
            self._session.complain(f"'{what}' failed, the terminal says why; what was labelled before is safe.")

    def _table(self) -> dict[str, Callable[[Any, Any], None]]:
        session, scene, panel = self._session, self._scene, self._panel
        plain: dict[str, Callable[[], None]] = {
            "skip": session.skip,
            "back": lambda: session.next_suggestion(-1),
            "mark": lambda: session.choose_mode("mark"),
            "paint": lambda: session.choose_mode("paint"),
            "objects": lambda: session.choose_mode("object"),
            "erase": lambda: session.choose_mode("erase"),
            "accept": session.accept,
            "grow": lambda: session.scale(True),
            "shrink": lambda: session.scale(False),
            "reject": session.reject,
            "undo": session.undo,
            "redo": session.redo,
            "previous": lambda: session.turn_page(-1),
            "following": lambda: session.turn_page(1),
            "finish": session.finish,
            "refresh": session.refresh,
            "up": lambda: panel.scroll(-ROWS),
            "down": lambda: panel.scroll(ROWS),
        }
        table: dict[str, Callable[[Any, Any], None]] = {
            name: (lambda argument, client, act=act: act()) for name, act in plain.items()
        }
        return table | {
            "click": lambda argument, client: session.click(*argument, scene.point_size_m / 2),
            "class": lambda argument, client: session.press(int(argument)),
            "row": lambda argument, client: self._open_row(int(argument)),
            "view": lambda argument, client: self._choose_view(argument),
            "size": lambda argument, client: scene.resize(float(argument)),
            "number": lambda argument, client: setattr(session, "instances", argument == "1"),
            "same": lambda argument, client: setattr(session, "same_object", argument == "1"),
            "home": lambda argument, client: scene.fly_home(client),
            "above": lambda argument, client: scene.fly_above(client),
            "to_mark": lambda argument, client: scene.fly_to_mark(client),
        }

    def _open_row(self, at: int) -> None:
        if at < len(self._session.source):
            self._session.open(self._session.source.keys[at])

    def _choose_view(self, name: str) -> None:
        views = views_of(self._session.frame)
        after = views[(views.index(self._view) + 1) % len(views)] if self._view in views else views[0]
        self._view = name if name in views else after

    def _add_keys(self) -> None:
        for action, key, label in COMMANDS:
            self._add_key(label, key, action, "")
        for row in self._session.labels.classes[1:]:
            key = CLASS_KEYS[row.id - 1] if row.id <= len(CLASS_KEYS) else None
            self._add_key(f"Class: {row.name}", key, "class", str(row.id))

    def _add_key(self, label: str, key: Any, action: str, argument: str) -> None:
        async def pressed(event: Any) -> None:  # on the event loop, so that keys keep their order
            if not self._held.is_repeat(action + argument) or action in REPEATABLE:
                self.ask(action, argument, event.client)

        self._server.gui.add_command(label, hotkey=key).on_trigger(pressed)

    def _add_clicks(self) -> None:
        async def clicked(event: Any) -> None:
            self.ask("click", (np.array(event.ray_origin), np.array(event.ray_direction)), event.client)

        self._server.scene.on_click()(clicked)

    def _draw(self, client: Any) -> None:
        """Send what differs from what the tabs show; `client` is the tab whose camera follows the mark."""
        session, scene = self._session, self._scene
        key, stamp = session.frame.key, session.store.stamp
        if self._changed("scan", (key, self._view)):
            scene.show_scan(self._view)
        if self._changed("labels", (key, stamp)):
            scene.show_labels()
        if self._changed("mask", session.proposal):
            scene.show_mask()
        if self._changed("mark", (key, session.point, session.suggested)):
            scene.show_mark()
            if session.suggested is not None:
                scene.fly_to_mark(client)
        if self._changed("frame", key):
            self._panel.turn_to(key)
        self._panel.show(self._view)

    def _changed(self, part: str, now: Any) -> bool:
        before, self._drawn[part] = self._drawn.get(part, _NOTHING), now
        return before is not now and before != now
