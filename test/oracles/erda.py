# SPDX-License-Identifier: Apache-2.0
"""Checks of the oracle files in erda/: our functions beside ERDA's, which were written for TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch

from weakseg_ros.methods.erda import PseudoLabeller, alignment_loss
from weakseg_ros.nets.losses import class_weight

# official name -> (our alignment, entropy weight)
VARIANTS = {"xen": ("kl", 1.0), "kl": ("kl", 0.0), "klr": ("reversed_kl", 0.0), "js": ("js", 0.0), "mse": ("mse", 0.0)}


def check_loss_variants(arrays: Mapping[str, np.ndarray]) -> None:
    """Every variant's loss per point, and the gradients of its mean into pseudo-logits, prediction and pseudo-label."""
    for name, (alignment, entropy_weight) in VARIANTS.items():
        pseudo = torch.from_numpy(arrays["pseudo_logits"]).requires_grad_()
        logits = torch.from_numpy(arrays["seg_logits"]).requires_grad_()
        p = torch.softmax(pseudo, dim=1)
        p.retain_grad()
        loss = alignment_loss(p, logits, alignment, entropy_weight)
        loss.mean().backward()
        np.testing.assert_allclose(loss.detach(), arrays[f"{name}_per_point"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(loss.mean().item(), arrays[f"{name}_mean"], rtol=1e-5)
        np.testing.assert_allclose(pseudo.grad, arrays[f"{name}_grad_pseudo_logits"], atol=1e-6)
        np.testing.assert_allclose(logits.grad, arrays[f"{name}_grad_seg_logits"], atol=1e-6)
        np.testing.assert_allclose(p.grad, arrays[f"{name}_grad_pseudo_prob"], rtol=1e-5, atol=1e-6)
    entropy = alignment_loss(p, logits, "kl", 1.0) - alignment_loss(p, logits, "kl", 0.0)
    np.testing.assert_allclose(entropy.detach(), arrays["entropy_p_float64"], rtol=1e-4, atol=1e-5)


def check_pseudo_head(arrays: Mapping[str, np.ndarray]) -> None:
    """Prototypes, pseudo-labels, loss and gradients over several steps, the absent classes' reset included."""
    labeller = _official_labeller(arrays)
    for step in range(sum(re.fullmatch(r"step\d+_features", name) is not None for name in arrays)):
        seen = {name.removeprefix(f"step{step}_"): value for name, value in arrays.items() if name.startswith(f"step{step}_")}
        _check_step(labeller, arrays, seen)


def _official_labeller(arrays: Mapping[str, np.ndarray]) -> PseudoLabeller:
    classes, dim = arrays["proto_init"].shape
    projected = "pmlp2" in str(arrays["ops"])
    labeller = PseudoLabeller(dim, classes, float(arrays["momentum"]), official_reset=True, projected=projected)
    labeller.prototypes.copy_(torch.from_numpy(arrays["proto_init"]))
    if projected:
        with torch.no_grad():
            for parameter, name in _parameters(labeller):
                value = torch.from_numpy(arrays[f"param_{name}"])
                parameter.copy_(value.T if value.ndim == 2 else value)
    return labeller.train()


def _parameters(labeller: PseudoLabeller) -> list[tuple[torch.nn.Parameter, str]]:
    first, norm, _, last = labeller.project
    return [
        (first.weight, "up0-proj.mlp_1.weights"),
        (norm.weight, "up0-proj.mlp_1.batch_normalization.gamma"),
        (norm.bias, "up0-proj.mlp_1.batch_normalization.beta"),
        (last.weight, "up0-proj.linear.weights"),
        (last.bias, "up0-proj.linear.bias"),
    ]


def _check_step(labeller: PseudoLabeller, arrays: Mapping[str, np.ndarray], seen: Mapping[str, np.ndarray]) -> None:
    features = torch.from_numpy(seen["features"]).requires_grad_()
    logits = torch.from_numpy(seen["seg_logits"]).requires_grad_()
    classes = torch.from_numpy(seen["labels"]).long()
    labeller.zero_grad()
    p = labeller(features, classes)
    chosen = classes < 0 if str(arrays["weak"]) else torch.ones_like(classes, dtype=torch.bool)
    loss = float(arrays["alpha"]) * alignment_loss(p[chosen], logits[chosen]).mean()
    loss.backward()
    np.testing.assert_allclose(labeller.prototypes, seen["proto_after"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(p.detach(), seen["pseudo_prob_all"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(p[chosen].detach(), seen["pseudo_prob_in_loss"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss.item(), seen["loss"], rtol=1e-5)
    np.testing.assert_allclose(features.grad, seen["grad_features"], atol=1e-6)
    np.testing.assert_allclose(logits.grad, seen["grad_seg_logits"], atol=1e-6)
    if "pmlp2" in str(arrays["ops"]):
        for parameter, name in _parameters(labeller):
            gradient = parameter.grad.T if parameter.ndim == 2 else parameter.grad
            np.testing.assert_allclose(gradient, seen[f"grad_{name}"], atol=1e-6)


def check_class_weight(arrays: Mapping[str, np.ndarray]) -> None:
    """The files hold only weights: the frequencies behind them must sum to 1 and give the weights again."""
    frequency = 1.0 / torch.from_numpy(arrays["weight"]).double() - 0.02
    np.testing.assert_allclose(frequency.sum().item(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(class_weight(frequency / frequency.sum()), arrays["weight"], rtol=1e-4)


CHECKS = {"loss_variants": check_loss_variants, "pseudo_head": check_pseudo_head, "class_weight": check_class_weight}
