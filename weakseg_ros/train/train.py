# SPDX-License-Identifier: Apache-2.0
"""`weakseg train`: one loop, to be read from top to bottom."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from weakseg_ros.batches.batches import Batch, step_generator
from weakseg_ros.errors import complain, say
from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.memory import keep_large_blocks
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.curves import Board, draw_curves
from weakseg_ros.train.loss_watch import PATIENCE, LossWatch, figures
from weakseg_ros.train.messages import ProgressLines, closing, cut_short, opening, quality
from weakseg_ros.train.outputs import still_free
from weakseg_ros.train.resuming import resumed
from weakseg_ros.train.run_folder import RunFolder
from weakseg_ros.train.schedule import warmup_cosine_lr, warmup_exponential_lr
from weakseg_ros.train.session import Position, TrainingSession, open_training, save_checkpoint
from weakseg_ros.train.validate import validate

log = logging.getLogger(__name__)


def run(config: TrainConfig, all_meant: bool = False) -> int:
    """Do what `weakseg train` was asked for; returns its exit code. `all_meant` as in `resumed`."""
    if config.resume:
        config = resumed(config, all_meant)
    keep_large_blocks()
    session = open_training(config, all_meant=True)
    is_first = session.fabric.is_global_zero
    if is_first:
        complain(*opening(session))
    finished = run_session(session)
    curves = draw_curves(session.run) if is_first else None
    bundle = config.out_bundle
    if bundle is not None and is_first:
        from weakseg_ros.train.export import export_run  # onnx is needed only here

        bundle = still_free(bundle, config.overwrite)
        export_run(finished.path, bundle)  # last: once the bundle is there, the same command is refused
    if is_first:
        _say_goodbye(session, bundle, curves)
    return 0


def _say_goodbye(session: TrainingSession, bundle: Path | None, curves: Path | None) -> None:
    say(*closing(session, bundle))
    if curves is not None:
        say(f"curves of the training: {curves}")
    if early := cut_short(session):
        log.warning("%s: %s", session.config.out, early)


def train(config: TrainConfig, stop_at: int | None = None) -> RunFolder:
    """Train as `config` says and return the run folder.

    `stop_at` ends this process's share of the work once that many steps are done, with a checkpoint to resume from: for
    machines that are lent by the hour. Raises DataError where nothing is labelled, WeaksegError where a loss is not
    finite.
    """
    keep_large_blocks()
    return run_session(open_training(config), stop_at)


def run_session(session: TrainingSession, stop_at: int | None = None) -> RunFolder:
    """Do the steps that a training has left; see `train`."""
    config, fabric, position = session.config, session.fabric, session.position
    if _nothing_left(config, position):
        session.run.let_go()
        return session.run
    started = time.monotonic() - position.elapsed_s
    bar = tqdm(
        total=config.steps, initial=position.step, desc="train", unit="step", disable=None if fabric.is_global_zero else True
    )
    listeners: list[ProgressLines | Board] = (
        [ProgressLines(config.steps), Board(session.run.path)] if fabric.is_global_zero else []
    )
    watch = LossWatch(config.out, 1 if fabric.device.type == "cpu" else PATIENCE)  # reading a figure of the CPU waits for nothing
    for batch in _batches(session):
        step = position.step
        progress = max(step / config.steps, _share_of_time(config, position.elapsed_s))
        rate = learning_rate(config, step, progress)
        for group in session.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(_seed_of(config.seed, step, fabric.global_rank))  # dropout

        total, losses = take_step(session, batch, progress)

        watch.add(step, total, losses)
        position.step += 1
        elapsed_s = time.monotonic() - started
        position.elapsed_s = fabric.broadcast(elapsed_s) if config.max_minutes else elapsed_s  # all must end together
        bar.update()
        finished = position.step == config.steps or _share_of_time(config, position.elapsed_s) >= 1.0
        due = bool(config.validate_every) and position.step % config.validate_every == 0
        logged = step % config.log_every == 0 or finished
        if logged or due or position.step == stop_at:
            watch.look()
        if fabric.is_global_zero and logged:
            row = {"step": step, "loss": total.item(), **figures(losses), "lr": rate, "elapsed_s": round(position.elapsed_s, 4)}
            session.run.log(row)
            for listener in listeners:
                listener.add(row)
        if finished or due:
            judged = _judge(session)
            for listener in listeners:
                listener.add(judged)
        if finished or due or position.step == stop_at:
            if fabric.is_global_zero:
                save_checkpoint(session)
            fabric.barrier()
        if finished or position.step == stop_at:
            break
    for opened in (bar, *listeners):
        opened.close()
    session.run.let_go()
    return session.run


def _nothing_left(config: TrainConfig, position: Position) -> bool:
    """Whether a resumed run has nothing to do, with a sentence on what would give it something."""
    if position.step >= config.steps:
        log.warning("%s: all %d steps are done; continue with a larger --steps", config.out, config.steps)
        return True
    if _share_of_time(config, position.elapsed_s) >= 1.0:
        log.warning(
            "%s: max_minutes (%g) ended the run at step %d of %d; continue with a larger --max-minutes, or 0 for no limit",
            config.out,
            config.max_minutes,
            position.step,
            config.steps,
        )
        return True
    return False


def take_step(session: TrainingSession, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Forward, losses, backward and optimiser: the total loss, and its parts by name, left on the device."""
    step, method = session.position.step, session.learner.method
    optional = (batch.xyz, batch.instances, batch.weights)
    losses: dict[str, Tensor] = session.wrapped(batch.image, batch.labels, batch.mask, progress, *optional, *batch.further)
    total = torch.stack(list(losses.values())).sum()
    session.optimizer.zero_grad(set_to_none=True)
    session.fabric.backward(total)
    if session.config.clip_norm:
        session.fabric.clip_gradients(session.wrapped, session.optimizer, max_norm=session.config.clip_norm)
    session.optimizer.step()
    method.after_step(session.learner.net, progress)
    session.average.follow(session.learner.net, step)
    if session.heads_average is not None and (heads := method.deployable()) is not None:
        session.heads_average.follow(heads, step)
    return total, losses


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """The rate of a step; where time is short, `progress` runs ahead of the steps and the rate falls with it."""
    position = max(step, progress * config.steps)
    shape = {"cosine": warmup_cosine_lr, "exponential": warmup_exponential_lr}[config.schedule]
    rate = shape(position, config.steps, config.warmup_steps, config.learning_rate)
    if step >= config.warmup_steps:
        return rate
    return min(rate, config.learning_rate * (step + 1) / config.warmup_steps)  # time may be up before the warm-up is over


def _batches(session: TrainingSession) -> Iterator[Batch]:
    """The batches from the session's position on, prepared ahead by `workers` threads."""
    config, fabric, images = session.config, session.fabric, session.images
    rank, world, spec = fabric.global_rank, fabric.world_size, session.input

    def make(step: int) -> Batch:
        numbers = images.of_step(step, config.batch_size, rank, world, config.seed)
        return images.batch(spec, numbers, step_generator(step, rank, config.seed))

    with ThreadPoolExecutor(config.workers) as pool:
        ahead = deque(pool.submit(make, session.position.step + i) for i in range(config.workers + 1))
        for step in range(session.position.step, config.steps):
            batch = ahead.popleft().result()
            ahead.append(pool.submit(make, step + config.workers + 1))
            yield to_device(batch, fabric.device)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch where the net is."""
    image = batch.image.to(device, memory_format=torch.channels_last, non_blocking=True)
    xyz, instances, weights = (None if part is None else part.to(device) for part in (batch.xyz, batch.instances, batch.weights))
    further = tuple(part.to(device) for part in batch.further)
    return Batch(image, batch.labels.to(device), batch.mask.to(device), xyz, instances, weights, further)


def _judge(session: TrainingSession) -> dict[str, Any]:
    """Validate the averaged net and return the figures; keep it where it is the best so far (or nothing is validated on)."""
    fabric, run, position, net = session.fabric, session.run, session.position, session.average.net
    judged: dict[str, Any] = {"step": position.step - 1}
    miou = position.best_miou
    if session.val_scans is not None:
        spec, limit = session.input, session.config.max_val_scans
        ours = validate(net, session.val_scans, spec, fabric.global_rank, fabric.world_size, limit)
        counts: Any = fabric.all_reduce(torch.from_numpy(ours.counts), reduce_op="sum")
        confusion = ConfusionMatrix(ours.num_classes, counts.cpu().numpy())
        miou = confusion.miou
        names = session.val_scans.labels.names
        by_class = {name: round(float(iou), 4) for name, iou in zip(names[1:], confusion.iou[1:], strict=True)}
        judged |= {"overlaps": dict(zip(names[1:], confusion.overlaps[1:].tolist(), strict=True))}
        judged |= {"classes_present": int(confusion.counts.sum(axis=0)[1:].astype(bool).sum())}
        judged |= {"miou": miou, "miou_present": confusion.miou_present, "accuracy": confusion.accuracy, "class_iou": by_class}
    if not fabric.is_global_zero:
        return judged
    if session.val_scans is not None:
        run.log(judged)
        tqdm.write(f"step {position.step} of {session.config.steps}, {quality(judged)}", file=sys.stderr)
    if session.val_scans is None or miou > position.best_miou:
        position.best_miou = miou
        heads = {} if session.heads_average is None else session.heads_average.net.state_dict()
        run.save_best(net.state_dict(), judged, heads)
    return judged


def _share_of_time(config: TrainConfig, elapsed_s: float) -> float:
    return elapsed_s / (60.0 * config.max_minutes) if config.max_minutes else 0.0


def _seed_of(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, 2, step, rank]).generate_state(1)[0])
