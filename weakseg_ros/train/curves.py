# SPDX-License-Identifier: Apache-2.0
"""Training curves: a figure at the end of a run with matplotlib, and TensorBoard files where it is installed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weakseg_ros.files import write_atomic
from weakseg_ros.train.run_folder import BOARD, CURVES, RunFolder

_NOT_A_LOSS = {"step", "lr", "elapsed_s"}


class Board:
    """TensorBoard's log of a run, in its folder `tensorboard`; nothing where TensorBoard is not installed."""

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer: Any = None
        else:
            self._writer = SummaryWriter(str(run / BOARD))

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row of metrics.jsonl: each number of it is a curve, IoUs one a class."""
        if self._writer is None:
            return
        for name, value in row.items():
            curves = {f"iou/{each}": iou for each, iou in value.items()} if isinstance(value, Mapping) else {name: value}
            for curve, number in curves.items():
                if curve != "step":
                    self._writer.add_scalar(curve, number, row["step"])

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def draw_curves(run: RunFolder) -> Path | None:
    """Losses, learning rate and validation of a run over its steps as curves.png; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = run.metrics()
    steps, judged = [row for row in rows if "loss" in row], [row for row in rows if "miou_present" in row]
    figure = Figure(figsize=(8.0, 8.0 if judged else 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3 if judged else 2, 1, sharex=True)
    for name in [name for name in (steps[0] if steps else {}) if name not in _NOT_A_LOSS]:
        width = 1.8 if name == "loss" else 0.9
        axes[0].plot(*_curve(steps, name), label="all losses" if name == "loss" else name, linewidth=width)
    axes[0].set_ylabel("loss")
    axes[0].legend(fontsize="small")
    axes[1].plot(*_curve(steps, "lr"), color="0.3")
    axes[1].set_ylabel("learning rate")
    if judged:
        axes[2].plot(*_curve(judged, "miou_present"), marker="o", color="tab:green")
        axes[2].set(ylabel="mIoU of classes\nin the validation scans", ylim=(0.0, 1.0))
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("step")
    figure.suptitle(f"{run.path.name}")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomic(run.path / CURVES, picture.getvalue())
    return run.path / CURVES


def _curve(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(row["step"] + 1, row[name]) for row in rows if name in row]
    return [step for step, _ in points], [value for _, value in points]
