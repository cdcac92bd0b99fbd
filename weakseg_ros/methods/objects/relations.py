# SPDX-License-Identifier: Apache-2.0
"""How pixels lie to the clicked objects by geometry alone: what distances by rule are made of, and learned ones start from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg_ros.methods.objects.anchors import ClickAnchors
from weakseg_ros.weak.ground import GroundSettings, ground_points
from weakseg_ros.weak.surfaces import SurfaceSettings, surface_distances, surface_graph

MAPS = ("straight", "surface", "along", "across", "height", "ground")
"""ways to measure from a click, all but the last in reaches of the click's class: as the crow flies, along surfaces, and the
parts of the former along and across the ray and in height; and whether a pixel is ground"""
FAR = 2.0
"""what everything farther than two reaches counts"""
_SMALLEST_M = 1e-3
_SURFACE = MAPS.index("surface")


@dataclass(frozen=True)
class Relations:
    """T clicked objects and the P pixels of a scan."""

    maps: Tensor
    """(T, len(MAPS), P) f32, 0..2"""
    ground: Tensor
    """(P,) bool"""

    def of(self, name: str) -> Tensor:
        """(T, P) one of MAPS."""
        return self.maps[:, MAPS.index(name)]


@dataclass(frozen=True)
class RelationSettings:
    """Sets how geometry is measured."""

    surface: SurfaceSettings = field(default_factory=SurfaceSettings)
    """Sets when two neighbouring pixels lie on one surface."""
    ground: GroundSettings = field(default_factory=GroundSettings)
    """Sets what counts as ground, which no path along a surface crosses."""


@torch.no_grad()
def relate(
    xyz: Tensor,
    mask: Tensor,
    anchors: ClickAnchors,
    reach_m: Tensor,
    settings: RelationSettings | None = None,
    ground: Tensor | None = None,
) -> Relations:
    """Measure from the clicks of `anchors` to places (P, 3) m, the pixels of a (H, W) mask in order; reach (K,) m by class.

    An object with several clicks is as near as its nearest one. The image is taken for a full circle: no gap, no seam.
    `ground` (P,) is for callers that know it, as those must who leave pixels out.
    """
    settings = settings or RelationSettings()
    clicks, owner = anchors.clicks, anchors.click_owner
    reach = reach_m[anchors.classes[owner]].clamp_min(_SMALLEST_M)  # (C,)
    places = xyz.cpu().numpy()
    if ground is None:
        ground = torch.from_numpy(ground_points(places, settings.ground)).to(xyz.device)
    apart = xyz[None] - xyz[clicks][:, None]  # (C, P, 3)
    ahead = xyz[clicks][:, :2] / xyz[clicks][:, :2].norm(dim=1, keepdim=True).clamp_min(_SMALLEST_M)
    along = (apart[..., :2] * ahead[:, None]).sum(dim=2)
    across = apart[..., 1] * ahead[:, :1] - apart[..., 0] * ahead[:, 1:]
    straight = apart.norm(dim=2)
    surface = _surface(places, mask.cpu().numpy(), clicks, straight, ground, reach, settings.surface)
    lengths = torch.stack((straight, surface, along.abs(), across.abs(), apart[..., 2].abs()), dim=1) / reach[:, None, None]
    maps = torch.cat((lengths.clamp_max(FAR), ground.to(xyz.dtype).expand(len(clicks), 1, -1)), dim=1)
    return Relations(_nearest_click(maps, owner, int(anchors.things.sum())), ground)


def _surface(
    places: NDArray[np.float32],
    mask: NDArray[np.bool_],
    clicks: Tensor,
    straight: Tensor,
    ground: Tensor,
    reach: Tensor,
    settings: SurfaceSettings,
) -> Tensor:
    """(C, P) m along surfaces through pixels that are not ground and within reach of any click; inf where there is no way."""
    near = (straight <= reach[:, None]).any(dim=0) & ~ground
    near[clicks] = True
    chosen = near.cpu().numpy()
    graph = surface_graph(np.flatnonzero(mask)[chosen], places[chosen], mask.shape, True, settings)
    number = np.cumsum(chosen) - 1
    farthest = FAR * float(reach.max()) if len(reach) else 0.0
    lengths = surface_distances(graph, number[clicks.cpu().numpy()], farthest)
    surface = straight.new_full(straight.shape, torch.inf)
    surface[:, near] = torch.from_numpy(lengths).to(straight.device)
    return surface


def _nearest_click(maps: Tensor, owner: Tensor, objects: int) -> Tensor:
    """(T, G, P) of (C, G, P): for each pixel the click of the object that is nearest; surfaces may lead to another one."""
    if len(owner) == objects:
        return maps[owner.argsort()]
    nearest = []
    for number in range(objects):
        own = maps[owner == number]
        chosen = own[:, 0].argmin(dim=0)  # (P,)
        joined = own.gather(0, chosen.expand(1, *own.shape[1:]))[0]
        joined[_SURFACE] = own[:, _SURFACE].amin(dim=0)
        nearest.append(joined)
    return torch.stack(nearest)
