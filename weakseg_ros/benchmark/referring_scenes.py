# SPDX-License-Identifier: Apache-2.0
"""ScanNet's scenes and ScanRefer's descriptions as what a referring head is trained on.

Superpoints are the objects that a net on points finds, and the owners' segments of the mesh in what is none, as 3D-STMN takes
them; each is told by its place, size, classes and colour.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.expressions import Expression
from weakseg_ros.data.scannet import CATEGORIES, ScanNet, list_file, nyu40_of_category, segments_of
from weakseg_ros.data.scanrefer import read_scanrefer
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import DataError, counted
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.superpoints import Superpoints
from weakseg_ros.progress import Progress
from weakseg_ros.train.referring_data import EncodedScan, ReferringData

FILES = {split: f"ScanRefer_filtered_{split}.json" for split in ("train", "val")}
PLACES = ("", "ScanRefer", "../ScanRefer")
"""where the descriptions are looked for, from the folder of ScanNet"""
MOST = 256
"""superpoints of a scene; of the segments, the largest are kept"""
CELL_M = 1.0
"""side of the cells, three by three, in which the classes around a superpoint are counted"""


def descriptions_of(data: Path, named: Path) -> dict[str, list[Expression]]:
    """ScanRefer's descriptions by split; 'unique' and 'multiple' by the owners' rule, which takes ScanNet's table of categories.

    Raises DataError where a file is not there.
    """
    places = [data / below for below in PLACES] if named == Path() else [named]
    found = {split: next((place / name for place in places if (place / name).is_file()), None) for split, name in FILES.items()}
    table = list_file(data, CATEGORIES)
    if table is None:
        raise DataError(
            f"{data}: has no {CATEGORIES}, which tells unique descriptions from others; download it with the owners' script"
        )
    classes, expressions = nyu40_of_category(table), {}
    for split, file in found.items():
        if file is None:
            where = ", ".join(str(place) for place in places)
            raise DataError(
                f"{FILES[split]}: was not found (looked in {where}); ask ScanRefer's owners for it, or set descriptions"
            )
        expressions[split] = read_scanrefer(file, classes)
    return expressions


class SceneData(ReferringData):
    """Descriptions of scenes, each scene encoded with the answers of a net on points."""

    def __init__(self, name: str, expressions: Sequence[Expression], scenes: Mapping[str, EncodedScan]) -> None:
        self.name, self.expressions, self.scans = name, list(expressions), dict(scenes)


def open_scenes(data: Path, expressions: Mapping[str, Sequence[Expression]], bundle: Bundle) -> dict[str, SceneData]:
    """Both splits; DataError where scenes that are described are not there. The net runs over each scene once."""
    scans = ScanNet.open(data, "", None, ())
    number = {key: i for i, key in enumerate(scans.keys)}
    wanted = dict.fromkeys(row.scan for rows in expressions.values() for row in rows)
    missing = [key for key in wanted if key not in number]
    if missing:
        raise DataError(
            f"{data}: lacks {len(missing)} of the {counted(len(wanted), 'scene')} that are described ({missing[0]}); copy them"
        )
    segmenter = Segmenter(bundle, watch="never", allow_no_intensity=True)
    try:
        made = {}
        for key in Progress(wanted, what="scenes", unit="scene"):
            scan = scans[number[key]]
            segments = segments_of(scans.places[number[key]].files[0].parent, len(scan.cloud))
            if segments is None or scan.instance_id is None:
                raise DataError(f"{data}: scene {key} lacks its segments or objects; 'weakseg check {data}' says which files")
            superpoints, of_point = superpoints_of(scan.cloud, segmenter.run(scan.cloud), segments, bundle.num_classes)
            made[key] = EncodedScan.counted(superpoints, of_point, scan.instance_id)
    finally:
        segmenter.close()
    return {
        split: SceneData(f"{data} ({split})", rows, {row.scan: made[row.scan] for row in rows})
        for split, rows in expressions.items()
    }


def superpoints_of(
    cloud: Cloud, answer: Segmentation, segments: NDArray[np.int64], num_classes: int
) -> tuple[Superpoints, NDArray[np.int64]]:
    """The superpoints of a merged cloud, and (N,) the number of that of each point, -1 = none.

    Objects come first; `segments` (N,) are the pieces of a mesh that the rest is cut into.
    """
    is_object = answer.instance_id > 0
    key = np.where(is_object, answer.instance_id.astype(np.int64), segments + int(answer.instance_id.max(initial=0)) + 1)
    names, of_point, size = np.unique(key, return_inverse=True, return_counts=True)
    single = names <= int(answer.instance_id.max(initial=0))
    kept = np.lexsort((-size, ~single))[:MOST]
    number = np.full(len(names), -1, np.int64)
    number[kept] = np.arange(len(kept))
    place = number[of_point]
    return _measured(cloud, answer, place, single[kept], num_classes), place


def _measured(
    cloud: Cloud, answer: Segmentation, place: NDArray[np.int64], single: NDArray[np.bool_], num_classes: int
) -> Superpoints:
    """What is said of each superpoint; `place` (N,) is the number of that of each point."""
    count, order = len(single), np.argsort(place, kind="stable")
    order = order[np.searchsorted(place[order], 0) :]  # what is in none comes first
    start = np.searchsorted(place[order], np.arange(count))
    middle = cloud.xyz.mean(axis=0) * np.array([1, 1, 0], np.float32)
    xyz, classes = cloud.xyz[order] - middle, answer.class_id[order].astype(np.int64)
    rgb = np.zeros((len(order), 3), np.float32) if cloud.rgb is None else cloud.rgb[order] / np.float32(255) - np.float32(0.5)
    size = np.diff(np.append(start, len(order))).astype(np.float32)
    values = np.concatenate([xyz, answer.confidence[order][:, None], rgb], axis=1)
    mean = np.add.reduceat(values, start, axis=0) / size[:, None]
    low, high = (pick.reduceat(xyz, start, axis=0) for pick in (np.minimum, np.maximum))
    shares = np.bincount(place[order] * num_classes + classes, minlength=count * num_classes).reshape(count, num_classes)
    return Superpoints(
        centre=mean[:, :3].astype(np.float32),
        width_m=np.hypot(*(high - low)[:, :2].T).astype(np.float32),
        height_m=(high - low)[:, 2].astype(np.float32),
        points=size,
        confidence=mean[:, 3].astype(np.float32),
        classes=(shares / size[:, None]).astype(np.float32),
        around=_around(mean[:, :2].astype(np.float32), cloud.xyz - middle, answer.class_id, num_classes),
        single=single,
        features=mean[:, 4:].astype(np.float32),
    )


def _around(
    centre: NDArray[np.float32], xyz: NDArray[np.float32], class_id: NDArray[np.uint8], num_classes: int
) -> NDArray[np.float32]:
    """(S, K) share of the points in each class, in the cells about each centre."""
    cell = np.floor(xyz[:, :2] / CELL_M).astype(np.int64)
    low = cell.min(axis=0) - 1
    sides = cell.max(axis=0) - low + 2
    flat = np.ravel_multi_index(tuple((cell - low).T), tuple(sides)) * num_classes + class_id
    counts = np.bincount(flat, minlength=int(sides.prod()) * num_classes).reshape(*sides, num_classes)
    counts[..., 0] = 0
    own = np.clip(np.floor(centre / CELL_M).astype(np.int64) - low, 1, sides - 2)
    near = sum(counts[own[:, 0] + i, own[:, 1] + j] for i in (-1, 0, 1) for j in (-1, 0, 1))
    total = np.asarray(near, np.float32)
    share: NDArray[np.float32] = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    return share


def hash_of(data: Mapping[str, SceneData], bundle: Bundle) -> str:
    """A fingerprint of what is trained and measured on."""
    told = [dataclasses.astuple(row) for split in sorted(data) for row in data[split].expressions]
    return f"{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}-{bundle.content_hash[:16]}"
