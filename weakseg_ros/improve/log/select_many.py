# SPDX-License-Identifier: Apache-2.0
"""`weakseg select` over many bags or frame logs: an equal share from each, or the best of all under one budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from weakseg_ros.data.fetching import fetched
from weakseg_ros.data.many_bags import MANIFEST, Job, Row, Runner, are_whole, each_bag, names_before, names_of, one_by_one
from weakseg_ros.data.ray_settings import anywhere
from weakseg_ros.data.robots import robot_of
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.choice import pinned
from weakseg_ros.errors import complain, counted
from weakseg_ros.files import sha256_of_parts, write_json
from weakseg_ros.improve.log.select import SelectConfig, Selection, say_why_fewer, select
from weakseg_ros.improve.log.select_together import (
    Choices,
    choose_together,
    kept_choices,
    look_at_bag,
    looks_path,
    open_log,
    write_bag,
)
from weakseg_ros.improve.log.store import check_is_log
from weakseg_ros.measure.inputs import open_input
from weakseg_ros.points.labels import NO_LABELS


def select_many(config: SelectConfig, bags: Sequence[Path], over: Runner = one_by_one) -> tuple[int, bool]:
    """(number of frames chosen, whether every bag could be read whole), with a row for each bag in the log's bags.json.

    A bag that was examined to its end is not examined again.
    """
    bundle = Bundle.load(config.bundle)
    check_is_log(config.out, bundle.labels)
    config = replace(config, engine=pinned(bundle, config.engine)) if config.ray else config
    asked = {"bundle": bundle.content_hash, "settings": str(anywhere(config, out=Path(), data=Path(), more=()))}
    if config.together or config.ray:
        open_log(config.out, bundle)
        return _together(config, bags, over, asked, bundle)
    rows = _equal_shares(config, bags, {**asked, "bags": sha256_of_parts(map(str, bags))})
    return sum(row["frames"] for row in rows if "frames" in row), are_whole(rows)


def _equal_shares(config: SelectConfig, bags: Sequence[Path], asked: Mapping[str, Any]) -> list[Row]:
    """What one bag has too few frames for goes to those after it."""
    done: dict[str, int] = {}

    def work(bag: Path, name: str) -> Row:
        share = (config.frames - sum(done.values())) // (len(bags) - len(done))
        done[name] = 0
        one = replace(config, data=bag, more=(), frames=share or 1)
        # its row is not in the manifest: where its frames are in the log, the call before was ended between the two
        selection = select(one, again=True) if share else _nothing(one)
        say_why_fewer(config, selection)
        return {"complete": not selection.problems, "frames": len(selection.keys), "known": selection.known}

    def line(row: Row) -> str:
        done[row["name"]] = row["frames"]
        return counted(row["frames"], "frame")

    return each_bag(bags, config.out, asked, work, line, fetch=config.fetch)


def _nothing(config: SelectConfig) -> Selection:
    """No frame of a bag that the budget does not reach; DataError where it could not be read either."""
    open_input(config.data, NO_LABELS, config.topic, config.split, reading=config)
    return Selection()


def _together(
    config: SelectConfig, bags: Sequence[Path], over: Runner, asked: Mapping[str, Any], bundle: Bundle
) -> tuple[int, bool]:
    """Look through each bag, choose among the best of all, and write what was chosen of each into one log."""
    robots = {name: robot_of(bag, config.robot) for bag, name in zip(bags, names_of(bags, names_before(config.out)), strict=True)}

    def look(bag: Path, name: str) -> Row:
        return look_at_bag(replace(config, data=bag, more=()), name, f"{robots[name]}/{name}")

    def line(row: Row) -> str:
        return f"{counted(row['scans'], 'scan')} of robot '{robots[row['name']]}' examined"

    def is_there(name: str) -> bool:
        return looks_path(config.out, name).is_file()

    rows = each_bag(bags, config.out, asked, look, line, is_there, over=over, fetch=config.fetch)
    rows = [{**row, "robot": robots[row["name"]]} for row in rows]
    choices = choose_together(config, rows, kept_choices(config.out, asked), asked, bundle)
    written = _write_all(config, rows, choices, over)
    rows = [{**row, "frames": len(choices.get(row["name"], ())), **written.get(row["name"], {})} for row in rows]
    write_json(config.out / MANIFEST, rows)
    return sum(row["frames"] for row in rows), are_whole(rows)


def _write_all(config: SelectConfig, rows: Sequence[Row], choices: Choices, over: Runner) -> dict[str, Row]:
    """Write the chosen frames of each bag; by name what there is to say of a bag whose frames could not all be written."""

    places = {row["name"]: f"{row['robot']}/{row['name']}" for row in rows}

    def write(bag: Path, name: str) -> Row:
        return write_bag(replace(config, data=bag, more=()), places[name], choices[name])

    jobs = [Job(Path(row["bag"]), row["name"]) for row in rows if choices.get(row["name"])]
    work = fetched(write, config.fetch) if config.fetch else write
    said: dict[str, Row] = {}
    for job, row in over(work, jobs):
        if "problem" in row:
            complain(f"{job.name}: its frames could not be written: {row['problem']}")
            said[job.name] = {"frames": 0, "complete": False, "problem": row["problem"]}
        elif row["frames"] < len(choices[job.name]):
            said[job.name] = {"frames": row["frames"], "complete": False}
    return said
