# SPDX-License-Identifier: Apache-2.0
"""Tiny data sets in their real layouts, for tests of several chapters; see the fixture `layouts`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

NUSCENES_FRAMES = 2
POSS_SLOTS = 40 * 1800
POSS_RAW = np.array([0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 21, 22], np.uint32)
KITTI_RAW = np.array([0, 10, 40, 48, 50, 70, 252], np.uint32)


def nuscenes_points(scene: int, number: int, count: int = 40) -> np.ndarray:
    rng = np.random.default_rng([scene, number])
    xyz = rng.normal(0, 10, (count, 3)) * (1, 1, 0.1)
    return np.concatenate([xyz, rng.integers(0, 256, (count, 1)), rng.integers(0, 32, (count, 1))], axis=1).astype("<f4")


def nuscenes_categories(scene: int, number: int, count: int = 40) -> np.ndarray:
    return np.random.default_rng([scene, number, 1]).integers(0, 32, count).astype(np.uint8)


def write_nuscenes(root: Path, scenes: list[int], version: str = "v1.0-mini", labelled: bool = True) -> Path:
    """Scenes of two key frames, each with a sweep and a picture that are none of our business."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ("scene", "sample", "sample_data", "lidarseg")}
    for folder in (root / version, root / "samples" / "LIDAR_TOP", root / "lidarseg" / version):
        folder.mkdir(parents=True)
    for scene in scenes:
        tables["scene"].append({"token": f"scene{scene}", "name": f"scene-{scene:04d}", "nbr_samples": NUSCENES_FRAMES})
        for number in reversed(range(NUSCENES_FRAMES)):  # tables are in no order
            sample, data = f"sample{scene}-{number}", f"data{scene}-{number}"
            stamp_us = 1_500_000_000_000_000 + 10_000_000 * scene + 500_000 * number
            tables["sample"].append({"token": sample, "scene_token": f"scene{scene}", "timestamp": stamp_us})
            name = f"samples/LIDAR_TOP/n015__LIDAR_TOP__{stamp_us}.pcd.bin"
            row = {"token": data, "sample_token": sample, "timestamp": stamp_us, "is_key_frame": True, "filename": name}
            sweep = {**row, "token": f"{data}s", "is_key_frame": False, "filename": name.replace("samples", "sweeps")}
            picture = {**row, "token": f"{data}c", "filename": f"samples/CAM_FRONT/{stamp_us}.jpg"}
            tables["sample_data"] += [picture, sweep, row]
            (root / name).write_bytes(nuscenes_points(scene, number).tobytes())
            if labelled:
                file = f"lidarseg/{version}/{data}_lidarseg.bin"
                tables["lidarseg"].append({"token": data, "sample_data_token": data, "filename": file})
                (root / file).write_bytes(nuscenes_categories(scene, number).tobytes())
    for name, rows in tables.items():
        if rows:
            (root / version / f"{name}.json").write_text(json.dumps(rows, indent=0))
    return root


def write_poss(root: Path, sequences: list[str], scans: int = 2) -> Path:
    """Recordings of SemanticPOSS: two of a hundred slots of the grid hold a point."""
    for name in sequences:
        folder = root / "sequences" / name
        for kind in ("velodyne", "labels", "tag"):
            (folder / kind).mkdir(parents=True)
        for number in range(scans):
            rng = np.random.default_rng([int(name), number])
            tag = rng.random(POSS_SLOTS) < 0.02
            points = np.concatenate([rng.normal(0, 20, (tag.sum(), 3)), rng.integers(0, 256, (tag.sum(), 1))], axis=1)
            label = rng.choice(POSS_RAW, tag.sum()) | (rng.integers(0, 9, tag.sum()).astype(np.uint32) << 16)
            (folder / "velodyne" / f"{number:06d}.bin").write_bytes(points.astype("<f4").tobytes())
            (folder / "labels" / f"{number:06d}.label").write_bytes(label.astype("<u4").tobytes())
            (folder / "tag" / f"{number:06d}.tag").write_bytes(tag.astype(np.uint8).tobytes())
    return root


def write_kitti(root: Path, sequences: list[str], scans: int = 2, points: int = 3000) -> Path:
    """Recordings of SemanticKITTI, points over its field of view."""
    for name in sequences:
        folder = root / "sequences" / name
        for kind in ("velodyne", "labels"):
            (folder / kind).mkdir(parents=True)
        for number in range(scans):
            rng = np.random.default_rng([int(name), number])
            azimuth, inclination = rng.uniform(-np.pi, np.pi, points), np.radians(rng.uniform(-25, 3, points))
            level = np.cos(inclination)
            direction = np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(inclination)], axis=1)
            cloud = np.concatenate([direction * rng.uniform(3, 60, (points, 1)), rng.random((points, 1))], axis=1)
            (folder / "velodyne" / f"{number:06d}.bin").write_bytes(cloud.astype("<f4").tobytes())
            (folder / "labels" / f"{number:06d}.label").write_bytes(rng.choice(KITTI_RAW, points).astype("<u4").tobytes())
    return root


S3DIS_OBJECTS = ("ceiling_1", "floor_1", "wall_1", "wall_2", "wall_10", "chair_1", "table_1", "stairs_1", "clutter_1")


def write_s3dis(root: Path, rooms: list[str], points: int = 40, objects: tuple[str, ...] = S3DIS_OBJECTS) -> Path:
    """Rooms of S3DIS ('Area_1/office_1'), each object a text file with `points` lines; the room's own file holds them all."""
    for index, name in enumerate(rooms):
        room = root / name
        (room / "Annotations").mkdir(parents=True)
        every = []
        for number, thing in enumerate(objects):
            lines = "".join(f"{line}\n" for line in s3dis_lines(index, number, points))
            (room / "Annotations" / f"{thing}.txt").write_text(lines)
            every.append(lines)
        (room / f"{room.name}.txt").write_text("".join(reversed(every)))
    return root


def s3dis_lines(room: int, number: int, points: int = 40) -> list[str]:
    """The lines of one object's file."""
    rng = np.random.default_rng([room, number])
    xyz, rgb = rng.uniform(0, 4, (points, 3)) + np.array([10 * room, -5, 0]), rng.integers(0, 256, (points, 3))
    return [" ".join([*(f"{value:.3f}" for value in xyz[i]), *map(str, rgb[i])]) for i in range(points)]


def write_ply(path: Path, columns: dict[str, np.ndarray], faces: int = 0) -> Path:
    """A binary .ply file of vertices, and of triangles behind them."""
    kinds = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "i4": "int"}
    count = len(next(iter(columns.values())))
    head = ["ply", "format binary_little_endian 1.0", "comment written by a test", f"element vertex {count}"]
    head += [f"property {kinds[column.dtype.str[1:]]} {name}" for name, column in columns.items()]
    head += [f"element face {faces}", "property list uchar int vertex_indices"] if faces else []
    table = np.zeros(count, [(name, column.dtype.newbyteorder("<")) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    triangles = np.zeros(faces, [("n", "u1"), ("v", "<i4", 3)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join([*head, "end_header", ""]).encode() + table.tobytes() + triangles.tobytes())
    return path


def colored_points(seed: int, count: int, kind: str = "f4") -> dict[str, np.ndarray]:
    """Columns x, y, z, red, green, blue of points in a room."""
    rng = np.random.default_rng(seed)
    xyz, rgb = rng.uniform(0.1, 4, (count, 3)).astype(kind), rng.integers(0, 256, (count, 3)).astype("u1")
    return dict(zip(("x", "y", "z"), xyz.T, strict=True)) | dict(zip(("red", "green", "blue"), rgb.T, strict=True))


SCANNET_OBJECTS = (("wall", 1), ("floor", 2), ("chair", 5), ("office chair", 5), ("shower curtain", 28), ("monitor", 40))
"""raw category and id of NYU40 of each object of a scene"""
SCANNET_COUNT = 20 * len(SCANNET_OBJECTS) + 10


def write_scannet(root: Path, train: list[str], val: list[str], test: tuple[str, ...] = ()) -> Path:
    """Scenes of ScanNet v2 of six objects of two segments each, and ten vertices that belong to none; lists and table."""
    root.mkdir(parents=True, exist_ok=True)
    for split, names in (("train", train), ("val", val), ("test", test)):
        (root / f"scannetv2_{split}.txt").write_text("".join(f"{name}\n" for name in names))
    lines = ["id\traw_category\tcategory\tcount\tnyu40id\tnyu40class"]
    lines += [f"{i}\t{name}\t{name}\t1\t{nyu40}\t{name}" for i, (name, nyu40) in enumerate(SCANNET_OBJECTS, 1)]
    (root / "scannetv2-labels.combined.tsv").write_text("\n".join(lines) + "\n")
    for index, name in enumerate([*train, *val]):
        _write_scene(root / "scans" / name, index)
    for index, name in enumerate(test):
        scene = root / "scans_test" / name
        write_ply(scene / f"{name}_vh_clean_2.ply", colored_points(100 + index, SCANNET_COUNT), faces=3)
        (scene / f"{name}.txt").write_text("sceneType = Office\n")
    return root


def scannet_segments(count: int = SCANNET_COUNT) -> np.ndarray:
    """The segment of each vertex: tens of neighbours, numbered as the segmentator numbers them."""
    return 7 * (np.arange(count) // 10) + 3


def _write_scene(scene: Path, index: int) -> None:
    points = colored_points(index, SCANNET_COUNT)
    alpha = {"alpha": np.full(SCANNET_COUNT, 255, "u1")}
    raw = np.repeat([nyu40 for _, nyu40 in SCANNET_OBJECTS], 20)
    label = {"label": np.concatenate([raw, np.zeros(10)]).astype("u2")}
    write_ply(scene / f"{scene.name}_vh_clean_2.ply", points | alpha, faces=4)
    write_ply(scene / f"{scene.name}_vh_clean_2.labels.ply", points | alpha | label, faces=4)
    segments = scannet_segments()
    groups = [
        {"id": i, "objectId": i, "segments": [int(segments[20 * i]), int(segments[20 * i + 10])], "label": name}
        for i, (name, _) in enumerate(SCANNET_OBJECTS)
    ]
    (scene / f"{scene.name}_vh_clean_2.0.010000.segs.json").write_text(
        json.dumps({"sceneId": scene.name, "segIndices": segments.tolist()})
    )
    (scene / f"{scene.name}.aggregation.json").write_text(json.dumps({"sceneId": scene.name, "segGroups": groups}))
    quarter_turn = "0 -1 0 1.5 1 0 0 -2 0 0 1 0.25 0 0 0 1"
    (scene / f"{scene.name}.txt").write_text(f"axisAlignment = {quarter_turn} \ncolorHeight = 968\nsceneType = Office\n")


def write_scanrefer(root: Path, scenes: dict[str, list[str]], said: str = "it is the {name} by the wall") -> Path:
    """ScanRefer's two files about ScanNet's scenes as `write_scannet` writes them: two descriptions of each object."""
    for split, names in scenes.items():
        rows = [
            {
                **{"scene_id": scene, "object_id": str(i), "object_name": name.replace(" ", "_"), "ann_id": str(number)},
                **{"description": said.format(name=name) + " near the door" * number, "token": []},
            }
            for scene in names
            for i, (name, _) in enumerate(SCANNET_OBJECTS)
            for number in range(2)
        ]
        (root / f"ScanRefer_filtered_{split}.json").write_text(json.dumps(rows))
    return root


def write_sensaturban(root: Path, train: list[str], test: tuple[str, ...] = (), points: int = 260) -> Path:
    """Tiles of SensatUrban; only those in train/ have a class."""
    for index, (folder, tile) in enumerate([*(("train", tile) for tile in train), *(("test", tile) for tile in test)]):
        columns = colored_points(index, points)
        labels = {"class": (np.arange(points) % 13).astype("u1")} if folder == "train" else {}
        write_ply(root / folder / f"{tile}.ply", columns | labels)
    return root


def write_toronto3d(root: Path, names: tuple[str, ...] = ("L001", "L002"), points: int = 90) -> Path:
    """Stretches of Toronto-3D, in UTM coordinates."""
    for index, name in enumerate(names):
        columns = colored_points(index, points, "f8")
        columns |= {"x": columns["x"] + 627285.0, "y": columns["y"] + 4841948.0}
        columns["scalar_Intensity"] = np.arange(points, dtype="f4")
        columns["scalar_Label"] = (np.arange(points) % 9).astype("f4")
        write_ply(root / f"{name}.ply", columns)
    return root


def street(frame: int = 0, up_deg: float = 3.0, down_deg: float = -25.0, rows: int = 16, columns: int = 128) -> tuple[Any, Any]:
    """A road between two walls, seen by evenly spaced lasers: (N, 4) float32 points and (N,) raw ids of SemanticKITTI."""
    up, around = np.radians(np.linspace(up_deg, down_deg, rows))[:, None], np.radians(np.linspace(180, -180, columns, False))
    ray = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up) + 0 * around], -1).reshape(-1, 3)
    with np.errstate(divide="ignore"):
        ground, wall = np.where(ray[:, 2] < 0, -1.7 / ray[:, 2], np.inf), 8.0 / np.abs(ray[:, 1])
    seen = np.minimum(ground, wall) < 60.0
    distance = np.minimum(np.minimum(ground, wall), 60.0)
    raw = np.where(ground < wall, 40, 50).astype(np.uint32)
    rng = np.random.default_rng(frame)
    xyz = ray * (distance + rng.normal(0, 0.01, len(ray)))[:, None]
    intensity = np.where(raw == 40, 0.2, 0.6) + rng.normal(0, 0.03, len(ray))
    return np.column_stack([xyz, intensity])[seen].astype("<f4"), raw[seen]


def write_bare(folder: Path, frames: int = 6, **lasers: Any) -> Path:
    """A recording in KITTI's layout without a manifest; `lasers` as in `street`."""
    for name in ("velodyne", "labels"):
        (folder / name).mkdir(parents=True)
    for frame in range(frames):
        points, raw = street(frame, **lasers)
        points.tofile(folder / "velodyne" / f"{frame:06d}.bin")
        raw.astype("<u4").tofile(folder / "labels" / f"{frame:06d}.label")
    return folder
