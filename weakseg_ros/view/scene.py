# SPDX-License-Identifier: Apache-2.0
"""The panes in three dimensions: beside one another on the ground, each in a frame under its title, under one camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from weakseg_ros.improve.label.camera import Camera
from weakseg_ros.improve.label.scene import POINT_SIZE_M
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.view.panes import Side, box_edges, boxes_of, colors_of

GAP = 0.06
"""of a pane's width, between two panes"""
FRAME_COLOR, SENSOR_COLOR = (110, 114, 122), (255, 255, 255)
FLIGHT_S = 0.35
SENSOR_M = 1.2


@dataclass(frozen=True)
class Drawing:
    """How scans are drawn."""

    look: str = "classes"
    boxes: bool = True
    reach_m: float = 50.0
    """points farther from the sensor along x or y are not drawn"""
    point_size_m: float = POINT_SIZE_M
    alone: int = 0
    """number of the only pane that is drawn, from 1; 0 draws all"""


class ViewScene:
    """Draws sides of a scan; what the panes before held is replaced."""

    def __init__(self, server: viser.ViserServer) -> None:
        self._server = server
        self._camera = Camera(server, FLIGHT_S)
        self._parts: dict[str, Any] = {}
        self._clouds: list[Any] = []

    def draw(self, sides: list[Side], labels: LabelMap, drawing: Drawing) -> int:
        """Put the sides into panes from left to right; returns how many points of one lie beyond the reach."""
        chosen = sides[drawing.alone - 1 : drawing.alone] if drawing.alone else sides
        chosen = chosen or sides
        old, self._parts, self._clouds = self._parts, {}, []
        hidden = 0
        with self._server.atomic():
            for number, (side, shift) in enumerate(zip(chosen, places(len(chosen), drawing.reach_m), strict=True)):
                hidden = self._draw_pane(number, side, np.array([0.0, shift, 0.0], np.float32), labels, drawing)
            for name in old.keys() - self._parts.keys():
                old[name].remove()
        return hidden

    def resize(self, point_size_m: float) -> None:
        """Draw all points larger or smaller."""
        for cloud in self._clouds:
            cloud.point_size = point_size_m

    def look_from(self, client: viser.ClientHandle | None, panes: int, reach_m: float, above: bool) -> None:
        """Bring a camera to where it sees all panes: from behind, or from above."""
        width = 2.0 * reach_m * (panes + GAP * (panes - 1))
        if above:
            self._camera.fly(client, np.array([-0.01, 0.0, 0.8 * max(width, 2.4 * reach_m)]), np.zeros(3))
        elif panes == 1:
            self._camera.fly(client, np.array([-0.5, -0.26, 0.42]) * min(reach_m, 50.0), np.array([6.0, 0.0, -1.0]))
        else:
            self._camera.fly(client, np.array([-0.55 * width, 0.0, 0.42 * width]), np.array([0.0, 0.0, -1.0]))

    def _draw_pane(self, number: int, side: Side, shift: NDArray[np.float32], labels: LabelMap, drawing: Drawing) -> int:
        scene, name = self._server.scene, f"/pane{number}"
        near = side.cloud.valid & (np.abs(side.cloud.xyz[:, :2]) <= drawing.reach_m).all(axis=1)
        cloud = scene.add_point_cloud(
            f"{name}/points",
            side.cloud.xyz[near] + shift,
            colors_of(side, drawing.look, labels)[near],
            point_size=drawing.point_size_m,
            point_shape="circle",
            point_shading="flat",
            precision="float32",
        )
        self._clouds.append(cloud)
        self._parts[f"{name}/points"] = cloud
        if drawing.boxes:
            self._draw_boxes(name, side, shift, labels, drawing.reach_m)
        corner = drawing.reach_m * np.array([[-1, -1, 0], [-1, 1, 0], [1, 1, 0], [1, -1, 0]], np.float32) + shift
        corner[:, 2] = _ground_m(side)
        frame = np.stack([corner, np.roll(corner, -1, axis=0)], axis=1)
        self._parts[f"{name}/frame"] = scene.add_line_segments(
            f"{name}/frame", frame, colors=FRAME_COLOR, thickness=1.5, thickness_units="screen"
        )
        self._parts[f"{name}/sensor"] = scene.add_line_segments(
            f"{name}/sensor", _arrow() + shift, colors=SENSOR_COLOR, thickness=2.5, thickness_units="screen"
        )
        top = corner[2:4].mean(axis=0)  # its far edge, ahead of the sensor
        title = scene.add_label(f"{name}/title", side.title, position=(float(top[0]), float(top[1]), float(top[2]) + 1.0))
        self._parts[f"{name}/title"] = title
        return int(np.count_nonzero(side.cloud.valid & ~near))

    def _draw_boxes(self, name: str, side: Side, shift: NDArray[np.float32], labels: LabelMap, reach_m: float) -> None:
        found = boxes_of(side, labels)
        found = found[(np.abs(found["centre_m"][:, :2]) <= reach_m).all(axis=1)]
        if not len(found):
            return
        colors = np.repeat(labels.colors_on_black[found["class_id"]], 12, axis=0)[:, None, :].repeat(2, axis=1)
        self._parts[f"{name}/boxes"] = self._server.scene.add_line_segments(
            f"{name}/boxes", box_edges(found) + shift, colors=colors, thickness=2.0, thickness_units="screen"
        )


def places(panes: int, reach_m: float) -> list[float]:
    """Where the middle of each pane lies along y, m: the first one on the left."""
    width = 2.0 * reach_m * (1.0 + GAP)
    return [width * ((panes - 1) / 2 - number) for number in range(panes)]


def _ground_m(side: Side) -> float:
    """About how high the ground is, m: nearly all points lie above."""
    height = side.cloud.xyz[side.cloud.valid, 2]
    return float(np.percentile(height, 2.0)) if len(height) else 0.0


def _arrow() -> NDArray[np.float32]:
    """(3, 2, 3) an arrow at the sensor that points forward."""
    tip, back, side = SENSOR_M, -SENSOR_M / 2, SENSOR_M / 2
    lines = [[[back, 0, 0], [tip, 0, 0]], [[tip, 0, 0], [tip - side, side, 0]], [[tip, 0, 0], [tip - side, -side, 0]]]
    return np.array(lines, np.float32)
