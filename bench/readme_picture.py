# SPDX-License-Identifier: Apache-2.0
"""The README's first picture: the shipped model on a simulated scan that it never saw.

    python bench/readme_picture.py            (docs/images/street_scan.png; seconds)

Street 30000 is apart from the streets of training (from 0), validation (from 10000) and test (from 20000).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.measure.pictures import class_colors, error_colors, range_picture, uncertainty_colors
from weakseg_ros.points.projection import project
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor

STREET, SENSOR = 30_000, "hdl64e"
OUT = Path("docs/images/street_scan.png")


def main() -> None:
    """Simulate the scan, run the model, draw."""
    bundle = Bundle.load(Path("models/street"))
    sensor = dataclasses.replace(load_sensor(SENSOR), intensity_full_scale=1.0)
    scan = list(simulate(SimulateConfig(STREET, 2, stride=10, sensor=sensor)))[-1]
    truth = bundle.labels.to_class(scan.raw_label)
    answer = Segmenter(bundle).run(scan.cloud)
    known = (truth > 0) & (answer.class_id > 0)
    wrong = float((answer.class_id != truth)[known].mean())
    looks = {
        "predicted": class_colors(answer.class_id, bundle.labels.colors),
        "truth": class_colors(truth, bundle.labels.colors),
        f"errors: {wrong:.1%} of the labelled points": error_colors(answer.class_id, truth),
        "uncertainty": uncertainty_colors(answer.uncertainty, answer.class_id > 0),
    }
    view = project(scan.cloud, bundle.info.input.geometry)
    seen_rows = (view.point_of_pixel >= 0).any(axis=1)
    figure, axes = plt.subplots(len(looks), 1, figsize=(10, 6.4), layout="constrained")
    for axis, (name, look) in zip(axes, looks.items(), strict=True):
        axis.imshow(range_picture(look, view)[seen_rows], aspect="auto", interpolation="nearest")
        axis.set_title(name, loc="left", fontsize=9)
        axis.set_axis_off()
    seen = [c for i, c in enumerate(bundle.labels.classes) if i and (truth == i).any()]
    patches = [Patch(color=tuple(v / 255 for v in c.color), label=c.name) for c in seen]
    figure.legend(handles=patches, ncols=7, loc="outside upper left", fontsize=8, frameon=False)
    figure.savefig(OUT, dpi=100, facecolor="white")
    print(f"{OUT}: street {STREET}, {SENSOR}, {wrong:.1%} of the labelled points wrong")


if __name__ == "__main__":
    main()
