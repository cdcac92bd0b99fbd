# SPDX-License-Identifier: Apache-2.0
"""A cross-validation: a table for each fold, trained on the others, and one over the points of all, as for S3DIS's six areas.

folds/NAME/      the table of each fold, as any other
rows.jsonl       the rows over all folds: intersections and unions are added before the mean is taken
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weakseg_ros.benchmark.report import write_report
from weakseg_ros.benchmark.rows import RowFile
from weakseg_ros.benchmark.table import BenchmarkConfig, table
from weakseg_ros.config import dump_yaml
from weakseg_ros.errors import complain, say
from weakseg_ros.files import make_folder, sha256_of_parts, write_atomic

FOLDS, TABLE = "folds", "table.yaml"
Row = dict[str, Any]


def run_folds(config: BenchmarkConfig, run: Callable[[BenchmarkConfig], int]) -> int:
    """Do the table of each fold by `run`, then the one over all; returns the exit code."""
    make_folder(config.out)
    write_atomic(config.out / TABLE, dump_yaml(config))
    failed = max([run(of_fold(config, name)) for name in config.folds])
    if gather_folds(config):
        say(write_report(config.out, config.classes, published=config.published).read_text(encoding="utf-8"))
    return failed


def of_fold(config: BenchmarkConfig, name: str) -> BenchmarkConfig:
    """The table that validates on one fold and trains on the others."""
    others = [other for other in config.folds if other != name]
    asked = {**config.train, "split": "", "val_split": "", "sequences": others, "val_sequences": [name]}
    return dataclasses.replace(config, folds=(), published=(), train=asked, out=config.out / FOLDS / name, step_turns=0)


def gather_folds(config: BenchmarkConfig) -> int:
    """Write the rows over all folds that are finished in each of them, and say which are not; returns how many there are."""
    if not config.folds:
        return 0
    found = {name: RowFile(config.out / FOLDS / name).latest() for name in config.folds}
    file = RowFile(config.out)
    whole = 0
    for asked in table(config):
        parts = [found[name].get(asked.key, {"error": ""}) for name in config.folds]
        lacking = [name for name, part in zip(config.folds, parts, strict=True) if "error" in part]
        if lacking:
            complain(f"{asked.key}: is not finished for {', '.join(lacking)}")
            continue
        whole += 1
        row = joined(asked.key, parts)
        if not file.finished(row["key"], row["settings"], row["data_hash"]):
            file.append(row)
    return whole


def joined(key: str, parts: Sequence[Mapping[str, Any]]) -> Row:
    """The row over all folds of one training a fold."""
    names = list(dict.fromkeys(name for part in parts for name in part["overlaps"]))
    sums = {name: [sum(part["overlaps"].get(name, (0, 0))[i] for part in parts) for i in (0, 1)] for name in names}
    iou = {name: hit / union if union else 0.0 for name, (hit, union) in sums.items()}
    present = [iou[name] for name, (_, union) in sums.items() if union]
    first = parts[0]
    same = {name: first[name] for name in ("method", "variant", "net", "ratio", "seed", "data", "steps", "device", "environment")}
    hashes = ("settings", "data_hash", "labels_hash")
    return {
        **{"key": key, "folds": len(parts), "class_iou": iou, "overlaps": sums, "precision": first.get("precision", "unknown")},
        **{"miou": statistics.fmean(present), "miou_present": statistics.fmean(present)},
        **{name: sha256_of_parts([str(part[name]) for part in parts])[:16] for name in hashes},
        **same,
        "labelled_points": statistics.fmean(part["labelled_points"] for part in parts),
        "wall_s": sum(part["wall_s"] for part in parts),
        "peak_mib": max(part["peak_mib"] for part in parts),
        "step_ms": statistics.fmean(part["step_ms"] for part in parts),
    }
