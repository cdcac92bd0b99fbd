# SPDX-License-Identifier: Apache-2.0
"""Sections of the report beyond its headline: groups of classes, what costs most points, and one row for each recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

GROUPS = {
    "ground": ("road", "parking", "sidewalk", "terrain", "ground", "lane", "driveable", "surface", "flat"),
    "structure": ("building", "fence", "wall", "manmade", "barrier", "bridge", "structure"),
    "plants": ("vegetation", "trunk", "plant", "tree", "bush"),
    "vehicles": ("car", "truck", "bus", "trailer", "vehicle", "motorcycle", "bicycle", "bike", "two-wheeler", "train"),
    "people": ("person", "people", "pedestrian", "rider", "cyclist", "motorcyclist"),
    "poles": ("pole", "sign", "traffic", "cone"),
}
"""words in the names of the classes of a group; people come before vehicles, since a bicyclist is no bicycle"""
ORDER = ("people", "ground", "structure", "plants", "poles", "vehicles")
COSTLY_SHOWN = 6


def group_of(name: str) -> str:
    """The group of a class by its name; '' for one that belongs to none."""
    plain = name.lower().replace("_", "-")
    return next((group for group in ORDER if any(word in plain for word in GROUPS[group])), "")


def group_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """IoU of each group with its classes merged into one, for the groups that have points; nothing without labels.

    A car that is called a truck counts as right here, and a car that is called a wall does not.
    """
    if not summary["labelled_scans"]:
        return []
    counts = np.asarray(summary["confusion_matrix"])
    names = {row["id"]: row["name"] for row in summary["classes"]}
    rows = []
    for group in GROUPS:
        ids = [k for k, name in names.items() if group_of(name) == group]
        truth, claimed = int(counts[:, ids].sum()), int(counts[ids, 1:].sum())
        right = int(counts[np.ix_(ids, ids)].sum())
        if truth:
            members = [names[k] for k in ids if counts[:, k].any()]
            rows.append({"name": group, "iou": right / (truth + claimed - right), "points": truth, "members": members})
    return rows


def costly_classes(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes that lose most points to others, the worst first: where a better model would win most."""
    measured = [row for row in summary["classes"] if row.get("truth_points")]
    labelled = sum(row["truth_points"] for row in measured)
    rows = []
    for row in measured:
        lost = round(row["truth_points"] * (1.0 - row["recall"]))
        rows.append({**row, "lost": lost, "share": lost / labelled})
    return [row for row in sorted(rows, key=lambda row: -row["lost"])[:COSTLY_SHOWN] if row["share"] >= 0.0005]


def object_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each class of countable objects; nothing where objects were not measured."""
    rows: list[dict[str, Any]] = summary.get("panoptic", {}).get("objects", [])
    return [row for row in rows if row["found"] + row["missed"] + row["invented"]]


def parts_of(shown: Sequence[tuple[str, str, bool]]) -> list[tuple[str, str]]:
    """(anchor, title) of the sections that the report has."""
    return [(anchor, title) for anchor, title, there in shown if there]
