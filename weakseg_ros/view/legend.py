# SPDX-License-Identifier: Apache-2.0
"""What the colours of the panes mean."""

from __future__ import annotations

import html

import numpy as np

from weakseg_ros.improve.label.colors import COLD_TO_HOT, DARK_TO_LIGHT, HEIGHT, INTENSITY, UNCERTAINTY
from weakseg_ros.improve.label.widgets import SWATCH, TEXT
from weakseg_ros.measure.pictures import MEANT, RIGHT, WRONG
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.view.panes import DIM, ERRORS, FOUND, OBJECTS, Side

HEAD = "text-align:right;padding-left:0.7em;max-width:6.5em;overflow:hidden;white-space:nowrap;direction:rtl"
"""a long path shows its end"""


def legend_html(sides: list[Side], look: str, labels: LabelMap) -> str:
    """What the colours mean, with the number of points of each class in each pane."""
    if look == ERRORS:
        rows = [(RIGHT, "right"), (WRONG, "wrong"), (DIM, "has no label")]
        cells = "".join(f'<div><span style="{SWATCH};background:rgb{color}">&nbsp;</span> {name}</div>' for color, name in rows)
        return f'<div style="{TEXT}">{cells}</div>'
    if look == FOUND:
        swatch = f'<span style="{SWATCH};background:rgb{MEANT}">&nbsp;</span>'
        return f'<div style="{TEXT}">{swatch} what was looked for</div>'
    if look in (UNCERTAINTY, INTENSITY, HEIGHT):
        low, high = ("certain", "undecided") if look == UNCERTAINTY else ("low", "high")
        stops = COLD_TO_HOT if look == UNCERTAINTY else DARK_TO_LIGHT
        ramp = "linear-gradient(90deg," + ",".join(f"rgb({r:g},{g:g},{b:g})" for r, g, b in stops) + ")"
        return (
            f'<div style="{TEXT}"><div style="height:10px;border-radius:5px;background:{ramp}"></div>'
            f'<div style="display:flex;justify-content:space-between"><span>{low}</span><span>{high}</span></div></div>'
        )
    if look == OBJECTS:
        return f'<div style="{TEXT}">One colour for each object; grey belongs to none.</div>'
    return _class_table(sides, labels)


def _class_table(sides: list[Side], labels: LabelMap) -> str:
    known = [side for side in sides if side.prediction is not None]
    counts = [np.bincount(side.prediction, minlength=labels.num_classes) for side in known if side.prediction is not None]
    rows = []
    for row in labels.classes[1:]:
        if any(count[row.id] for count in counts):
            numbers = "".join(f'<td style="text-align:right;padding-left:0.7em">{count[row.id]:,}</td>' for count in counts)
            swatch = f'<span style="{SWATCH};background:rgb{tuple(labels.colors_on_black[row.id].tolist())}">&nbsp;</span>'
            rows.append(f"<tr><td style='white-space:nowrap'>{swatch} {html.escape(row.name)}</td>{numbers}</tr>")
    heads = "".join(f'<th style="{HEAD}">{html.escape(side.title)}</th>' for side in known)
    return f'<div style="{TEXT}"><table style="border-collapse:collapse"><tr><th></th>{heads}</tr>{"".join(rows)}</table></div>'
