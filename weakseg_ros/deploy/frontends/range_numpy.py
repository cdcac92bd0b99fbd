# SPDX-License-Identifier: Apache-2.0
"""Clouds as range images, on the CPU, in numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.frontends import FrontendSettings, Lap
from weakseg_ros.deploy.input_spec import PLANES, InputSpec
from weakseg_ros.deploy.instances import ObjectFinder
from weakseg_ros.deploy.segmentation import Seen, Segmentation
from weakseg_ros.deploy.tensors import RANGE_INPUTS, REFERRING_FEATURES, TensorSpec
from weakseg_ros.points.cloud import FLAG_OUT_OF_RANGE, Cloud
from weakseg_ros.points.ground import GroundPlane, find_ground, stand_level
from weakseg_ros.points.image_vote import image_vote
from weakseg_ros.points.intensity import intensity_ranks
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.lift import Lift, knn_vote, lift
from weakseg_ros.points.projection import RangeView, nothing_seen, project


@dataclass(frozen=True)
class CloudView:
    """A cloud and its range image."""

    cloud: Cloud
    pixels: RangeView
    intensity_scale: float
    """what its intensity was multiplied by"""
    upright: Cloud | None = None
    """the cloud as it was put upright; None = as it came"""


@dataclass(frozen=True)
class Standing:
    """A cloud as the network is to see it: level, at a usual height and all of it where its spec asks for that, in pixels."""

    cloud: Cloud
    pixels: RangeView
    ground: GroundPlane | None
    """None where the network is not told of it"""


def put_upright(cloud: Cloud, spec: InputSpec) -> tuple[Cloud, GroundPlane | None]:
    """The cloud level and at a usual height, and the ground below it then, as far as `spec` asks for it."""
    ground = find_ground(cloud.xyz, cloud.valid) if spec.needs_ground else None
    return stand_level(cloud, ground) if spec.level and ground is not None else (cloud, ground)


def stand(cloud: Cloud, spec: InputSpec) -> Standing:
    """Find the cloud's ground, put it level and project it, in an image that reaches as far, as far as `spec` asks for it."""
    if not len(cloud):
        return Standing(cloud, nothing_seen(spec.geometry), None)
    cloud, ground = put_upright(cloud, spec)
    return Standing(cloud, project(cloud, spec.geometry, widen=spec.level), ground)


def raw_planes(
    cloud: Cloud, pixels: RangeView, intensity_scale: float = 1.0, ranks: bool = False, ground: GroundPlane | None = None
) -> NDArray[np.float32]:
    """PLANES of the points that own the pixels, (5, H, W), 0 where no point is; an intensity that is not finite is 0.

    With `ranks` the intensity is each pixel's rank among all; the height is 0 without a ground.
    """
    planes = np.empty((len(PLANES), *pixels.point_of_pixel.shape), np.float32)
    _fill(planes, cloud, pixels, intensity_scale, ranks, ground)
    return planes


def range_input(
    cloud: Cloud, pixels: RangeView, spec: InputSpec, intensity_scale: float = 1.0, ground: GroundPlane | None = None
) -> NDArray[np.float32]:
    """What a network on range images is fed, (C, H, W) f32, 0 where no point is; `ground` is what `stand` found."""
    mask = (pixels.point_of_pixel >= 0).astype(np.float32)
    image = np.empty((len(spec.channels), *mask.shape), np.float32)
    channels = dict(zip(spec.channels, image, strict=True))
    planes = {name: channels.get(name, np.empty_like(mask)) for name in PLANES}  # in their places, to be normalised there
    _fill(tuple(planes.values()), cloud, pixels, intensity_scale, spec.intensity.ranks, ground)
    with np.errstate(over="ignore"):  # what overflows is an absurd intensity, and cut
        spec.image(planes, mask, np, out=tuple(image))
    return image


def _fill(
    planes: Sequence[NDArray[np.float32]] | NDArray[np.float32],
    cloud: Cloud,
    pixels: RangeView,
    intensity_scale: float,
    ranks: bool,
    ground: GroundPlane | None,
) -> None:
    """Write what `raw_planes` returns into PLANES, (H, W) each."""
    owner = pixels.point_of_pixel.ravel().astype(np.intp)
    x, y, z, intensity, height = (plane.reshape(-1) for plane in planes)
    table = np.empty(len(cloud) + 1, np.float32)
    of_point, table[-1] = table[:-1], 0.0  # the last one is what -1, "no point", picks
    with np.errstate(all="ignore"):  # unusable points are in the table, but own no pixel
        for plane, values in zip((x, y, z, intensity), (*cloud.columns, cloud.intensity), strict=True):
            of_point[:] = values
            np.take(table, owner, out=plane, mode="wrap")
        _make_finite(intensity)
        intensity *= np.float32(intensity_scale)
    if ranks:
        seen = np.flatnonzero(owner >= 0)
        intensity[seen] = intensity_ranks(intensity.take(seen), bool(cloud.intensity_field))
    height[:] = 0.0 if ground is None else ground.height(np.stack((x, y, z)).T) * (owner >= 0)


class RangeFrontend:
    """See Frontend; inputs are {"image": (1, C, H, W)}."""

    inputs = RANGE_INPUTS
    at_once = 1

    def __init__(
        self, spec: InputSpec, labels: LabelMap, heads: tuple[str, ...], outputs: Mapping[str, TensorSpec], name: str
    ) -> None:
        self.settings = FrontendSettings()
        self._spec, self._outputs, self._name = spec, outputs, name
        self._objects = ObjectFinder(labels, heads, spec.geometry.full_circle)
        self._of_points = [output for output, table in outputs.items() if table.of_points and output != "class_id"]

    def encode(self, cloud: Cloud, lap: Lap = lambda stage: None) -> tuple[dict[str, NDArray[Any]], CloudView]:
        """See Frontend.encode. An empty cloud is seen empty, whatever the network requires."""
        rule = self._spec.intensity
        if not self.settings.allow_no_intensity:
            rule.check(cloud, self._name)
        scale = rule.scale_of(cloud, self.settings.intensity_scale)
        standing = stand(cloud, self._spec)
        lap("project")
        image = range_input(standing.cloud, standing.pixels, self._spec, scale, standing.ground)
        lap("image")
        return {"image": image[None]}, CloudView(cloud, standing.pixels, scale, standing.cloud)

    def channels(self, cloud: Cloud) -> tuple[NDArray[np.float32], CloudView]:
        """See Frontend.channels."""
        inputs, view = self.encode(cloud)
        return inputs["image"][0][:, view.pixels.point_of_pixel >= 0], view

    def sees_nothing(self, view: CloudView) -> bool:
        """See Frontend.sees_nothing."""
        return bool((view.pixels.point_of_pixel < 0).all())

    def nothing(self, view: CloudView) -> dict[str, NDArray[Any]]:
        """See Frontend.nothing."""
        shape = (1, *view.pixels.point_of_pixel.shape)
        return {name: np.zeros(shape, self._outputs[name].dtype) for name in ("class_id", *self._of_points)}

    def decode(self, outputs: Mapping[str, NDArray[Any]], view: CloudView, lap: Lap = lambda stage: None) -> Segmentation:
        """See Frontend.decode."""
        cloud, pixels, settings = view.cloud, view.pixels, self.settings
        images = {name: values[0] for name, values in outputs.items()}
        images["class_id"] = np.where(pixels.point_of_pixel < 0, np.uint8(0), images["class_id"])
        class_image, instance_image = self._objects.find(images, cloud.xyz, pixels, settings.instances)
        lap("group")
        class_id = self.classes_of_points(class_image, pixels)
        of_points: dict[str, Any] = {name: lift(images[name], pixels, 0.0) for name in self._of_points}
        answer = Segmentation(
            class_id=class_id,
            instance_id=self._objects.lift(instance_image, class_image, class_id, pixels, self._lift != "pixel"),
            **of_points,
            flags=np.where(cloud.valid & (pixels.pixel_of_point < 0), np.uint8(FLAG_OUT_OF_RANGE), cloud.flags),
            class_image=class_image,
            instance_image=instance_image,
            seen=self._seen(pixels, images) if settings.refer else None,
        )
        lap("lift")
        return answer

    def _seen(self, pixels: RangeView, images: Mapping[str, NDArray[Any]]) -> Seen | None:
        """What a referring head looks at; without features where the network was not asked, as no pixel holds a point."""
        if REFERRING_FEATURES not in self._outputs:
            return None
        return Seen(pixels, images.get(REFERRING_FEATURES, np.zeros((0, 0, 0), np.float32)))

    def classes_of_points(self, class_image: NDArray[np.uint8], pixels: RangeView) -> NDArray[np.uint8]:
        """(H, W) classes -> (N,), 0 for points without a pixel, as `settings.lift` says."""
        full_circle = self._spec.geometry.full_circle
        if self._lift == "vote":
            return image_vote(class_image, pixels, full_circle)
        if self._lift == "knn":
            return knn_vote(class_image, pixels, full_circle)
        return lift(class_image, pixels, 0)

    @property
    def _lift(self) -> Lift:
        """What `settings.lift` comes to."""
        return self._spec.lift if self.settings.lift == "auto" else self.settings.lift


def _make_finite(values: NDArray[np.float32]) -> None:
    # One NaN would spread over the whole image through the network's convolutions.
    if not np.isfinite(values).all():
        np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
