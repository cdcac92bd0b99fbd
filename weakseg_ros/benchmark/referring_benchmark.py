# SPDX-License-Identifier: Apache-2.0
"""`weakseg benchmark` with a table of referring segmentation: a net on points describes the scenes, then one head a row.

net/             the run and the bundle of the net, where none was named
rows.jsonl       one line for each finished row
benchmark.md     what the rows say, with the paper's gain beside ours
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import numpy as np

from weakseg_ros.benchmark.benchmark import begin_or_continue
from weakseg_ros.benchmark.referring_report import write_report
from weakseg_ros.benchmark.referring_scenes import SceneData, descriptions_of, hash_of, open_scenes
from weakseg_ros.benchmark.referring_table import ReferringRow, ReferringTable, rows_of
from weakseg_ros.benchmark.rows import RowFile
from weakseg_ros.benchmark.table import BenchmarkConfig, base_settings
from weakseg_ros.config import dump_yaml
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.bundle_place import INFO_FILE
from weakseg_ros.environment import environment
from weakseg_ros.errors import say
from weakseg_ros.files import make_folder, write_atomic
from weakseg_ros.locks import alone, in_turn
from weakseg_ros.progress import Progress
from weakseg_ros.train.export import export_run
from weakseg_ros.train.referring import begin, draw_labelled, evaluate, train
from weakseg_ros.train.referring_data import Views
from weakseg_ros.train.train import train as train_net
from weakseg_ros.train.training_data import open_data

log = logging.getLogger(__name__)

TABLE = "table.yaml"


def run(config: ReferringTable) -> int:
    """Do what `weakseg benchmark` was asked for; returns its exit code."""
    if not config.report_only:
        expressions = descriptions_of(config.data, config.descriptions)
        make_folder(config.out)
        write_atomic(config.out / TABLE, dump_yaml(config))
        bundle = net_of(config)
        scenes = open_scenes(config.data, expressions, bundle)
        train_rows(config, scenes, bundle)
    say(write_report(config.out, config.published).read_text(encoding="utf-8"))
    return 0


def net_of(config: ReferringTable) -> Bundle:
    """The bundle whose answers describe the scenes: the one that is named, or one trained by the first process that needs it."""
    if config.bundle:
        return Bundle.load(config.bundle)
    folder = config.out / "net" / "bundle"
    with in_turn(config.out / ".net.lock"):
        if not (folder / INFO_FILE).is_file():
            asked = BenchmarkConfig(data=config.data, base=config.base, override=config.override)
            settings = dataclasses.replace(base_settings(asked), out=config.out / "net" / "run")
            made = train_net(begin_or_continue(settings, open_data(settings)[0]))
            export_run(made.path, folder)
    return Bundle.load(folder)


def train_rows(config: ReferringTable, scenes: dict[str, SceneData], bundle: Bundle) -> None:
    """Train the rows that are not finished."""
    file, data_hash = RowFile(config.out), hash_of(scenes, bundle)
    for row in Progress(list(rows_of(config)), what="benchmark", unit="row"):
        with alone(config.out / f".{row.key}.lock") as mine:
            if not mine:
                log.info("%s: another process is training this row, so it is skipped", row.key)
            elif not file.finished(row.key, row.settings_hash, data_hash):
                file.append({**_trained(row, scenes, bundle), "data": config.data.resolve().name, "data_hash": data_hash})


def _trained(row: ReferringRow, scenes: dict[str, SceneData], bundle: Bundle) -> dict[str, Any]:
    """The line of one row; the teacher is measured, on ScanRefer's own validation descriptions."""
    asked, started = row.training, time.monotonic()
    data, words = scenes["train"], scenes["train"].vocabulary()
    masks = draw_labelled(data, asked.ratio, asked.seed)
    state = begin(data, bundle.num_classes, asked, words)
    train(state, Views(data, words, np.random.default_rng(asked.seed)), masks, asked, asked.steps)
    measured = evaluate(state.teacher, Views(scenes["val"], words, np.random.default_rng(0)))
    facts = {"key": row.key, "method": asked.method, "ratio": asked.ratio, "seed": asked.seed, "settings": row.settings_hash}
    spent = {"masks": len(masks), "steps": asked.steps, "wall_s": round(time.monotonic() - started, 1)}
    return {**facts, **measured, **spent, "bundle": bundle.content_hash, "environment": environment()}
