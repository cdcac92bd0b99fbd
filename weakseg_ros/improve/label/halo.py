# SPDX-License-Identifier: Apache-2.0
"""The ring around the point that is asked about: in each tab right before the camera, so that no point can hide it."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

BEFORE_M = 0.25
"""how far before the camera the ring is drawn; no point of a scan comes so near to it"""
# radius and thickness on the screen, px: whatever the colour of the points, black or white stands out
CIRCLES = ((25.0, 4.0, (0, 0, 0)), (21.5, 4.0, (255, 255, 255)), (18.0, 4.0, (0, 0, 0)))
CORNERS = 49
TAG_PX = 29.0
"""how far above the middle of the ring its text stands"""
HIDDEN_M = 1e-3


@dataclass
class _Rings:
    """What one tab shows."""

    metres_per_px: float = 0.0
    handles: list[Any] = field(default_factory=list)
    """the circles, and the text at last"""


class Halo:
    """One ring with a text beside it. It keeps its size on the screen and follows the camera of each tab."""

    def __init__(self, server: viser.ViserServer) -> None:
        self._server = server
        self._place: NDArray[np.float64] | None = None
        self._text = ""
        self._rings: dict[int, _Rings] = {}
        self._lock = threading.Lock()
        server.on_client_connect(self._greet)
        server.on_client_disconnect(self._forget)

    def _forget(self, client: Any) -> None:
        self._rings.pop(client.client_id, None)

    def show(self, place: NDArray[np.floating], text: str) -> None:
        """Draw the ring around a place (3,), m, with a text beside it."""
        self._place = np.asarray(place, np.float64)
        self._text = text
        self._follow_all()

    def hide(self) -> None:
        """Draw no ring."""
        self._place = None
        self._follow_all()

    def _greet(self, client: viser.ClientHandle) -> None:
        client.camera.on_update(lambda camera: self._follow(client))
        self._follow(client)

    def _follow_all(self) -> None:
        for client in self._server.get_clients().values():
            self._follow(client)

    def _follow(self, client: viser.ClientHandle) -> None:
        """Put a tab's ring where its camera sees the place now."""
        with self._lock, contextlib.suppress(ConnectionError):
            rings = self._rings.setdefault(client.client_id, _Rings())
            axes = viser.transforms.SO3(np.array(client.camera.wxyz)).as_matrix()
            where = None if self._place is None else seen_at(self._place, client.camera.position, axes[:, 2])
            if where is not None:
                self._draw(client, rings)
            above = -axes[:, 1] * TAG_PX * rings.metres_per_px
            with client.atomic():
                for handle in rings.handles:
                    handle.visible = where is not None
                    if where is not None:
                        handle.position, handle.wxyz = where, client.camera.wxyz
                if where is not None:
                    rings.handles[-1].position = where + above
                    rings.handles[-1].text = self._text

    def _draw(self, client: viser.ClientHandle, rings: _Rings) -> None:
        """Make the circles in the size that suits the tab's window; nothing where they have it."""
        camera = client.camera
        metres_per_px = 2.0 * BEFORE_M * float(np.tan(camera.fov / 2)) / max(camera.image_height, 1)
        if rings.handles and abs(metres_per_px / rings.metres_per_px - 1.0) < 0.01:
            return
        rings.metres_per_px = metres_per_px
        rings.handles = [
            client.scene.add_line_segments(
                f"/halo/{number}", circle(radius * metres_per_px), colors=color, thickness=thickness, thickness_units="screen"
            )
            for number, (radius, thickness, color) in enumerate(CIRCLES)
        ]
        rings.handles.append(client.scene.add_label("/halo/text", self._text, anchor="bottom-center"))


def seen_at(place: NDArray[np.floating], eye: NDArray[np.floating], forward: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Where right before a camera at `eye` (3,) lies what it sees of `place` (3,); None for what is behind it. m."""
    to_place = np.asarray(place, np.float64) - eye
    depth = float(to_place @ forward)
    if depth < HIDDEN_M:
        return None
    found: NDArray[np.float64] = eye + to_place * (BEFORE_M / depth)
    return found


def circle(radius: float) -> NDArray[np.float32]:
    """(S, 2, 3) line segments of a circle in the x-y plane."""
    angle = np.linspace(0.0, 2 * np.pi, CORNERS)
    corner = radius * np.stack([np.cos(angle), np.sin(angle), np.zeros(CORNERS)], axis=1)
    return np.stack([corner[:-1], corner[1:]], axis=1).astype(np.float32)
