# SPDX-License-Identifier: Apache-2.0
"""A summary and some pictures as one HTML file that needs nothing else: no network and no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weakseg_ros.measure.pictures import TOP_VIEW_M, ScanPictures
from weakseg_ros.measure.scan3d import Scan3D
from weakseg_ros.measure.sections import costly_classes, group_rows, object_rows, parts_of
from weakseg_ros.measure.verdict import FAIR_IOU, GOOD_IOU, next_steps, verdict
from weakseg_ros.points.labels import on_black

SHOWN_SHARE = 1e-4


@dataclass(frozen=True)
class _Shown:
    """Pictures of a scan with data URIs in place of files."""

    note: str
    strips: list[tuple[str, str]]
    tops: list[tuple[str, str]]


def templates() -> Any:
    """The templates of the pages; `script('sort.js') | safe` in them stands for the text of a script."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made: Any = Environment(loader=PackageLoader("weakseg_ros.measure"), autoescape=True, undefined=StrictUndefined)
    made.globals["script"] = lambda name: made.loader.get_source(made, name)[0]
    return made


def render(
    summary: Mapping[str, Any],
    typical: ScanPictures | None = None,
    worst: Sequence[ScanPictures] = (),
    scan3d: Scan3D | None = None,
) -> str:
    """The report as HTML. `summary` is what evaluate writes as JSON; `scan3d` is drawn in three dimensions."""
    empty: dict[str, Any] = {"live": None, "agreement_with_direct": None, "story": {}, "recordings": [], "cold_start_ms": None}
    data, colors = _as_typed(summary["data"]), [row["color"] for row in summary["classes"]]
    groups, costly, objects = group_rows(summary), costly_classes(summary), object_rows(summary)
    return str(
        templates()
        .get_template("report.html.j2")
        .render(
            s={**empty, **_weighted(summary)},
            verdict=verdict(summary),
            steps=next_steps(summary, summary["bundle"]["folder"], data),
            typical=_shown(typical) if typical else None,
            worst=[_shown(pictures) for pictures in worst],
            shown_classes=[row for row in summary["classes"] if _is_shown(row)],
            stages=_stages(summary["latency_ms"]),
            matrix=_matrix(summary) if summary["labelled_scans"] else None,
            half_side_m=int(TOP_VIEW_M),
            good_iou=GOOD_IOU,
            fair_iou=FAIR_IOU,
            groups=groups,
            costly=costly,
            objects=objects,
            scan3d=scan3d,
            palette=json.dumps([[90, 90, 90], *on_black(np.array(colors, np.uint8).reshape(-1, 3)).tolist()]),
            view_command=f"weakseg view {data} --bundle {summary['bundle']['folder']}",
            parts=parts_of(
                [
                    ("recordings", "Recordings", bool(summary.get("recordings"))),
                    ("scan", "One scan", typical is not None),
                    ("classes", "Classes", True),
                    ("costly", "Points lost", bool(costly)),
                    ("groups", "Groups", bool(groups)),
                    ("objects", "Objects", bool(objects)),
                    ("next", "What to do next", True),
                    ("scan3d", "3D", scan3d is not None),
                    ("worst", "Worst scans", bool(worst)),
                    ("times", "Times", bool(summary["latency_ms"].get("total"))),
                    ("matrix", "Confusion matrix", bool(summary["labelled_scans"])),
                    ("print", "Details", True),
                ]
            ),
        )
    )


def _as_typed(data: Mapping[str, Any]) -> str:
    """The data as an argument of a command, with their topic, as a bag may have several."""
    return f"{data['path']} --topic {data['topic']}" if data.get("topic") else str(data["path"])


def _is_shown(row: Mapping[str, Any]) -> bool:
    return bool(row["predicted_share"] >= SHOWN_SHARE or row.get("truth_points", 0))


def _shown(pictures: ScanPictures) -> _Shown:
    def uris(images: Mapping[str, bytes]) -> list[tuple[str, str]]:
        return [(name, "data:image/png;base64," + base64.b64encode(blob).decode()) for name, blob in images.items()]

    return _Shown(pictures.note, uris(pictures.strips), uris(pictures.tops))


def _weighted(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary, its calibration bins with an opacity that says how many points they hold."""
    if "calibration" not in summary:
        return dict(summary)
    calibration = summary["calibration"]
    most = max(1, *(cell["points"] for cell in calibration["bins"]))
    bins = [{**cell, "weight": 0.25 + 0.75 * (cell["points"] / most) ** 0.33} for cell in calibration["bins"]]
    return {**summary, "calibration": {**calibration, "bins": bins}}


def _stages(latency_ms: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    stages = [(name, figures) for name, figures in latency_ms.items() if name != "total"]
    whole = sum(figures["p50"] for _, figures in stages) or 1.0
    step = 0.75 / max(1, len(stages) - 1)
    return [
        {"name": name, **figures, "share": 100 * figures["p50"] / whole, "tone": 1.0 - step * index}
        for index, (name, figures) in enumerate(stages)
    ]


def _matrix(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Rows are true classes, columns what the model said, both without classes that have no points; shares of the row."""
    counts = summary["confusion_matrix"]
    ids = [row["id"] for row in summary["classes"] if any(counts[row["id"]]) or any(line[row["id"]] for line in counts)]
    names = {row["id"]: row["name"] for row in summary["classes"]}
    columns = [0, *ids] if any(counts[0][k] for k in ids) else ids
    rows = []
    for truth in ids:
        total = sum(line[truth] for line in counts)
        if total:
            shares = [counts[predicted][truth] / total for predicted in columns]
            rows.append({"name": names[truth], "shares": shares, "diagonal": columns.index(truth)})
    return {"columns": [names.get(k, "no class") for k in columns], "rows": rows}
