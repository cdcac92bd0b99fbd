# SPDX-License-Identifier: Apache-2.0
"""The program: its manual, its exit codes, and that it imports no more than it needs."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import optional
from weakseg_ros import errors
from weakseg_ros.cli import VERBS, main
from weakseg_ros.memory import lack_told_by


def weakseg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "weakseg_ros", *arguments], capture_output=True, text=True)


def test_the_manual_lists_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from weakseg_ros.cli import main; main(['--help']);"
        "heavy = {'numpy', 'torch', 'tyro', 'rclpy', 'yaml'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_manual(verb: str) -> None:
    if verb in ("node", "replay"):
        optional("rclpy")
    done = weakseg(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"weakseg {verb}" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_resolves(verb: str) -> None:
    if verb in ("node", "replay"):
        optional("rclpy")
    module, _, attribute = VERBS[verb].entry.partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_a_wrong_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluat"]) == 2
    assert "unknown verb 'evaluat'; did you mean 'evaluate'?" in capsys.readouterr().err


def test_no_verb_prints_the_manual_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: weakseg VERB" in capsys.readouterr().out


def test_a_users_fault_is_a_sentence_not_a_traceback() -> None:
    done = weakseg("evaluate", "/nonexistent/bag", "--bundle", "/nonexistent/bundle")
    assert done.returncode == 2
    assert done.stderr.startswith("weakseg evaluate: /nonexistent/")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["train", "benchmark"])
def test_a_wrong_path_is_told_before_torch_is_imported(verb: str) -> None:
    run = f"import sys; sys.modules['torch'] = None; from weakseg_ros.cli import main; sys.exit(main(['{verb}', '/none/scans']))"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"weakseg {verb}: /none/scans: there is no such folder; check the path\n")


def test_a_pattern_that_the_shell_replaced_is_told_from_a_wrong_option() -> None:
    done = weakseg("sparse", "a", "b")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("weakseg sparse: takes one path, and 'b' came after it; ")
    assert "in quotes" in done.stderr


def test_all_printing_goes_through_one_place() -> None:
    """So that no name can steer the terminal."""
    package = Path(errors.__file__).parent
    printing = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write", "sys.stderr.write")
    }
    assert printing == {"errors.py"}


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    errors.say("\x1b]0;pwned\x07\x1b[2J", Path("\udcff.bin"))
    errors.complain("a\rb\u202e")
    said = capsys.readouterr()
    assert said.out == "\\x1b]0;pwned\\x07\\x1b[2J\n\\udcff.bin\n"
    assert said.err == "a\\rb\\u202e\n"


def test_a_terminal_without_the_letters_of_a_name_gets_their_numbers() -> None:
    code = "from weakseg_ros.errors import say; say('Stra\u00dfe')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "Stra\\xdfe\n")


def test_a_wrong_option_beside_a_path_is_still_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "weakseg_ros", "evaluate", "a", "--topci", "/points"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--topci" in done.stdout + done.stderr
    assert "takes one path" not in done.stderr


@pytest.mark.parametrize(("verb", "code"), [("sparse", 2), ("check", 1)])
def test_a_lack_of_memory_is_one_sentence(verb: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "scans" / "velodyne").mkdir(parents=True)
    with open(tmp_path / "scans" / "velodyne" / "000000.bin", "wb") as file:
        file.truncate(1 << 36)
    command = ["sh", "-c", 'ulimit -v 8000000; exec "$@"', "sh", sys.executable, "-m", "weakseg_ros", verb, "scans"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    said = (done.stdout + done.stderr).splitlines()
    told = [line for line in said if "there is not enough memory" in line and line.endswith("raise the limit ('ulimit -v')")]
    assert (done.returncode, len(told)) == (code, 1), said


def test_what_libraries_lack_is_told_and_other_faults_of_theirs_are_not() -> None:
    torch = optional("torch")
    for cause in (lambda: bytearray(1 << 62), lambda: torch.zeros(1 << 50)):
        with pytest.raises((MemoryError, RuntimeError)) as lack:
            cause()
        assert lack_told_by(lack.value).startswith("there is not enough memory")
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not lack_told_by(other.value)
    assert "'ulimit -u'" in lack_told_by(RuntimeError("can't start new thread"))
