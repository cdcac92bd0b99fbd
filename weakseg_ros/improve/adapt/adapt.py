# SPDX-License-Identifier: Apache-2.0
"""`weakseg adapt`: a bundle learns from a user's own clouds, without a label, and is written where a guard lets it pass.

1. the clouds are read, and some kept for the guard; a bundle that does not fit them is named, and not self-trained
2. normalisation and BatchNorm statistics are re-estimated
3. a student learns from its slow teacher on mixed views of the clouds; the best teacher by the guard's measure is kept
4. the guard compares it with the bundle it began from; what passes is exported as every bundle is
"""

from __future__ import annotations

import dataclasses
import logging
import shlex
from typing import Any

from weakseg_ros.config import dump_yaml
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError, complain, counted, say
from weakseg_ros.extras import need
from weakseg_ros.files import check_can_write, make_folder, put_in_place, staged, write_atomic, write_json
from weakseg_ros.improve.adapt.clouds import UserClouds, read_clouds
from weakseg_ros.improve.adapt.config import AdaptConfig
from weakseg_ros.improve.adapt.report import render
from weakseg_ros.improve.adapt.verdict import domain_of, misfits, refusals
from weakseg_ros.memory import keep_large_blocks
from weakseg_ros.train.adapted import Adaptation, adapt_net, export_adapted, watch
from weakseg_ros.train.export import options_of
from weakseg_ros.train.outputs import check_bundle_place, still_free
from weakseg_ros.train.self_training import Look

log = logging.getLogger(__name__)

EXIT_REFUSED = 1
REPORT, SUMMARY, SETTINGS = "report.html", "summary.json", "adapt.yaml"
ELSEWHERE = ("data", "out", "overwrite", "report")
"""settings that say where it is done, not what"""


def run(config: AdaptConfig) -> int:
    """Do what `weakseg adapt` was asked for; returns its exit code."""
    summary = adapt(config)
    first, last = summary["before"], summary["after"]
    say(f"agreement with {summary['from']['name']}: {last['agreement']:.1%} of the points")
    say(f"stability under rotation: {first['steadiness']:.3f} before, {last['steadiness']:.3f} after")
    say(f"report: {config.report / REPORT}")
    for sentence in summary["domain"]:
        say(f"check the sensor: {sentence}")
    if summary["refused"]:
        for sentence in summary["refused"]:
            complain(f"weakseg adapt: refused, {sentence}")
        complain(f"weakseg adapt: {config.out} is not written, and {config.bundle} is unchanged")
        return EXIT_REFUSED
    say(f"{config.out}: adapted from {summary['from']['name']}")
    if summary["misfits"]:
        complain(f"weakseg adapt: {_loud(config, summary['misfits'])}; label some frames and retrain")
    return 0


def adapt(config: AdaptConfig) -> dict[str, Any]:
    """Adapt the bundle, and write it, the report and the summary; the bundle that it began from is only read.

    Returns the summary, whose `refused` says why the adapted bundle was not written. Raises DataError where too few clouds
    can be read, or the bundle does not fit them and `unfit` is not set; EngineError where the bundle holds no weights.
    """
    need("torch", "jinja2")
    keep_large_blocks()
    check_bundle_place(config.out, config.overwrite, "--out")
    check_can_write(config.report, "--report")
    old = Bundle.load(config.bundle)
    old.info.refuse_points("weakseg adapt")
    clouds = read_clouds(config)
    for problem in clouds.problems[:5]:
        log.warning("left out: %s", problem)
    domain, wrong = domain_of(old, clouds.guard, config.intensity_scale)
    watched = watch(old, clouds.train, clouds.guard, config, config.intensity_scale)
    unfit = misfits(watched.source, old.labels.names, wrong)
    if unfit and not config.unfit:
        raise DataError(
            f"{_loud(config, unfit)}, so self-training would reinforce its own mistakes; 'weakseg doctor --data' says what to "
            "set, and --unfit runs it anyway"
        )
    complain(*opening(config, old, clouds))
    adapted = adapt_net(watched, config)
    refused = refusals(watched.source, adapted.after, old.labels.names, config)
    summary = _summary(config, watched.source, clouds, adapted, old)
    summary |= {"domain": domain, "misfits": unfit, "refused": refused}
    if refused:
        _write_report(config, summary)
        return summary
    facts = {"adapted_from": old.content_hash, "adapted_clouds": len(clouds.train), "agreement": adapted.after.agreement}
    with staged(config.out) as fresh:
        bundle = fresh / config.out.absolute().name
        export_adapted(adapted, watched, bundle, facts, command_of(config))
        _write_report(config, summary)
        put_in_place(bundle, still_free(config.out, config.overwrite))  # last: with it there, the same command is refused
    return summary


def _write_report(config: AdaptConfig, summary: dict[str, Any]) -> None:
    make_folder(config.report)
    write_atomic(config.report / SETTINGS, dump_yaml(config))
    write_json(config.report / SUMMARY, summary)
    write_atomic(config.report / REPORT, render(summary))


def opening(config: AdaptConfig, old: Bundle, clouds: UserClouds) -> list[str]:
    """Four lines: model, clouds, how long, where it is written."""
    limit = f", at most {counted(config.max_minutes, 'minute', spec='g')}" if config.max_minutes else ""
    return [
        f"adapts {old.name} ({old.content_hash[:12]}) from {old.folder}, without labels",
        f"to {len(clouds.train)} of {counted(clouds.found, 'cloud')} of {', '.join(clouds.names)}; "
        f"the guard watches {len(clouds.guard)}",
        f"{counted(config.steps, 'step')} of {counted(config.batch_size, 'crop')}{limit}"
        if config.steps
        else "statistics only, no self-training",
        f"the adapted bundle will be {config.out}, and the report {config.report / REPORT}",
    ]


def command_of(config: AdaptConfig) -> str:
    """The command line that repeats the adaptation: where the clouds are, and every setting that is not the default."""
    data = shlex.join(str(path.absolute()) for path in config.data)
    return " ".join(["weakseg adapt", data, *options_of(config, AdaptConfig(), ELSEWHERE)])


def _loud(config: AdaptConfig, unfit: list[str]) -> str:
    return f"{config.bundle}: THIS MODEL DOES NOT FIT THESE CLOUDS: {'; '.join(unfit)}"


def _summary(config: AdaptConfig, before: Look, clouds: UserClouds, adapted: Adaptation, old: Bundle) -> dict[str, Any]:
    after, trace = adapted.after, adapted.trace
    shares = zip(old.labels.names[1:], before.class_share[1:], after.class_share[1:], strict=True)
    return {
        "from": {"name": old.name, "hash": old.content_hash, "folder": str(old.folder)},
        "out": str(config.out),
        "before": _figures(before),
        "after": _figures(after),
        "classes": [{"name": name, "before": was, "after": now} for name, was, now in shares],
        "looks": [_figures(look) for look in trace.looks],
        "steps": trace.steps,
        "seconds": round(trace.seconds, 1),
        "stopped": trace.stopped,
        "data": {
            "names": list(clouds.names),
            "hash": clouds.content_hash,
            "clouds": clouds.found,
            "adapted_to": len(clouds.train),
            "guard": len(clouds.guard),
            "problems": list(clouds.problems),
        },
        "normalise": config.normalise,
        "statistics_share": config.statistics_share,
        "seed": config.seed,
        "environment": environment(),
    }


def _figures(look: Look) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(look).items() if key != "class_share"}
