# SPDX-License-Identifier: Apache-2.0
"""The house keeps its order: each chapter imports only chapters above it, and the robot needs no torch."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from support import optional

PACKAGE = Path(__file__).resolve().parent.parent / "weakseg_ros"
GROUND = (
    *("errors", "progress", "extras", "processes", "locks", "half_written", "files", "environment", "reads", "memory"),
    *("options", "yaml_files", "config", "source", "registry"),
)
LIBRARY = ("points", "data", "nets", "deploy", "simulate", "measure", "weak", "batches", "methods", "train", "benchmark")
CHAPTERS = (
    *GROUND,
    *LIBRARY,
    "improve",
    "view",
    "ros",
    "fleet",
    "labelling",
    "evaluating",
    "viewing",
    "referring",
    "doctor",
    "demo",
    "cli",
    "__main__",
)
TRAINING = ("nets/", "batches/", "methods/", "train/", "benchmark/")
FILES = sorted(PACKAGE.rglob("*.py"))

# a library and the only places that may import it, lazily or not
CONFINED = {
    "rclpy": ("ros/",),
    "rosbags": ("data/bags.py", "data/bag_open.py", "data/bag_writer.py"),
    "torch": (*TRAINING, "deploy/graph.py", "deploy/engines/torch.py", "deploy/engines/buffers.py"),
    "onnxruntime": ("deploy/engines/onnxruntime.py", "train/quantise.py"),
    "openvino": ("deploy/engines/openvino.py",),
    "lightning": TRAINING,
    "viser": ("improve/label/", "view/"),
    "rerun": ("view/rerun_file.py",),
    "kiss_icp": ("weak/scan_poses.py",),
    "lightning_fabric": TRAINING,
    "ray": ("fleet/cluster.py",),
    "tqdm": ("progress.py", "train/train.py"),
}
ROBOT = (
    *("points/cloud", "points/projection", "points/lift", "deploy/segmenter", "deploy/bundle"),
    *("deploy/referring", "deploy/followed_words"),
    *("improve/log/store", "improve/log/choice", "improve/log/recorder", "ros/node", "ros/params", "ros/frame_recording"),
)


@functools.cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(file.read_text())))


def imports(file: Path) -> Iterator[str]:
    """Every module that a file names in an import, at its top or inside a function."""
    for node in nodes(file):
        yield from named_by(node)


def named_by(node: ast.AST) -> Iterator[str]:
    """Every module that a statement names, none where it is no import."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def chapter(module: str) -> int | None:
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else ""
    return CHAPTERS.index(name) if name in CHAPTERS else None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_upwards_only(file: Path) -> None:
    relative = file.relative_to(PACKAGE)
    if relative.name == "__init__.py" and relative.parent == Path("."):
        return
    own = relative.parts[0].removesuffix(".py")
    assert own in CHAPTERS, f"{relative}: its chapter is not in the list; add it where it belongs"
    for module in imports(file):
        if module.startswith("weakseg_ros."):
            other = chapter(module)
            assert other is None or other <= CHAPTERS.index(own), f"{relative} imports {module}, a later chapter"


def test_no_files_import_each_other_in_a_circle() -> None:
    """Not inside a chapter either, and not by an import inside a function; what is for type checkers alone does not count."""
    names = {"weakseg_ros." + ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in FILES}
    names = {name.removesuffix(".__init__"): file for name, file in names.items()}
    graph = {name: {module_of(module, names) for module in real_imports(file)} - {name, ""} for name, file in names.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"files that import each other: {' -> '.join(error.args[1])}")


def real_imports(file: Path) -> Iterator[str]:
    """What `imports` gives of a file, without the block of TYPE_CHECKING."""
    tree = ast.parse(file.read_text())
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    unread = {id(inner) for block in blocks for inner in ast.walk(block)}
    yield from (name for node in ast.walk(tree) if id(node) not in unread for name in named_by(node))


def module_of(name: str, modules: Container[str]) -> str:
    """The module of the package that an imported name is, or is in; empty for another package's."""
    return next((each for each in (name, name.rpartition(".")[0]) if each in modules), "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_string_hides_an_import_of_a_later_chapter(file: Path) -> None:
    """Only the registry, whose rows are plug-ins, and the command line, above all chapters, name modules in strings."""
    relative = file.relative_to(PACKAGE)
    if relative.as_posix() in ("registry.py", "cli.py", "__main__.py", "__init__.py"):
        return
    own = CHAPTERS.index(relative.parts[0].removesuffix(".py"))
    constants = (node.value for node in nodes(file) if isinstance(node, ast.Constant))
    texts = [value for value in constants if isinstance(value, str)]
    for module in (word for text in texts for word in re.findall(r"weakseg_ros\.[a-z_.]+", text)):
        other = chapter(module)
        assert other is None or other <= own, f"{relative} names {module} in a string, a later chapter"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_their_room(file: Path) -> None:
    relative = file.relative_to(PACKAGE).as_posix()
    for module in imports(file):
        places = CONFINED.get(module.split(".")[0])
        assert places is None or relative.startswith(places), f"{relative} imports {module}; it belongs into {places}"


IMPORTER = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, "fails", error)
        continue
    print(name, *({"torch", "tyro", "rosbags", "matplotlib"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def brought() -> dict[str, list[str]]:
    """Which heavy libraries are loaded once a module has been imported, module by module in one process."""
    weak = (f"weak/{file.stem}" for file in sorted((PACKAGE / "weak").glob("[a-z]*.py")))
    names = [dotted(module) for module in (*ROBOT, *weak)]  # the robot's first: labels read data sets, bags among them
    done = subprocess.run([sys.executable, "-c", IMPORTER, *names], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("weakseg_ros.")]
    return {name: libraries for name, *libraries in lines}


def dotted(module: str) -> str:
    return f"weakseg_ros.{module.replace('/', '.')}"


def test_weak_supervision_is_decided_without_torch(brought: dict[str, list[str]]) -> None:
    weak = {name: libraries for name, libraries in brought.items() if name.startswith("weakseg_ros.weak.")}
    assert len(weak) > 5
    assert not [name for name, libraries in weak.items() if {"torch", "fails"} & set(libraries)]


@pytest.mark.parametrize("module", ROBOT)
def test_the_robot_needs_neither_torch_nor_the_command_line_library(module: str, brought: dict[str, list[str]]) -> None:
    if module.startswith("ros/"):
        optional("rclpy")
    assert brought[dotted(module)] == []


@pytest.mark.parametrize("file", sorted((PACKAGE / "improve" / "label").glob("*.py")), ids=lambda file: file.name)
def test_the_labelling_page_imports_no_training_code(file: Path) -> None:
    training = tuple(f"weakseg_ros.{folder.rstrip('/')}." for folder in TRAINING)
    assert not [module for module in imports(file) if f"{module}.".startswith(training)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_a_network_is_told_has_one_place(file: Path) -> None:
    """A bundle's `info.input` holds geometry, channels, statistics and intensity rule; `info` itself has no copy of them."""
    copies = re.findall(r"\binfo\.(?:spec|channels|mean|std|intensity)\b", file.read_text())
    assert not copies, f"{file.relative_to(PACKAGE)}: write {', '.join(copies)} as info.input.geometry, info.input.channels, ..."
