# SPDX-License-Identifier: Apache-2.0
"""`weakseg compare`: two evaluations, trainings or benchmarks beside each other, and what of them cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from weakseg_ros.config import parse
from weakseg_ros.errors import ConfigError, DataError, counted, say
from weakseg_ros.extras import need
from weakseg_ros.files import check_can_write, make_folder, write_atomic, write_json
from weakseg_ros.measure.evaluation import SUMMARY_FILE
from weakseg_ros.measure.report import templates
from weakseg_ros.measure.sections import group_rows
from weakseg_ros.reads import read_json
from weakseg_ros.yaml_files import read_yaml

PAGE, FIGURES = "compare.html", "compare.json"
BEST, CONFIG, LABELS = "best.json", "config.yaml", "labels.yaml"
NOISE = 5e-4
"""smaller differences of shares are drawn as none"""


@dataclass(frozen=True)
class CompareConfig:
    """Compare two runs of the same kind: two evaluations, two trainings or two benchmarks."""

    first: tyro.conf.Positional[Path]
    """Names the older run: the folder of an evaluation, a training or a benchmark, or its summary.json."""
    second: tyro.conf.Positional[Path]
    """Names the newer run, of the same kind."""
    out: Annotated[Path | None, tyro.conf.arg(name="out")] = None
    """Names the output folder for compare.html and compare.json; without it, the tables are only printed."""


@dataclass(frozen=True)
class Row:
    """One figure of both runs; None where a run does not have it."""

    name: str
    first: float | None
    second: float | None
    better: int = 1
    """1 where more is better, -1 where less is, 0 where neither is"""
    unit: str = ""

    @property
    def change(self) -> float | None:
        """How much the second is more than the first."""
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def verdict(self) -> str:
        """'better', 'worse' or '' for the second run."""
        change = self.change
        if change is None or not self.better or abs(change) < (NOISE if not self.unit else 0.05):
            return ""
        return "better" if change * self.better > 0 else "worse"


@dataclass(frozen=True)
class Table:
    """Rows under a title."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common, and what not."""

    kind: str
    names: tuple[str, str]
    tables: tuple[Table, ...]
    warnings: tuple[str, ...]
    """why figures that stand beside each other do not mean the same"""
    differences: tuple[tuple[str, str, str], ...] = ()
    """settings that differ: name, value of the first, value of the second"""


def main(argv: Sequence[str]) -> int:
    """The verb."""
    config = parse(CompareConfig, argv, "compare")
    if config.out is not None:
        need("jinja2")
        check_can_write(config.out, "--out")
    found = compare(config.first, config.second)
    say(*in_words(found))
    if config.out is not None:
        say(f"page: {write(found, config.out)}")
    return 0


def compare(first: Path, second: Path) -> Comparison:
    """Two runs beside each other; DataError where one is none, or they are of different kinds."""
    (kind, one), (other_kind, other) = _read(first), _read(second)
    if kind != other_kind:
        raise DataError(f"{second}: is a {other_kind}, {first} is a {kind}; compare two of the same kind")
    names = _names(first, second)
    return {"evaluation": _evaluations, "benchmark": _benchmarks, "training": _trainings}[kind](names, one, other)


def _read(path: Path) -> tuple[str, Mapping[str, Any]]:
    """(kind, content) of a run."""
    if (path / CONFIG).is_file() and not (path / SUMMARY_FILE).is_file():
        content = {"best": _json(path / BEST), "settings": read_yaml(path / CONFIG), "labels": _classes_of(path / LABELS)}
        return "training", content | {"environment": _json(path / "environment.json")}
    content = _json(path / SUMMARY_FILE if path.is_dir() else path)
    if {"classes", "bundle", "data_hash", "scans"} <= content.keys():
        return "evaluation", content
    if {"miou", "seeds", "step_ms"} <= content.keys():
        return "benchmark", content
    raise DataError(
        f"{path}: is not a result of 'weakseg evaluate', 'train' or 'benchmark'; give the folder that one of them wrote"
    )


def _classes_of(path: Path) -> list[tuple[Any, ...]]:
    """Name and raw ids of each class of a label map; none where a training kept no map that can be read."""
    try:
        return [(row.get("name"), *row.get("raw_ids", ())) for row in read_yaml(path)["classes"]]
    except (ConfigError, LookupError, TypeError, AttributeError):
        return []


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read ({reason}); give the folder of an evaluation, training or benchmark") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no figures by name; write it again with 'weakseg evaluate'")
    return content


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Short names that tell the two apart."""
    short = [path.parent.name if path.is_file() else path.resolve().name for path in (first, second)]
    return (short[0], short[1]) if short[0] != short[1] else (str(first), str(second))


def _evaluations(names: tuple[str, str], one: Mapping[str, Any], other: Mapping[str, Any]) -> Comparison:
    tables = [
        Table("Overall", tuple(_overall(one, other))),
        Table("IoU by class", tuple(_by_name(_ious(one), _ious(other)))),
        Table("IoU by group of classes", tuple(_by_name(_groups(one), _groups(other)))),
        Table("mIoU by distance", tuple(_by_name(_rings(one), _rings(other)))),
        Table("PQ by class", tuple(_by_name(_pqs(one), _pqs(other)))),
        Table("mIoU by recording", tuple(_by_name(_recordings(one), _recordings(other)))),
        Table("Milliseconds per scan, median", tuple(_by_name(_stages(one), _stages(other), -1, "ms"))),
    ]
    warnings = tuple(_incomparable(one, other))
    is_fair = all(one.get(name) == other.get(name) for name in ("data_hash", "labels", "unanswered"))
    is_fair &= set(one.get("class_iou", {})) == set(other.get("class_iou", {}))
    return Comparison("evaluation", names, _judged(tables, is_fair), warnings, _facts(one, other))


def _overall(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Row]:
    def of(path: str, better: int = 1, name: str = "", unit: str = "") -> Row:
        return Row(name or path, _at(one, path), _at(other, path), better, unit)

    return [
        of("miou_present", name="mIoU of the classes in the scans"),
        of("miou", name="mIoU over all classes"),
        of("accuracy", name="point accuracy"),
        of("unanswered_share", -1, "share of points without a class"),
        of("calibration.ece", -1, "calibration error (ECE)"),
        of("uncertainty_histogram.mean", 0, "mean uncertainty"),
        of("panoptic.pq_present", name="PQ of the classes in the scans"),
        of("panoptic.pq_things", name="PQ of objects"),
        of("tracks.switch_rate", -1, "share of changed ids"),
        of("latency_ms.total.p50", -1, "median time per scan", "ms"),
        of("latency_ms.total.p95", -1, "95th percentile of the time per scan", "ms"),
    ]


def _at(content: Any, path: str) -> float | None:
    for part in path.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return float(content) if isinstance(content, (int, float)) else None


def _ious(run: Mapping[str, Any]) -> dict[str, float]:
    present = run.get("classes_present", ())
    return {name: iou for name, iou in run.get("class_iou", {}).items() if name in present}


def _pqs(run: Mapping[str, Any]) -> dict[str, float]:
    present = run.get("classes_present", ())
    return {name: pq for name, pq in run.get("panoptic", {}).get("class_pq", {}).items() if name in present}


def _groups(run: Mapping[str, Any]) -> dict[str, float]:
    return {row["name"]: row["iou"] for row in group_rows(run)}


def _rings(run: Mapping[str, Any]) -> dict[str, float]:
    rings = run.get("miou_by_range", ())
    return {f"from {ring['from_m']:g} m": ring["miou"] for ring in rings if ring["miou"] is not None}


def _recordings(run: Mapping[str, Any]) -> dict[str, float]:
    return {row["name"]: row["miou_present"] for row in run.get("recordings", ()) if row.get("miou_present") is not None}


def _stages(run: Mapping[str, Any]) -> dict[str, float]:
    return {name: figures["p50"] for name, figures in run.get("latency_ms", {}).items() if name != "total" and "p50" in figures}


def _by_name(one: Mapping[str, Any], other: Mapping[str, Any], better: int = 1, unit: str = "") -> list[Row]:
    return [Row(name, one.get(name), other.get(name), better, unit) for name in dict.fromkeys((*one, *other))]


def _filled(tables: Sequence[Table]) -> tuple[Table, ...]:
    """The tables without rows that neither run has."""
    kept = [Table(table.title, tuple(row for row in table.rows if (row.first, row.second) != (None, None))) for table in tables]
    return tuple(table for table in kept if table.rows)


def _judged(tables: Sequence[Table], is_fair: bool) -> tuple[Table, ...]:
    """The filled tables, where neither run may be called better unless both were asked the same."""
    filled = _filled(tables)
    if is_fair:
        return filled
    return tuple(Table(table.title, tuple(replace(row, better=0) for row in table.rows)) for table in filled)


def _incomparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """One sentence for each reason why the figures of two evaluations do not mean the same."""
    said = []
    if one["data_hash"] != other["data_hash"]:
        what = (
            f"{one['data']['name']}, {counted(one['scans'], 'scan')}, and "
            f"{other['data']['name']}, {counted(other['scans'], 'scan')}"
        )
        said.append(f"The data differ ({what}): a difference may come from the data, so neither is rated better.")
    theirs, ours = (sorted(run.get("class_iou", {})) for run in (other, one))
    if theirs != ours:
        only = [", ".join(sorted(set(a) - set(b))) or "none" for a, b in ((ours, theirs), (theirs, ours))]
        said.append(
            f"The label maps differ (only in the first: {only[0]}; only in the second: {only[1]}), so the mIoUs average "
            "different classes."
        )
    elif one.get("labels") and other.get("labels") and one["labels"] != other["labels"]:
        said.append("The label maps have the same classes with different raw ids, so labels may be counted differently.")
    if one.get("unanswered") != other.get("unanswered"):
        said.append(
            "One run counts points without a class as wrong, the other leaves them out: accuracy and IoU cannot be compared."
        )
    for index, run in enumerate((one, other)):
        if run.get("partial"):
            said.append(f"The {('first', 'second')[index]} run is partial: {run['partial_reason']}")
        if not run.get("labelled_scans"):
            said.append(
                f"The {('first', 'second')[index]} run has no labels: only shares, uncertainty and times can be compared."
            )
    machines = [(run.get("engine"), run.get("environment", {}).get("machine")) for run in (one, other)]
    if machines[0] != machines[1]:
        said.append("Engine or machine differ: the times cannot be compared.")
    return said


def _facts(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    def told(run: Mapping[str, Any]) -> dict[str, str]:
        facts = {"model": run["bundle"]["name"], "model hash": run["bundle"]["hash"][:16], "data": run["data"]["name"]}
        facts |= {"data hash": run["data_hash"][:16], "scans": run["scans"], "engine": run.get("engine", ""), "made": run["made"]}
        return {name: str(value) for name, value in (*facts.items(), *run.get("environment", {}).items())}

    return _differing(told(one), told(other))


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    names = dict.fromkeys((*one, *other))
    return tuple((name, str(one.get(name, "")), str(other.get(name, ""))) for name in names if one.get(name) != other.get(name))


def _benchmarks(names: tuple[str, str], one: Mapping[str, Any], other: Mapping[str, Any]) -> Comparison:
    def flat(run: Mapping[str, Any]) -> dict[str, float]:
        return {f"{line}, {100 * float(ratio):g} %": value for line, by in run["miou"].items() for ratio, value in by.items()}

    tables = [
        Table("mIoU by method and share of labels", tuple(_by_name(flat(one), flat(other)))),
        Table("Milliseconds per training step", tuple(_by_name(one["step_ms"], other["step_ms"], -1, "ms"))),
    ]
    facts = _differing(
        *({key: run.get(key) for key in ("data", "machine", "classes", "seeds", "failed_rows")} for run in (one, other))
    )
    said = {"data": "The data differ", "classes": "The classes of the mean differ", "seeds": "The seeds differ"}
    warnings = tuple(f"{said[name]} ({first or 'all'} and {second or 'all'})." for name, first, second in facts if name in said)
    is_fair = all(one.get(name) == other.get(name) for name in ("data", "classes"))
    return Comparison("benchmark", names, _judged(tables, is_fair), warnings, facts)


def _trainings(names: tuple[str, str], one: Mapping[str, Any], other: Mapping[str, Any]) -> Comparison:
    best, theirs = one["best"], other["best"]
    overall = [
        Row("validation mIoU of the classes in the scans", best.get("miou_present"), theirs.get("miou_present")),
        Row("validation mIoU over all classes", best.get("miou"), theirs.get("miou")),
        Row("validation accuracy", best.get("accuracy"), theirs.get("accuracy")),
        Row("best step", best.get("step"), theirs.get("step"), 0, "steps"),
    ]
    tables = [
        Table("Best validation", tuple(overall)),
        Table("IoU by class", tuple(_by_name(*(b.get("class_iou", {}) for b in (best, theirs))))),
    ]
    scans = [_flat({name: run["environment"].get(name) for name in ("data", "val")}) for run in (one, other)]
    trained, validated = (scans[0].get(f"{name}.hash") == scans[1].get(f"{name}.hash") for name in ("data", "val"))
    same_classes = one["labels"] == other["labels"]
    warnings = [] if trained else ["The two were trained on different scans or labels."]
    warnings += [] if validated else ["The two were validated on different scans, so neither is rated better."]
    warnings += [] if same_classes else ["The label maps differ, so neither is rated better."]
    settings = _differing(_flat(one["settings"]), _flat(other["settings"]))
    return Comparison("training", names, _judged(tables, validated and same_classes), tuple(warnings), settings)


def _flat(settings: Any, before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in (settings or {}).items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat


def text_of(row: Row, value: float | None, signed: bool = False) -> str:
    """A figure as it is written: shares with three digits, times with one."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    digits = 3 if not row.unit else 0 if row.unit == "steps" else 1
    return f"{value:{sign}.{digits}f}" + (f" {row.unit}" if row.unit else "")


def in_words(found: Comparison) -> list[str]:
    """The tables for the screen, with what cannot be compared at their head."""
    lines = [f"note: {warning}" for warning in found.warnings]
    for table in found.tables:
        width = max(len(row.name) for row in table.rows)
        lines += ["", f"{table.title:<{width}}  {found.names[0][-14:]:>14}  {found.names[1][-14:]:>14}  {'change':>12}"]
        for row in table.rows:
            first, second, change = text_of(row, row.first), text_of(row, row.second), text_of(row, row.change, signed=True)
            lines.append(f"{row.name:<{width}}  {first:>14}  {second:>14}  {change:>12}  {row.verdict}".rstrip())
    if found.differences and found.kind != "evaluation":
        lines += ["", "Settings that differ", *(f"  {name}: {first} | {second}" for name, first, second in found.differences)]
    return lines


def write(found: Comparison, out: Path) -> Path:
    """Write compare.html and compare.json into `out`; returns the page's path."""
    make_folder(out)
    write_json(out / FIGURES, _plain(found))
    write_atomic(out / PAGE, page(found))
    return out / PAGE


def _row_of(row: Row) -> dict[str, Any]:
    return {"name": row.name, "first": row.first, "second": row.second, "change": row.change}


def _plain(found: Comparison) -> dict[str, Any]:
    tables = [{"title": table.title, "rows": [_row_of(row) for row in table.rows]} for table in found.tables]
    return {
        "kind": found.kind,
        "names": found.names,
        "warnings": found.warnings,
        "differences": found.differences,
        "tables": tables,
    }


def page(found: Comparison) -> str:
    """The comparison as one HTML file that needs nothing else."""
    return str(templates().get_template("compare.html.j2").render(c=found, text_of=text_of))
