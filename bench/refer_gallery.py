# SPDX-License-Identifier: Apache-2.0
"""Answers of a referring bundle beside the truth, drawn at random by a seed: docs/images/referring.png.

python bench/refer_gallery.py runs/refer/test --bundle models/street_refer
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from weakseg_ros.data.expressions import Expression, read_expressions
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.referring import Referred, Referrer
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.measure.referring import mask_iou, truth_of

REACH_M = 40.0
COLOURS = {"both": "#2a9d4a", "answered only": "#e63c32", "missed": "#2563eb"}


def main() -> int:
    """Answer, draw, and say how many of those shown are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", default="models/street_refer")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/images/referring.png"))
    asked = parser.parse_args()
    rows = read_expressions(asked.data)
    drawn = np.random.default_rng(asked.seed).choice(len(rows), asked.count, replace=False)
    bundle, scans = Bundle.load(asked.bundle), open_scans(asked.data)
    number = {key: i for i, key in enumerate(scans.keys)}
    segmenter, referrer = Segmenter(bundle, "onnxruntime", watch="never"), Referrer(bundle)
    segmenter.settings.refer = True
    columns = 4
    figure = Figure(figsize=(3.4 * columns, 4.1 * -(-asked.count // columns)), layout="constrained")
    panes = figure.subplots(-(-asked.count // columns), columns, squeeze=False).ravel()
    for pane, chosen in zip(panes, drawn, strict=False):
        row = rows[int(chosen)]
        scan = scans[number[row.scan]]
        draw(pane, row, scan, referrer.answer(referrer.ask(row.text), scan.cloud, segmenter.run(scan.cloud)))
    segmenter.close()
    figure.savefig(asked.out, dpi=75)
    print(f"{asked.out}: {asked.count} of {len(rows)} expressions, seed {asked.seed}")
    return 0


def draw(pane: object, row: Expression, scan: Scan, answer: Referred) -> None:
    """One scan from above, our front up: what was meant and what was answered."""
    assert scan.instance_id is not None
    truth, xyz = truth_of(row, scan.instance_id), scan.cloud.xyz
    parts = {"both": truth & answer.mask, "answered only": answer.mask & ~truth, "missed": truth & ~answer.mask}
    pane.scatter(-xyz[:, 1], xyz[:, 0], s=0.15, c="#b8bcc4", linewidths=0)  # type: ignore[attr-defined]
    for name, points in parts.items():
        if points.any():
            x, y, _ = xyz[points].T
            pane.scatter(-y, x, s=4, c=COLOURS[name], linewidths=0)  # type: ignore[attr-defined]
            centre = (-float(y.mean()), float(x.mean()))
            pane.scatter(*centre, s=260, facecolors="none", edgecolors=COLOURS[name], linewidths=1.2)  # type: ignore[attr-defined]
    pane.plot(0, 0, marker="^", color="black", markersize=6)  # type: ignore[attr-defined]
    pane.set(xlim=(-REACH_M, REACH_M), ylim=(-REACH_M, REACH_M), xticks=[], yticks=[], aspect="equal")  # type: ignore[attr-defined]
    pane.set_title("\n".join([*textwrap.wrap(row.text, 44)[:3], verdict(row, answer, truth)]), fontsize=8.5)  # type: ignore[attr-defined]


def verdict(row: Expression, answer: Referred, truth: np.ndarray) -> str:
    """Right or wrong, and how far."""
    if not row.targets:
        return "RIGHT: nothing matches" if not answer.matches else f"WRONG: nothing matches (score {answer.score:.2f})"
    if not answer.matches:
        return "WRONG: said that nothing matches"
    iou = mask_iou(answer.mask, truth)
    return f"{'RIGHT' if iou > 0.5 else 'WRONG'}: IoU {iou:.2f}, score {answer.score:.2f}"


if __name__ == "__main__":
    sys.exit(main())
