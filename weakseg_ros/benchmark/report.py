# SPDX-License-Identifier: Apache-2.0
"""The report of a benchmark: benchmark.md, benchmark.png, benchmark.tex, benchmark.csv and summary.json."""

from __future__ import annotations

import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weakseg_ros.benchmark.paired import ENOUGH_SEEDS, LEVEL, Paired, paired
from weakseg_ros.benchmark.published import Published
from weakseg_ros.benchmark.rows import ROWS, RowFile, Wanted
from weakseg_ros.benchmark.tables import Entry, beside, write_tables
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import make_folder, write_atomic, write_json

REPORT, PICTURE, SUMMARY, STEPS = "benchmark.md", "benchmark.png", "summary.json", "steps.json"
BASELINE = "supervised"
VARIANTS_PICTURE = "variants.png"
"""the baseline and its variants alone"""


@dataclass(frozen=True)
class Line:
    """One line of the report's tables: a method, perhaps a variant of it, with a net."""

    method: str
    variant: str
    net: str

    @property
    def name(self) -> str:
        return f"{self.method}/{self.variant}" if self.variant else self.method


Cells = dict[tuple[Line, float], dict[int, dict[str, Any]]]
"""by line and ratio, by seed, the row"""
StepTimes = dict[str, dict[str, dict[str, float]]]
"""by net and method: `ms` of a step, and its `share`, the ratio to the supervised one"""


def write_report(
    folder: Path, classes: Sequence[str] = (), wanted: Wanted | None = None, published: Sequence[Published] = ()
) -> Path:
    """Write the files from `rows.jsonl` and return the path of the markdown one.

    `classes` are those whose IoUs are averaged; none: those that occur in the validation scans. `wanted` leaves out the rows
    of other settings or data; `published` figures are set beside the rows. Raises DataError without a finished row.
    """
    latest = RowFile(folder).latest(wanted).values()
    rows = [row for row in latest if "error" not in row]
    failures = [row for row in latest if "error" in row]
    if not rows:
        said = f"; the first failure: {failures[0]['error'].splitlines()[-1]}" if failures else ""
        raise DataError(f"{folder / ROWS}: holds no finished row{said}")
    rows = [{**row, "miou": _mean_iou(row, classes)} for row in rows]
    cells: Cells = {}
    for row in rows:
        cells.setdefault((Line(row["method"], row["variant"], row["net"]), row["ratio"]), {})[row["seed"]] = row
    measured = json.loads((folder / STEPS).read_text(encoding="utf-8"))["nets"] if (folder / STEPS).is_file() else {}
    make_folder(folder)
    write_json(folder / SUMMARY, _summary(cells, classes, len(failures), measured))
    _draw(folder / PICTURE, cells, [line for line in _lines(cells) if not line.variant])
    with_variants = [line for line in _lines(cells) if line.method == BASELINE]
    if any(line.variant for line in with_variants):
        _draw(folder / VARIANTS_PICTURE, cells, with_variants)
    write_tables(folder, _entries(cells), published)
    parts = [
        _head(rows, failures, classes),
        _main_table(cells),
        _published_table(cells, published),
        _variants_table(cells),
        _against_baseline(cells),
        _class_table(cells),
        _cost_table(cells, measured),
    ]
    write_atomic(folder / REPORT, "\n\n".join(filter(None, parts)) + "\n")
    return folder / REPORT


def _entries(cells: Cells) -> list[Entry]:
    return [
        Entry(
            line.name,
            line.net,
            ratio,
            tuple(row["miou"] for row in rows.values()),
            statistics.fmean(row["labelled_points"] for row in rows.values()),
        )
        for (line, ratio), rows in sorted(cells.items(), key=lambda item: -item[0][1])
    ]


def _mean_iou(row: dict[str, Any], classes: Sequence[str]) -> float:
    if not classes:
        return float(row["miou_present"])
    unknown = [name for name in classes if name not in row["class_iou"]]
    if unknown:
        raise DataError(f"classes: {row['key']} has no {', '.join(unknown)}; it has {', '.join(row['class_iou'])}")
    return statistics.fmean(row["class_iou"][name] for name in classes)


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN for a single value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def paired_gain(cells: Cells, line: Line, other: Line, ratio: float) -> Paired | None:
    """The difference in mIoU between two lines over their common seeds; None without one."""
    ours, theirs = ({seed: float(row["miou"]) for seed, row in cells.get((one, ratio), {}).items()} for one in (line, other))
    return paired(ours, theirs)


def _lines(cells: Cells) -> list[Line]:
    return list(dict.fromkeys(line for line, _ in cells))


def _ratios(cells: Cells) -> list[float]:
    return sorted({ratio for _, ratio in cells}, reverse=True)


def _mious(cells: Cells, line: Line, ratio: float) -> list[float]:
    return [row["miou"] for row in cells.get((line, ratio), {}).values()]


def _head(rows: Sequence[dict[str, Any]], failures: Sequence[dict[str, Any]], classes: Sequence[str]) -> str:
    seeds = sorted({row["seed"] for row in rows})
    over = f"the classes {', '.join(classes)}" if classes else "the classes that occur in the validation scans"
    lines = [
        "# Benchmark",
        "",
        f"Data: {_all(row['data'] for row in rows)}. Machine: {_all(_machine(row) for row in rows)}.",
        f"{counted(len(rows), 'training')} of {_all(row['steps'] for row in rows)} steps, seeds {', '.join(map(str, seeds))}.",
        f"mIoU over {over}, of the weights after the last step; mean ± sample standard deviation over seeds (number of seeds).",
        f"Precision: {_all(row.get('precision', 'unknown') for row in rows)}.",
    ]
    if len(seeds) < ENOUGH_SEEDS:
        lines.append(
            f"{counted(len(seeds), 'seed resolves', 'seeds resolve')} only large differences; "
            f"train with {ENOUGH_SEEDS} or more to compare."
        )
    several = len({row["data_hash"] for row in rows})
    if several > 1:
        lines.append(f"These rows use {several} different data sets (data_hash in {ROWS}): compare only rows of the same data.")
    lines += [f"Failed: {row['key']}: {row['error'].splitlines()[-1]}" for row in failures]
    return "\n".join(lines)


def _main_table(cells: Cells) -> str:
    """mIoU of the plain methods, with their gain over supervised learning on the same labels and seeds."""
    ratios = _ratios(cells)
    body = []
    for line in (line for line in _lines(cells) if not line.variant):
        baseline = Line(BASELINE, "", line.net)
        body.append([line.name, line.net, *(_cell(cells, line, baseline, ratio) for ratio in ratios)])
    if not body:
        return ""
    table = markdown(["method", "net", *map(_percent, ratios)], body)
    return f"## mIoU by share of labels\n\n{table}\n\n{_LEGEND} {_label_counts(cells)}"


_LEGEND = (
    f"The number of seeds is in round brackets; the gain over `{BASELINE}` with the same seeds follows it, in points, with its "
    f"{100 * LEVEL:.0f} % interval; a difference whose interval contains 0 is not resolved."
)


def _label_counts(cells: Cells) -> str:
    """How many points have a label at each ratio: the mean over seeds."""
    counts = []
    for ratio in _ratios(cells):
        rows = [
            row for (line, share), by_seed in cells.items() if share == ratio and not line.variant for row in by_seed.values()
        ]
        if rows:
            counts.append(f"{_percent(ratio)}: {statistics.fmean(row['labelled_points'] for row in rows):.0f}")
    return f"Labelled points, {', '.join(counts)}."


def _published_table(cells: Cells, published: Sequence[Published]) -> str:
    """Each published figure beside ours, in percent."""
    body = []
    for one, entry in beside(published, _entries(cells)):
        ours = "not trained" if entry is None else _with_spread(100 * entry.mean, 100 * entry.deviation, ".1f")
        apart = "" if entry is None else f"{100 * entry.mean - one.miou:+.1f}"
        net = one.net if entry is None else f"{one.net} ({entry.net})"
        body.append([one.method, net, _percent(one.ratio), ours, f"{one.miou:.1f}", apart, one.source])
    if not body:
        return ""
    head = ["method", "net (ours)", "labels", "mIoU", "published", "difference", "source of the published figure"]
    return "## Beside the published figures\n\n" + markdown(head, body)


def _variants_table(cells: Cells) -> str:
    """mIoU of each variant beside that of its method."""
    ratios = _ratios(cells)
    body = []
    for line in (line for line in _lines(cells) if line.variant):
        plain = Line(line.method, "", line.net)
        body.append([line.method, line.variant, line.net, *(_cell(cells, line, plain, ratio) for ratio in ratios)])
    if not body:
        return ""
    table = markdown(["method", "variant", "net", *map(_percent, ratios)], body)
    return f"## Variants\n\n{table}\n\nThe last column is the difference from the same method without the change, in points."


def _against_baseline(cells: Cells) -> str:
    """Every line, variants too, against supervised learning on the same labels."""
    ratios, lines = _ratios(cells), _lines(cells)
    body = []
    for line in lines:
        gains = [paired_gain(cells, line, Line(BASELINE, "", line.net), ratio) for ratio in ratios]
        if line.variant and any(gains):
            body.append([line.name, line.net, *("" if gain is None else gain.words for gain in gains)])
    if not body:
        return ""
    table = markdown(["row", "net", *map(_percent, ratios)], body)
    return f"## Variants against `{BASELINE}`\n\n{table}\n\nMean paired difference in points, with its interval."


def _cell(cells: Cells, line: Line, other: Line, ratio: float) -> str:
    mious = _mious(cells, line, ratio)
    if not mious:
        return ""
    gain = paired_gain(cells, line, other, ratio) if other != line else None
    return f"{_with_spread(statistics.fmean(mious), spread(mious), '.3f')} ({len(mious)})" + (f", {gain.words}" if gain else "")


def _with_spread(mean: float, deviation: float, style: str) -> str:
    return format(mean, style) + ("" if math.isnan(deviation) else f" ± {deviation:{style.lstrip('+')}}")


def _class_table(cells: Cells) -> str:
    """Mean IoU of each class that any row predicts or misses."""
    every = [row for rows in cells.values() for row in rows.values()]
    names = [name for name in every[0]["class_iou"] if any(_occurs(row, name) for row in every)]
    body = []
    for (line, ratio), rows in sorted(cells.items(), key=lambda item: (-item[0][1], _lines(cells).index(item[0][0]))):
        means = [statistics.fmean(row["class_iou"].get(name, 0.0) for row in rows.values()) for name in names]
        body.append([_percent(ratio), line.name, line.net, *(f"{mean:.3f}" for mean in means)])
    return "## IoU by class\n\n" + markdown(["labels", "method", "net", *names], body)


def _occurs(row: Mapping[str, Any], name: str) -> bool:
    """Whether a class is predicted or labelled anywhere; rows of older versions tell it of classes that were hit."""
    return bool(row["class_iou"].get(name, 0.0) > 0 or row.get("overlaps", {}).get(name, (0, 0))[1])


def _cost_table(cells: Cells, measured: StepTimes) -> str:
    """Time and memory of a step."""
    body = []
    for line in _lines(cells):
        rows = _rows_of(cells, line)
        ms, share = _step_time(cells, line, measured)
        minutes = statistics.fmean(row["wall_s"] for row in rows) / 60
        peak = max(row["peak_mib"] for row in rows)
        body.append([line.name, line.net, f"{ms:.1f}", f"{share:.2f}" if share else "", f"{minutes:.1f}", str(peak)])
    head = ["method", "net", "step ms", f"/ {BASELINE}", "minutes", "peak MiB"]
    how = "Step times are medians of steps timed in turn; those of variants are medians over their trainings."
    return "## Cost\n\n" + markdown(head, body) + f"\n\n{how} Minutes and memory are those of a whole training."


def _step_time(cells: Cells, line: Line, measured: StepTimes) -> tuple[float, float]:
    """Milliseconds of a step, and their ratio to the supervised step (0 where there is none)."""
    timed = measured.get(line.net, {})
    if not line.variant and line.method in timed:
        return timed[line.method]["ms"], timed[line.method]["share"] if BASELINE in timed else 0.0
    own, baseline = _median_ms(_rows_of(cells, line)), _median_ms(_rows_of(cells, Line(BASELINE, "", line.net)))
    return own, own / baseline if baseline else 0.0


def _rows_of(cells: Cells, line: Line) -> list[dict[str, Any]]:
    return [row for (other, _), rows in cells.items() if other == line for row in rows.values()]


def _median_ms(rows: Sequence[dict[str, Any]]) -> float:
    return statistics.median(row["step_ms"] for row in rows) if rows else 0.0


def _summary(cells: Cells, classes: Sequence[str], failed: int, measured: StepTimes) -> dict[str, Any]:
    """The figures by name (method, /variant where it is one, @net where there are several nets), then by ratio."""
    several = len({line.net for line in _lines(cells)}) > 1
    names = {line: line.name + (f"@{line.net}" if several else "") for line in _lines(cells)}
    miou: dict[str, dict[str, float]] = {name: {} for name in names.values()}
    deviation: dict[str, dict[str, float | None]] = {name: {} for name in names.values()}
    for (line, ratio), rows in sorted(cells.items(), key=lambda item: -item[0][1]):
        values = [row["miou"] for row in rows.values()]
        miou[names[line]][f"{ratio:g}"] = round(statistics.fmean(values), 6)
        deviation[names[line]][f"{ratio:g}"] = round(spread(values), 6) if len(values) > 1 else None
    every = [row for rows in cells.values() for row in rows.values()]
    return {
        "data": _all(row["data"] for row in every),
        "machine": _all(_machine(row) for row in every),
        "classes": list(classes),
        "seeds": sorted({row["seed"] for row in every}),
        "failed_rows": failed,
        "miou": miou,
        "miou_std": deviation,
        "gain": _gains(cells, names),
        "step_ms": {names[line]: round(_step_time(cells, line, measured)[0], 2) for line in _lines(cells)},
    }


def _gains(cells: Cells, names: dict[Line, str]) -> dict[str, dict[str, Any]]:
    """By name and ratio, the paired difference of each line to supervised learning."""
    gains: dict[str, dict[str, Any]] = {}
    for line, ratio in sorted(cells, key=lambda cell: -cell[1]):
        baseline = Line(BASELINE, "", line.net)
        gain = paired_gain(cells, line, baseline, ratio) if line != baseline else None
        if gain is not None:
            gains.setdefault(names[line], {})[f"{ratio:g}"] = gain.to_mapping()
    return gains


def _draw(path: Path, cells: Cells, lines: Sequence[Line]) -> None:
    """One panel a net: mIoU over the share of labels, a curve for each of the lines, bars of one standard deviation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    nets = list(dict.fromkeys(line.net for line in _lines(cells)))
    ratios = sorted(_ratios(cells))
    figure, axes = pyplot.subplots(1, len(nets), figsize=(6.4 * len(nets) + 1.2, 4.8), sharey=True, squeeze=False)
    for axis, net in zip(axes[0], nets, strict=True):
        for line in (line for line in lines if line.net == net):
            present = [ratio for ratio in ratios if _mious(cells, line, ratio)]
            means = [statistics.fmean(_mious(cells, line, ratio)) for ratio in present]
            bars = [spread(_mious(cells, line, ratio)) for ratio in present]  # NaN, no bar, for a single seed
            axis.errorbar(present, means, yerr=bars, marker="o", markersize=4, capsize=3, label=line.name)
        axis.set_xscale("log")
        axis.set_xticks(ratios, [_percent(ratio) for ratio in ratios])
        axis.minorticks_off()
        axis.set_xlabel("labelled points")
        axis.set_title(net)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("mIoU")
    if axes[0][-1].has_data():
        axes[0][-1].legend(loc="best")
    every = [row for rows in cells.values() for row in rows.values()]
    figure.suptitle(f"{_all(row['data'] for row in every)}\n{_all(_machine(row) for row in every)}", fontsize=10)
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    pyplot.close(figure)
    write_atomic(path, picture.getvalue())


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A markdown table."""
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:g} %"


def _machine(row: dict[str, Any]) -> str:
    return f"{row['device']}, {row['environment']['machine']}"


def _all(values: Iterable[Any]) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))
