# SPDX-License-Identifier: Apache-2.0
"""Why a weak-supervision method gains or does not: what it believes, and how hard it pulls, along a training.

    python bench/weak_diagnostics.py DATA --config config/train/vlp32.yaml --method erda --ratio 0.001 [--out runs/diagnose]
                                     [--every 100] [--option erda_temperature=0.3] [--steps 700] [--hold-out 0.2]

Every few steps, on 16 training scans whose dense labels the training never sees: how many unlabelled points the net and the
method's pseudo-labels have right, how sure they are, how far the classes' prototypes lie apart (mean cosine between
classes; within a class where it has several), and the norm of each loss's gradient on the net's weights. Writes rows.jsonl
and diagnostics.png, and prints a markdown table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from weakseg_ros.batches.batches import Batch, ScanImages, make_batch
from weakseg_ros.batches.settings import NO_AUGMENTATION
from weakseg_ros.config import from_mapping, load_yaml
from weakseg_ros.environment import environment
from weakseg_ros.methods.coarse3d import Coarse3d
from weakseg_ros.methods.combined import Combined
from weakseg_ros.methods.confident_pixels import entropy, select_pseudo_labels, select_ratio
from weakseg_ros.methods.erda import Erda, at_pixels
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.session import TrainingSession, open_training
from weakseg_ros.train.train import run_session
from weakseg_ros.train.training_data import labels_of
from weakseg_ros.weak.protocols import SparseConfig

SCANS, BATCH = 16, 4
RIGHT = ("net right", "erda right", "contrast right")
SPREAD = ("erda cosine between", "contrast cosine between", "contrast cosine within")


def main() -> None:
    arguments = parse_arguments()
    session = open_training(settings_of(arguments))
    batches = fixed_batches(session)
    rows = []
    for step in range(arguments.every, session.config.steps + 1, arguments.every):
        run_session(session, stop_at=step)
        rows.append({"step": step} | look(session, batches, step / session.config.steps))
        print(rows[-1], flush=True)
    out = arguments.out
    head = {"config": dataclasses.asdict(session.config), "environment": environment()}
    (out / "rows.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in [head, *rows]))
    print(markdown(rows))
    draw(rows, out / "diagnostics.png", f"{session.config.method}, {arguments.ratio:g} of the labels, seed {session.config.seed}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--method", default="erda+coarse3d")
    parser.add_argument("--ratio", type=float, default=0.001)
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE of a method, e.g. coarse3d.anchors=64")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--hold-out", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path("runs/diagnose"))
    return parser.parse_args()


def settings_of(arguments: argparse.Namespace) -> TrainConfig:
    base = load_yaml(TrainConfig, arguments.config)
    for option in arguments.option:
        name, value = option.split("=", 1)
        part, setting = name.split(".")
        base = from_mapping(TrainConfig, {part: {setting: yaml.safe_load(value)}}, "--option", base)
    return dataclasses.replace(
        base,
        data=arguments.data,
        split="train",
        out=arguments.out / "run",
        method=arguments.method,
        draw=SparseConfig(protocol="voxel", ratio=arguments.ratio),
        steps=arguments.steps,
        hold_out=arguments.hold_out,
        max_minutes=0.0,
        validate_every=0,
    )


def fixed_batches(session: TrainingSession) -> list[tuple[Batch, Tensor]]:
    """Training scans as they are, with the sparse labels trained on, and the dense ones beside them."""
    config, scans = session.config, session.images.scans  # type: ignore[attr-defined]
    dense = dataclasses.replace(config, draw=SparseConfig(protocol="full"))
    sparse_images = ScanImages(scans, labels_of(config, scans), session.images.spec, NO_AUGMENTATION)
    dense_images = ScanImages(scans, labels_of(dense, scans), session.images.spec, NO_AUGMENTATION)
    numbers = np.linspace(0, len(scans) - 1, SCANS).astype(int).tolist()
    found = []
    for at in range(0, SCANS, BATCH):
        some, rng = numbers[at : at + BATCH], np.random.default_rng(0)
        spec = session.statistics.input_spec(session.images.spec)
        batch = make_batch(spec, *sparse_images.draw(some, rng))
        found.append((batch, make_batch(spec, *dense_images.draw(some, rng)).labels))
    return found


def look(session: TrainingSession, batches: list[tuple[Batch, Tensor]], progress: float) -> dict[str, float]:
    """Means over the batches of everything that can be said of the net and the method now."""
    net, method = session.learner.net, session.learner.method
    sums: dict[str, list[float]] = {}
    for batch, truth in batches:
        hidden = (batch.mask & (batch.labels == 0) & (truth > 0)).flatten().nonzero()[:, 0]
        net.eval(), method.eval()
        with torch.no_grad():
            seen = beliefs(method, batch, net(batch.image), truth.flatten(), hidden, progress)
        net.train(), method.train()
        for name, value in (seen | gradients(session, batch, progress)).items():
            sums.setdefault(name, []).append(value)
    return {name: round(float(np.mean(values)), 4) for name, values in sums.items()} | apartness(method)


def beliefs(method: Combined, batch: Batch, out: NetOutput, truth: Tensor, hidden: Tensor, progress: float) -> dict[str, float]:
    """Share of the hidden labels (flat indices) that the net and the pseudo-labels have right, and how sure they are."""
    probs = at_pixels(out.probabilities, hidden)  # (P, K)
    sure, guess = probs.max(dim=1)
    seen = {"net right": share(guess == truth[hidden]), "net sure": float(sure.mean())}
    if erda := method.part(Erda):
        soft = erda.labeller(at_pixels(out.features, hidden).float(), torch.full_like(hidden, -1))
        sure, guess = soft.max(dim=1)
        seen |= {"erda right": share(guess + 1 == truth[hidden]), "erda sure": float(sure.mean())}
    if coarse3d := method.part(Coarse3d):
        ratio = select_ratio(progress, coarse3d.settings.pseudo_epochs)
        chosen = select_pseudo_labels(out.probabilities, entropy(out.probabilities), batch.labels, batch.mask, ratio)
        picked = chosen.flatten()[hidden]
        seen |= {"contrast right": share(picked[picked > 0] == truth[hidden][picked > 0]), "contrast used": share(picked > 0)}
    return seen


def gradients(session: TrainingSession, batch: Batch, progress: float) -> dict[str, float]:
    """Norm of each loss's gradient on the net's weights, at the same weights and batch."""
    net, method = session.learner.net, session.learner.method
    state = {name: value.clone() for name, value in session.learner.state_dict().items()}
    losses = method.losses(batch, net(batch.image), progress)
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    found = {}
    for name, loss in losses.items():
        parts = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True) if loss.requires_grad else []
        squares = [part.square().sum() for part in parts if part is not None]
        found[f"pull {name}"] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    session.learner.load_state_dict(state)  # the look must not move statistics or prototypes
    return found


def apartness(method: Combined) -> dict[str, float]:
    """Mean cosine between the prototypes of different classes, and within a class; of those that ever moved."""
    found = {}
    if erda := method.part(Erda):
        keys = erda.labeller.prototypes
        found["erda cosine between"] = mean_cosine(keys[keys.abs().sum(dim=1) > 0][:, None])[0]
    coarse3d = method.part(Coarse3d)
    if coarse3d is not None and hasattr(coarse3d.bank, "moved"):
        keys = coarse3d.bank.keys[coarse3d.bank.moved.any(dim=1)]
        found["contrast cosine between"], found["contrast cosine within"] = mean_cosine(keys)
    return found


def mean_cosine(keys: Tensor) -> tuple[float, float]:
    """Keys (C, K, D): mean cosine of pairs of two classes, and of pairs within one."""
    classes, each = keys.shape[:2]
    unit = F.normalize(keys, dim=2).flatten(0, 1)
    cosine = unit @ unit.T
    owner = torch.arange(classes).repeat_interleave(each)
    same, itself = owner[:, None] == owner[None], torch.eye(len(owner), dtype=torch.bool)
    return round(float(cosine[~same].mean()), 4), round(float(cosine[same & ~itself].mean()), 4) if each > 1 else 1.0


def share(right: Tensor) -> float:
    return float(right.float().mean()) if len(right) else float("nan")


def markdown(rows: list[dict[str, float]]) -> str:
    names = list(rows[0])
    table = [" | ".join(names), " | ".join(["---"] * len(names))]
    return "\n".join(f"| {line} |" for line in [*table, *(" | ".join(f"{row[n]:.4g}" for n in names) for row in rows)])


def draw(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Three panels: what is right, how far prototypes lie apart, how hard the losses pull."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    pulls = [name for name in rows[0] if name.startswith("pull ")]
    titles = ("unlabelled points named right", "mean cosine of prototypes", "gradient norm on the net")
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, name, series in zip(axes, titles, (RIGHT, SPREAD, pulls), strict=True):
        for one in series:
            if one in rows[0]:
                axis.plot([row["step"] for row in rows], [row[one] for row in rows], marker="o", ms=3, label=one)
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[2].set_yscale("log")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
