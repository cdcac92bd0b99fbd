# SPDX-License-Identifier: Apache-2.0
"""One evaluation over many bags: each in a folder of its own, resumed where it was left, added up in one report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from weakseg_ros.data.many_bags import Row, Runner, each_bag, one_by_one
from weakseg_ros.data.ray_settings import anywhere
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.choice import pinned
from weakseg_ros.errors import counted
from weakseg_ros.measure.evaluation import SUMMARY_FILE
from weakseg_ros.measure.merge import merge

FIGURES = ("scans", "points", "miou_present", "accuracy", "partial_reason")


def evaluate_many(
    config: Any, bags: Sequence[Path], evaluate: Callable[[Any], object], over: Runner = one_by_one
) -> tuple[Path, dict[str, Any]]:
    """Evaluate each of `bags` with the settings of `config` into `config.out`/NAME, then merge them into `config.out`.

    A bag that was evaluated whole with this bundle and these settings is not evaluated again; see `many_bags.each_bag`. One
    that cannot be read makes the whole result partial. Raises DataError where none can be read.
    """
    bundle = Bundle.load(config.bundle)
    config = dataclasses.replace(config, engine=pinned(bundle, config.engine)) if config.ray else config
    asked = {"bundle": bundle.content_hash, "settings": str(anywhere(config, out=Path(), data=Path(), more=()))}

    def work(bag: Path, name: str) -> Row:
        shard = name.rpartition("/")[2].replace("of", "/") if config.parts > 1 else config.shard
        evaluate(dataclasses.replace(config, data=bag, more=(), out=config.out / name, shard=shard, parts=1))
        summary = json.loads((config.out / name / SUMMARY_FILE).read_text(encoding="utf-8"))
        figures = {key: summary[key] for key in FIGURES if key in summary}
        return {"complete": not summary["partial"], "domain": summary["domain"], "fit": summary["fit"], **figures}

    def is_there(name: str) -> bool:
        return bool((config.out / name / SUMMARY_FILE).is_file())

    rows = each_bag(bags, config.out, asked, work, _line, is_there, over=over, fetch=config.fetch, parts=config.parts)
    done = [config.out / row["name"] for row in rows if "problem" not in row]
    notes = [f"{row['name']}: {_line(row)}" for row in rows]
    return merge(done, config.out, notes, [row["problem"] for row in rows if "problem" in row])


def _line(row: Row) -> str:
    again = f"; attempt {row['attempts']}: {row['failures'][-1]}" if row.get("failures") else ""
    if "problem" in row:
        return f"not evaluated: {row['problem']}{again}"
    measured = f", mIoU {row['miou_present']:.3f}" if "miou_present" in row else ""
    partial = f", partial: {row['partial_reason']}" if row.get("partial_reason") else ""
    sensor = f"; {row['domain'][0]}" if row.get("domain") else ""
    sensor += f"; fit {row['fit']['value']:.2f} of 1" if row.get("fit") else ""
    return f"{counted(row['scans'], 'scan')}{measured}{partial}{sensor}{again}"
