# SPDX-License-Identifier: Apache-2.0
"""The house keeps its order: each chapter imports only chapters above it, and the robot needs no torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import optional

PACKAGE = Path(__file__).resolve().parent.parent / "weakseg_ros"
GROUND = ("errors", "extras", "processes", "locks", "files", "memory", "config", "registry")
LIBRARY = ("points", "data", "nets", "deploy", "simulate", "measure", "weak", "batches", "methods", "train", "benchmark")
CHAPTERS = (
    *GROUND,
    *LIBRARY,
    "improve",
    "view",
    "ros",
    "labelling",
    "evaluating",
    "viewing",
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
    "rosbags": ("data/bags.py",),
    "torch": (*TRAINING, "deploy/graph.py", "deploy/engines/torch.py", "deploy/engines/buffers.py"),
    "onnxruntime": ("deploy/engines/onnxruntime.py", "train/quantise.py"),
    "openvino": ("deploy/engines/openvino.py",),
    "lightning": TRAINING,
    "viser": ("improve/label/", "view/"),
    "rerun": ("view/rerun_file.py",),
    "kiss_icp": ("weak/scan_poses.py",),
    "lightning_fabric": TRAINING,
}
ROBOT = (
    *("points/cloud", "points/projection", "points/lift", "deploy/segmenter", "deploy/bundle"),
    *("improve/log/store", "improve/log/choice", "improve/log/recorder", "ros/node", "ros/params", "ros/frame_recording"),
)


def imports(file: Path) -> Iterator[str]:
    """Every module that a file names in an import, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(file: Path) -> Iterator[str]:
    """Every "weakseg_ros.module:attribute" among a file's strings, which is an import by another way."""
    for node in ast.walk(ast.parse(file.read_text())):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"weakseg_ros(\.\w+)+:\w+", node.value)
        ):
            yield node.value


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
    tables = ("registry.py", "cli.py")  # what can be plugged in, and the verbs: by name, resolved on use
    for module in (*imports(file), *(named(file) if relative.name not in tables else ())):
        if module.startswith("weakseg_ros."):
            other = chapter(module)
            assert other is None or other <= CHAPTERS.index(own), f"{relative} imports {module}, a later chapter"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_string_hides_an_import_of_a_later_chapter(file: Path) -> None:
    """Only the registry, whose rows are plug-ins, and the command line, above all chapters, name modules in strings."""
    relative = file.relative_to(PACKAGE)
    if relative.as_posix() in ("registry.py", "cli.py", "__main__.py", "__init__.py"):
        return
    own = CHAPTERS.index(relative.parts[0].removesuffix(".py"))
    constants = (node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
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


def test_weak_supervision_is_decided_without_torch() -> None:
    modules = ", ".join(f"weakseg_ros.weak.{file.stem}" for file in (PACKAGE / "weak").glob("[a-z]*.py"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("module", ROBOT)
def test_the_robot_needs_neither_torch_nor_the_command_line_library(module: str) -> None:
    if module.startswith("ros/"):
        optional("rclpy")
    name = f"weakseg_ros.{module.replace('/', '.')}"
    heavy = "{'torch', 'tyro', 'rosbags', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, {name}; sys.exit(', '.join({heavy}) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", sorted((PACKAGE / "improve" / "label").glob("*.py")), ids=lambda file: file.name)
def test_the_labelling_page_imports_no_training_code(file: Path) -> None:
    training = tuple(f"weakseg_ros.{folder.rstrip('/')}." for folder in TRAINING)
    assert not [module for module in imports(file) if f"{module}.".startswith(training)]
