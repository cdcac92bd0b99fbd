# SPDX-License-Identifier: Apache-2.0
"""`weakseg fleet`: one page over the bags of many robots, with a row for each, drift, and what to label next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from weakseg_ros.config import parse
from weakseg_ros.deploy.fit import LOW
from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError, counted, say
from weakseg_ros.extras import need
from weakseg_ros.files import check_can_write, make_folder, write_atomic, write_json
from weakseg_ros.fleet.charts import clock, color_of, lines_over_time, map_of, span
from weakseg_ros.fleet.config import FleetConfig
from weakseg_ros.fleet.figures import fleet_figures
from weakseg_ros.measure.report import templates
from weakseg_ros.measure.verdict import Step, Verdict

PAGE, FIGURES = "fleet.html", "fleet.json"
NAMES_SHOWN = 5
SHARE_OF_DROPS = 0.05
"""of the clouds, from which on missing ones are worth a word"""


def main(argv: Sequence[str]) -> int:
    """The verb; exit code 1 where bags could not be read."""
    config = parse(FleetConfig, argv, "fleet")
    if config.run == Path():
        raise DataError("no evaluation is given; name the folder that 'weakseg evaluate BAGS... --out FOLDER' wrote")
    page, found = write_report(config)
    say(in_words(found).headline)
    for sentence in found["time"]["said"]:
        say(sentence)
    say(f"report: {page}")
    return 1 if any(bag["problem"] for bag in found["bags"]) else 0


def write_report(config: FleetConfig) -> tuple[Path, dict[str, Any]]:
    """Write fleet.html and fleet.json; returns (path of the page, figures)."""
    need("jinja2")
    check_can_write(config.out, "--out")
    found = {"made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), **fleet_figures(config)}
    make_folder(config.out)
    write_json(config.out / FIGURES, {**found, "environment": environment()})
    write_atomic(config.out / PAGE, _page(found))
    return config.out / PAGE, found


def _page(found: Mapping[str, Any]) -> str:
    robots = found["time"]["robots"]
    return str(
        templates()
        .get_template("fleet.html.j2")
        .render(
            f=found,
            verdict=in_words(found),
            steps=_next_steps(found),
            uncertainty=lines_over_time(robots, "uncertainty"),
            right=lines_over_time(robots, "right"),
            places=map_of(found["places"]["cells"], found["places"]["cell_m"]),
            colors={row["name"]: color_of(number) for number, row in enumerate(found["robots"])},
            clock=clock,
            span=span,
            link=quote,
        )
    )


def in_words(found: Mapping[str, Any]) -> Verdict:
    """The fleet in one sentence, and what is wrong in it."""
    bags, robots = found["bags"], found["robots"]
    judged = [row for row in robots if row["miou"] is not None]
    headline = f"{counted(len(bags), 'bag')} of {counted(len(robots), 'robot')}, {counted(found['scans'], 'scan')}"
    if judged:
        worst, best = (choose(judged, key=lambda row: row["miou"]) for choose in (min, max))
        headline += f": mIoU from {worst['miou']:.3f} ({worst['name']}) to {best['miou']:.3f} ({best['name']})"
    misfits = [row["name"] for row in robots if row["fit"] is not None and row["fit"] < LOW]
    unread = [bag["name"] for bag in bags if bag["problem"]]
    dropping = [row["name"] for row in robots if row["missing_share"] > SHARE_OF_DROPS]
    parts = [f"The model does not fit the clouds of {_some(misfits)}."] if misfits else []
    number = "One bag" if len(unread) == 1 else f"{len(unread)} bags"
    parts += [f"{number} could not be evaluated: {_some(unread)}."] if unread else []
    parts += [f"More than {SHARE_OF_DROPS:.0%} of the clouds of {_some(dropping)} are missing."] if dropping else []
    parts += [f"{sentence}." for sentence in found["time"]["said"][:NAMES_SHOWN]]
    level = "poor" if misfits else "fair" if parts else "good"
    return Verdict(level, headline, " ".join(parts) or "Every bag was read, the model fits all robots, and no drift was found.")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _next_steps(found: Mapping[str, Any]) -> list[Step]:
    """From here to a better model, with the commands."""
    bundle, queue = found["bundle"]["folder"], found["queue"]
    steps = []
    if any(bag["problem"] for bag in found["bags"]):
        steps.append(Step("Give the same evaluate command again: only the bags that could not be read are tried again."))
    if queue is None:
        choose = f"weakseg select BAGS... --bundle {bundle} --together --frames 50 --out runs/select"
        return [*steps, Step("Select the most valuable frames over all robots under one budget.", choose)]
    left = queue["frames"] - queue["clicked"]
    steps.append(
        Step(
            f"Label the {counted(left, 'frame')} that nobody has clicked yet, the most valuable first.",
            f"weakseg label {queue['log']}",
        )
    )
    retrain = f"weakseg retrain --frames {queue['log']} --bundle {bundle}"
    return [*steps, Step("Fine-tune the model with the clicks; the gate decides about it.", retrain)]
