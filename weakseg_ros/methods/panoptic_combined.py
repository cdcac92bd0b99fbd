# SPDX-License-Identifier: Apache-2.0
"""Semantic weak supervision and objects from clicks, together on the same sparse labels."""

from __future__ import annotations

from dataclasses import dataclass

from weakseg_ros.methods.coarse3d import Coarse3d, Coarse3dSettings
from weakseg_ros.methods.erda import Erda, ErdaSettings
from weakseg_ros.methods.erda_coarse3d import ErdaCoarse3d, ErdaCoarse3dSettings
from weakseg_ros.methods.point_panoptic import PointPanoptic, PointPanopticSettings


@dataclass(frozen=True)
class ErdaPointPanopticSettings(PointPanopticSettings, ErdaSettings):
    """The settings of both methods."""


@dataclass(frozen=True)
class Coarse3dPointPanopticSettings(PointPanopticSettings, Coarse3dSettings):
    """The settings of both methods."""


@dataclass(frozen=True)
class ErdaCoarse3dPointPanopticSettings(PointPanopticSettings, ErdaCoarse3dSettings):
    """The settings of all three methods."""


class ErdaPointPanoptic(PointPanoptic, Erda):
    """Each method adds its losses to those of the next in line."""

    Settings = ErdaPointPanopticSettings  # type: ignore[assignment]
    settings: ErdaPointPanopticSettings  # type: ignore[assignment]


class Coarse3dPointPanoptic(PointPanoptic, Coarse3d):
    """Each method adds its losses to those of the next in line."""

    Settings = Coarse3dPointPanopticSettings  # type: ignore[assignment]
    settings: Coarse3dPointPanopticSettings  # type: ignore[assignment]


class ErdaCoarse3dPointPanoptic(PointPanoptic, ErdaCoarse3d):
    """Each method adds its losses to those of the next in line."""

    Settings = ErdaCoarse3dPointPanopticSettings  # type: ignore[assignment]
    settings: ErdaCoarse3dPointPanopticSettings  # type: ignore[assignment]
