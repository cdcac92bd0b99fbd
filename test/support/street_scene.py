# SPDX-License-Identifier: Apache-2.0
"""What one scan of a car and a person on a plane shows, and the labelling page's state on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from weakseg_ros.data.frame_log import Suggestion
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.frame_source import FrameSource
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

STREET = LabelMap.load("street")
ROAD, CAR, PERSON = (STREET.id_of(name) for name in ("road", "car", "person"))
SPEC = RangeSpec(height=32, width=360, fov_up_deg=15.0, fov_down_deg=-25.0)
CAR_AT, PERSON_AT = np.array([8.0, 3.0]), np.array([7.0, -4.0])


def scene(car_at: np.ndarray = CAR_AT, person_at: np.ndarray = PERSON_AT) -> Cloud:
    """What a LiDAR 1.7 m above a plane sees of it, of a car and of a person."""
    rows, columns = np.meshgrid(np.radians(np.linspace(14, -24, 32)), np.radians(np.linspace(179.5, -179.5, 360)), indexing="ij")
    ray = np.stack([np.cos(rows) * np.cos(columns), np.cos(rows) * np.sin(columns), np.sin(rows)], axis=-1).reshape(-1, 3)
    distance = np.where(ray[:, 2] < -0.03, -1.7 / np.minimum(ray[:, 2], -0.03), 0.0)
    for place, half, top in ((car_at, np.array([1.6, 0.9]), -0.2), (person_at, np.array([0.25, 0.25]), 0.1)):
        with np.errstate(divide="ignore"):
            low, high = (place - half) / ray[:, :2], (place + half) / ray[:, :2]
        entry, leave = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
        height = entry * ray[:, 2]
        hit = (entry > 0) & (entry < leave) & (height > -1.7) & (height < top)
        distance = np.where(hit, entry, distance)
    xyz = (ray * distance[:, None]).astype(np.float32)
    return make_cloud(xyz, np.linspace(0, 1, len(xyz), dtype=np.float32), intensity_full_scale=1.0)


def on_car(cloud: Cloud) -> np.ndarray:
    return np.flatnonzero((np.abs(cloud.xyz[:, :2] - CAR_AT) < [1.7, 1.0]).all(axis=1) & (cloud.xyz[:, 2] > -1.4))


def on_person(cloud: Cloud) -> np.ndarray:
    return np.flatnonzero((np.abs(cloud.xyz[:, :2] - PERSON_AT) < 0.35).all(axis=1) & (cloud.xyz[:, 2] > -1.4))


def write_twice(folder: Path, cloud: Cloud) -> Path:
    """Two scans of it that nobody has looked at."""
    with ScanWriter(folder, STREET, SPEC, source="test", seed=0, intensity_full_scale=1.0) as out:
        out.write(cloud)
        out.write(cloud)
    return folder


def write_posed(folder: Path, clouds: Sequence[Cloud], degrees: Sequence[float]) -> Path:
    """A scan of each of these scenes from another place, a metre apart, the sensor turned by so many degrees in each."""
    with ScanWriter(folder, STREET, SPEC, source="test", seed=0, intensity_full_scale=1.0) as out:
        for number, (cloud, turned) in enumerate(zip(clouds, degrees, strict=True)):
            turn = np.radians(turned)
            pose = np.eye(4)
            pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
            pose[0, 3] = number
            back = np.linalg.inv(pose)
            xyz = (cloud.xyz @ back[:3, :3].T + back[:3, 3]).astype(np.float32) * cloud.valid[:, None]
            out.write(make_cloud(xyz, cloud.intensity, intensity_full_scale=1.0), pose=pose)
    return folder


def open_session(folder: Path) -> PageState:
    source = FrameSource(folder)
    return PageState(ClickStore(folder, source.labels), source)


def click(session: PageState, point: int) -> int | None:
    """Click a point as it is seen from the sensor."""
    return session.click(np.zeros(3), session.frame.cloud.xyz[point], 0.03)


def write_log(folder: Path, cloud: Cloud) -> FrameWriter:
    """A log of two frames whose model takes everything for a car, and its writer."""
    count = len(cloud)
    answer = Segmentation(
        class_id=np.full(count, CAR, np.uint8),
        instance_id=np.zeros(count, np.uint16),
        confidence=np.ones(count, np.float32),
        uncertainty=np.linspace(0, 1, count, dtype=np.float32),
        flags=cloud.flags,
        class_image=np.zeros((32, 360), np.uint8),
        instance_image=np.zeros((32, 360), np.uint16),
    )
    log = FrameWriter(folder, STREET, SPEC, source="test", intensity_full_scale=1.0)
    for score in (0.2, 0.9):
        point = int(on_car(cloud)[0])
        log.write(cloud, answer, Origin(), Worth(score, "uncertain", (), [Suggestion(point, 0.7, "car or truck", 0.54)]))
    return log
