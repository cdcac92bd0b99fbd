# SPDX-License-Identifier: Apache-2.0
"""What a click does in each mode, told to the person in one or two sentences."""

from __future__ import annotations

from typing import Literal

from weakseg_ros.errors import counted
from weakseg_ros.improve.label.keys import key_of

Mode = Literal["mark", "paint", "object", "lasso", "erase"]

ABOUT_AROUND = (
    "The neighbouring scans are shown in grey, and in the colour of a class where labels of this scan reach them; only this one "
    "is labelled."
)


def about_scans(around: bool, together: bool, scans: int) -> str:
    """Which scans are shown and labelled; `scans` is how many are labelled together."""
    if together and scans == 1:
        return "No other scan of this place is near: only this one is labelled."
    if together:
        tools = "Brush, eraser, object, box and lasso"
        return f"{tools} label {counted(scans, 'scan')} at once: this one and, in grey, those around. Z undoes it in all of them."
    return f"{ABOUT_AROUND} {key_of('together')} labels all of them at once." if around else "Only this scan is shown."


def advice(mode: Mode, class_name: str, brush_m: float, model_guesses: bool) -> str:
    """What to do next; `class_name` is the chosen class, `model_guesses` whether the model may name a clicked object."""
    if mode == "paint":
        reach = f"all points within {brush_m:.2f} m of it" if brush_m else "the point under it"
        return f"Each click labels {reach} as {class_name}. A key chooses another class, U and I the size."
    if mode == "object":
        if model_guesses:
            return "Click an object. The model suggests its class, and a key corrects it."
        return f"Click an object of class {class_name}; a key chooses another class."
    if mode == "lasso":
        return "Click the corners of a polygon around the points; Enter, or a click on the first corner, closes it."
    if mode == "erase":
        return "Click a wrong label to remove it."
    return "Click a point, then press the key of its class. N goes to a suggested one."
