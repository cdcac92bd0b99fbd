# SPDX-License-Identifier: Apache-2.0
"""A sentence that advises an option names one that exists: of the verb that it names, or of all verbs that print it."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import optional
from support.verb_settings import options_of
from weakseg_ros.cli import VERBS

PACKAGE = Path(__file__).resolve().parent.parent / "weakseg_ros"
OF_ALL = {"--help", "--config", "--version"}
OF_OTHERS = {
    "--ros-args",
    "--shm-size",
    "--show-args",
    "--break-system-packages",
    "--force-reinstall",
    "--upgrade",
    "--user",
    "--head",
}
"""options of ros2, docker, pip and ray"""
FORMER = re.compile(r"\(formerly [^)]*\)")
FORMER_NAMES = ("train/older.py", "options.py")
"""files that translate options which no longer exist"""
READERS = ("doctor", "import", "adapt", "evaluate", "view", "predict", "refer", "select")
OVER_BAGS = ("evaluate", "select", "predict", "import")
PRINTED_BY: dict[str, tuple[str, ...]] = {
    "data/cloud_files.py": ("import",),
    "data/importer.py": ("import",),
    "data/bag_odometry.py": ("import",),
    "data/check.py": ("check",),
    "data/scan_writer.py": ("import", "simulate"),
    "data/recordings_check.py": ("check",),
    "data/many_bags.py": (*OVER_BAGS, "replay"),
    "data/expressions.py": ("simulate",),
    "deploy/domain.py": READERS,
    "deploy/engines/choice.py": ("evaluate", "select", "predict"),
    "measure/report.py": ("select", "view", "evaluate"),
    "doctor.py": ("doctor",),
    "train/resuming.py": ("train",),
    "extras.py": OVER_BAGS,
    "demo.py": ("demo",),
    "evaluating.py": ("evaluate",),
    "fleet/cluster.py": OVER_BAGS,
    "fleet/config.py": ("fleet",),
    "fleet/report.py": ("fleet",),
    "fleet/verbs.py": OVER_BAGS,
    "improve/adapt/": ("adapt",),
    "improve/label/": ("label",),
    "improve/log/command.py": ("select",),
    "improve/log/select": ("select",),
    "improve/retrain/versions.py": ("promote",),
    "improve/retrain/": ("retrain",),
    "labelling.py": ("label",),
    "measure/compare.py": ("compare",),
    "measure/evaluat": ("evaluate",),
    "measure/inputs.py": READERS,
    "measure/label_files.py": ("evaluate",),
    "measure/predict.py": ("predict",),
    "points/reading.py": READERS,
    "referring.py": ("refer",),
    "ros/live.py": ("node",),
    "ros/node.py": ("node",),
    "ros/params_files.py": ("node",),
    "ros/replay.py": ("replay",),
    "simulate/": ("simulate",),
    "train/commands.py": ("train",),
    "train/config.py": ("export",),
    "train/export.py": ("export",),
    "train/initial.py": ("train",),
    "train/messages.py": ("train",),
    "train/outputs.py": ("train",),
    "train/referring": ("train-referring",),
    "train/run_folder.py": ("train",),
    "train/session.py": ("train",),
    "train/train.py": ("train",),
    "train/validate.py": ("train",),
    "train/variants.py": ("export",),
    "train/wrap.py": ("wrap",),
    "view/": ("view",),
    "weak/draw.py": ("sparse",),
}
"""the verbs that print what a file says, where its sentences do not name one"""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of each string of a file; what is filled in stands as {}."""
    pending: list[ast.AST] = [ast.parse(file.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        pending.extend(ast.iter_child_nodes(node))


def named_verbs(text: str) -> list[str]:
    """The verbs that a sentence names: `weakseg train`, or `'train'` alone or with options."""
    words = re.findall(r"weakseg ([a-z-]+)", text) + re.findall(r"['`]([a-z-]+)(?: [^'`]*)?['`]", text)
    return [word for word in words if word in VERBS]


@functools.cache
def known(verb: str) -> frozenset[str]:
    return frozenset(options_of(verb))


def wrong_advice(text: str, usual: tuple[str, ...]) -> list[str]:
    """The options in a text that a verb lacks, of those that it names, or else of `usual`."""
    named = named_verbs(text)
    asked = set(OPTION.findall(FORMER.sub("", text))) - OF_ALL - OF_OTHERS
    if named:
        return [option for option in sorted(asked) if not any(option in known(verb) for verb in (*named, *usual))]
    if asked and not usual:
        return [f"{', '.join(sorted(asked))}: add the file to PRINTED_BY, or name the verb in the sentence"]
    return [f"{option} of {verb}" for option in sorted(asked) for verb in usual if option not in known(verb)]


def test_each_option_that_a_sentence_advises_exists_where_it_is_read() -> None:
    optional("rclpy")
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = str(file.relative_to(PACKAGE))
        if name in FORMER_NAMES or name == "cli.py":
            continue
        usual = next((verbs for start, verbs in PRINTED_BY.items() if name.startswith(start)), ())
        found += [f"{name}:{line}: {wrong}" for line, text in texts(file) if " " in text for wrong in wrong_advice(text, usual)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("name it with --label-map", ["--label-map of doctor"]),
        ("'weakseg train --label-map' takes one", []),
        ("'train' and 'view' take --port", []),
        ("'train' takes --port", ["--port"]),
        ("give --data", []),
    ],
)
def test_advice_is_held_against_the_verb_that_it_names_or_the_one_that_prints_it(text: str, wrong: list[str]) -> None:
    assert wrong_advice(text, ("doctor",)) == wrong
