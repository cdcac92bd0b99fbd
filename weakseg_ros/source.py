# SPDX-License-Identifier: Apache-2.0
"""What a Python file says, read without running it: the files of methods and nets import torch, and a manual must not."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from weakseg_ros.errors import ConfigError


@cache
def tree_of(module: str) -> ast.Module | None:
    """The file of a module as a syntax tree; None where the module or its file is not there."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return None
    return ast.parse(Path(found.origin).read_text(encoding="utf-8"), found.origin)


def class_in(module: str, name: str) -> ast.ClassDef | None:
    """The statement that defines a class in a module's file."""
    tree = tree_of(module)
    classes = (node for node in (tree.body if tree else ()) if isinstance(node, ast.ClassDef))
    return next((node for node in classes if node.name == name), None)


def class_named_by(module: str, owner: str, attribute: str) -> type | None:
    """The class that the class `owner` of a module gives out as `attribute`; None where it does not.

    It is imported from where the file imports it, or made of those statements of the file that it needs. Raises ConfigError
    where `attribute` is anything but the name of a class.
    """
    body = getattr(class_in(module, owner), "body", ())
    values = [node.value for node in body if isinstance(node, (ast.Assign, ast.AnnAssign)) and attribute in _bound_by(node)]
    if not values:
        return None
    if not isinstance(values[-1], ast.Name):
        raise ConfigError(f"{module}:{owner}: {attribute} is not the name of a class; write '{attribute} = TheClass' there")
    found: type = _made(module, values[-1].id)
    return found


def _made(module: str, name: str) -> Any:
    """What a name of a module's file stands for, from the statements that it is made of and no others."""
    known = f"{module}:{name}"
    if known in sys.modules:
        return getattr(sys.modules[known], name)
    tree = tree_of(module)
    assert tree is not None, "the name was read in this file"
    excerpt = ModuleType(known)
    excerpt.__file__ = importlib.util.find_spec(module).origin  # type: ignore[union-attr]
    sys.modules[known] = excerpt  # where dataclasses, type hints and help texts look for a class's module
    exec(compile(_needed_for(name, tree), str(excerpt.__file__), "exec"), vars(excerpt))
    return getattr(excerpt, name)


def _needed_for(name: str, tree: ast.Module) -> ast.Module:
    """The statements that a name of a file depends on, in their order."""
    binding = {bound: node for node in tree.body for bound in _bound_by(node)}
    needed, open_names = [node for node in tree.body if _is_future(node)], [name]
    while open_names:
        node = binding.get(open_names.pop())
        if node is not None and node not in needed:
            needed.append(node)
            open_names += [used.id for used in ast.walk(node) if isinstance(used, ast.Name)]
    return ast.Module([node for node in tree.body if node in needed], [])


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _bound_by(node: ast.stmt) -> Iterator[str]:
    """The names that a statement gives a meaning."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for whole in targets for target in ast.walk(whole) if isinstance(target, ast.Name))
