# SPDX-License-Identifier: Apache-2.0
"""How large the package is, and how long its functions are: the table of docs/results.md, counted with Python's ast.

python bench/house.py                 of this checkout
python bench/house.py --package DIR   of another one
"""

from __future__ import annotations

import argparse
import ast
import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).resolve().parent.parent / "weakseg_ros"
LONG_FILE = 400
LEAST_STATEMENTS = 4
"""functions with fewer statements are alike by chance"""
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    """Its statements without the docstring."""
    return function.body[1:] if ast.get_docstring(function) is not None else function.body


def copied(trees: list[ast.AST]) -> int:
    """How many functions have the same statements as an earlier one, whatever their variables are called."""
    seen = Counter(shape(f) for tree in trees for f in functions(tree) if len(body(f)) >= LEAST_STATEMENTS)
    return sum(count - 1 for count in seen.values())


def shape(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The statements as text, with variables and arguments numbered in the order in which they come."""
    number: dict[str, str] = {}
    clean = copy.deepcopy(ast.Module(body(function), []))
    for node in ast.walk(clean):
        if isinstance(node, ast.Name):
            node.id = number.setdefault(node.id, f"v{len(number)}")
        elif isinstance(node, ast.arg):
            node.arg = number.setdefault(node.arg, f"v{len(number)}")
    return ast.dump(clean)


def main() -> None:
    """Print the figures, one a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=PACKAGE)
    package = parser.parse_args().package
    texts = {file: file.read_text(encoding="utf-8") for file in sorted(package.rglob("*.py"))}
    trees = [ast.parse(text) for text in texts.values()]
    spans = [(f.lineno, f.end_lineno or 0) for tree in trees for f in functions(tree)]
    lengths = np.array([end - start + 1 for start, end in spans])
    lines = {file: len(text.splitlines()) for file, text in texts.items()}
    long = [str(file.relative_to(package)) for file, count in lines.items() if count > LONG_FILE]
    print(f"files, lines: {len(lines)}, {sum(lines.values())}")
    middle, high = np.quantile(lengths, [0.5, 0.9])
    print(f"functions: {len(lengths)}; lines: median {middle:.0f}, p90 {high:.0f}, most {lengths.max()}")
    print(f"files above {LONG_FILE} lines: {len(long)} {' '.join(long)}")
    print(f"functions with the statements of another, {LEAST_STATEMENTS} or more: {copied(trees)}")


if __name__ == "__main__":
    main()
