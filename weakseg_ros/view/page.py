# SPDX-License-Identifier: Apache-2.0
"""The page: the panes, a row of buttons to go through time, and what the colours mean."""

from __future__ import annotations

import html
import queue
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import viser

from weakseg_ros.errors import WeaksegError, counted
from weakseg_ros.improve.label.keys import REPEATABLE, HeldKeys
from weakseg_ros.improve.label.scene import POINT_SIZE_M
from weakseg_ros.improve.label.widgets import KEY, TEXT, Widgets, page_script
from weakseg_ros.registry import REFERRING_BUNDLE
from weakseg_ros.view.frames import Frames, Shown
from weakseg_ros.view.legend import legend_html
from weakseg_ros.view.panes import ERRORS, FOUND, OBJECTS, Side, looks_of, share_wrong, sides_of
from weakseg_ros.view.scene import Drawing, ViewScene

POLL_S = 0.1
"""how often a running node is looked at"""
REACH_M, REACH_BESIDE_M = 60.0, 40.0
"""how far a pane reaches at first: alone, and beside others"""
PROBLEM = "border-left:4px solid #ff8080;margin-top:0.4em;padding:0.1em 0.6em"
NO_FRAME = "Waiting for the first cloud of the node."


class Key(NamedTuple):
    """A key, what it asks for, and what the command palette calls it."""

    key: Any
    action: str
    label: str
    shown: str


KEYS = (
    Key("space", "play", "Play or pause", "Space"),
    Key("pageup", "previous", "Previous scan", "Page up"),
    Key("pagedown", "following", "Next scan", "Page down"),
    Key("home", "first", "First scan", "Home"),
    Key("end", "last", "Last scan; follow a running node", "End"),
    Key("V", "look", "Change the colours of the points", "V"),
    Key("B", "boxes", "Show or hide the boxes", "B"),
    Key("X", "swap", "Show one pane at a time, then all again", "X"),
    Key("H", "home", "Camera: home", "H"),
    Key("T", "above", "Camera: from above", "T"),
)


class ViewPage(Widgets):
    """One state on one server: what any tab asks for is done in order by `run`, which draws what is up to date only."""

    def __init__(self, server: viser.ViserServer, frames: Frames, title: str, rate_hz: float) -> None:
        super().__init__(server.gui, self.ask)
        self._server, self._frames = server, frames
        self._queue: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self._held = HeldKeys()
        self._scene = ViewScene(server)
        self._index, self._playing, self._rate_hz = 0, frames.live, rate_hz
        self._sides: list[Side] = []
        self._shown_frame: Shown | None = None
        self._problem = NO_FRAME if frames.live else ""
        self._drawing = Drawing()
        self._drawn: Any = None
        self._hidden = 0
        self._unheard = False
        server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False, control_width="large")
        server.gui.main_panel.dock_right()
        self._actions = self._table()
        self._add_panel(title)
        self._add_keys()
        self._next_s = time.monotonic()
        self._show_frame()

    def ask(self, action: str, argument: str, client: Any) -> None:
        """Queue what a tab asks for."""
        self._queue.put((action, argument, client))

    def stop(self) -> None:
        """Let `run` return."""
        self._queue.put(("", "", None))

    def run(self) -> None:
        """Work off what the tabs ask for, and go through time while playing, until `stop`."""
        while True:
            waiting = max(0.0, self._next_s - time.monotonic()) if self._playing else None
            try:
                asked: tuple[str, str, Any] | None = self._queue.get(
                    timeout=min(waiting, POLL_S) if waiting is not None else None
                )
            except queue.Empty:
                self._step()
                continue
            while asked is not None:
                if not asked[0]:
                    return
                self._actions[asked[0]](asked[1], asked[2])
                asked = self._next_asked()
            self._show_frame()

    def _next_asked(self) -> tuple[str, str, Any] | None:
        """What waits already: a slider sends many numbers, and only the last one is worth a drawing."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _step(self) -> None:
        """The next scan is due."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + (POLL_S if self._frames.live else 1.0 / self._rate_hz)
        if self._frames.live:
            self._index = max(0, len(self._frames) - 1)
        elif self._index + 1 < len(self._frames):
            self._index += 1
        else:
            self._playing = False
        self._show_frame()

    def _table(self) -> dict[str, Callable[[str, Any], object]]:
        return {
            "play": lambda argument, client: self._turn_play(),
            "frame": lambda argument, client: self._go(int(float(argument))),
            "previous": lambda argument, client: self._go(self._index - 1),
            "following": lambda argument, client: self._go(self._index + 1),
            "first": lambda argument, client: self._go(0),
            "last": lambda argument, client: self._go_last(),
            "rate": lambda argument, client: setattr(self, "_rate_hz", float(argument)),
            "look": lambda argument, client: self._choose_look(argument),
            "find": lambda argument, client: self._find(argument),
            "boxes": lambda argument, client: self._change(boxes=not self._drawing.boxes),
            "size": lambda argument, client: self._change(point_size_m=float(argument) / 100),
            "reach": lambda argument, client: self._change(reach_m=float(argument)),
            "swap": self._choose_pane,
            "home": lambda argument, client: self._look_from(client, False),
            "above": lambda argument, client: self._look_from(client, True),
        }

    def _change(self, **values: Any) -> None:
        self._drawing = replace(self._drawing, **values)

    def _turn_play(self) -> None:
        at_the_end = self._index + 1 >= len(self._frames)
        self._playing = not self._playing
        self._index = 0 if self._playing and at_the_end and not self._frames.live else self._index
        self._next_s = time.monotonic()

    def _choose_pane(self, argument: str, client: Any) -> None:
        panes = len(self._sides)
        after = int(argument) if argument else (self._drawing.alone + 1) % (panes + 1)
        self._change(alone=after if panes > 1 else 0)
        self._look_from(client, False)

    def _go_last(self) -> None:
        self._go(len(self._frames) - 1)
        self._playing = self._frames.live

    def _go(self, index: int) -> None:
        self._playing = False
        self._index = min(max(index, 0), max(0, len(self._frames) - 1))

    def _find(self, text: str) -> None:
        """Look for what was typed in; '' ends it."""
        answers = self._frames.ask(text)
        self._unheard = bool(text.strip()) and not answers
        self._drawing = replace(self._drawing, look=FOUND if answers and text.strip() else "")

    def _choose_look(self, name: str) -> None:
        looks = looks_of(self._sides) if self._sides else ()
        if not looks:
            return
        now = self._drawing.look
        after = looks[(looks.index(now) + 1) % len(looks)] if now in looks else looks[0]
        self._change(look=name if name in looks else after)

    def _look_from(self, client: Any, above: bool) -> None:
        panes = 1 if self._drawing.alone else max(1, len(self._sides))
        self._scene.look_from(client, panes, self._drawing.reach_m, above)

    def _show_frame(self) -> None:
        """Read and draw the scan that is due, unless it is on the page as it should be; a fault is told on the page."""
        try:
            self._read()
        except WeaksegError as error:
            self._problem, self._playing = str(error), False
        if self._shown_frame is not None:
            self._draw()
        self._show_panel()

    def _read(self) -> None:
        if not len(self._frames):
            return
        shown = self._frames.frame(min(self._index, len(self._frames) - 1))
        if shown is self._shown_frame:
            return
        first = self._shown_frame is None
        self._shown_frame, self._problem = shown, " ".join(shown.problems)
        self._sides = sides_of(shown, self._frames.models)
        if first:
            self._begin()

    def _begin(self) -> None:
        """What can be chosen follows from the first scan."""
        reach_m = REACH_M if len(self._sides) == 1 else REACH_BESIDE_M
        self._change(look=looks_of(self._sides)[0], reach_m=reach_m)
        self._reach.value = reach_m
        self._look_from(None, False)

    def _draw(self) -> None:
        if self._drawing.look not in looks_of(self._sides):
            self._choose_look("")
        wanted = (self._shown_frame, self._drawing)
        if self._drawn is not None and self._drawn[0] is wanted[0] and self._drawn[1] == wanted[1]:
            return
        self._drawn = wanted
        self._hidden = self._scene.draw(self._sides, self._frames.labels, self._drawing)

    def _add_panel(self, title: str) -> None:
        gui = self._gui
        gui.add_html(page_script(title))
        self._status = gui.add_html("")
        slider = gui.add_slider("Scan", 0, max(1, len(self._frames) - 1), 1, 0)
        self.bind(slider.on_update, "frame", lambda: str(slider.value))
        self._slider: Any = slider
        self._play: Any = self.button("Play", "play", icon=viser.Icon.PLAYER_PLAY)
        self.group("Time", {"First": "first", "Back": "previous", "Next": "following", "Last": "last"})
        line = gui.add_text("Find", "", hint='an English expression such as "the car on the left"')
        found = self.button("Find it", "")
        self.bind(found.on_click, "find", lambda: str(line.value))
        self.group("Colour", {name.capitalize(): f"look:{name}" for name in ("classes", ERRORS, "uncertainty")})
        self.group("", {name.capitalize(): f"look:{name}" for name in (OBJECTS, "intensity", "height")})
        self._legend = gui.add_html("")
        self.group("Camera", {"Home (H)": "home", "From above (T)": "above"})
        self.group("Panes", {"One by one (X)": "swap", "All": "swap:0", "Boxes (B)": "boxes"})
        size = gui.add_slider("Point size, cm", 1.0, 25.0, 0.5, 100 * POINT_SIZE_M)
        self.bind(size.on_update, "size", lambda: str(size.value))
        reach = gui.add_slider("Reach, m", 10.0, 200.0, 5.0, REACH_M, hint="points farther away are not drawn")
        self.bind(reach.on_update, "reach", lambda: str(reach.value))
        self._reach: Any = reach
        if not self._frames.live:
            rate = gui.add_slider("Scans per second", 0.5, 20.0, 0.5, self._rate_hz)
            self.bind(rate.on_update, "rate", lambda: str(rate.value))
        rows = "".join(f'<span style="{KEY}">{key.shown}</span> {html.escape(key.label)}<br>' for key in KEYS)
        with gui.add_folder("Keys", expand_by_default=False):
            gui.add_html(f'<div style="{TEXT}">{rows}Drag: turn. Right drag: shift. Wheel: zoom.</div>')

    def _add_keys(self) -> None:
        for key in KEYS:
            self._add_key(key)

    def _add_key(self, key: Key) -> None:
        async def pressed(event: Any) -> None:  # on the event loop, so that keys keep their order
            if not self._held.is_repeat(key.action) or key.action in REPEATABLE:
                self.ask(key.action, "", event.client)

        self._gui.add_command(key.label, hotkey=key.key).on_trigger(pressed)

    def _show_panel(self) -> None:
        self.write("status", self._status, self._status_html())
        self.write("legend", self._legend, legend_html(self._sides, self._drawing.look, self._frames.labels))
        last = max(1, len(self._frames) - 1)
        if self._slider.max != last:
            self._slider.max = last
        if self._slider.value != min(self._index, last):
            self._slider.value = min(self._index, last)
        name = "Pause" if self._playing else "Follow" if self._frames.live else "Play"
        if self._play.label != name:
            self._play.label = name
            self._play.icon = viser.Icon.PLAYER_PAUSE if self._playing else viser.Icon.PLAYER_PLAY

    def _status_html(self) -> str:
        shown = self._shown_frame
        lines = []
        if shown is not None:
            of = f"{self._index + 1} of {len(self._frames)}"
            lines.append(f"<b>{html.escape(shown.name)}</b> · scan {of} · {counted(len(shown.cloud), 'point', spec=',')}")
        lines += [f"{html.escape(side.title)}: {_in_words(side)}" for side in self._sides if _in_words(side)]
        if self._hidden:
            lines.append(
                f"{counted(self._hidden, 'point lies', 'points lie', ',')} beyond {self._drawing.reach_m:g} m, not drawn"
            )
        if self._unheard:
            lines.append(f"No model here answers expressions; show {REFERRING_BUNDLE} with --bundle.")
        lines += [f"<i>{html.escape(note)}</i>" for note in self._frames.notes]
        text = "<br>".join(lines)
        if self._problem:
            text += f'<div style="{PROBLEM}">{html.escape(self._problem)}</div>'
        return f'<div style="{TEXT}">{text}</div>'


def _in_words(side: Side) -> str:
    """How good a side is on this scan, as far as that is known."""
    parts = []
    if side.found is not None:
        parts.append(
            f"{counted(side.found.mask.sum(), 'point', spec=',')} found, score {side.found.score:.2f}"
            if side.found.matches
            else "nothing matches"
        )
    wrong = share_wrong(side)
    if wrong is not None:
        parts.append(f"<b>{wrong:.1%}</b> of the labelled points are wrong")
    if side.uncertainty is not None and side.prediction is not None and (side.prediction > 0).any():
        parts.append(f"uncertainty {float(side.uncertainty[side.prediction > 0].mean()):.2f} on average")
    if side.labelled is not None and side.wrong is None:
        parts.append(f"{float(side.labelled.mean()):.0%} of the points have one")
    return ", ".join(parts)
