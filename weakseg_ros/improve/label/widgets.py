# SPDX-License-Identifier: Apache-2.0
"""What the panels of all pages are made of: widgets that ask for actions, the looks of texts, and names for icons."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from typing import Any

Do = Callable[[str, str, Any], None]
"""what the panel calls: action, its argument, the page that asked"""
TEXT = "font-size:0.85em;line-height:1.45;padding:0 0.9em"
SWATCH = (
    "display:inline-block;width:1.25em;height:1.25em;line-height:1.2em;text-align:center;border-radius:3px;"
    "border:1px solid #888;font-size:0.85em"
)
KEY = "border:1px solid #888;border-radius:4px;padding:0 0.35em;font-family:monospace;font-size:0.92em"
NAME_ICONS = """
const named = () => document.querySelectorAll('button:not([aria-label])').forEach(button => {
  const icon = button.querySelector('svg');
  if (icon && !button.innerText.trim()) {
    const known = /tabler-icon-([a-z-]+)/.exec(icon.getAttribute('class') || '');
    button.setAttribute('aria-label', known ? known[1].replaceAll('-', ' ') : 'close');
  }
});
new MutationObserver(named).observe(document.body, {childList: true, subtree: true});
named();
""".replace("\n", " ")


class Widgets:
    """Adds widgets to a page; what a person does with one is asked for by `do`."""

    def __init__(self, gui: Any, do: Do) -> None:
        self._gui, self._do = gui, do
        self._shown: dict[str, str] = {}

    def button(self, label: str, action: str, argument: str = "", **looks: Any) -> Any:
        """A button that asks for an action."""
        button = self._gui.add_button(label, **looks)
        self.bind(button.on_click, action, lambda: argument)
        return button

    def group(self, label: str, actions: dict[str, str]) -> Any:
        """Buttons in a row: each label with its action, or 'action:argument'."""
        group = self._gui.add_button_group(label, list(actions))

        async def clicked(event: Any) -> None:
            action, _, argument = actions[event.target.value].partition(":")
            self._do(action, argument, event.client)

        group.on_click(clicked)
        return group

    def bind(self, register: Callable[[Any], Any], action: str, argument: Callable[[], str]) -> None:
        """Let a widget ask for an action, with the argument as it is then, where a person and not the program changed it."""

        async def happened(event: Any) -> None:  # on the event loop, so that clicks keep their order
            if event.client is not None:
                self._do(action, argument(), event.client)

        register(happened)

    def write(self, name: str, handle: Any, content: str) -> None:
        """Give a text widget its content, where it has another one."""
        if self._shown.get(name) != content:
            self._shown[name] = content
            handle.content = content


def readable_on(color: tuple[int, int, int]) -> str:
    """Black or white, whichever is read better on a colour."""
    red, green, blue = color
    return "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"


def page_script(title: str) -> str:
    """What gives the tab its name and viser's own icons a name for screen readers; viser has no setting for either.

    A picture that cannot be loaded runs its `onerror`; a script element in such a text would not be run.
    """
    script = f"document.title={json.dumps(title)};document.documentElement.lang='en';{NAME_ICONS}"
    return f'<img src="data:," alt="" hidden onerror="{html.escape(script)}">'
