# SPDX-License-Identifier: Apache-2.0
"""What a click does in each mode, told to the person in one or two sentences."""

from __future__ import annotations

from typing import Literal

Mode = Literal["mark", "paint", "object", "lasso", "erase"]


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
