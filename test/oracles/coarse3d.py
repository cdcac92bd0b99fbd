# SPDX-License-Identifier: Apache-2.0
"""Checks of the oracle files in coarse3d/: our functions beside COARSE3D's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from weakseg_ros.learn.losses import class_alpha, focal_loss, lovasz_gradient, lovasz_softmax
from weakseg_ros.learn.protocols import clicks_of_ratio, group_voxels, label_voxels
from weakseg_ros.learn.schedule import warmup_cosine_lr
from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.points.labels import LabelMap


def check_weak_label(arrays: Mapping[str, np.ndarray]) -> None:
    """Sparse labels by voxel: the same voxels, the same number of clicks, the same labels after the recorded draw."""
    xyz, voxel_m = arrays["scan"][:, :3], float(arrays["voxel_size"])
    class_id = LabelMap.load("semantickitti").to_class(arrays["label_raw"])
    np.testing.assert_array_equal(class_id, arrays["label_mapped"])

    voxels = group_voxels(xyz, voxel_m)
    np.testing.assert_array_equal(arrays["voxels_sorted_unique"][voxels.voxel_of_point], arrays["point2voxel"])
    np.testing.assert_array_equal(voxels.first_point, arrays["voxel_first_point_index"])
    np.testing.assert_array_equal(class_id[voxels.first_point], arrays["voxel_label_first_point"])
    candidates = np.flatnonzero(class_id[voxels.first_point])
    np.testing.assert_array_equal(candidates, arrays["valid_voxel_index"])

    drawn = arrays["sampled_voxel_index"]
    assert clicks_of_ratio(len(xyz), float(arrays["label_ratio"]), len(candidates)) == arrays["num_sampled_voxels"] == len(drawn)
    labelled = label_voxels(class_id, voxels, drawn, bool(arrays["voxel_propagation"]))
    np.testing.assert_array_equal(labelled, arrays["weak_label"])
    assert np.count_nonzero(labelled) == arrays["num_labelled_points"]


def check_focal(arrays: Mapping[str, np.ndarray]) -> None:
    """Focal loss over the labelled pixels with its gradient, and the plain mean over all pixels."""
    logits = torch.from_numpy(arrays["logits"]).requires_grad_()
    labels, alpha = torch.from_numpy(arrays["labels"]), torch.from_numpy(arrays["alpha"])
    probs, gamma = torch.softmax(logits, dim=1), float(arrays["gamma"])
    loss = focal_loss(probs, labels, alpha, gamma, torch.from_numpy(arrays["mask"]))
    loss.backward()
    np.testing.assert_allclose(loss.item(), arrays["loss_masked"], rtol=1e-5)
    np.testing.assert_allclose(logits.grad, arrays["grad_logits"], atol=1e-6)
    everywhere = focal_loss(probs, labels, alpha, gamma, torch.ones_like(labels, dtype=torch.bool))
    np.testing.assert_allclose(everywhere.item(), arrays["loss_nomask_mean"], rtol=1e-5)


def check_class_alpha(arrays: Mapping[str, np.ndarray]) -> None:
    """Focal weights by class from label counts."""
    alpha = class_alpha(torch.from_numpy(arrays["cls_counts"]))
    np.testing.assert_allclose(alpha, arrays["alpha"], rtol=1e-9)


def check_lovasz(arrays: Mapping[str, np.ndarray]) -> None:
    """Lovász-Softmax over the whole batch with its gradient, image by image, and over all classes."""
    logits, labels = torch.from_numpy(arrays["logits"]).requires_grad_(), torch.from_numpy(arrays["labels"])
    probs = torch.softmax(logits, dim=1)
    np.testing.assert_allclose(lovasz_softmax(probs, labels, per_image=True).item(), arrays["loss_per_image"], rtol=1e-5)
    np.testing.assert_allclose(lovasz_softmax(probs, labels, classes="all").item(), arrays["loss_classes_all"], rtol=1e-5)
    loss = lovasz_softmax(probs, labels)
    loss.backward()
    np.testing.assert_allclose(loss.item(), arrays["loss_present"], rtol=1e-5)
    np.testing.assert_allclose(logits.grad, arrays["grad_logits"], atol=1e-6)


def check_lovasz_grad(arrays: Mapping[str, np.ndarray]) -> None:
    """Weights of sorted errors."""
    np.testing.assert_allclose(lovasz_gradient(torch.from_numpy(arrays["gt_sorted"])), arrays["grad"], atol=1e-6)


def check_warmup_cosine_lr(arrays: Mapping[str, np.ndarray]) -> None:
    """The learning rate of every step of a training."""
    per_epoch, used = int(arrays["steps_per_epoch"]), arrays["lr_used_at_step"]
    total, warmup = per_epoch * int(arrays["n_epochs"]), per_epoch * int(arrays["warmup_epochs"])
    rates = [warmup_cosine_lr(step, total, warmup, float(arrays["base_lr"])) for step in range(len(used))]
    np.testing.assert_allclose(rates, used, rtol=1e-9, atol=1e-12)


def check_ioueval(arrays: Mapping[str, np.ndarray]) -> None:
    """The trainers' figures, which forgive class 0 predicted on labelled points."""
    confusion = ConfusionMatrix(len(arrays["conf"]))
    confusion.add(arrays["pred"], arrays["gt"])
    np.testing.assert_array_equal(confusion.counts, arrays["conf"])
    ours = confusion.trainer_rule()
    for name, values in (("iou", ours.iou), ("acc", ours.precision), ("recall", ours.recall)):
        np.testing.assert_allclose(values, arrays[f"class_{name}"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(values[1:].mean(), arrays[f"m{name}"], rtol=1e-9)


CHECKS = {
    "weak_label": check_weak_label,
    "focal_": check_focal,
    "class_alpha": check_class_alpha,
    "lovasz_": check_lovasz,
    "lovasz_grad": check_lovasz_grad,
    "warmup_cosine_lr": check_warmup_cosine_lr,
    "ioueval": check_ioueval,
}
