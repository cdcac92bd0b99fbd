# SPDX-License-Identifier: Apache-2.0
"""The three-dimensional part of the page: the scan, its labels, the mark, the mask, and the flights of the camera."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
import viser
from numpy.typing import NDArray

from weakseg_ros.improve.label.camera import Camera
from weakseg_ros.improve.label.colors import color_points
from weakseg_ros.improve.label.halo import Halo
from weakseg_ros.improve.label.page_state import PageState

Shape = Literal["circle", "square", "diamond", "sparkle"]
MASK_COLOR, MASK_SHARE = (255, 255, 255), 0.75
AROUND_COLOR, AROUND_SIZE = (95, 98, 105), 0.6
LASSO_COLOR, LASSO_AWAY_M = (255, 225, 30), 1.0
"""the lasso is drawn so near to the camera that no point hides it"""
POINT_SIZE_M = 0.045
LABEL_SIZE, MASK_SIZE = 2.4, 1.5
"""how much larger than the other points those with a label and those of a mask are drawn"""
SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "sparkle")
"""what the labelled points of the classes 0, 1, 2, 3, 4, ... look like in turn, for people who see few colours"""
AWAY_M = (6.5, 16.0)
FRONT_M = 0.08
START_POSITION, START_LOOK_AT = np.array([-15.0, -9.0, 12.0]), np.array([7.0, 1.0, -1.0])
DIMMEST = 0.6
"""brightness of the darkest of the shades that tell objects of one class apart"""


class PageScene:
    """Draws the state of the page; every method sends only what has changed."""

    def __init__(self, server: viser.ViserServer, state: PageState, flight_s: float) -> None:
        self._server, self._state = server, state
        self._camera = Camera(server, flight_s)
        self.point_size_m = POINT_SIZE_M
        self._colors = np.zeros((0, 3), np.uint8)
        self._clouds: dict[str, tuple[Any, float]] = {}
        self._halo = Halo(server)
        self._camera.look(START_POSITION, START_LOOK_AT)
        self._lasso: Any = None

    def show_scan(self, view: str) -> None:
        """Draw the points of the frame in the colours of a view."""
        frame = self._state.frame
        shown = self._state.shown()
        self._colors = color_points(frame, view, self._state.labels)
        self._put("scan", frame.cloud.xyz[shown], self._colors[shown], 1.0)

    def show_around(self) -> None:
        """Draw the scans around in grey, and what labels of this one reach in the colours of their classes; or none."""
        around = self._state.scans_around()
        colors = np.where(around.class_id[:, None] > 0, self._state.labels.colors_on_black[around.class_id], AROUND_COLOR)
        self._put("around", around.xyz, colors.astype(np.uint8), AROUND_SIZE)

    def show_labels(self) -> None:
        """Draw what has a label on top, larger, in colour and shape of its class; each object in a shade of its own."""
        state = self._state
        class_id, instance = state.store.labelled(state.frame.key)
        labelled = state.shown() & (class_id > 0)
        for number, shape in enumerate(SHAPES):
            at = np.flatnonzero(labelled & (class_id % len(SHAPES) == number))
            shade = np.where(instance[at] > 0, DIMMEST + (1 - DIMMEST) * ((instance[at] * 0.618) % 1.0), 1.0)
            colors = (state.labels.colors_on_black[class_id[at]] * shade[:, None]).astype(np.uint8)
            self._put(f"labels/{shape}", in_front(state.frame.cloud.xyz[at]), colors, LABEL_SIZE, shape)

    def show_mask(self) -> None:
        """Draw the mask that waits for an answer, or none."""
        mask = self._state.mask
        chosen = mask.points if mask else np.zeros(0, np.int64)
        below = np.full((len(chosen), 3), AROUND_COLOR, np.float64)
        own = chosen < len(self._colors)
        below[own] = self._colors[chosen[own]]
        colors = MASK_SHARE * np.array(MASK_COLOR) + (1 - MASK_SHARE) * below
        self._put("mask", in_front(self._state.scans.xyz[chosen]), colors.astype(np.uint8), MASK_SIZE)

    def show_lasso(self) -> None:
        """Draw the polygon that is begun, or none."""
        if self._lasso is not None:
            self._lasso.remove()
        lines = self._state.lasso.outline(LASSO_AWAY_M)
        add = partial(self._server.scene.add_line_segments, thickness=3.0, thickness_units="screen")
        self._lasso = add("/lasso", lines, LASSO_COLOR) if len(lines) else None

    def show_mark(self) -> None:
        """Draw the halo around the marked point, or none."""
        state = self._state
        if state.point is None:
            self._halo.hide()
            return
        number = "this point" if state.suggested is None else f"{state.suggested + 1} of {len(state.frame.suggestions)}"
        self._halo.show(state.frame.cloud.xyz[state.point], number)

    def resize(self, point_size_m: float) -> None:
        """Draw all points larger or smaller."""
        self.point_size_m = point_size_m
        for handle, scale in self._clouds.values():
            handle.point_size = point_size_m * scale

    def fly_to_mark(self, client: viser.ClientHandle | None) -> None:
        """Bring a page's camera, and those of pages to come, in front of the marked point."""
        if self._state.point is not None:
            place = self._state.frame.cloud.xyz[self._state.point].astype(np.float64)
            self._camera.fly(client, view_points(place), place)

    def fly_home(self, client: viser.ClientHandle | None) -> None:
        """Bring the camera back behind and above the sensor."""
        self._camera.fly(client, START_POSITION, START_LOOK_AT)

    def fly_above(self, client: viser.ClientHandle | None) -> None:
        """Look down on the scan."""
        self._camera.fly(client, np.array([-0.5, 0.0, 55.0]), np.zeros(3))

    def _put(
        self, name: str, points: NDArray[np.float32], colors: NDArray[np.uint8], scale: float, shape: Shape = "circle"
    ) -> None:
        if not len(points):
            if name in self._clouds:
                self._clouds.pop(name)[0].remove()
            return
        handle = self._server.scene.add_point_cloud(
            f"/{name}",
            points,
            colors,
            point_size=self.point_size_m * scale,
            point_shape=shape,
            point_shading="flat",
            precision="float32",
        )
        self._clouds[name] = handle, scale


def view_points(places: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where to look at points (..., 3) from: on the sensor's side, since no laser has seen the other, and from above."""
    distance = np.linalg.norm(places[..., :2], axis=-1, keepdims=True)
    back = np.where(distance > 1e-3, -places[..., :2] / np.maximum(distance, 1e-3), [-1.0, 0.0])
    away = np.clip(0.6 * distance, *AWAY_M)
    return np.asarray(places + np.concatenate([back * away, 0.6 * away], axis=-1), np.float64)


def in_front(xyz: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points (N, 3), moved a little to where one looks at them from, so that their neighbours do not cover them."""
    to_eye = view_points(xyz) - xyz
    moved = xyz + FRONT_M * to_eye / np.linalg.norm(to_eye, axis=-1, keepdims=True)
    return np.asarray(moved, np.float32)
