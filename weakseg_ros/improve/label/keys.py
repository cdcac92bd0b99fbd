# SPDX-License-Identifier: Apache-2.0
"""Which key does what. W, A, S, D, Q, E and the arrows move the camera and stay free."""

from __future__ import annotations

import time
from typing import Literal, NamedTuple

CLASS_KEYS = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "0", "R", "T", "F", "G", "H", "J", "K", "L", "B")
"""the keys of the classes 1, 2, ...; later classes have none and are chosen by a button"""
HELD_S = 0.15
"""a key that comes back sooner is being held down, no finger is so fast"""


class Command(NamedTuple):
    """One row of the table of commands."""

    action: str
    """name of the page's method"""
    key: str
    label: str
    """what the command palette calls it"""
    modifier: Literal["shift"] | None = None
    """what is held down with the key"""


COMMANDS = (
    Command("skip", "N", "Skip: mark the next suggested point"),
    Command("back", "P", "Back: mark the previous suggested point"),
    Command("mark", "M", "Mark: a click marks a point, a key names its class"),
    Command("to_mark", "space", "Fly to the marked point"),
    Command("paint", "C", "Paint: a click gives the points under the brush the chosen class"),
    Command("objects", "O", "Object: a click shows the mask of an object"),
    Command("lasso", "L", "Lasso: clicks draw a polygon around points", "shift"),
    Command("erase", "X", "Erase: a click removes labels"),
    Command("accept", "enter", "Accept the mask, or confirm the model's guess"),
    Command("grow", "U", "Larger mask or brush"),
    Command("shrink", "I", "Smaller mask or brush"),
    Command("reject", "escape", "Reject the mask, or remove the mark"),
    Command("undo", "Z", "Undo"),
    Command("redo", "Y", "Redo"),
    Command("previous", "pageup", "Previous frame"),
    Command("following", "pagedown", "Next frame"),
    Command("finish", "end", "Frame done, go to the next"),
    Command("view", "V", "Change the colours of the points"),
    Command("hide", "H", "Hide the chosen class, or show it again", "shift"),
    Command("ground", "G", "Hide the ground, or show it again", "shift"),
    Command("around", "V", "Show or hide the neighbouring scans", "shift"),
    Command("together", "M", "Label all shown scans at once, or this one alone", "shift"),
    Command("carry_over", "C", "Copy the labels of the nearest labelled frame of the same place", "shift"),
    Command("carry_on", "N", "Copy these labels to the next frames of the same place", "shift"),
    Command("accept_frame", "enter", "Review: approve this frame", "shift"),
    Command("reject_frame", "backspace", "Review: reject this frame and open it again", "shift"),
    Command("show_all", "backspace", "Show all points again"),
)
NAMES_OF_KEYS = {
    "enter": "Enter",
    "escape": "Esc",
    "space": "Space",
    "backspace": "Backspace",
    "pageup": "Page up",
    "pagedown": "Page down",
    "end": "End",
}
REPEATABLE = frozenset({"undo", "redo", "grow", "shrink", "previous", "following"})
"""commands that a held key may repeat"""


def key_of(action: str) -> str:
    """How the key of an action is written on the page."""
    command = next(command for command in COMMANDS if command.action == action)
    key = NAMES_OF_KEYS.get(command.key, command.key)
    return f"Shift+{key}" if command.modifier else key


def class_key(class_id: int) -> str:
    """The key of a class, '' for one that has none."""
    return CLASS_KEYS[class_id - 1] if 1 <= class_id <= len(CLASS_KEYS) else ""


class HeldKeys:
    """Tells presses from the repeats that a keyboard sends while a key is held down."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}

    def is_repeat(self, name: str) -> bool:
        """Whether this press of a key is the same one still."""
        now = time.monotonic()
        before, self._last_s[name] = self._last_s.get(name, float("-inf")), now
        return now - before < HELD_S
