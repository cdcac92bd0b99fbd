# SPDX-License-Identifier: Apache-2.0
"""The panel at the side of the page: what to do, the classes, the buttons, the frames and the help."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import numpy as np
import viser

from weakseg_ros.improve.label.colors import views_of
from weakseg_ros.improve.label.keys import class_key, key_of
from weakseg_ros.improve.label.scene import POINT_SIZE_M
from weakseg_ros.improve.label.session import Session

Do = Callable[[str, str, Any], None]
"""what the panel calls: action, its argument, the page that asked"""
ROWS = 12
"""frames shown at a time"""
TEXT = "font-size:0.85em;line-height:1.45;padding:0 0.9em"
KEY = "border:1px solid #888;border-radius:4px;padding:0 0.35em;font-family:monospace;font-size:0.92em"
CLICK_MEANS = {
    "mark": "marks a point",
    "paint": "labels a point",
    "object": "shows an object's mask",
    "erase": "takes a label away",
}
HELP = """
**What to do.** A yellow mark shows a point. Decide what it belongs to and press the key of that class: it is
saved at once, and the next suggested point is marked. Not sure? **N** skips it.

**Label more.** Click any point, then press a key. With **C** (paint) every click labels a point with the chosen class.

**Objects.** Press **O**, then click a car or a person: its points light up. **Enter** accepts, **U** takes more, **I**
less, **Esc** drops the mask. Each accepted object gets a number of its own.

**Mistakes.** **Z** undoes, **Y** does it again, **X** then a click erases. Nothing needs to be saved by hand.

**Move.** Drag: turn. Right drag: shift. Wheel: zoom. **W A S D Q E** and the arrows fly.
**V** colours the points by something else. **End**: frame done.

Keys do nothing while a text field is in use: click into the scene first. **Ctrl+K** lists all commands.
"""


class Panel:
    """The widgets; `show` brings them up to date with the session."""

    def __init__(self, server: viser.ViserServer, session: Session, do: Do) -> None:
        self._gui, self._session, self._do = server.gui, session, do
        self._first_row = 0
        self._shown: dict[str, str] = {}
        tabs = self._gui.add_tab_group()
        with tabs.add_tab("Label", viser.Icon.CLICK):
            self._add_label_tab()
        with tabs.add_tab("Frames", viser.Icon.LIST):
            self._add_frames_tab()
        with tabs.add_tab("View", viser.Icon.EYE):
            self._add_view_tab()
        with tabs.add_tab("Help", viser.Icon.HELP):
            self._gui.add_markdown(HELP)

    def show(self, view: str) -> None:
        """Write what has changed."""
        self._write("task", self._task, self._task_html())
        self._write("legend", self._legend, self._legend_html())
        self._write("frames", self._list, self._list_html())
        self._accept.visible = self._mask.visible = self._session.proposal is not None
        self._name_frames()
        self._write("view", self._view_text, f'<div style="{TEXT}">Points are coloured by <b>{view}</b>.</div>')

    def scroll(self, rows: int) -> None:
        """Move the list of frames."""
        last = max(0, len(self._session.source) - ROWS)
        self._first_row = min(max(self._first_row + rows, 0), last)

    def turn_to(self, key: str) -> None:
        """Get ready for another frame: it is in the list, and what comes next belongs to no earlier object."""
        self._same.value = False
        if key in self._session.source.keys:
            at = self._session.source.keys.index(key)
            if not self._first_row <= at < self._first_row + ROWS:
                self._first_row = 0
                self.scroll(at - ROWS // 2)

    def _add_label_tab(self) -> None:
        self._task = self._gui.add_html("")
        self._legend = self._gui.add_html("")
        self._accept = self._button(f"Accept the mask ({key_of('accept')})", "accept", color="green")
        self._mask = self._group("Mask", {"Larger (U)": "grow", "Smaller (I)": "shrink", "Reject (Esc)": "reject"})
        self._group("Click", {"Mark (M)": "mark", "Paint (C)": "paint", "Object (O)": "objects", "Erase (X)": "erase"})
        self._group("Point", {"Back (P)": "back", "Skip (N)": "skip", "Undo (Z)": "undo", "Redo (Y)": "redo"})
        self._button(f"Frame done, next ({key_of('finish')})", "finish", icon=viser.Icon.CHECK)
        with self._gui.add_folder("Objects", expand_by_default=False):
            number = self._gui.add_checkbox("Number them", self._session.instances, hint="give each object its own id")
            same = self._gui.add_checkbox("Go on with the last", False, hint="what comes next belongs to the last object")
        self._bind(number.on_update, "number", lambda: str(int(number.value)))
        self._bind(same.on_update, "same", lambda: str(int(same.value)))
        self._same = same
        with self._gui.add_folder("Classes as buttons", expand_by_default=False):
            for row in self._session.labels.classes[1:]:
                self._button(f"{row.name}  {class_key(row.id)}", "class", str(row.id), color=row.color)

    def _add_frames_tab(self) -> None:
        self._list = self._gui.add_html("")
        self._rows = [self._gui.add_button("-") for _ in range(ROWS)]
        for at, button in enumerate(self._rows):
            self._bind(button.on_click, "row", lambda at=at: str(self._first_row + at))
        self._group("List", {"Up": "up", "Down": "down", "Look for new": "refresh"})

    def _add_view_tab(self) -> None:
        self._view_text = self._gui.add_html("")
        views = {name.capitalize(): name for name in views_of(self._session.frame)}
        self._group("Colour", {f"{label}": f"view:{name}" for label, name in views.items()})
        size = self._gui.add_slider("Point size, cm", 1.0, 25.0, 0.5, 100 * POINT_SIZE_M)
        self._bind(size.on_update, "size", lambda: str(size.value / 100))
        self._group("Camera", {"Home": "home", "From above": "above", "To the mark": "to_mark"})

    def _button(self, label: str, action: str, argument: str = "", **looks: Any) -> Any:
        button = self._gui.add_button(label, **looks)
        self._bind(button.on_click, action, lambda: argument)
        return button

    def _group(self, label: str, actions: dict[str, str]) -> Any:
        group = self._gui.add_button_group(label, list(actions))

        async def clicked(event: Any) -> None:
            action, _, argument = actions[event.target.value].partition(":")
            self._do(action, argument, event.client)

        group.on_click(clicked)
        return group

    def _bind(self, register: Callable[[Any], Any], action: str, argument: Callable[[], str]) -> None:
        async def happened(event: Any) -> None:  # on the event loop, so that clicks keep their order
            if event.client is not None:
                self._do(action, argument(), event.client)

        register(happened)

    def _write(self, name: str, handle: Any, content: str) -> None:
        if self._shown.get(name) != content:
            self._shown[name] = content
            handle.content = content

    def _task_html(self) -> str:
        session = self._session
        store, frame = session.store, session.frame
        at = session.source.keys.index(frame.key) + 1 if frame.key in session.source.keys else 0
        worth = session.source.worth(frame.key)
        done = " · <b>done</b>" if frame.key in store.done else ""
        pace = f" · {session.pace.seconds:.1f} s a click" if session.pace.seconds is not None else ""
        suggested, labelled = len(frame.suggestions), session.labelled_suggestions()
        share = 100 * labelled / suggested if suggested else 0
        why = frame.suggestions[session.suggested].why if session.suggested is not None else ""
        color = "#ff8080" if session.warning else "#ffe11e"
        return (
            f'<div style="{TEXT}">Frame {at} of {len(session.source)}'
            f"{' · ' + html.escape(worth) if worth else ''}{done}<br>"
            f"{labelled} of {suggested} suggested points labelled"
            f'<div style="background:#555;border-radius:3px;height:6px;margin:3px 0">'
            f'<div style="background:#4caf50;border-radius:3px;height:6px;width:{share:.0f}%"></div></div>'
            f"{store.count(frame.key)} labels here · {store.clicks} clicks in all{pace}"
            f'<div style="border-left:4px solid {color};margin:0.5em 0 0.2em;padding:0.15em 0.6em">'
            f"{html.escape(session.message)}<br><i>{html.escape(why) if not session.warning else ''}&nbsp;</i></div></div>"
        )

    def _legend_html(self) -> str:
        session = self._session
        counts = np.bincount(session.store.labelled(session.frame.key)[0], minlength=session.labels.num_classes)
        cells = []
        for row in session.labels.classes[1:]:
            chosen = "background:rgba(128,128,128,0.35);" if row.id == session.chosen else ""
            key = class_key(row.id)
            cells.append(
                f'<div style="{chosen}border-radius:4px;padding:1px 4px;white-space:nowrap;overflow:hidden">'
                f'<span style="{KEY}">{key or "&nbsp;"}</span> <span style="display:inline-block;width:0.9em;height:0.9em;'
                f'border-radius:2px;vertical-align:-0.1em;background:rgb{row.color};border:1px solid #888"></span> '
                f"{html.escape(row.name)}{'*' if row.thing else ''}"
                f"{f' <small>{counts[row.id]}</small>' if counts[row.id] else ''}</div>"
            )
        return (
            f'<div style="{TEXT};display:grid;grid-template-columns:1fr 1fr;gap:1px 4px">{"".join(cells)}</div>'
            f'<div style="{TEXT}"><small>* has single objects</small><br>A mouse click: <b>{CLICK_MEANS[session.mode]}</b></div>'
        )

    def _list_html(self) -> str:
        source, done = self._session.source, self._session.store.done
        order = "the most worthwhile first" if source.log else "in the order of recording"
        finished = sum(key in done for key in source.keys)
        return f'<div style="{TEXT}">{len(source)} frames, {order}; {finished} done.</div>'

    def _name_frames(self) -> None:
        source, store = self._session.source, self._session.store
        for at, button in enumerate(self._rows, self._first_row):
            if at >= len(source):
                button.visible = False
                continue
            key = source.keys[at]
            mark = "✓ " if key in store.done else ""
            count = store.count(key)
            parts = [f"{mark}{key}", source.worth(key), f"{count} labels" if count else ""]
            label = " · ".join(filter(None, parts))
            color = "yellow" if key == self._session.frame.key else "gray"
            if (button.label, button.color, button.visible) != (label, color, True):
                button.label, button.color, button.visible = label, color, True
