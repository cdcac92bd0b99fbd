# SPDX-License-Identifier: Apache-2.0
"""The panel at the side of the page: what to do, the classes, the buttons, the frames and the help."""

from __future__ import annotations

import html
from functools import partial
from typing import Any, Literal

import numpy as np
import viser

from weakseg_ros.errors import counted
from weakseg_ros.improve.label.brush import LARGEST_BRUSH_M
from weakseg_ros.improve.label.colors import views_of
from weakseg_ros.improve.label.keys import class_key, key_of
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.improve.label.scene import POINT_SIZE_M, SHAPES
from weakseg_ros.improve.label.thumbnails import SIZE, Thumbnails
from weakseg_ros.improve.label.widgets import KEY, SWATCH, TEXT, Do, Widgets, page_script, readable_on

ROWS = 8
"""frames shown at a time"""
HEIGHTS_M = (-5.0, 15.0)
"""what the height filter reaches over; at its ends it hides nothing"""
SIGNS = dict(zip(SHAPES, "●■◆✦", strict=True))
"""how the shape of a class's labelled points is written beside its name"""
CLICK_MEANS = {
    "mark": "chooses a point to name",
    "paint": "labels what is under the brush",
    "object": "finds an object",
    "lasso": "is a corner of the polygon",
    "erase": "takes labels away",
}
HELP = """
**What to do.** A ring marks one point. Decide what it belongs to and press the key of that class. The label is saved at
once and the ring moves on. If the model's guess is right, **Enter** confirms it. Not sure? **N** skips the point. Ring out
of sight? **Space** flies to it.

**Label more.** Click any point, then press a key. With **C** (paint) every click labels what is under the brush; **U**
and **I** change its size. Hold **Shift** and drag to draw a box, press the key of its class, then **Enter**.
**Shift+L** draws a polygon instead: click its corners, **Enter** closes it.

**Objects.** Press **O**, then click a car or a person: its points turn white. **Enter** accepts, **Esc** drops. Click a
white part that is wrong to take it off, a part that is missing to add it. **U** reaches farther, **I** less far.

**See less.** **Shift+H** hides the chosen class, **Shift+G** the ground; the tab *View* hides what is too low or too
high. **Backspace** shows everything again. What is hidden is never labelled.

**Other scans.** Where the sensor's poses are known, **Shift+V** also shows the scans before and after this one, and
**Shift+M** labels them all at once.

**Mistakes.** **Z** undoes, **Y** does it again, **X** then a click erases. Nothing needs to be saved by hand.

**Move.** Drag: turn. Right drag: shift. Wheel: zoom. **W A S D Q E** and the arrows fly. **V** colours the points by
something else. **End**: this frame is done.

Keys do nothing while a text field is in use: click into the scene first. **Ctrl+K** lists all commands.
"""


class Panel(Widgets):
    """The widgets; `show` brings them up to date with the state."""

    def __init__(self, server: viser.ViserServer, state: PageState, do: Do) -> None:
        super().__init__(server.gui, do)
        self._state = state
        self._first_row = 0
        self._thumbnails = Thumbnails()
        self._pictured: dict[int, str] = {}
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
        self.write("task", self._task, self._task_html())
        self.write("legend", self._legend, self._legend_html())
        self.write("frames", self._list, self._list_html())
        self._show_accept()
        self._mask.visible = self._state.mask is not None
        self._show_hidden()
        self._name_frames()
        self.write("view", self._view_text, f'<div style="{TEXT}">Points are coloured by <b>{view}</b>.</div>')

    def draw_thumbnail(self) -> bool:
        """Draw the picture of one more frame of the list; False where all have theirs."""
        source = self._state.source
        for key, picture in zip(source.keys[self._first_row :], self._pictures, strict=False):
            if self._thumbnails.known(key) is None:
                self._thumbnails.draw(source, key)
                self._show_picture(picture, key)
                return True
        return False

    def _show_picture(self, picture: Any, key: str) -> None:
        """Put a frame's picture above its button, where it is drawn already."""
        drawn = self._thumbnails.known(key)
        if drawn is None or self._pictured.get(id(picture)) == key:
            picture.visible = drawn is not None
            return
        self._pictured[id(picture)] = key
        picture.image, picture.label, picture.visible = drawn, self._state.source.about(key) or None, True

    def scroll(self, rows: int) -> None:
        """Move the list of frames."""
        last = max(0, len(self._state.source) - ROWS)
        self._first_row = min(max(self._first_row + rows, 0), last)

    def turn_to(self, key: str) -> None:
        """Get ready for another frame: it is in the list, and what comes next belongs to no earlier object."""
        self._same.value = False
        if key in self._state.source.keys:
            at = self._state.source.keys.index(key)
            if not self._first_row <= at < self._first_row + ROWS:
                self._first_row = 0
                self.scroll(at - ROWS // 2)

    def _add_label_tab(self) -> None:
        self._gui.add_html(page_script(f"Label {self._state.source.folder.resolve().name}"))
        self._task = self._gui.add_html("")
        self._legend = self._gui.add_html("")
        self._accept = self.button("Accept", "accept", color="green")
        self._mask = self.group("Mask", {"Larger (U)": "grow", "Smaller (I)": "shrink", "Reject (Esc)": "reject"})
        self.group("Click", {"Mark (M)": "mark", "Paint (C)": "paint", "Object (O)": "objects", "Erase (X)": "erase"})
        self.group("Area", {f"Lasso ({key_of('lasso')})": "lasso"})
        self.group("Point", {"Back (P)": "back", "Skip (N)": "skip", "Fly there (Space)": "to_mark"})
        self.group("Change", {"Undo (Z)": "undo", "Redo (Y)": "redo"})
        brush = self._gui.add_slider("Brush, m", 0.0, LARGEST_BRUSH_M, 0.05, 0.0, hint="0 labels only the clicked point")
        self.bind(brush.on_update, "brush", lambda: str(brush.value))
        self._brush: Any = brush
        self.button(f"Frame done, next ({key_of('finish')})", "finish", icon=viser.Icon.CHECK)
        with self._gui.add_folder("Other frames, review", expand_by_default=False):
            self.group("Scans", {f"Show neighbouring scans ({key_of('around')})": "around"})
            self.group("Label", {f"All shown scans at once ({key_of('together')})": "together"})
            self.group(
                "Labels", {"Copy from the nearest frame (Shift+C)": "carry_over", "Copy to the next frames (Shift+N)": "carry_on"}
            )
            self.group("Review", {"Accept (Shift+Enter)": "accept_frame", "Reject (Shift+Backspace)": "reject_frame"})
        with self._gui.add_folder("Objects", expand_by_default=False):
            number = self._gui.add_checkbox("Number them", self._state.instances, hint="give each object its own id")
            same = self._gui.add_checkbox("Continue the last object", False, hint="the next points belong to the last object")
        self.bind(number.on_update, "number", lambda: str(int(number.value)))
        self.bind(same.on_update, "same", lambda: str(int(same.value)))
        self._same: Any = same
        with self._gui.add_folder("Classes as buttons", expand_by_default=False):
            for row in self._state.labels.classes[1:]:
                self.button(
                    f"{_sign(row.id)} {row.name} ({class_key(row.id) or 'no key'})", "class", str(row.id), color=row.color
                )

    def _add_frames_tab(self) -> None:
        self._list = self._gui.add_html("")
        blank = np.zeros((*SIZE, 3), np.uint8)
        self._rows, self._pictures = [], []
        for _ in range(ROWS):
            self._pictures.append(self._gui.add_image(blank, format="png", visible=False))
            self._rows.append(self._gui.add_button("-"))
        for at, button in enumerate(self._rows):
            self.bind(button.on_click, "row", partial(self._row_at, at))
        self.group("List", {"Up": "up", "Down": "down", "Check for new frames": "refresh"})

    def _row_at(self, at: int) -> str:
        return str(self._first_row + at)

    def _add_view_tab(self) -> None:
        self._view_text = self._gui.add_html("")
        views = {name.capitalize(): name for name in views_of(self._state.frame)}
        self.group("Colour", {f"{label}": f"view:{name}" for label, name in views.items()})
        size = self._gui.add_slider("Point size, cm", 1.0, 25.0, 0.5, 100 * POINT_SIZE_M)
        self.bind(size.on_update, "size", lambda: str(size.value / 100))
        self._add_filters()
        self.group("Camera", {"Home": "home", "From above": "above", "To the mark": "to_mark"})

    def _add_filters(self) -> None:
        names = {row.name: f"hide_class:{row.id}" for row in self._state.labels.classes[1:]}
        self._hidden_text = self._gui.add_html("")
        self.group("Hide or show", {f"Ground ({key_of('ground')})": "ground", f"Everything ({key_of('show_all')})": "show_all"})
        low, high = HEIGHTS_M
        heights = self._gui.add_multi_slider(
            "Heights, m", low, high, 0.1, (low, high), hint="points outside are hidden; 0 is the height of the sensor"
        )
        self.bind(heights.on_update, "heights", lambda: _limits(*heights.value))
        self._heights: Any = heights
        with self._gui.add_folder("Hide or show a class", expand_by_default=False):
            self.group("Class", names)

    def _show_accept(self) -> None:
        """The button says what Enter does now; there is none where it does nothing."""
        state, key = self._state, key_of("accept")
        guess = state.guess[0]
        if state.mask is not None:
            label = f"Accept as {state.labels.names[state.mask.class_id]} ({key})"
        elif guess:
            label = f"Yes, it is {state.labels.names[guess]} ({key})"
        else:
            label = ""
        if (self._accept.visible, self._accept.label) != (bool(label), label):
            self._accept.visible, self._accept.label = bool(label), label or "Accept"

    def _show_hidden(self) -> None:
        """Say what is hidden; sliders follow what keys did."""
        state = self._state
        filters = state.filters
        parts = [state.labels.names[i] for i in sorted(filters.classes)] + ["the ground"] * filters.ground
        parts += [f"lower than {filters.low_m:.1f} m"] * bool(np.isfinite(filters.low_m))
        parts += [f"higher than {filters.high_m:.1f} m"] * bool(np.isfinite(filters.high_m))
        text = f"Hidden: <b>{html.escape(', '.join(parts))}</b>. No tool labels hidden points." if parts else "Nothing is hidden."
        self.write("hidden", self._hidden_text, f'<div style="{TEXT}">{text}</div>')
        if filters.hide_nothing and tuple(self._heights.value) != HEIGHTS_M:
            self._heights.value = HEIGHTS_M
        if abs(self._brush.value - state.brush_m) > 0.025:
            self._brush.value = state.brush_m

    def _task_html(self) -> str:
        state = self._state
        store, frame = state.store, state.frame
        at = state.source.keys.index(frame.key) + 1 if frame.key in state.source.keys else 0
        worth = state.source.worth(frame.key)
        done = " · <b>done</b>" if frame.key in store.done else ""
        pace = f" · {state.pace.seconds:.1f} s a click" if state.pace.seconds is not None else ""
        suggested, labelled = len(frame.suggestions), state.labelled_suggestions()
        share = 100 * labelled / suggested if suggested else 0
        why = frame.suggestions[state.suggested].why if state.suggested is not None else ""
        color = "#ff8080" if state.warning else "#ffe11e"
        hidden = "" if state.filters.hide_nothing else " · <b>some points are hidden (Backspace shows all)</b>"
        return (
            f'<div style="{TEXT}">Frame {at} of {len(state.source)}'
            f"{' · ' + html.escape(worth) if worth else ''}{done}<br>"
            f"{labelled} of {suggested} suggested points labelled"
            f'<div style="background:#555;border-radius:3px;height:6px;margin:3px 0">'
            f'<div style="background:#4caf50;border-radius:3px;height:6px;width:{share:.0f}%"></div></div>'
            f"{counted(store.count(frame.key), 'label')} here · {counted(store.clicks, 'click')} in all{pace}{hidden}"
            f'<div style="border-left:4px solid {color};margin:0.5em 0 0.2em;padding:0.15em 0.6em">'
            f"{html.escape(state.message)}<br>{self._guess_html()}<i>{html.escape(why) if not state.warning else ''}&nbsp;</i>"
            "</div></div>"
        )

    def _guess_html(self) -> str:
        """What the model says about the marked point, and which key confirms it."""
        state = self._state
        guess, confidence = state.guess
        if not guess or state.mask is not None:
            return ""
        sure = f" {100 * confidence:.0f} %" if confidence else ""
        name = html.escape(state.labels.names[guess])
        return f'The model says <b>{name}{sure}</b>. If so: <span style="{KEY}">{key_of("accept")}</span><br>'

    def _legend_html(self) -> str:
        state = self._state
        counts = np.bincount(state.store.labelled(state.frame.key)[0], minlength=state.labels.num_classes)
        cells = []
        for row in state.labels.classes[1:]:
            red, green, blue = state.labels.colors_on_black[row.id].tolist()
            chosen = "background:rgba(128,128,128,0.35);" if row.id == state.chosen else ""
            key = class_key(row.id)
            struck = "text-decoration:line-through;" if row.id in state.filters.classes else ""
            cells.append(
                f'<div style="{chosen}{struck}border-radius:4px;padding:1px 4px;white-space:nowrap;overflow:hidden">'
                f'<span style="{KEY}">{key or "&nbsp;"}</span> <span style="{SWATCH};background:rgb({red},{green},{blue});'
                f'color:{readable_on((red, green, blue))}">{_sign(row.id)}</span> '
                f"{html.escape(row.name)}{'*' if row.thing else ''}"
                f"{f' <small>{counts[row.id]}</small>' if counts[row.id] else ''}</div>"
            )
        return (
            f'<div style="{TEXT};display:grid;grid-template-columns:1fr 1fr;gap:1px 4px">{"".join(cells)}</div>'
            f'<div style="{TEXT}"><small>* has single objects</small><br>A mouse click: <b>{CLICK_MEANS[state.mode]}</b>'
            f"{self._where()}</div>"
        )

    def _where(self) -> str:
        """In how many scans a click works, where it is not this one alone."""
        scans = len(self._state.scans)
        return (
            f" in <b>{counted(scans, 'scan')}</b> ({key_of('together')}: this one alone)"
            if scans > 1 and self._state.mode != "mark"
            else ""
        )

    def _list_html(self) -> str:
        source, done = self._state.source, self._state.store.done
        order = "those first from which the model learns most" if source.log else "in the order of recording"
        finished = sum(key in done for key in source.keys)
        told = f"{counted(len(source), 'frame')}, {order}; {finished} done (✓), ✓✓ checked, ✗ rejected."
        return f'<div style="{TEXT}">{told}</div>'

    def _name_frames(self) -> None:
        source, store = self._state.source, self._state.store
        for at, button in enumerate(self._rows, self._first_row):
            picture = self._pictures[at - self._first_row]
            if at >= len(source):
                button.visible = picture.visible = False
                continue
            self._show_picture(picture, source.keys[at])
            key = source.keys[at]
            mark = _mark(key, store.done, store.record.reviews)
            count = store.count(key)
            parts = [f"{mark}{key}", source.worth(key), counted(count, "label") if count else ""]
            label = " · ".join(filter(None, parts))
            color: Literal["yellow", "gray"] = "yellow" if key == self._state.frame.key else "gray"
            if (button.label, button.color, button.visible) != (label, color, True):
                button.label, button.color, button.visible = label, color, True


def _mark(key: str, done: tuple[str, ...], reviews: dict[str, str]) -> str:
    """How far a frame is: ✓ done, ✓✓ and checked by somebody else, ✗ rejected."""
    if reviews.get(key) == "rejected":
        return "✗ "
    return "✓✓ " if key in reviews else "✓ " if key in done else ""


def _sign(class_id: int) -> str:
    """The shape in which labelled points of a class are drawn."""
    return SIGNS[SHAPES[class_id % len(SHAPES)]]


def _limits(low_m: float, high_m: float) -> str:
    """The ends of the height filter; the ends of its slider hide nothing."""
    low, high = HEIGHTS_M
    return f"{low_m if low_m > low else -np.inf} {high_m if high_m < high else np.inf}"
