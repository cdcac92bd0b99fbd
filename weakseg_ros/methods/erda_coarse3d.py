# SPDX-License-Identifier: Apache-2.0
"""ERDA and COARSE3D together: the losses of both beside the supervised ones."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.methods.coarse3d import Coarse3d, Coarse3dSettings
from weakseg_ros.methods.erda import Erda, ErdaSettings


@dataclass(frozen=True)
class ErdaCoarse3dSettings(ErdaSettings, Coarse3dSettings):
    """The settings of both methods."""


class ErdaCoarse3d(Erda, Coarse3d):
    """Each method adds its losses to those of the next in line; they share nothing but the net."""

    Settings = ErdaCoarse3dSettings
    settings: ErdaCoarse3dSettings  # type: ignore[assignment]
