# SPDX-License-Identifier: Apache-2.0
"""The camera of a page: where it begins, and its flights."""

from __future__ import annotations

import threading
import time

import numpy as np
import viser
from numpy.typing import NDArray

FLIGHT_STEPS = 12


class Camera:
    """Moves the cameras of the tabs of a server, each flight in `flight_s` seconds."""

    def __init__(self, server: viser.ViserServer, flight_s: float) -> None:
        self._server, self._flight_s = server, flight_s
        self._flights: dict[int, int] = {}

    def fly(self, client: viser.ClientHandle | None, position: NDArray[np.float64], look_at: NDArray[np.float64]) -> None:
        """Start a flight of one page's camera; a later one takes over from it."""
        self.look(position, look_at)
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

    def look(self, position: NDArray[np.float64], look_at: NDArray[np.float64]) -> None:
        """Where tabs that are opened from now on begin."""
        camera = self._server.initial_camera
        camera.position, camera.look_at = tuple(position), tuple(look_at)
