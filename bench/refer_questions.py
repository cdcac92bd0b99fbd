# SPDX-License-Identifier: Apache-2.0
"""Twenty hand-written questions about two scans of SemanticKITTI's sequence 00, and whether a bundle answers them rightly.

    python bench/refer_questions.py SEMANTICKITTI_00 [--bundle models/street_refer]

Right is an IoU above 0.5 with the object that is meant, or no answer where nothing matches.
Prints the table of docs/referring.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.referring import Referrer
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.points.cloud import make_cloud

CAR, MOTORCYCLIST = 10, 255
# (scan, question, what is meant: a class and, where it has several objects, an instance; None where nothing matches)
QUESTIONS: tuple[tuple[int, str, tuple[int, int | None] | None], ...] = (
    (0, "the car on the right", (CAR, 213)),
    (0, "the closest car on our left", (CAR, 212)),
    (0, "the motorcyclist ahead of us", (MOTORCYCLIST, None)),
    (0, "park behind the first car on the right", (CAR, 213)),
    (0, "the car behind us that is nearest", (CAR, 211)),
    (0, "stop next to the bus", None),
    (0, "let the pedestrian cross", None),
    (0, "the farthest car ahead", (CAR, 219)),
    (0, "turn left after the second car on the left", (CAR, 214)),
    (0, "wait until the guy on the motorbike has passed", (MOTORCYCLIST, None)),
    (2, "the parked car on the left next to us", (CAR, 212)),
    (2, "the black car on the right side of the road", (CAR, 213)),
    (2, "the truck", None),
    (2, "the car in front of us on the right", (CAR, 213)),
    (2, "the first car on the left", (CAR, 212)),
    (2, "there is a car on the right. pull up behind it", (CAR, 213)),
    (2, "the car behind us on the right", None),
    (2, "the woman with the red bag", None),
    (2, "the last car on the left behind us", (CAR, 208)),
    (2, "overtake the motorcycle rider", (MOTORCYCLIST, None)),
)


def main() -> int:
    """Ask all questions and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of sequence 00, with velodyne/ and labels/")
    parser.add_argument("--bundle", default="models/street_refer")
    asked = parser.parse_args()
    bundle = Bundle.load(asked.bundle)
    segmenter, referrer = Segmenter(bundle, "onnxruntime", watch="never"), Referrer(bundle)
    segmenter.settings.refer = True
    print("| scan | question | nothing matches | answer |\n|---|---|---|---|")
    right = 0
    for scan, text, meant in QUESTIONS:
        points = np.fromfile(asked.data / f"velodyne/{scan:06d}.bin", np.float32).reshape(-1, 4)
        cloud = make_cloud(points[:, :3].copy(), points[:, 3].copy())
        found = referrer.answer(referrer.ask(text), cloud, segmenter.run(cloud))
        truth = _mask(np.fromfile(asked.data / f"labels/{scan:06d}.label", np.uint32), meant) if meant else None
        is_right = not found.matches if truth is None else _iou(found.mask, truth) > 0.5
        right += is_right
        print(f"| {scan} | {text} | {'' if meant else 'yes'} | {'right' if is_right else 'wrong'} |")
    print(f"\n{right} of {len(QUESTIONS)} are right")
    return 0


def _mask(labels: NDArray[np.uint32], meant: tuple[int, int | None]) -> NDArray[np.bool_]:
    class_id, instance = meant
    is_class = (labels & 0xFFFF) == class_id
    return is_class if instance is None else is_class & ((labels >> 16) == instance)


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


if __name__ == "__main__":
    raise SystemExit(main())
