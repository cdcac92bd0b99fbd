# SPDX-License-Identifier: Apache-2.0
"""`weakseg benchmark`: a table of method x net x share of labels x seed, one training a row, resumable at any time.

rows.jsonl        one line per finished or failed row
labels/           the sparse labels that were drawn, the same for all methods
runs/<row>/       the run folder of each row
benchmark.md, benchmark.png, summary.json   what the rows say
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import resource
import shutil
import statistics
import time
import traceback
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from weakseg_ros.benchmark.folds import gather_folds, run_folds
from weakseg_ros.benchmark.report import BASELINE, STEPS, write_report
from weakseg_ros.benchmark.rows import RowFile
from weakseg_ros.benchmark.step_times import time_in_turns
from weakseg_ros.benchmark.table import BenchmarkConfig, Row, base_settings, table
from weakseg_ros.config import dump_yaml, load_yaml, shard_of
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError, WeaksegError, say
from weakseg_ros.files import make_folder, write_atomic, write_json
from weakseg_ros.locks import alone, in_turn
from weakseg_ros.progress import Progress
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.run_folder import BEST, CONFIG, STATISTICS, RunFolder
from weakseg_ros.train.survey import DataStatistics
from weakseg_ros.train.train import train
from weakseg_ros.train.training_data import open_data, with_own_split, with_propagated_labels
from weakseg_ros.weak.draw import draw_sparse
from weakseg_ros.weak.scan_poses import poses_of_scans, write_poses
from weakseg_ros.weak.sparse_labels import RECORD, SparseLabels, SparseScans, is_unfinished

log = logging.getLogger(__name__)

TABLE = "table.yaml"
_TIMED_PARTS = 40
"""a training logs at least this often, for the median of its step time"""


def run(config: BenchmarkConfig) -> int:
    """Do what `weakseg benchmark` was asked for; returns its exit code."""
    if config.report_only:
        gather_folds(config)
        say(write_report(config.out, config.classes, published=config.published).read_text(encoding="utf-8"))
        return 0
    if config.folds:
        return run_folds(config, run)
    rows = table(config)
    scans, data_hash = open_table(config)
    failed = train_rows(config, rows, scans, data_hash)
    wanted = {row.key: (row.settings_hash, data_hash) for row in rows}
    say(write_report(config.out, config.classes, wanted, config.published).read_text(encoding="utf-8"))
    return 1 if failed else 0


def open_table(config: BenchmarkConfig) -> tuple[ScanSet, str]:
    """The scans that all rows are trained on, and a hash of these and of those to validate on.

    Raises DataError where there are none to validate on, or where they lack one of the `classes`.
    """
    train_scans, val_scans = open_data(base_settings(config))
    if val_scans is None:
        raise DataError(f"{config.data}: no scans to validate on; set hold_out, val_split or val_data")
    unknown = [name for name in config.classes if name not in val_scans.labels.names]
    if unknown:
        raise DataError(
            f"classes: label map '{val_scans.labels.name}' has no {', '.join(unknown)}; it has "
            f"{', '.join(val_scans.labels.names[1:])}"
        )
    return train_scans, f"{train_scans.content_hash[:16]}-{val_scans.content_hash[:16]}"


def train_rows(config: BenchmarkConfig, rows: Sequence[Row], train_scans: ScanSet, data_hash: str) -> int:
    """Train the rows that are not finished; the number of those that failed, each of which says why in rows.jsonl."""
    file = RowFile(config.out)
    make_folder(config.out)
    write_atomic(config.out / TABLE, dump_yaml(config))
    first, stride = shard_of(config.shard)
    failed = 0
    for row in Progress(rows[first::stride], what="benchmark", unit="row"):
        with alone(config.out / "runs" / f".{row.key}.lock") as mine:
            if not mine:
                log.info("%s: another process is training this row, so it is skipped", row.key)
            elif not file.finished(row.key, row.settings_hash, data_hash):
                failed += not _run(config, row, train_scans, data_hash, file)
    if config.step_turns and all(file.finished(row.key, row.settings_hash, data_hash) for row in rows):
        with alone(config.out / f".{STEPS}.lock") as mine:
            if mine:
                _time_steps(config, rows, train_scans)
    return failed


def _time_steps(config: BenchmarkConfig, rows: Sequence[Row], scans: ScanSet) -> None:
    """Steps of the plain methods in turn, net by net, on the smallest share of labels, unless they were timed already."""
    ratio, seed = min(row.ratio for row in rows), rows[0].seed
    plain = [row for row in rows if (row.ratio, row.seed, row.variant) == (ratio, seed, "")]
    asked = {row.key: row.settings_hash for row in plain}
    path = config.out / STEPS
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["settings"] == asked:
        return
    times: dict[str, Any] = {}
    for net in dict.fromkeys(row.net for row in plain):
        ours = sorted((row for row in plain if row.net == net), key=lambda row: row.method != BASELINE)
        labels = _drawn_labels(config.out / "labels", ours[0], scans)
        facts = load_yaml(DataStatistics, config.out / "runs" / ours[0].key / STATISTICS)
        shown = scans if labels is None else SparseScans(scans, labels)
        found = time_in_turns({row.method: row.train for row in ours}, shown, facts, config.step_turns)
        times[net] = {method: {"ms": round(t.ms, 2), "share": round(t.share, 3)} for method, t in found.items()}
    write_json(path, {"turns": config.step_turns, "nets": times, "settings": asked, "environment": environment()})


def _run(config: BenchmarkConfig, row: Row, scans: ScanSet, data_hash: str, file: RowFile) -> bool:
    """Train one row and write its line; False where it failed."""
    facts = {
        "key": row.key,
        "method": row.method,
        "variant": row.variant,
        "net": row.net,
        "ratio": row.ratio,
        "seed": row.seed,
        "settings": row.settings_hash,
        "data": scans.name,
        "data_hash": data_hash,
    }
    log.info("%s", row.key)
    try:
        figures = _train(config, row, scans)
    except OSError:  # a full disk is no fault of the row, and the next one would not fare better
        raise
    except Exception as error:
        said = str(error) if isinstance(error, WeaksegError) else traceback.format_exc()
        log.error("%s: failed: %s", row.key, said)
        file.append({**facts, "error": said, "environment": environment()})
        return False
    file.append({**facts, **figures, "environment": environment()})
    return True


def _train(config: BenchmarkConfig, row: Row, scans: ScanSet) -> dict[str, Any]:
    labels = _drawn_labels(config.out / "labels", row, scans)
    settings = dataclasses.replace(
        row.train,
        out=config.out / "runs" / row.key,
        sparse_labels=None if labels is None else labels.folder,
        log_every=max(1, min(row.train.log_every, row.train.steps // _TIMED_PARTS)),
    )
    _forget_peak()
    started = time.monotonic()
    settings = with_own_split(_with_poses(config, settings, scans))
    run = train(begin_or_continue(settings, scans if labels is None else SparseScans(scans, labels)))
    gc.collect()  # a session's parts refer to each other
    figures = _figures(run, config.classes)
    figures |= {
        "labels_hash": scans.content_hash if labels is None else labels.content_hash,
        "clicks": None if labels is None else labels.record.clicks,
        "wall_s": round(max(time.monotonic() - started, *(row.get("elapsed_s", 0.0) for row in run.metrics())), 1),
        "peak_mib": round(_peak_mib()),
        "device": run.environment()["device"],
        "precision": run.environment()["precision"],
    }
    if not config.keep_runs:
        shutil.rmtree(run.path / "last", ignore_errors=True)
        (run.path / BEST).unlink(missing_ok=True)
    return figures


def begin_or_continue(settings: TrainConfig, scans: ScanSet) -> TrainConfig:
    """To resume the run folder where the same training on the same labels left a checkpoint, else to begin anew."""
    folder = settings.out
    if RunFolder(folder).has_checkpoint():
        learnt = with_propagated_labels(settings, scans)
        same_data = RunFolder(folder).environment()["data"]["hash"] == learnt.content_hash
        if same_data and load_yaml(TrainConfig, folder / CONFIG) == settings:
            return dataclasses.replace(settings, resume=True)
    shutil.rmtree(folder, ignore_errors=True)
    return settings


def _drawn_labels(folder: Path, row: Row, scans: ScanSet) -> SparseLabels | None:
    """The row's sparse labels, drawn by the first process that needs them; None for all labels."""
    if row.draw.protocol == "full":
        return None
    propagate = "" if row.draw.propagate else "-first"
    target = folder / f"{row.draw.folder_name}-v{row.draw.voxel_m:g}{propagate}"
    with in_turn(folder / f".{target.name}.lock"):
        if (target / RECORD).is_file() and not is_unfinished(target):
            try:
                return SparseLabels.load(target, scans)
            except DataError as error:
                log.info("%s; the labels are drawn again", error)
        if not (target / RECORD).is_file():
            shutil.rmtree(target, ignore_errors=True)  # labels of an earlier version that was ended while it drew them
        return draw_sparse(scans, row.draw, target, overwrite=True)


def _with_poses(config: BenchmarkConfig, settings: TrainConfig, scans: ScanSet) -> TrainConfig:
    """The settings with the poses that all rows share, where labels are propagated: estimated once, by the first row."""
    wanted = settings.propagate
    if not wanted.scans or wanted.poses_file is not None:
        return settings
    file = config.out / "labels" / f"poses-{wanted.poses}-{scans.content_hash[:16]}.txt"
    make_folder(file.parent)
    with in_turn(file.with_name(f".{file.name}.lock")):
        if not file.is_file():
            write_poses(file, poses_of_scans(scans, wanted.poses))
    return dataclasses.replace(settings, propagate=dataclasses.replace(wanted, poses_file=file))


def _figures(run: RunFolder, classes: Sequence[str]) -> dict[str, Any]:
    """What the last validation says (never the best one, which would be chosen on the test scans), and the pace."""
    rows = run.metrics()
    judged = [row for row in rows if "class_iou" in row][-1]
    counts = load_yaml(DataStatistics, run.path / STATISTICS).class_counts
    ious = judged["class_iou"]
    chosen = [ious[name] for name in classes] if classes else None
    return {
        "miou": statistics.fmean(chosen) if chosen else judged["miou_present"],
        "miou_present": judged["miou_present"],
        "class_iou": ious,
        "overlaps": judged.get("overlaps", {}),
        "labelled_points": sum(counts[1:]),
        "steps": judged["step"] + 1,
        "step_ms": _step_ms(rows),
    }


def _step_ms(rows: Sequence[dict[str, Any]]) -> float:
    """Median over the logged parts of a training of the time per step; validation falls into few of them."""
    timed = [(row["step"] + 1, row["elapsed_s"]) for row in rows if "elapsed_s" in row]
    timed = [(0, 0.0), *timed] if len(timed) < 2 else timed
    paces = [(b - a) / (n - m) for (m, a), (n, b) in pairwise(timed) if n > m and b > a]
    return round(1000 * statistics.median(paces), 2) if paces else 0.0


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM starts again from what is resident now
    except OSError:
        log.debug("the peak memory counter cannot be reset here, so it covers the entire process")


def _peak_mib() -> float:
    """On the GPU where one is used, else of the process, since `_forget_peak`."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), 0.0)
