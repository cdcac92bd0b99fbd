# SPDX-License-Identifier: Apache-2.0
"""Classes of a shipped label map can be told apart by their colours: CIEDE2000 (Sharma, Wu and Dalal 2005)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.files import share_folder
from weakseg_ros.improve.label.colors import UNKNOWN
from weakseg_ros.points.labels import LabelMap

LEAST = 15.0
LEAST_ON_BLACK, LEAST_LIGHTNESS = 10.0, 27.0
MAPS = sorted(path.stem for path in (share_folder() / "config" / "labels").glob("*.yaml"))
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
WHITE_D65 = np.array([0.95047, 1.0, 1.08883])


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* (..., 3) of sRGB (..., 3), 0..255."""
    share = rgb / 255.0
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    xyz = linear @ TO_XYZ.T / WHITE_D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The colour difference (...,) of two arrays of L*a*b* (..., 3)."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a * stretch)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    turn = np.where(grey, 0.0, (h2 - h1 + 180) % 360 - 180)
    hue = np.where(grey, h1 + h2, h1 + turn / 2)
    lightness, c = (l1 + l2) / 2, (c1 + c2) / 2
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    waves = (-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63)
    t = 1 + sum(size * np.cos(np.radians(times * hue + shift)) for size, times, shift in waves)
    sl = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    sc, sh = 1 + 0.045 * c, 1 + 0.015 * c * t
    blue = 60 * np.exp(-(((hue % 360 - 275) / 25) ** 2))
    rt = -2 * np.sqrt(c**7 / (c**7 + 25.0**7)) * np.sin(np.radians(blue))
    return np.sqrt(((l2 - l1) / sl) ** 2 + ((c2 - c1) / sc) ** 2 + (dh / sh) ** 2 + rt * (c2 - c1) / sc * dh / sh)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, -1.0, 2.0), (50.0, 0.0, 0.0), 2.3669),
        ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
        ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_is_that_of_the_published_pairs(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    assert ciede2000(np.array(first), np.array(second)) == pytest.approx(expected, abs=1e-4)


def assert_apart(labels: LabelMap) -> None:
    names = (*labels.names, "no class, as the page draws it")
    colors = lab(np.array([*(row.color for row in labels.classes), UNKNOWN], np.float64))
    apart = ciede2000(colors[:, None], colors[None])
    close = [f"{names[i]} and {names[j]}: {apart[i, j]:.1f}" for i in range(len(names)) for j in range(i) if apart[i, j] < LEAST]
    assert not close


@pytest.mark.parametrize("name", MAPS)
def test_no_two_classes_of_a_shipped_map_look_alike(name: str) -> None:
    assert_apart(LabelMap.load(name))


@pytest.mark.parametrize("name", MAPS)
def test_every_class_can_be_seen_and_told_apart_on_a_black_page(name: str) -> None:
    labels = LabelMap.load(name)
    shown = lab(labels.colors_on_black[1:].astype(np.float64))
    assert shown[:, 0].min() > LEAST_LIGHTNESS
    at = np.triu_indices(len(shown), 1)
    assert ciede2000(shown[at[0]], shown[at[1]]).min() > LEAST_ON_BLACK
    bright = lab(labels.colors.astype(np.float64))[:, 0] > 2 * LEAST_LIGHTNESS
    np.testing.assert_array_equal(labels.colors_on_black[bright], labels.colors[bright])


def test_no_two_classes_of_the_shipped_model_look_alike() -> None:
    assert_apart(Bundle.load("models/street64").labels)


def test_a_class_has_one_colour_in_all_shipped_maps() -> None:
    colors: dict[str, tuple[int, int, int]] = {}
    for name in MAPS:
        for row in LabelMap.load(name).classes:
            assert colors.setdefault(row.name, row.color) == row.color, f"{row.name} in {name}"
