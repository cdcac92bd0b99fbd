# SPDX-License-Identifier: Apache-2.0
"""What it costs to make objects of a network's answer on a real scan: by centres, by queries, by touching pixels; one core.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/grouping.py [--scans ../shared/data/semantickitti_seq00]

Classes are the true ones. Centres and offsets are those of the true objects, with noise of 0.2 m; queries are random masks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.grouping import group_centres, group_components, object_radii_m
from weakseg_ros.deploy.queries import panoptic_inference
from weakseg_ros.environment import environment
from weakseg_ros.points.projection import project

RUNS = 30
QUERIES, FOUND = 100, 20
NOISE_M = 0.2


def centre_answer(instance: NDArray[Any], places: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Heat (H, W) and offset (2, H, W) in m of a head that is nearly right: objects (H, W), 0 = none, x and y (H, W, 2) m."""
    heat = np.zeros(instance.shape, np.float32)
    offset = np.random.default_rng(0).normal(0.0, NOISE_M, (2, *instance.shape)).astype(np.float32)
    for number in np.unique(instance[instance > 0]):
        inside = instance == number
        place = places[inside]
        wanted, ahead = place.mean(axis=0) - place, place / np.linalg.norm(place, axis=1, keepdims=True)
        offset[0][inside] += (wanted * ahead).sum(axis=1)
        offset[1][inside] += wanted[:, 1] * ahead[:, 0] - wanted[:, 0] * ahead[:, 1]
        heat[inside] = np.exp(-(wanted**2).sum(axis=1) / 2)
    return heat, offset


def query_answer(classes: int, pixels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Class logits (Q, K) and mask logits (Q, P) of which some are sure of themselves."""
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(0, 1, (QUERIES, classes)), rng.normal(-3, 1, (QUERIES, pixels))
    logits[:, -1] += 4.0
    logits[:FOUND, 0] += 12.0
    return logits.astype(np.float32), masks.astype(np.float32)


def median_ms(work: Callable[[], Any]) -> float:
    """Of RUNS runs."""
    laps = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        laps.append((time.perf_counter() - begin) * 1e3)
    return median(laps)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=Path, default=Path("../shared/data/semantickitti_seq00"))
    scans = open_scans(parser.parse_args().scans)
    scan = next(scan for scan in map(scans.__getitem__, range(len(scans))) if scan.instance_id is not None)
    view, labels = project(scan.cloud, scans.spec), scans.labels
    owner = view.point_of_pixel
    class_image = np.where(owner >= 0, scan.class_id[owner], 0).astype(np.uint8)
    objects = np.where(labels.things[class_image] & (owner >= 0), scan.instance_id[owner], 0)
    heat, offset = centre_answer(objects, scan.cloud.xyz[owner][..., :2])
    logits, masks = query_answer(labels.num_classes, int((class_image[::2, ::2] > 0).sum()))
    place, radius_m = (scan.cloud.xyz, view), object_radii_m(labels)
    ways = {
        "centres and offsets": lambda: group_centres(class_image, *place, heat, offset, radius_m),
        f"{QUERIES} queries on every other row and column": lambda: panoptic_inference(logits, masks, labels.things[1:]),
        "touching pixels": lambda: group_components(class_image, *place, labels.things, full_circle=True),
    }
    size = f"{len(scan.cloud)} points, {' x '.join(map(str, class_image.shape))}, {len(np.unique(objects)) - 1} objects"
    print(f"{size}, {RUNS} runs, {environment()['machine']}\n\n| objects from | ms |\n|---|---|")
    for name, work in ways.items():
        print(f"| {name} | {median_ms(work):.2f} |")


if __name__ == "__main__":
    main()
