# SPDX-License-Identifier: Apache-2.0
"""A report in words: the verdict in one sentence, and what to do next, from the figures of a summary.

The thresholds are rules of thumb for street scenes, stated in the report beside the words they choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weakseg_ros.errors import counted

GOOD_IOU, FAIR_IOU = 0.6, 0.4
RARE_SHARE = 1e-3
HIGH_ECE = 0.08
FAR_DROP = 0.6
MUCH_UNANSWERED = 0.05
RIGHT_ENOUGH = 0.5
SENSOR_PERIOD_MS = 100.0
NAMES_IN_A_LIST = 4
WEAK_CLASSES = 3


@dataclass(frozen=True)
class Verdict:
    """The first thing a reader sees; `level` is good, fair, poor, or none where nothing was labelled."""

    level: str
    headline: str
    detail: str


@dataclass(frozen=True)
class Step:
    """One thing to do next: why, and a command where there is one."""

    text: str
    command: str = ""


def verdict(summary: Mapping[str, Any]) -> Verdict:
    """One sentence on quality, one on speed; a wrong frame or unit of the clouds comes before both."""
    wrong = summary.get("wrong_geometry")
    if wrong:
        return Verdict("poor", f"The clouds are not suitable for a model: {wrong[0]}.", _speed(summary))
    doubt = not_to_trust(summary)
    if doubt:
        return Verdict("poor", f"Do not rely on these answers: {doubt}.", _speed(summary))
    if not summary["labelled_scans"]:
        return _verdict_without_truth(summary)
    miou, present = summary["miou_present"], summary["classes_present"]
    level, word = _grade(miou)
    rows = {row["name"]: row["iou"] for row in summary["classes"] if row["name"] in present}
    strong = [name for name, iou in rows.items() if iou >= GOOD_IOU]
    weak = [name for name, iou in rows.items() if iou < FAIR_IOU]
    parts = [f"reliable on {_listed(strong)}"] if strong else []
    parts += [f"unreliable on {_listed(weak)}"] if weak else []
    about = f": {', '.join(parts)}" if parts else ""
    silent = summary["unanswered_share"]
    if silent > MUCH_UNANSWERED:
        level, word = "poor", f"Not suitable for this sensor: {_percent(silent)} of the labelled points get no class"
    detail = f"{_percent(summary['accuracy'])} of the labelled points are correct. {_speed(summary)}"
    return Verdict(level, f"{word}{about}.", detail.strip())


def not_to_trust(summary: Mapping[str, Any]) -> str:
    """A clause on a fit so low that nothing is to be built on the answers, or nothing; labels that say otherwise overrule it."""
    fit = summary.get("fit")
    if not fit or not fit["low"] or (summary["labelled_scans"] and summary["accuracy"] >= RIGHT_ENOUGH):
        return ""
    why = f" ({'; '.join(fit['reasons'])})" if fit["reasons"] else ""
    return f"the model's fit to these clouds is {fit['value']:.2f} of 1{why}"


def not_answered(silent: int, scans: int) -> str:
    """A sentence on scans of which no point gets a class."""
    share = f"{silent} of {counted(scans, 'scan')}" if silent < scans else counted(scans, "scan")
    return f"no point of {share} gets a class; 'weakseg doctor --data' looks at the clouds"


def next_steps(summary: Mapping[str, Any], bundle: str, data: str) -> list[Step]:
    """What a reader would do about the weakest figure first, with the commands."""
    steps: list[Step] = []
    if summary["partial"]:
        steps.append(Step(f"Repair the data first: {summary['partial_reason']}"))
    steps += [Step(f"Check the sensor: {sentence}") for sentence in summary["domain"]]
    steps += _steps_on_silence(summary)
    steps += _steps_on_classes(summary) if summary["labelled_scans"] else _steps_without_truth(summary, bundle, data)
    if _p95(summary) > SENSOR_PERIOD_MS:
        steps.append(
            Step(
                f"Make it faster: 5 % of the scans take longer than {_p95(summary):.0f} ms, but a 10 Hz sensor allows 100 ms; "
                "docs/robot.md lists what helps."
            )
        )
    if "live" not in summary:
        steps.append(
            Step("Evaluate the same data through a running node, over DDS.", f"weakseg evaluate {data} --bundle {bundle} --live")
        )
    steps.append(Step("Label a live sensor with this model.", f"weakseg node --bundle {bundle}"))
    return steps


def _steps_on_silence(summary: Mapping[str, Any]) -> list[Step]:
    outside = summary["points_without_class"]["out_of_range"] / max(1, summary["points"])
    if outside <= MUCH_UNANSWERED:
        return []
    text = f"Train for this sensor: {_percent(outside)} of its points lie outside the model's range image and get no class"
    return [Step(f"{text}; 'weakseg train' widens it with --fov-up-deg and --fov-down-deg.")]


def _verdict_without_truth(summary: Mapping[str, Any]) -> Verdict:
    largest = sorted(summary["classes"], key=lambda row: -row["predicted_share"])[:3]
    shares = ", ".join(f"{row['name']} {_percent(row['predicted_share'])}" for row in largest)
    unsure = summary["uncertainty_histogram"]["share_above_half"]
    headline = (
        f"No labels to compare with: the model sees mostly {shares}, and is uncertain about {_percent(unsure)} of the points."
    )
    return Verdict("none", headline, _speed(summary))


def _grade(miou: float) -> tuple[str, str]:
    if miou >= GOOD_IOU:
        return "good", "A good model for these scans"
    if miou >= FAIR_IOU:
        return "fair", "A usable model with gaps"
    return "poor", "Not yet a usable model"


def _speed(summary: Mapping[str, Any]) -> str:
    p95 = _p95(summary)
    if not p95:
        return ""
    keeps = "keeps up with" if p95 <= SENSOR_PERIOD_MS else "falls behind"
    way = "from publishing a cloud to its answer" if "live" in summary else "per scan"
    return f"It {keeps} a 10 Hz sensor: 95 % of the scans take at most {p95:.0f} ms {way}."


def _p95(summary: Mapping[str, Any]) -> float:
    """In ms, without the first scan, on which the engine warms up; 0 where nothing else was measured."""
    measured = summary["live"]["latency_ms"] if "live" in summary else summary["latency_warm_ms"]
    return float(measured.get("p95", 0.0))


def _steps_on_classes(summary: Mapping[str, Any]) -> list[Step]:
    steps = []
    rows = [row for row in summary["classes"] if row["name"] in summary["classes_present"]]
    weak = sorted((row for row in rows if row["iou"] < FAIR_IOU), key=lambda row: float(row["iou"]))
    if weak:
        steps.append(Step(_about_weak_classes(weak[:WEAK_CLASSES], rows)))
    ece = summary["calibration"]["ece"]
    if ece > HIGH_ECE:
        off = f"Treat the confidence with care: it is off by {_percent(ece)} on average"
        steps.append(Step(f"{off}; export again with validation data like this."))
    near, far = summary["miou_by_range"][0]["miou"], summary["miou_by_range"][-1]["miou"]
    if near and far is not None and far < FAR_DROP * near:
        start = summary["miou_by_range"][-1]["from_m"]
        steps.append(Step(f"Trust near points more: beyond {start:g} m the mIoU falls from {near:.2f} to {far:.2f}."))
    return steps


def _about_weak_classes(weak: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    total = max(1, sum(row["truth_points"] for row in rows))
    taken = [
        f"{_percent(row['taken_for']['share'])} of {row['name']} is classified as {row['taken_for']['name']}"
        for row in weak
        if row["taken_for"]
    ]
    text = f"Label more of {_listed([row['name'] for row in weak])}{': ' if taken else ''}{', '.join(taken)}."
    rare = [row["name"] for row in weak if row["truth_points"] < RARE_SHARE * total]
    if rare:
        verb = "is" if len(rare) == 1 else "are"
        below = f"below {_percent(RARE_SHARE, 1)} of the points"
        text += f" {_listed(rare).capitalize()} {verb} rare here, {below}: choose scans that show more."
    return text


def _steps_without_truth(summary: Mapping[str, Any], bundle: str, data: str) -> list[Step]:
    unsure = [scan["key"] for scan in summary["worst"]]
    if not unsure:
        return []
    text = f"Label a few points in scans where the model is uncertain, such as {_listed(unsure)}. This selects them"
    return [Step(f"{text}; 'weakseg label frames' then opens the page.", f"weakseg select {data} --bundle {bundle} --out frames")]


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:NAMES_IN_A_LIST])
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
