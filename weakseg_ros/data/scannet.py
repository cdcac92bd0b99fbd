# SPDX-License-Identifier: Apache-2.0
"""ScanNet v2: rooms from a depth camera, each a mesh whose vertices are the points.

scans/scene0000_00/scene0000_00_vh_clean_2.ply                      vertices x, y, z in m, red, green, blue; faces
scans/scene0000_00/scene0000_00_vh_clean_2.labels.ply               the same vertices with `label`, an id of NYU40
scans/scene0000_00/scene0000_00_vh_clean_2.0.010000.segs.json       segIndices: a segment for each vertex
scans/scene0000_00/scene0000_00.aggregation.json                    segGroups: segments and raw category of each object
scans/scene0000_00/scene0000_00.txt                                 axisAlignment: 16 numbers, which turn the walls along x and y
scans_test/scene0707_00/...                                         meshes only
scannetv2-labels.combined.tsv                                       id of NYU40 by raw category
scannetv2_train.txt, scannetv2_val.txt, scannetv2_test.txt          the official splits, one scene a line
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.findings import Finding, fault, missing_parts, note, some
from weakseg_ros.data.pcd import read_ply
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.data.static_scans import Place, StaticScans
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import content_of, read_regular

log = logging.getLogger(__name__)

SCENES, TEST_SCENES = "scans", "scans_test"
MESH, LABELS = "_vh_clean_2.ply", "_vh_clean_2.labels.ply"
SEGMENTS, OBJECTS = "_vh_clean_2.0.010000.segs.json", ".aggregation.json"
CATEGORIES = "scannetv2-labels.combined.tsv"
COUNTS = {"train": 1201, "val": 312, "test": 100}
"""scenes in each official split"""
LISTS = {split: f"scannetv2_{split}.txt" for split in COUNTS}
LIST_FOLDERS = ("", "Tasks/Benchmark", "meta_data", SCENES)
"""where the official lists are looked for"""
_SCENE = re.compile(r"scene\d{4}_\d\d")


class ScanNet(StaticScans):
    """Scenes of ScanNet v2 with the 20 classes of its benchmark, colours and instances, upright as `axisAlignment` says.

    The instance of a point is the `objectId` of its object plus 1, 0 where it belongs to none. Without its label file a scene's
    classes come from its objects and the table of categories; a scene without both has no labels.
    """

    map_name = "scannet"
    split_names = ("train", "val", "test")
    split_advice = (
        f"; the official lists {', '.join(LISTS.values())} belong beside {SCENES}/ and come from Tasks/Benchmark of "
        "https://github.com/ScanNet/ScanNet"
    )

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """True where a scene with its mesh lies."""
        return bool(scenes_in(folder))

    @classmethod
    def places_in(cls, folder: Path) -> list[Place]:
        split_of = official_splits(folder)
        places = []
        for scene in scenes_in(folder):
            split = split_of.get(scene.name, "test" if scene.parent.name == TEST_SCENES else "")
            places.append(Place(scene.name, split, tuple(file for file in scene_files(scene) if file.is_file())))
        return places

    @classmethod
    def inspect(cls, folder: Path) -> Iterator[Finding]:
        """Lists, scenes and files that are missing, and those of ScanNet's first version."""
        yield from version_findings(folder)
        scenes = {scene.name: scene for scene in scenes_in(folder)}
        if folder == root_of(folder):
            yield from list_findings(folder, scenes)
        split_of = official_splits(folder)
        for scene in scenes.values():
            yield from scene_findings(scene, split_of.get(scene.name, ""))

    def read(self, place: Place) -> Scan:
        scene = place.files[0].parent
        columns = read_ply(scene / f"{scene.name}{MESH}")
        count = len(next(iter(columns.values())))
        groups = objects_of(scene, count)
        raw = raw_labels_of(scene, count, groups)
        instance = None if groups is None else instances_of(groups, count)
        return self.scan_of_columns(place, columns, raw, instance, upright(columns, scene))


Groups = list[tuple[int, str, NDArray[np.int64]]]
"""of each object its number, raw category and vertices"""


def scenes_in(folder: Path) -> list[Path]:
    """The folders of all scenes that have a mesh, sorted by name; the folder itself where it is one."""
    if _SCENE.fullmatch(folder.name) and (folder / f"{folder.name}{MESH}").is_file():
        return [folder]
    roots = [folder] if folder.name in (SCENES, TEST_SCENES) else [folder / SCENES, folder / TEST_SCENES, folder]
    found = [scene for root in roots for scene in content_of(root) if _SCENE.fullmatch(scene.name)]
    return [scene for scene in found if (scene / f"{scene.name}{MESH}").is_file()]


def scene_files(scene: Path) -> list[Path]:
    """The files that a labelled scene has, the mesh first."""
    return [scene / f"{scene.name}{ending}" for ending in (MESH, LABELS, SEGMENTS, OBJECTS, ".txt")]


def root_of(folder: Path) -> Path:
    """The folder that holds scans/ and the lists, from it or one below."""
    if _SCENE.fullmatch(folder.name):
        folder = folder.resolve().parent
    return folder.resolve().parent if folder.name in (SCENES, TEST_SCENES) else folder


def official_splits(folder: Path) -> dict[str, str]:
    """The split by the name of a scene, from those of the official lists that are there."""
    return {scene: split for split, scenes in official_lists(folder).items() for scene in scenes}


def official_lists(folder: Path) -> dict[str, list[str]]:
    """The scenes in each of the official lists that are there."""
    files = {split: list_file(folder, name) for split, name in LISTS.items()}
    return {split: _text(file).split() for split, file in files.items() if file is not None}


def list_file(folder: Path, name: str) -> Path | None:
    """Where an official list or table lies, None where it does not."""
    places = (root_of(folder) / below / name for below in LIST_FOLDERS)
    return next((place for place in places if place.is_file()), None)


def version_findings(folder: Path) -> Iterator[Finding]:
    """Whether tables and meshes are those of version 2."""
    table = list_file(folder, CATEGORIES)
    if table is None:
        old = list_file(folder, CATEGORIES.replace("scannetv2", "scannet"))
        what = f"has {old.name}, the table of ScanNet's first version, and no" if old else "has no"
        yield fault(f"{root_of(folder)}: {what} {CATEGORIES}; download it with the owners' script")
    else:
        yield from table_findings(table)
    places = [folder / SCENES, folder / TEST_SCENES, folder] if folder == root_of(folder) else [folder]
    scenes = [scene for place in places for scene in content_of(place) if _SCENE.fullmatch(scene.name)]
    without = [scene for scene in scenes if not (scene / f"{scene.name}{MESH}").is_file()]
    full = [scene.name for scene in without if (scene / f"{scene.name}_vh_clean.ply").is_file()]
    if full:
        what = "only the full mesh (*_vh_clean.ply), which has no labels of its own"
        yield fault(f"{folder}: {counted(len(full), 'scene has', 'scenes have')} {what} ({some(full)}); download *{MESH}")
    others = [scene.name for scene in without if scene.name not in full]
    if others:
        yield fault(f"{folder}: {counted(len(others), 'scene has', 'scenes have')} no mesh *{MESH} ({some(others)}); download it")


def table_findings(table: Path) -> Iterator[Finding]:
    """Whether the table of categories can be read and lists objects."""
    try:
        if not nyu40_of_category(table):
            yield fault(f"{table}: lists no category; download it with the owners' script")
    except DataError as error:
        yield fault(str(error))


def list_findings(folder: Path, scenes: Collection[str]) -> Iterator[Finding]:
    """The official lists: whether they are there, are those of version 2, and name scenes that are there."""
    lists, listed = official_lists(folder), official_splits(folder)
    for split, count in COUNTS.items():
        names = lists.get(split, [])
        if not names:
            old = list_file(folder, LISTS[split].replace("scannetv2", "scannetv1"))
            what = f"has {old.name}, the list of ScanNet's first version, and no" if old else "has no"
            yield Finding(split != "test", f"{folder}: {what} {LISTS[split]}{ScanNet.split_advice}")
        elif len(names) != count:
            file = list_file(folder, LISTS[split])
            yield fault(f"{file}: lists {counted(len(names), 'scene')}, version 2 has {count}; take the list of version 2")
        if names:
            yield from missing_parts(folder, "scenes", scenes, {split: names})
    twice = [name for name, times in Counter(name for names in lists.values() for name in names).items() if times > 1]
    if twice:
        yield fault(
            f"{folder}: its official lists name {counted(len(twice), 'scene')} twice ({some(twice)}); download them again"
        )
    others = [name for name in scenes if name not in listed]
    if listed and others:
        yield note(f"{folder}: {counted(len(others), 'scene is', 'scenes are')} in none of the official lists ({some(others)})")


def scene_findings(scene: Path, split: str) -> Iterator[Finding]:
    """Files that a labelled scene lacks."""
    absent = [file.name for file in scene_files(scene) if not file.is_file()]
    if absent and split != "test" and scene.parent.name != TEST_SCENES:
        yield fault(f"{scene}: lacks {', '.join(absent)}; download the scene again")


def upright(columns: dict[str, NDArray[Any]], scene: Path) -> NDArray[np.float32]:
    """(N, 3) m, turned and moved by the scene's axisAlignment; as stored where it has none, as scenes to test on."""
    stored = np.stack([columns[axis] for axis in "xyz"], axis=1) if {"x", "y", "z"} <= set(columns) else np.zeros((0, 3))
    matrix = alignment_of(scene)
    turned: NDArray[np.float32] = (stored.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)
    return turned


def alignment_of(scene: Path) -> NDArray[np.float64]:
    """(4, 4) the axisAlignment of a scene, the identity where its file has none."""
    file = scene / f"{scene.name}.txt"
    lines = _text(file).splitlines() if file.is_file() else []
    for line in lines:
        name, _, numbers = line.partition("=")
        if name.strip() == "axisAlignment":
            return _matrix(numbers, file)
    return np.eye(4)


def _matrix(numbers: str, file: Path) -> NDArray[np.float64]:
    try:
        matrix = np.array(numbers.split(), np.float64)
    except ValueError:
        matrix = np.zeros(0)
    if matrix.size != 16 or not np.isfinite(matrix).all():
        raise DataError(f"{file}: its axisAlignment is not 16 numbers ('{numbers.strip()[:40]}'); copy the scene again")
    return matrix.reshape(4, 4)


def raw_labels_of(scene: Path, count: int, groups: Groups | None) -> NDArray[np.int64] | None:
    """(count,) ids of NYU40 from the label file, else from the objects; None for a scene without labels."""
    file = scene / f"{scene.name}{LABELS}"
    if not file.is_file():
        return None if groups is None else raw_labels_of_objects(scene, count, groups)
    columns = read_ply(file)
    if "label" not in columns:
        raise DataError(f"{file}: has no column label (has {', '.join(columns)}); it is another version; copy the scene again")
    if len(columns["label"]) != count:
        found = f"has {counted(len(columns['label']), 'label')}, but its mesh has {counted(count, 'vertex', 'vertices')}"
        raise DataError(f"{file}: {found}; their versions differ; copy both again")
    return columns["label"].astype(np.int64)


def raw_labels_of_objects(scene: Path, count: int, groups: Groups) -> NDArray[np.int64] | None:
    """(count,) ids of NYU40 by the raw category of each object; None without the table of categories."""
    table = list_file(scene, CATEGORIES)
    if table is None:
        log.warning("%s: has no label file, and %s is not there, so the scene has no labels", scene, CATEGORIES)
        return None
    nyu40 = nyu40_of_category(table)
    raw = np.zeros(count, np.int64)
    for _, category, vertices in groups:
        if category not in nyu40:
            raise DataError(f"{table}: does not list the category '{category[:40]}' of {scene.name}; it is another version")
        raw[vertices] = nyu40[category]
    return raw


@lru_cache(maxsize=4)
def nyu40_of_category(table: Path) -> dict[str, int]:
    """The id of NYU40 by raw category."""
    rows = csv.DictReader(_text(table).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        return {row["raw_category"]: int(row["nyu40id"] or 0) for row in rows}
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{table}: is not a table of categories with raw_category and nyu40id ({error!r}); copy it again"
        ) from None


def instances_of(groups: Groups, count: int) -> NDArray[np.uint16]:
    """(count,) the number of the object of each vertex plus 1, 0 for none."""
    instance = np.zeros(count, np.uint16)
    for number, _, vertices in groups:
        instance[vertices] = number + 1
    return instance


def objects_of(scene: Path, count: int) -> Groups | None:
    """The objects of a scene with their vertices; None where one of its two files is not there."""
    object_file, segments = scene / f"{scene.name}{OBJECTS}", segments_of(scene, count)
    if segments is None or not object_file.is_file():
        return None
    order = np.argsort(segments, kind="stable")
    groups: Groups = []
    for number, category, wanted in _groups(object_file):
        first, last = (np.searchsorted(segments, wanted, side, sorter=order) for side in ("left", "right"))
        parts = [order[a:b] for a, b in zip(first, last, strict=True)]
        groups.append((number, category, np.concatenate(parts) if parts else np.zeros(0, np.int64)))
    return groups


def segments_of(scene: Path, count: int) -> NDArray[np.int64] | None:
    """(count,) the number of the segment of the mesh that each vertex is in; None where the file is not there."""
    file = scene / f"{scene.name}{SEGMENTS}"
    return _segments(file, count) if file.is_file() else None


def _segments(file: Path, count: int) -> NDArray[np.int64]:
    """(count,) the segment of each vertex."""
    content = _json(file)
    try:
        segments = np.array(content["segIndices"], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: holds no list segIndices ({error!r}); copy the scene again") from None
    if segments.shape != (count,):
        found = f"{counted(segments.size, 'segment')}, but its mesh has {counted(count, 'vertex', 'vertices')}"
        raise DataError(f"{file}: has {found}; their versions differ; copy both again")
    return segments


def _groups(file: Path) -> list[tuple[int, str, NDArray[np.int64]]]:
    content = _json(file)
    try:
        rows = [
            (int(row["objectId"]), str(row["label"]), np.array(row["segments"], np.int64).ravel()) for row in content["segGroups"]
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: its segGroups cannot be read ({error!r}); copy the scene again") from None
    if any(not 0 <= number < np.iinfo(np.uint16).max for number, _, _ in rows):
        raise DataError(f"{file}: has an objectId outside 0..65534; copy the scene again")
    return rows


def _json(file: Path) -> Any:
    try:
        return json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not complete JSON ({error}); copy the scene again") from None


def _text(file: Path) -> str:
    try:
        return read_regular(file).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); copy it again") from None
