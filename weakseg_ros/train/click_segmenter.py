# SPDX-License-Identifier: Apache-2.0
"""Clicks in, masks out, by the distance that a training learned, or by rule where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weakseg_ros.config import load_yaml
from weakseg_ros.deploy.frontends import FrontendSettings, make_frontend
from weakseg_ros.methods.objects.anchors import ClickAnchors
from weakseg_ros.methods.objects.relations import relate
from weakseg_ros.methods.point_panoptic import PointPanoptic
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec, RangeView, project
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.run_folder import CONFIG, LABELS, SPEC, STATISTICS, RunFolder
from weakseg_ros.train.session import make_method, make_net, restore
from weakseg_ros.train.survey import DataStatistics
from weakseg_ros.weak.ground import ground_points
from weakseg_ros.weak.masks_by_rule import ClickSettings, check_clicks, points_of_pixels, segment_from_clicks

_LARGEST_DISTANCE = 0.5
"""a pixel farther from every click belongs to none"""


class ClickSegmenter:
    """`segment_from_clicks` with what a run folder of point_panoptic has learned; one thread calls it at a time.

    Without a folder, and for a run that learned no distance, it answers by rule. The network's look at a cloud is kept for
    the next clicks on the same cloud.
    """

    def __init__(self, run: Path | None = None, settings: ClickSettings | None = None) -> None:
        self.settings = settings or ClickSettings()
        self._learned = None if run is None else _open(run)
        self._seen: tuple[Cloud, _Look] | None = None

    @property
    def learned(self) -> bool:
        """Whether answers come from a learned distance."""
        return self._learned is not None

    def segment(
        self,
        cloud: Cloud,
        clicks: NDArray[np.integer],
        class_id: NDArray[np.integer],
        labels: LabelMap,
        spec: RangeSpec,
        settings: ClickSettings | None = None,
        view: RangeView | None = None,
    ) -> NDArray[np.int32]:
        """Which click each of N points belongs to: (N,) 0..M-1, -1 = none, as `segment_from_clicks` says it.

        `settings` are for this call, in place of the object's own; a learned mask reaches farther or less far in the same
        proportion. Clicks of classes that the run does not know by name are answered by rule; they get what the others leave.
        """
        clicks, settings = np.asarray(clicks, np.int64).reshape(-1), settings or self.settings
        class_id = check_clicks(cloud, clicks, class_id, labels)
        view = view or project(cloud, spec)
        known = [] if self._learned is None else self._learned.labels.names
        names = np.array([labels.names[i] for i in class_id], object)
        by_branch, by_rule = (np.flatnonzero(np.isin(names, known, invert=foreign)) for foreign in (False, True))
        owner = np.full(len(cloud), -1, np.int32)
        if len(by_branch):
            found = self._by_branch(cloud, view, clicks[by_branch], names[by_branch], settings)
            owner[found >= 0] = by_branch[found[found >= 0]]
        if len(by_rule):
            found = segment_from_clicks(cloud, clicks[by_rule], class_id[by_rule], labels, spec, settings, view)
            free = (owner < 0) & (found >= 0)
            owner[free] = by_rule[found[free]]
        owner[clicks[::-1]] = np.arange(len(clicks))[::-1]  # each click is its own; of equal ones the first
        return owner

    def _by_branch(
        self, cloud: Cloud, view: RangeView, clicks: NDArray[np.int64], names: NDArray[np.object_], settings: ClickSettings
    ) -> NDArray[np.int32]:
        """As `segment`, for classes that the run knows: features of its own image, distances between the pixels of `view`."""
        learned = self._learned
        assert learned is not None
        if self._seen is None or self._seen[0] is not cloud or not self._seen[1].shows(view):
            self._seen = cloud, learned.look(cloud, view)
        look = self._seen[1]
        inside = np.flatnonzero(view.pixel_of_point[clicks] >= 0)
        owner = np.full(view.point_of_pixel.size, -1, np.int32)
        if len(inside):
            classes = np.array([learned.labels.names.index(name) for name in names[inside]])
            growth = settings.reach / ClickSettings().reach
            at, winner = learned.share_out(look, view.pixel_of_point[clicks[inside]], classes, growth)
            owner[at] = np.where(winner >= 0, inside[winner], -1)
        return points_of_pixels(owner, view, clicks, settings.hidden_m)


@dataclass(frozen=True)
class _Look:
    """A cloud as the P pixels of a range image that hold a point, and what the network sees in it."""

    view: RangeView
    mask: NDArray[np.bool_]
    """(H, W)"""
    xyz: Tensor
    """(P, 3) m"""
    ground: Tensor
    """(P,) bool"""
    seen_at: Tensor
    """(P,) i64 the place in `features` and `probs` of each pixel's point; the last one is for points outside the net's image"""
    features: Tensor
    """(Q + 1, D) of the Q pixels of the network's own image"""
    probs: Tensor
    """(Q + 1, K)"""

    def shows(self, view: RangeView) -> bool:
        """Whether this is the cloud in that image."""
        return self.view is view or np.array_equal(self.view.point_of_pixel, view.point_of_pixel)


class _Learned:
    """A net and its distance branch, from a run folder."""

    def __init__(
        self, net: nn.Module, method: PointPanoptic, labels: LabelMap, spec: RangeSpec, statistics: DataStatistics
    ) -> None:
        self.net, self.method, self.labels = net, method, labels
        self.frontend = make_frontend(statistics.input_spec(spec), labels)
        self.frontend.settings = FrontendSettings(allow_no_intensity=True)

    @torch.inference_mode()
    def look(self, cloud: Cloud, view: RangeView) -> _Look:
        """The network's answer, in its own image, for the pixels of `view`, which may be a finer one."""
        inputs, seen = self.frontend.encode(cloud)
        own, out = seen.pixels, self.net(torch.from_numpy(inputs["image"]))
        features, probs = (_rows(values[0]) for values in (out.features, out.probabilities))
        mask = view.point_of_pixel >= 0
        points = view.point_of_pixel[mask]
        places = cloud.xyz[points]
        ground = torch.from_numpy(ground_points(places))
        seen_at = torch.from_numpy(own.pixel_of_point[points].astype(np.int64))
        return _Look(view, mask, torch.from_numpy(places), ground, seen_at, features, probs)

    @torch.inference_mode()
    def share_out(
        self, look: _Look, pixels: NDArray[np.integer], classes: NDArray[np.int64], growth: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Flat indices of the pixels near any click, and the number of the click that each belongs to, -1 = none."""
        at, reach = np.flatnonzero(look.mask), growth * self.method.settings.reach * self.method.radius_m
        clicked = torch.from_numpy(np.searchsorted(at, pixels))
        class_id = torch.from_numpy(classes)
        near = _near_any(look.xyz, look.xyz[clicked], reach[class_id]) & ~look.ground
        near[clicked] = True
        mask = np.zeros_like(look.mask)
        mask.ravel()[at[near.numpy()]] = True
        numbers = torch.arange(len(clicked))
        anchors = ClickAnchors(class_id, torch.ones(len(clicked), dtype=torch.bool), (near.cumsum(dim=0) - 1)[clicked], numbers)
        relations = relate(look.xyz[near], torch.from_numpy(mask), anchors, reach, ground=look.ground[near])
        assert self.method.branch is not None
        features, probs = look.features[look.seen_at[near]], look.probs[look.seen_at[near]]
        distance = self.method.branch(features, look.xyz[near], probs, anchors, relations)[-1]
        distance = distance.masked_fill((relations.of("straight") > 1) | relations.ground, 1.0)
        distance[numbers, anchors.pixel] = 0.0
        best, winner = distance.min(dim=0)
        return at[near.numpy()], torch.where(best <= _LARGEST_DISTANCE, winner, -1).numpy()


def _rows(image: Tensor) -> Tensor:
    """(H * W + 1, D) of (D, H, W), with zeros at the end."""
    return torch.cat((image.flatten(1).T, image.new_zeros(1, len(image))))


def _near_any(xyz: Tensor, places: Tensor, reach: Tensor) -> Tensor:
    near = torch.zeros(len(xyz), dtype=torch.bool)
    for place, limit in zip(places, reach, strict=True):
        near |= ((xyz - place) ** 2).sum(dim=1) <= limit**2
    return near


def _open(run: Path) -> _Learned | None:
    """What a run folder has learned; None where it learned no distance. DataError and ConfigError where it is no run."""
    config, statistics = load_yaml(TrainConfig, run / CONFIG), load_yaml(DataStatistics, run / STATISTICS)
    labels, spec = load_yaml(LabelMap, run / LABELS), load_yaml(RangeSpec, run / SPEC)
    net = make_net(config, statistics, labels.num_classes).eval()
    whole = make_method(config, net, statistics, labels).eval()
    method = whole.part(PointPanoptic)
    if method is None or method.branch is None:
        return None
    tensors, _, _ = RunFolder(run).load_last()
    restore(RunFolder(run), "net", net, tensors["average"])
    restore(RunFolder(run), "method", whole, tensors["method"])
    return _Learned(net, method, labels, spec, statistics)
