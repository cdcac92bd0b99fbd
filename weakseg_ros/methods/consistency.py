# SPDX-License-Identifier: Apache-2.0
"""Consistency: a slowly moving teacher looks at whole scans, and the student must answer alike on scans mixed of two.

The teacher is the moving average of the student (Tarvainen and Valpola, NeurIPS 2017), the student's images are mixed by
bands, sectors and objects (Kong et al., LaserMix, CVPR 2023, eq. 4 to 6), and pseudo-labels are balanced over classes and
ranges (Unal et al., CVPR 2022). True labels stay: they win over the teacher's, and are mixed along. Labels that were carried
from other scans count as little as they do elsewhere, and where the teacher is sure, it wins over them. Scans without any
label teach as much as the others, and so does a training without any label.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.batches.batches import Batch
from weakseg_ros.methods.erda import alignment_loss, at_pixels
from weakseg_ros.methods.mean_teacher import MeanTeacher
from weakseg_ros.methods.method import Method, Task
from weakseg_ros.methods.mixed_views import confident_classes, mixed_view, range_of, with_pseudo_labels
from weakseg_ros.methods.settings import ConsistencySettings
from weakseg_ros.methods.supervised import class_weights
from weakseg_ros.nets.losses import class_probabilities, focal_loss, lovasz_softmax
from weakseg_ros.nets.output import NetOutput

_STEEPNESS = 5.0
"""of the ramp exp(-5 (1 - t)^2), as in Mean Teacher"""


class Consistency(Method):
    """Mean teacher and LaserMix (CVPR 2023): unlabelled pixels learn from a slow teacher, on scans mixed of two."""

    Settings = ConsistencySettings
    why_no_points = "it mixes rows and columns of two scans"

    def __init__(self, settings: ConsistencySettings, task: Task) -> None:
        super().__init__(settings, task)
        self.settings, self.supervised = settings, task.supervised
        self.teacher = MeanTeacher(task.net, settings.memory)
        self._student = (task.net,)  # in a tuple, so that its parameters are not the method's
        self.alpha: Tensor | None
        self.register_buffer("alpha", class_weights(task))
        self.things: Tensor
        self.register_buffer("things", torch.from_numpy(np.asarray(task.labels.things)).clone(), persistent=False)

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """`mixed`: the student's loss on the mixed images, whose labels are the true ones and beside them the teacher's."""
        weight = self.settings.weight * ramp_up(progress, self.settings.ramp)
        if not weight:
            return {"mixed": torch.zeros((), device=batch.image.device)}
        return {"mixed": weight * self.loss(batch)}

    def loss(self, batch: Batch) -> Tensor:
        """The same without its weight; the student answers the mixed images here, whatever it has answered before."""
        soft = self._answers(batch)  # (B, K, H, W)
        range_m = None if batch.xyz is None else range_of(batch)
        pseudo = confident_classes(soft, batch.mask, range_m, self.settings)
        taught = with_pseudo_labels(batch, pseudo)
        rng = np.random.default_rng(int(torch.randint(2**31, ())))  # torch's generator is seeded at each step
        view, soft = mixed_view(taught, soft, self.things[taught.labels], self.settings, rng)
        student: NetOutput = self._student[0](view.image)
        with torch.autocast(batch.image.device.type, enabled=False):
            if self.settings.targets == "dense":
                return dense_loss(soft, view.mask, student.logits)
            heads = (student.probabilities, *map(class_probabilities, student.auxiliary))
            return torch.stack([self._of_head(probs, view) for probs in heads]).sum()

    def after_step(self, net: nn.Module, progress: float) -> None:
        """The teacher follows."""
        self.teacher.follow(net, progress)

    def _answers(self, batch: Batch) -> Tensor:
        """The teacher's probabilities (B, K, H, W) with `targets` confident; else softened, and as certain as
        its label where a pixel has one."""
        logits = self.teacher(batch.image).logits.float()
        if self.settings.targets == "confident":
            return class_probabilities(logits)
        soft = class_probabilities(logits / self.settings.temperature)
        certain = F.one_hot(batch.labels, soft.shape[1]).movedim(-1, 1).to(soft.dtype)
        sure = (batch.labels > 0).to(soft.dtype) if batch.weights is None else batch.weights
        return torch.lerp(soft, certain, sure[:, None])

    def _of_head(self, probs: Tensor, view: Batch) -> Tensor:
        """The supervised losses, on targets that are partly the teacher's."""
        rule = self.supervised
        loss = rule.focal_weight * focal_loss(probs, view.labels, self.alpha, rule.gamma, weights=view.weights)
        if not rule.lovasz_weight:
            return loss
        return loss + rule.lovasz_weight * lovasz_softmax(probs, view.labels, weights=view.weights)


def dense_loss(soft: Tensor, mask: Tensor, logits: Tensor) -> Tensor:
    """Mean of -sum p log q over the pixels of `mask` (B, H, W): ERDA's loss (eq. 5) with a teacher's p in place of prototypes'.

    soft and logits (B, K, H, W). No gradient runs into p, which is the teacher's.
    """
    pixels = mask.flatten().nonzero()[:, 0]
    loss = alignment_loss(at_pixels(soft, pixels)[:, 1:], at_pixels(logits, pixels)[:, 1:])
    return loss.sum() / max(len(pixels), 1)


def ramp_up(progress: float, share: float) -> float:
    """exp(-5 (1 - t)^2) while t = progress / share is below 1, else 1 (Tarvainen and Valpola, section 3.2)."""
    return math.exp(-_STEEPNESS * (1.0 - progress / share) ** 2) if progress < share else 1.0
