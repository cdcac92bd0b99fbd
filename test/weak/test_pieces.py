# SPDX-License-Identifier: Apache-2.0
"""Pieces: a click labels what hangs together with it, two classes split a piece, and nothing crosses a gap or a cell."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.weak.piece_settings import PieceSettings
from weakseg_ros.weak.pieces import PieceScans, nearest_in_piece, pieces_of

STREET = LabelMap.load("street")
ROAD, CAR, BUILDING, VEGETATION = (STREET.id_of(name) for name in ("road", "car", "building", "vegetation"))
SETTINGS = PieceSettings(reach_m=50.0, weight=0.5)


class Yard:
    """Two upright walls 8 m ahead with a gap of 1 m between them, and flat ground below."""

    name, labels, spec, content_hash, intensity_full_scale, keys = "yard", STREET, RangeSpec(64, 1024), "0", 1.0, ("000000",)

    def __init__(self, **clicked: int) -> None:
        across, up = (part.ravel() for part in np.meshgrid(np.arange(-2.0, 2.0, 0.05), np.arange(-1.2, 0.3, 0.05)))
        walls = np.stack([np.full_like(across, 8.0), across + 0.5 * np.sign(across + 1e-3), up], axis=1)
        ahead, left = (part.ravel() for part in np.meshgrid(np.arange(4.0, 16.0, 0.1), np.arange(-3.0, 3.0, 0.1)))
        ground = np.stack([ahead, left, np.full_like(ahead, -1.7)], axis=1)
        self.xyz = np.concatenate([walls, ground]).astype(np.float32)
        self.ground = np.flatnonzero(self.xyz[:, 2] < -1.6)
        self.left = np.flatnonzero((self.xyz[:, 2] > -1.6) & (self.xyz[:, 1] > 0))
        self.right = np.flatnonzero((self.xyz[:, 2] > -1.6) & (self.xyz[:, 1] < 0))
        self.class_id = np.zeros(len(self.xyz), np.uint8)
        self.weight: np.ndarray | None = None

    def click(self, point: int, class_id: int) -> None:
        self.class_id[point] = class_id

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Scan:
        return Scan("000000", make_cloud(self.xyz), self.class_id.copy(), None, None, self.weight)


def shares(scan: Scan, class_id: int, *parts: np.ndarray) -> list[float]:
    assert scan.class_id is not None
    return [float((scan.class_id[part] == class_id).mean()) for part in parts]


def test_walls_are_pieces_and_the_ground_is_cut_into_cells() -> None:
    yard = Yard()
    piece = pieces_of(yard[0].cloud, yard.spec, SETTINGS)
    seen = [part[piece[part] >= 0] for part in (yard.left, yard.right, yard.ground)]
    kinds = [set(piece[part]) for part in seen]
    assert [len(kind) for kind in kinds[:2]] == [1, 1]
    assert len(kinds[2]) >= 18
    assert not kinds[0] & kinds[1]
    assert not (kinds[0] | kinds[1]) & kinds[2]


def test_a_click_labels_its_piece_and_nothing_else() -> None:
    yard = Yard()
    yard.click(yard.left[700], BUILDING)
    scan = PieceScans(yard, SETTINGS)[0]
    on_it, beside, below = shares(scan, BUILDING, yard.left, yard.right, yard.ground)
    assert on_it > 0.5  # the others are hidden in their pixels
    assert (beside, below) == (0.0, 0.0)
    assert scan.label_weight is not None
    assert scan.label_weight[yard.left[700]] == 1.0
    assert 0.0 < scan.label_weight[yard.left].min(where=scan.label_weight[yard.left] > 0, initial=1.0) < 0.5
    assert ((scan.label_weight > 0) == (scan.class_id > 0)).all()  # type: ignore[operator]


def test_two_classes_split_a_piece_between_them() -> None:
    yard = Yard()
    ends = yard.left[[yard.xyz[yard.left, 1].argmin(), yard.xyz[yard.left, 1].argmax()]]
    yard.click(ends[0], BUILDING)
    yard.click(ends[1], VEGETATION)
    scan = PieceScans(yard, SETTINGS)[0]
    assert scan.class_id is not None
    middle = yard.xyz[ends, 1].mean()
    for point in yard.left[scan.class_id[yard.left] > 0]:
        if abs(yard.xyz[point, 1] - middle) > 0.3:
            assert scan.class_id[point] == (VEGETATION if yard.xyz[point, 1] > middle else BUILDING)


def test_it_goes_no_farther_than_asked_and_many_labels_make_it_light() -> None:
    yard = Yard()
    yard.click(yard.left[700], BUILDING)
    reached = PieceScans(yard, PieceSettings(reach_m=0.3))[0].class_id
    assert reached is not None
    assert 1 < np.count_nonzero(reached) < 200
    assert np.linalg.norm(yard.xyz[reached > 0] - yard.xyz[yard.left[700]], axis=1).max() <= 0.3
    weights = [PieceScans(yard, dataclasses.replace(SETTINGS, half_labels=half)).class_weight[BUILDING] for half in (1.0, 1e6)]
    assert weights[0] == pytest.approx(0.25)
    assert weights[1] == pytest.approx(0.5, rel=1e-3)


def test_propagated_labels_stay_and_label_no_pieces() -> None:
    yard = Yard()
    yard.click(yard.left[700], BUILDING)
    yard.weight = np.where(yard.class_id > 0, 0.2, 0.0).astype(np.float32)
    scan = PieceScans(yard, SETTINGS)[0]
    assert scan.class_id is not None
    assert np.flatnonzero(scan.class_id).tolist() == [yard.left[700]]
    assert scan.label_weight is not None
    assert scan.label_weight.max() == pytest.approx(0.2)


def test_what_has_no_piece_takes_and_gives_nothing() -> None:
    xyz, piece = np.zeros((3, 3), np.float32), np.array([-1, -1, 0])
    source, _ = nearest_in_piece(xyz, piece, np.array([0]), np.array([2]), 1.0)
    assert source.tolist() == [-1]


def test_settings_change_what_is_learnt_from() -> None:
    yard = Yard()
    assert PieceScans(yard, SETTINGS).content_hash != PieceScans(yard, PieceSettings(reach_m=1.0)).content_hash
