# SPDX-License-Identifier: Apache-2.0
"""Real commands to a car beside those that `weakseg simulate --expressions` writes: words, proportions, sides, boxes.

    weakseg simulate --varied --streets 12 --scans 3 --stride 12 --columns 512 --expressions 60 --out streets
    python bench/talk2car.py COMMANDS.json --streets streets [--scans LABELLED_SCANS] [--out runs/talk2car]

COMMANDS.json is Talk2Car's file of commands. Writes OUT/summary.json and prints it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from weakseg_ros.data.expressions import read_expressions
from weakseg_ros.data.scans import open_scans
from weakseg_ros.data.talk2car import Command, read_talk2car
from weakseg_ros.deploy.boxes import boxes
from weakseg_ros.errors import say
from weakseg_ros.files import write_json
from weakseg_ros.points.object_box import ObjectBox, points_in_box
from weakseg_ros.simulate.forms import CONCEPTS
from weakseg_ros.simulate.grammar import spoken_nouns, spoken_words

KINDS = {
    "vehicle.car": ("car", "van"),
    "vehicle.truck": ("truck", "van"),
    "vehicle.trailer": ("truck",),
    "vehicle.bus.rigid": ("bus",),
    "vehicle.bus.bendy": ("bus",),
    "vehicle.motorcycle": ("motorcycle", "motorcyclist"),
    "vehicle.bicycle": ("bicycle", "cyclist"),
    "human.pedestrian.adult": ("person",),
    "human.pedestrian.construction_worker": ("person",),
}
"""the simulator's kinds by nuScenes category; the other categories have no object in the simulated street"""
SAID = {
    "left or right": r"\b(left|right)\b",
    "a colour": r"\b(white|black|red|silver|blue|gr[ae]y|yellow|green|orange|brown|gold|pink|purple|beige|dark)\b",
    "front or ahead": r"\b(front|ahead)\b",
    "motion or posture": r"\b(parked|moving|driving|oncoming|coming|standing|walking|waiting|stopped|crossing|turning|sitting)\b",
    "beside": r"\b(next to|beside|alongside|by)\b",
    "near": r"\b(near|close to|closer|nearby)\b",
    "behind": r"\b(behind|back of)\b",
    "an ordinal": r"\b(first|second|third|last|next (?!to)\w+)\b",
    "size": r"\b(big|bigger|biggest|small|smaller|smallest|large|largest|tall|tallest)\b",
    "metres": r"\b(met(er|re)s?|feet|yards?)\b",
    "several sentences": r"[.!?]\s+\w",
    "a pronoun that refers back": r"\b(it|him|her|them)\b",
}
SIDE = re.compile(r"\b(?:on|to|at) (?:the|our|my) (left|right)\b")
CLEAR_M, CLEAR_SLOPE = 0.8, 0.06
"""what our grammar calls perhaps on the left, see simulate.scene_relations"""


def words_of(text: str) -> list[str]:
    """Words in small letters."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def proportions(texts: Sequence[str]) -> dict[str, float]:
    """Shares of the texts that say each of SAID, in %, and how long they are."""
    shares = {name: _percent(bool(re.search(form, text.lower())) for text in texts) for name, form in SAID.items()}
    lengths = [len(words_of(text)) for text in texts]
    low, middle, high = np.percentile(lengths, [10, 50, 90]).tolist()
    return shares | {"words, p10": low, "words, median": middle, "words, p90": high}


def coverage(commands: Sequence[Command], known: set[str]) -> dict[str, float]:
    """How much of the commands' words the grammar has."""
    said = [words_of(command.text) for command in commands]
    running = [word for words in said for word in words]
    kinds = set(running)
    return {
        "different words": len(kinds),
        "of them in the grammar, %": _percent(word in known for word in kinds),
        "running words in the grammar, %": _percent(word in known for word in running),
        "unknown running words, %": _percent(word not in known for word in running),
        "commands with every word known, %": _percent(all(word in known for word in words) for words in said),
        "commands with at most one word unknown, %": _percent(sum(word not in known for word in words) <= 1 for words in said),
        "words in the grammar": len(known),
    }


def expressible(commands: Sequence[Command], known: set[str]) -> dict[str, float]:
    """Which commands the grammar could have said, by what hinders it."""
    nouns = spoken_nouns()
    named = [_named(command, nouns) for command in commands]
    of_ours = [command.object_name in KINDS for command in commands]
    most = [sum(word not in known for word in words_of(command.text)) <= 1 for command in commands]
    both = [one and other for one, other in zip(named, of_ours, strict=True)]
    return {
        "the object is of a kind that the street has, %": _percent(of_ours),
        "and a noun of the grammar names it, %": _percent(both),
        "and at most one word is unknown: can be said, %": _percent(a and b for a, b in zip(both, most, strict=True)),
    }


def _named(command: Command, nouns: dict[str, set[str]]) -> bool:
    """Whether the command holds a noun of the grammar for a concept that means its object."""
    kinds = KINDS.get(command.object_name, ())
    fit = {noun for concept, words in nouns.items() if set(CONCEPTS[concept][0]) & set(kinds) for noun in words}
    text = f" {' '.join(words_of(command.text))} "
    return any(f" {noun} " in text or f" {noun}s " in text for noun in fit)


def sides(commands: Sequence[Command]) -> dict[str, float]:
    """Whether "on the left" means our left: boxes on the side that the command says last."""
    agreed, clear, count = 0, 0, 0
    for command in commands:
        found = SIDE.findall(command.text.lower())
        if len(set(found)) != 1:
            continue
        x, y, _ = command.box.centre
        across = y if found[0] == "left" else -y
        count += 1
        agreed += across > 0
        clear += across > max(CLEAR_M, CLEAR_SLOPE * x)
    return {
        "commands that name one side": count,
        "box on that side, %": 100 * agreed / count,
        "and by our rule, %": 100 * clear / count,
    }


def box_masks(folder: Path) -> dict[str, float]:
    """IoU of an object's points with those in a box around it, the lowest 0.15 m left out, over the objects of labelled scans."""
    scans, ious = open_scans(folder), []
    for index in range(len(scans)):
        scan = scans[index]
        if scan.class_id is None or scan.instance_id is None:
            continue
        kept = np.where(scan.class_id > 0, scan.instance_id, 0).astype(np.uint16)
        for row in boxes(scan.cloud.xyz, kept, scan.class_id, np.ones(len(kept), np.float32)):
            if row["points"] >= 15:
                box = ObjectBox(tuple(row["centre_m"].tolist()), tuple(row["size_m"].tolist()), float(row["yaw_rad"]))
                inside, truth = points_in_box(scan.cloud.xyz, box) & scan.cloud.valid, kept == row["instance_id"]
                ious.append(np.count_nonzero(inside & truth) / np.count_nonzero(inside | truth))
    return {"objects": len(ious), "median IoU": float(np.median(ious)), "IoU above 0.5, %": _percent(iou > 0.5 for iou in ious)}


def _percent(values: Iterable[bool]) -> float:
    found = list(values)
    return round(float(100 * sum(found) / max(len(found), 1)), 1)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", type=Path)
    parser.add_argument("--streets", type=Path, required=True, help="simulated streets with expressions")
    parser.add_argument("--scans", type=Path, help="labelled scans with objects, for boxes and their masks")
    parser.add_argument("--out", type=Path, default=Path("runs/talk2car"))
    options = parser.parse_args(argv)
    commands, rows = read_talk2car(options.commands), read_expressions(options.streets)
    texts, known = [command.text for command in commands], spoken_words()
    first = [Counter(words_of(text)[0] for text in them if words_of(text)) for them in (texts, [row.text for row in rows])]
    real, ours = proportions(texts), proportions([row.text for row in rows])
    summary = {
        "commands": len(commands),
        "expressions": len(rows),
        "coverage": coverage(commands, known),
        "expressible": expressible(commands, known),
        "proportions": {name: {"talk2car": real[name], "simulated": ours[name]} for name in real},
        "first words": {"talk2car": dict(first[0].most_common(10)), "simulated": dict(first[1].most_common(10))},
        "sides": sides(commands),
        "cases": dict(Counter(row.case for row in rows)),
        "boxes": {str(folder.name): box_masks(folder) for folder in (options.streets, options.scans) if folder},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "summary.json", summary)
    for name, value in summary.items():
        say(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
