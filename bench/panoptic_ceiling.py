# SPDX-License-Identifier: Apache-2.0
"""The row `perfect` of bench/panoptic.py: what masks without a fault would be worth, and so the most that a distance can gain.

The training is that of the other rows, but the pseudo masks are the true objects that were clicked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg_ros import registry
from weakseg_ros.batches import batches
from weakseg_ros.batches.batches import Batch, clicked_points
from weakseg_ros.deploy.frontends.range_numpy import raw_planes, stand
from weakseg_ros.deploy.input_spec import InputSpec
from weakseg_ros.methods.objects.pseudo_masks import PseudoLabels
from weakseg_ros.methods.point_panoptic import PointPanoptic
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.cloud import Cloud

METHOD = "point_panoptic"
"""the row of registry.METHODS whose place it takes"""


class PerfectMasks(PointPanoptic):
    """point_panoptic that is told the true object of every pixel around its clicks; stuff is estimated as ever."""

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """Those of point_panoptic."""
        self._true = batch.instances
        return super().losses(batch, out, progress)

    def pseudo_labels(self, batch: Batch, out: NetOutput) -> list[PseudoLabels]:
        """The clicked objects, and the estimated stuff."""
        self._true = batch.instances
        return super().pseudo_labels(batch, out)

    def _estimate(self, scan: Any) -> PseudoLabels:
        anchors, estimated, true = scan.anchors, super()._estimate(scan), self._true[scan.number][scan.mask]
        instance, class_id = torch.zeros_like(true), estimated.class_id.clone()
        class_id[self.things[class_id]] = 0
        for pixel, number in zip(anchors.clicks, anchors.click_owner, strict=True):
            own = (true == true[pixel]) & (true[pixel] > 0)
            own[pixel] = True
            instance[own], class_id[own] = number + 1, anchors.classes[number]
        return PseudoLabels(instance, class_id, instance == 0)


@contextmanager
def every_instance_shown() -> Iterator[None]:
    """Batches that say the true object of pixels without a label too, which no training but this one may know."""
    ordinary = batches.raw_image

    def raw_image(
        cloud: Cloud,
        labels: NDArray[np.uint8],
        told: InputSpec,
        instance: NDArray[np.uint16] | None = None,
        weight: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        assert instance is not None
        assert weight is None
        standing = stand(cloud, told)
        cloud, view = standing.cloud, standing.pixels
        labelled = clicked_points(labels, cloud.xyz, view)
        plane = np.append(instance, np.uint16(0))[np.where(labelled < 0, view.point_of_pixel, labelled)]
        rule = told.intensity
        planes = raw_planes(cloud, view, rule.scale_of(cloud), rule.ranks, standing.ground)
        image = np.concatenate([planes, plane[None].astype(np.float32)])
        return image, np.append(labels, np.uint8(0))[labelled].astype(np.uint8)

    usual, registry.METHODS[METHOD] = registry.METHODS[METHOD], f"{__name__}:{PerfectMasks.__name__}"
    batches.raw_image = raw_image
    try:
        yield
    finally:
        batches.raw_image = ordinary
        registry.METHODS[METHOD] = usual
