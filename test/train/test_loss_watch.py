# SPDX-License-Identifier: Apache-2.0
"""A loss that is not finite is found whenever the losses are looked at, with the step it began at."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import optional

torch = optional("torch")

from weakseg_ros.errors import WeaksegError
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.loss_watch import LossWatch
from weakseg_ros.train.machine import believed, why_precision


def add(watch: LossWatch, step: int, focal: float, lovasz: float = 1.0) -> None:
    losses = {"focal": torch.tensor(focal, requires_grad=True), "lovasz": torch.tensor(lovasz)}
    watch.add(step, torch.stack(list(losses.values())).sum(), losses)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_bad_step_and_its_losses_are_named(bad: float) -> None:
    watch = LossWatch(Path("runs/x"))
    for step, focal in enumerate([1.0, 2.0, bad, float("nan"), 3.0]):
        add(watch, step, focal)
    with pytest.raises(WeaksegError) as error:
        watch.look()
    assert str(error.value).startswith(
        f"runs/x: the loss is {bad} at step 2 ({{'focal': {bad}, 'lovasz': 1.0}}), noticed after step 4"
    )


def test_finite_losses_are_forgotten_once_looked_at() -> None:
    watch = LossWatch(Path("x"))
    watch.look()
    add(watch, 0, 1.0)
    watch.look()
    add(watch, 1, float("nan"))
    with pytest.raises(WeaksegError, match="nan at step 1"):
        watch.look()
    watch.look()


def test_losses_are_looked_at_unasked_once_patience_is_over() -> None:
    watch = LossWatch(Path("x"), patience=3)
    add(watch, 7, float("nan"))
    add(watch, 8, 1.0)
    with pytest.raises(WeaksegError, match=r"at step 7 .* noticed after step 9;"):
        add(watch, 9, 1.0)


def test_no_graph_is_kept_alive() -> None:
    watch = LossWatch(Path("x"))
    add(watch, 0, 1.0)
    assert not any(loss.requires_grad for _, total, losses in watch._pending for loss in (total, *losses.values()))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512_bf16", "32-true"),
        ("fpu not_amx_bf16_at_all", "32-true"),
        (None, "32-true"),
    ],
)
def test_auto_takes_bf16_on_a_cpu_only_with_matrix_units(tmp_path: Path, flags: str | None, expected: str) -> None:
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    precision, why = why_precision(TrainConfig(accelerator="cpu"), file)
    assert precision == expected
    assert "AMX" in why


def test_what_matrix_units_promise_is_timed_before_it_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n")
    config = TrainConfig(accelerator="cpu", net_width=16)
    before = torch.random.get_rng_state()
    precision, why = why_precision(config, file)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert "ms in float32" in why
    assert why_precision(config, file) == (precision, why), "the same command computes alike on the same machine"
    assert believed(("bf16-mixed", "AMX"), (340.0, 410.0))[0] == "32-true"
    assert believed(("bf16-mixed", "AMX"), (147.0, 71.0)) == (
        "bf16-mixed",
        "AMX, and a step of this net takes 71 ms so and 147 ms in float32",
    )
