# SPDX-License-Identifier: Apache-2.0
"""Checks of the oracle files in coarse3d/: our functions beside COARSE3D's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.methods import confident_pixels as anchors
from weakseg_ros.methods import prototypes
from weakseg_ros.methods.coarse3d import contrast_loss
from weakseg_ros.nets.losses import class_alpha, focal_loss, lovasz_gradient, lovasz_softmax
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.train.schedule import warmup_cosine_lr
from weakseg_ros.weak.protocols import clicks_of_ratio, group_voxels, label_voxels


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


def check_select_ratio(arrays: Mapping[str, np.ndarray]) -> None:
    """The share of pseudo-labels in every epoch."""
    epochs = int(arrays["n_epochs"])
    ratios = [anchors.select_ratio((epoch + 0.5) / epochs, epochs) for epoch in arrays["epoch"]]
    np.testing.assert_allclose(ratios, arrays["ratio"], rtol=1e-12)


def check_sinkhorn(arrays: Mapping[str, np.ndarray]) -> None:
    """The plan of one class, alone and beside another one; the prototype of each pixel, by argmax and by Gumbel noise."""
    similarity = torch.from_numpy(arrays["sim"])
    one = torch.zeros(len(similarity), dtype=torch.long)
    epsilon, rounds = float(arrays["eps"]), int(arrays["iters"])
    plan = prototypes.sinkhorn(similarity, one, 1, epsilon, rounds)
    np.testing.assert_allclose(plan, arrays["q_soft"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        prototypes.sinkhorn(similarity, one, 1, 0.1, 1), arrays["q_soft_eps0p1_iter1"], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(prototypes.assign(plan), arrays["argmax_index"])
    drawn = prototypes.assign(plan, "gumbel", torch.from_numpy(arrays["gumbel_noise"]))
    np.testing.assert_array_equal(F.one_hot(drawn, plan.shape[1]), arrays["q_onehot_gumbel"])

    both, classes = torch.cat((similarity, similarity.flip(1) * 0.5)), torch.cat((one + 2, one))
    order = torch.randperm(len(both), generator=torch.Generator().manual_seed(0))
    mixed = torch.empty_like(both)
    mixed[order] = prototypes.sinkhorn(both[order], classes[order], 4, epsilon, rounds)
    np.testing.assert_allclose(mixed[: len(plan)], arrays["q_soft"], rtol=1e-5, atol=1e-6)


def check_prototype_learning(arrays: Mapping[str, np.ndarray]) -> None:
    """One move of the prototypes of all classes: similarities, plans, choices, and where the prototypes are after it."""
    given = {name: torch.from_numpy(value) for name, value in arrays.items() if name.endswith(("weight", "bias"))}
    given = {name: value.float() for name, value in given.items()}
    embedding = torch.from_numpy(arrays["embedding"])
    labels = torch.from_numpy(arrays["labels"]).flatten()
    keys = F.normalize(torch.from_numpy(arrays["prototypes_in"]), dim=2)

    pixels = embedding.permute(0, 2, 3, 1).flatten(0, 2)
    x = prototypes.standardise(pixels, given["feat_norm_weight"], given["feat_norm_bias"])
    np.testing.assert_allclose(x, arrays["out_feat"], rtol=1e-5, atol=1e-6)
    similarity = prototypes.similarities(x, keys)
    np.testing.assert_allclose(similarity.transpose(1, 2), arrays["feat_proto_sim"], rtol=1e-5, atol=1e-6)
    nearest = prototypes.nearest_class(similarity, given["mask_norm_weight"], given["mask_norm_bias"])
    np.testing.assert_array_equal(nearest, arrays["nearest_class"])

    labelled = labels.nonzero()[:, 0]
    classes, by_class = labels[labelled], torch.argsort(labels[labelled], stable=True)
    plan = prototypes.sinkhorn(similarity[labelled, classes], classes, len(keys))
    np.testing.assert_allclose(plan[by_class], arrays["q_soft_concat"], rtol=1e-5, atol=1e-6)
    recorded = torch.from_numpy(arrays["q_onehot_concat"]).argmax(dim=1)
    targets = torch.zeros_like(labels)
    targets[labelled] = classes * keys.shape[1] + prototypes.assign(plan)  # the official targets never see the noise
    np.testing.assert_array_equal(targets, arrays["proto_target"])
    if str(arrays["assign_mode"]) == "argmax":
        np.testing.assert_array_equal(prototypes.assign(plan)[by_class], recorded)
    choice = torch.empty_like(recorded)
    choice[by_class] = recorded

    counts = nearest[labelled] == classes
    sums, moves = prototypes.collect(x[labelled][counts], classes[counts], choice[counts], keys)
    moved = prototypes.move(keys, sums, moves, float(arrays["momentum"]))
    np.testing.assert_allclose(moved, arrays["prototypes_out"], rtol=1e-5, atol=1e-6)


def check_entropy_selection(arrays: Mapping[str, np.ndarray]) -> None:
    """Candidates, their weights, how many are drawn, and the labels after the recorded draw (or after ours, of all)."""
    probs, labels = torch.from_numpy(arrays["probs"]), torch.from_numpy(arrays["train_label"])
    mask, ratio, classes = torch.from_numpy(arrays["eval_mask"]), float(arrays["select_ratio"]), arrays["probs"].shape[1]
    guess, uncertainty = anchors.most_likely(probs), anchors.entropy(probs)
    np.testing.assert_array_equal(guess, probs.argmax(dim=1))
    candidates = anchors.candidate_pixels(guess, labels, mask, classes)
    amounts = anchors.quota(candidates, ratio)
    drawn_from = amounts.nonzero()[:, 0]
    np.testing.assert_array_equal(amounts[drawn_from], arrays["select_num"])
    weights = _rows_of_groups(candidates, torch.exp(-uncertainty).flatten(), drawn_from, labels[0].numel())
    np.testing.assert_allclose(weights, arrays["sample_weights"], rtol=1e-5, atol=1e-7)

    recorded = torch.from_numpy(arrays["selected_flat_index"])
    in_image = (drawn_from // classes * labels[0].numel())[:, None] + recorded
    merged = anchors.merge_labels(guess, in_image[recorded >= 0], labels)
    np.testing.assert_array_equal(merged, arrays["pseudo_label"])
    np.testing.assert_array_equal(merged > 0, arrays["new_mask"])
    if ratio == 1.0:
        np.testing.assert_array_equal(anchors.select_pseudo_labels(probs, uncertainty, labels, mask, ratio), merged)


def check_contrast(arrays: Mapping[str, np.ndarray]) -> None:
    """Weights of the anchors, the anchors that were drawn, the loss over them and its gradient into the features."""
    feats = torch.from_numpy(arrays["feats"]).requires_grad_()
    labels, mask = torch.from_numpy(arrays["labels"]), torch.from_numpy(arrays["keep_mask"])
    keys, classes, pixels = torch.from_numpy(arrays["prototypes"]), arrays["probs"].shape[1], labels[0].numel()
    uncertainty = anchors.entropy(torch.from_numpy(arrays["probs"]))
    np.testing.assert_allclose(uncertainty, arrays["entropy"], rtol=1e-5, atol=1e-6)
    grouped, weight = anchors.anchor_candidates(labels, mask, uncertainty, classes)
    present = grouped.counts.nonzero()[:, 0]
    everywhere = torch.zeros(labels.numel(), dtype=weight.dtype).index_put_((grouped.pixels,), weight)
    rows = _rows_of_groups(grouped, everywhere, present, pixels)
    np.testing.assert_allclose(rows, arrays["sample_weights_unnormalised"], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(present % classes, arrays["anchor_labels"])

    drawn = (torch.from_numpy(arrays["sampled_pixel_index"]) + (present // classes * pixels)[:, None]).flatten()
    times = torch.bincount(drawn, minlength=labels.numel())[grouped.pixels]
    ours = anchors.contrast_anchors(grouped, times, classes)
    at_anchors = feats.permute(0, 2, 3, 1).flatten(0, 2)[ours.pixels]
    temperatures = float(arrays["temperature"]), float(arrays["base_temperature"])
    loss = contrast_loss(at_anchors, ours.classes - 1, keys[1:], ours.times, *temperatures)
    loss.backward()
    np.testing.assert_allclose(loss.item(), arrays["loss"], rtol=1e-5)
    np.testing.assert_allclose(feats.grad, arrays["grad_feats"], atol=1e-6)


def _rows_of_groups(grouped: anchors.Grouped, values: torch.Tensor, groups: torch.Tensor, pixels: int) -> torch.Tensor:
    """Values by flat pixel as one row for each group and image pixel, 0 outside the group."""
    rows = torch.zeros(len(grouped.counts), pixels, dtype=values.dtype)
    rows[grouped.group, grouped.pixels % pixels] = values[grouped.pixels]
    return rows[groups]


CHECKS = {
    "weak_label": check_weak_label,
    "focal_": check_focal,
    "class_alpha": check_class_alpha,
    "lovasz_": check_lovasz,
    "lovasz_grad": check_lovasz_grad,
    "warmup_cosine_lr": check_warmup_cosine_lr,
    "ioueval": check_ioueval,
    "select_ratio_schedule": check_select_ratio,
    "sinkhorn_": check_sinkhorn,
    "prototype_learning_": check_prototype_learning,
    "entropy_selection_": check_entropy_selection,
    "contrast_": check_contrast,
}
