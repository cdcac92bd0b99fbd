# SPDX-License-Identifier: Apache-2.0
"""The classes of S3DIS (Armeni et al., CVPR 2016), and the colours and materials that one building is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Random = np.random.Generator
Color = tuple[float, float, float]

NAMES = (
    *("ceiling", "floor", "wall", "beam", "column", "window", "door"),
    *("table", "chair", "sofa", "bookcase", "board", "clutter"),
)
"""S3DIS's classes in its order; raw ids count from 1"""
CEILING, FLOOR, WALL, BEAM, COLUMN, WINDOW, DOOR, TABLE, CHAIR, SOFA, BOOKCASE, BOARD, CLUTTER = range(1, 14)

WHITE, CREAM, GREY, DARK = (0.9, 0.9, 0.88), (0.85, 0.8, 0.68), (0.55, 0.55, 0.56), (0.13, 0.13, 0.14)
BLUE, GREEN, RED, YELLOW = (0.2, 0.3, 0.55), (0.25, 0.45, 0.28), (0.6, 0.18, 0.16), (0.8, 0.68, 0.25)
OAK, BEECH, WALNUT, CONCRETE = (0.62, 0.45, 0.27), (0.76, 0.6, 0.42), (0.33, 0.21, 0.13), (0.6, 0.59, 0.56)
SKY = (0.8, 0.88, 0.97)
CANDIDATES: Mapping[str, tuple[tuple[Color, ...], float]] = {
    "wall": ((WHITE, WHITE, CREAM, (0.75, 0.8, 0.82), (0.8, 0.74, 0.7), CONCRETE), 0.0),
    "accent": ((BLUE, GREEN, RED, YELLOW, CREAM, GREY, OAK), 0.0),
    "ceiling": ((WHITE, WHITE, (0.8, 0.8, 0.78), CONCRETE), 0.0),
    "floor": ((GREY, (0.35, 0.36, 0.4), OAK, BEECH, CONCRETE, (0.42, 0.3, 0.28), (0.7, 0.68, 0.62), (0.3, 0.36, 0.45)), 0.15),
    "wood": ((OAK, BEECH, WALNUT, WHITE, (0.45, 0.42, 0.4)), 0.2),
    "door": ((OAK, BEECH, WALNUT, WHITE, GREY, BLUE, RED), 0.15),
    "frame": ((WHITE, GREY, DARK, WALNUT), 0.3),
    "metal": ((GREY, DARK, (0.72, 0.73, 0.75)), 0.6),
    "fabric": ((DARK, BLUE, GREEN, RED, GREY, CREAM, (0.45, 0.25, 0.4), (0.2, 0.5, 0.52)), 0.0),
    "leather": ((DARK, (0.35, 0.2, 0.12), CREAM, RED), 0.4),
    "plastic": ((DARK, GREY, WHITE), 0.35),
    "board": ((WHITE, WHITE, (0.12, 0.26, 0.2), (0.55, 0.4, 0.25)), 0.5),
    "glass": ((SKY, (0.6, 0.72, 0.78), (0.35, 0.45, 0.5)), 0.85),
    "ceramic": ((WHITE,), 0.5),
    "leaf": (((0.2, 0.42, 0.15), (0.3, 0.5, 0.2)), 0.0),
    "lamp": (((0.98, 0.98, 0.94),), 0.1),
}
"""for each material the colours that a building may have it in, and its gloss"""
SPREAD = 0.06
"""standard deviation of the colour between two things of one material"""


@dataclass(frozen=True)
class Palette:
    """The colour of each material in one building, and how bright each is to a laser."""

    color: Mapping[str, NDArray[np.float64]]
    albedo: Mapping[str, float]
    gloss: Mapping[str, float]

    def paint(self, rng: Random, material: str) -> dict[str, Any]:
        """Fields of a part of this material, a little different for each thing; 'any' takes a colour at random."""
        color = rng.uniform(0.05, 0.95, 3) if material == "any" else self.color[material]
        color = np.clip(color + rng.normal(0, SPREAD / 3, 3) + rng.normal(0, SPREAD), 0.03, 1.0)
        albedo = rng.uniform(0.08, 0.7) if material == "any" else self.albedo[material] * rng.uniform(0.85, 1.15)
        gloss = 0.2 if material == "any" else self.gloss[material]
        return {"rgb": np.round(255 * color).astype(np.uint8), "albedo": float(np.clip(albedo, 0.04, 0.95)), "gloss": gloss}


def draw_palette(rng: Random) -> Palette:
    """The materials of one building; a laser sees in the infrared, where brightness follows the visible one only loosely."""
    color, albedo, gloss = {}, {}, {}
    for name, (candidates, shine) in CANDIDATES.items():
        base = np.array(candidates[rng.integers(len(candidates))])
        color[name] = np.clip(base * rng.uniform(0.8, 1.1) + rng.normal(0, 0.04, 3), 0.05, 1.0)
        albedo[name] = float(np.clip(0.15 + 0.55 * color[name].mean() * np.exp(0.3 * rng.standard_normal()), 0.06, 0.9))
        gloss[name] = float(np.clip(shine * rng.uniform(0.6, 1.3), 0.0, 0.9))
    return Palette(color, albedo, gloss)
