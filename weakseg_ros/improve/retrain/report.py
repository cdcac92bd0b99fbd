# SPDX-License-Identifier: Apache-2.0
"""The report of a retraining as Markdown: what was learnt from, what became better, and why it is deployed or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weakseg_ros.errors import counted


def render(summary: Mapping[str, Any]) -> str:
    """The report's text from the summary that `weakseg retrain` writes as JSON."""
    return "\n\n".join([_head(summary), _figures(summary), _classes(summary), _gate(summary), _data(summary)]) + "\n"


def _head(summary: Mapping[str, Any]) -> str:
    new, old = summary["bundle"], summary["from"]
    verdict = "passed the gate" if summary["passed"] else f"refused: {'; '.join(summary['failed'])}"
    return (
        f"# {new['name']}: {verdict}\n\n"
        f"Fine-tuned from {old['name']} (`{old['hash'][:12]}`) with {counted(summary['data']['clicks'], 'click')} on "
        f"{counted(summary['data']['new']['scans'], 'frame')}."
    )


def _figures(summary: Mapping[str, Any]) -> str:
    before, after = summary["before"], summary["after"]
    rows = []
    for part, title in (("regression", "regression set"), ("clicks", "held-out clicks")):
        for name, label in (("miou", "mIoU"), ("right", "point accuracy"), ("pq", "PQ")):
            if before[part][name] is not None:
                rows.append(f"| {label}, {title} | {before[part][name]:.3f} | {after[part][name]:.3f} |")
    rows.append(f"| latency, ms a scan | {before['latency_ms']:.2f} | {after['latency_ms']:.2f} |")
    return "\n".join(["| | before | after |", "|---|---|---|", *rows])


def _classes(summary: Mapping[str, Any]) -> str:
    before, after = (summary[when]["regression"] for when in ("before", "after"))
    clicks = summary["before"]["clicks"]["class_points"], summary["before"]["clicks"]["class_iou"]
    newer = summary["after"]["clicks"]["class_iou"]
    names = list(dict.fromkeys([*before["class_iou"], *clicks[0]]))
    rows = [
        f"| {name} | {_cell(before['class_iou'], name)} | {_cell(after['class_iou'], name)} | {_cell(clicks[1], name)} | "
        f"{_cell(newer, name)} | {clicks[0].get(name, 0)} |"
        for name in names
    ]
    head = "| IoU | regression before | after | held-out clicks before | after | clicks |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def _cell(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.3f}" if name in values else "-"


def _gate(summary: Mapping[str, Any]) -> str:
    lines = ["## The gate", ""]
    for check in summary["checks"]:
        mark = "ok" if check["passed"] else "**refused**"
        due = f"{check['bound']} {check['limit']:.3f} is required"
        lines.append(f"- {mark}: {check['name']}, {check['before']:.3f} to {check['after']:.3f}, {due}")
    lines += [f"- not checked: {sentence}" for sentence in summary["unasked"]]
    return "\n".join(lines)


def _data(summary: Mapping[str, Any]) -> str:
    data = summary["data"]
    lines = ["## Data", ""]
    for name in ("new", "held_out", "replay", "regression"):
        part = data[name]
        text = f"{counted(part['scans'], 'scan')} of {part['name']} (hash `{part['hash'][:12]}`)" if part else "none"
        lines.append(f"- {name.replace('_', ' ')}: {text}")
    lines.append(f"- held out by a hash of their names: {', '.join(data['held_out_frames'])}")
    lines += [f"- note: {problem}" for problem in data["problems"]]
    made = ", ".join(f"{name} {value}" for name, value in summary["environment"].items())
    return "\n".join([*lines, "", f"Seed {summary['seed']}; {made}."])
