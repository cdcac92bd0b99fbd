# SPDX-License-Identifier: Apache-2.0
"""The three-dimensional part of the page: the scan, its labels, the mark, the mask, and the flights of the camera."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from weakseg_ros.improve.label.colors import color_points
from weakseg_ros.improve.label.session import Session

MARK_COLOR = (255, 225, 30)
MASK_COLOR = (255, 255, 255)
LABEL_SIZE, MASK_SIZE = 2.2, 1.8
"""how much larger than the other points those with a label and those of a mask are drawn"""
FLIGHT_STEPS = 12
START_POSITION, START_LOOK_AT = np.array([-13.0, -9.0, 11.0]), np.array([6.0, 1.0, -1.0])
DIMMEST = 0.6
"""brightness of the darkest of the shades that tell objects of one class apart"""


class Scene:
    """Draws a session; every method sends only what has changed."""

    def __init__(self, server: viser.ViserServer, session: Session, flight_s: float) -> None:
        self._server, self._session = server, session
        self._flight_s = flight_s
        self._flights: dict[int, int] = {}
        self.point_size_m = 0.06
        self._clouds: dict[str, Any] = {}
        self._mark: list[Any] = []
        self._look(START_POSITION, START_LOOK_AT)

    def show_scan(self, view: str) -> None:
        """Draw the points of the frame in the colours of a view."""
        frame = self._session.frame
        usable = frame.cloud.valid
        self._put("scan", frame.cloud.xyz[usable], color_points(frame, view, self._session.labels)[usable], 1.0)

    def show_labels(self) -> None:
        """Draw what has a label on top, larger, in the colour of its class; each object in a shade of its own."""
        session = self._session
        class_id, instance = session.store.labelled(session.frame.key)
        at = np.flatnonzero(class_id)
        shade = np.where(instance[at] > 0, DIMMEST + (1 - DIMMEST) * ((instance[at] * 0.618) % 1.0), 1.0)
        colors = (session.labels.colors[class_id[at]] * shade[:, None]).astype(np.uint8)
        self._put("labels", session.frame.cloud.xyz[at], colors, LABEL_SIZE)

    def show_mask(self) -> None:
        """Draw the mask that waits for an answer, or none."""
        mask = self._session.proposal
        points = self._session.frame.cloud.xyz[mask.points] if mask else np.zeros((0, 3), np.float32)
        self._put("mask", points, np.tile(np.array(MASK_COLOR, np.uint8), (len(points), 1)), MASK_SIZE)

    def show_mark(self) -> None:
        """Draw the marker at the marked point, or none."""
        for node in self._mark:
            node.remove()
        self._mark.clear()
        session = self._session
        if session.point is None:
            return
        place = session.frame.cloud.xyz[session.point].astype(np.float64)
        radius = 0.015 * float(np.linalg.norm(place - view_point(place)))
        add = self._server.scene
        number = "" if session.suggested is None else f"{session.suggested + 1} / {len(session.frame.suggestions)}"
        self._mark = [
            add.add_icosphere("/mark/point", radius * 0.45, color=MARK_COLOR, position=place),
            add.add_icosphere("/mark/halo", radius * 2.2, color=MARK_COLOR, opacity=0.28, position=place),
        ]
        if number:
            top = place + np.array([0.0, 0.0, radius * 2.6])
            self._mark.append(add.add_label("/mark/number", f"suggested {number}", position=top, anchor="bottom-center"))

    def resize(self, point_size_m: float) -> None:
        """Draw all points larger or smaller."""
        self.point_size_m = point_size_m
        for name, scale in (("scan", 1.0), ("labels", LABEL_SIZE), ("mask", MASK_SIZE)):
            if name in self._clouds:
                self._clouds[name].point_size = point_size_m * scale

    def fly_to_mark(self, client: viser.ClientHandle | None) -> None:
        """Bring a page's camera, and those of pages to come, in front of the marked point."""
        if self._session.point is not None:
            place = self._session.frame.cloud.xyz[self._session.point].astype(np.float64)
            self.fly(client, view_point(place), place)

    def fly_home(self, client: viser.ClientHandle | None) -> None:
        """Bring the camera back behind and above the sensor."""
        self.fly(client, START_POSITION, START_LOOK_AT)

    def fly_above(self, client: viser.ClientHandle | None) -> None:
        """Look down on the scan."""
        self.fly(client, np.array([-0.5, 0.0, 55.0]), np.zeros(3))

    def fly(self, client: viser.ClientHandle | None, position: NDArray[np.float64], look_at: NDArray[np.float64]) -> None:
        """Start a flight of one page's camera; a later one takes over from it."""
        self._look(position, look_at)
        if client is None:
            return
        number = self._flights[client.client_id] = self._flights.get(client.client_id, 0) + 1
        threading.Thread(target=self._fly, args=(client, number, position, look_at), daemon=True).start()

    def _fly(self, client: viser.ClientHandle, number: int, position: NDArray[np.float64], look_at: NDArray[np.float64]) -> None:
        start, looked_at = np.array(client.camera.position), np.array(client.camera.look_at)
        for step in range(1, FLIGHT_STEPS + 1):
            if self._flights.get(client.client_id) != number:
                return
            share = step / FLIGHT_STEPS
            share = share * share * (3 - 2 * share)
            with client.atomic():
                client.camera.position = start + share * (position - start)
                client.camera.look_at = looked_at + share * (look_at - looked_at)
            time.sleep(self._flight_s / FLIGHT_STEPS)

    def _look(self, position: NDArray[np.float64], look_at: NDArray[np.float64]) -> None:
        camera = self._server.initial_camera
        camera.position, camera.look_at = tuple(position), tuple(look_at)

    def _put(self, name: str, points: NDArray[np.float32], colors: NDArray[np.uint8], scale: float) -> None:
        if not len(points):
            if name in self._clouds:
                self._clouds.pop(name).remove()
            return
        self._clouds[name] = self._server.scene.add_point_cloud(
            f"/{name}",
            points,
            colors,
            point_size=self.point_size_m * scale,
            point_shape="circle",
            point_shading="flat",
            precision="float32",
        )


def view_point(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where to look at a point from: on the sensor's side of it, since no laser has seen the other, and from above."""
    distance = float(np.linalg.norm(place[:2]))
    back = -place[:2] / distance if distance > 1e-3 else np.array([-1.0, 0.0])
    away = float(np.clip(0.45 * distance, 5.0, 14.0))
    return place + np.array([*(back * away), 0.55 * away])
