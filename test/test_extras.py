# SPDX-License-Identifier: Apache-2.0
"""A library that is missing or broken is one sentence with the command that installs it, whatever the verb."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import optional
from support.manuals import Manual, manuals
from weakseg_ros.cli import VERBS
from weakseg_ros.doctor import _import_each, check_libraries, check_ros, check_runtimes
from weakseg_ros.extras import LIBRARIES, Library, MissingLibraryError, explain, need

ROOT = Path(__file__).resolve().parent.parent
ROS = {"rclpy", "builtin_interfaces", "lifecycle_msgs", "ament_index_python", "vision_msgs", "tf2_ros", "bondpy"}
BEHIND_ANOTHER = {"websockets", "trimesh", "backports", "compression", "lz4"}
"""libraries that come with one of ours or, under a newer Python, with Python"""


def hidden(*modules: str, run: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in a process where these modules cannot be imported."""
    code = f"import sys; sys.modules.update(dict.fromkeys({modules!r})); from weakseg_ros.cli import main; sys.exit(main({run}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.fixture(scope="module")
def without_libraries() -> dict[str, Manual]:
    hide = [library.module for library in LIBRARIES if library.module not in ("numpy", "yaml")]
    return manuals(f"import sys; sys.modules.update(dict.fromkeys({hide!r}))\n")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_its_libraries_is_one_sentence_with_the_remedy(verb: str, without_libraries: dict[str, Manual]) -> None:
    manual = without_libraries[verb]
    assert "Traceback" not in manual.err
    assert manual.code in (0, 2)
    if manual.code:
        assert len(manual.err.splitlines()) == 1
        assert "is not installed, and it is needed for" in manual.err
        assert " -m pip install " in manual.err


@pytest.mark.slow
def test_doctor_runs_without_the_libraries_that_it_reports_on() -> None:
    done = hidden("scipy", "tyro", "tqdm", run="['doctor']")
    assert done.returncode in (0, 1)
    assert "model" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "words"), [("rclpy", "rclpy: cannot be imported"), ("", "set ROS_LOG_DIR to one that can be written")]
)
def test_doctor_says_why_a_node_cannot_start(module: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if module:
        (tmp_path / f"{module}.py").write_text("raise ImportError('not today')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    else:
        optional("rclpy")
        monkeypatch.setenv("ROS_LOG_DIR", "/proc/self/logs")
    (finding,) = check_ros()
    assert finding.mark == "note"
    assert words in finding.text
    assert "weakseg_ros." not in finding.text


def test_doctor_names_a_library_that_is_installed_and_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("halfway", "raise ImportError('built for another numpy')"), ("deadly", "import os; os._exit(139)")):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    libraries = [Library(name, f"{name}>=1", "tests", "") for name in ("halfway", "deadly", "nowhere", "json")]
    findings = {finding.topic: finding for finding in check_libraries(libraries)}
    assert {name: finding.mark for name, finding in findings.items() if name in ("halfway", "deadly", "nowhere", "json")} == {
        "halfway": "fault",
        "deadly": "fault",
        "nowhere": "fault",
        "json": "ok",
    }
    assert "cannot be imported (ImportError: built for another numpy)" in findings["halfway"].text
    assert "exit code 139" in findings["deadly"].text
    assert "not installed" in findings["nowhere"].text
    assert "pip install" in findings["nowhere"].text


def test_one_dead_import_does_not_hide_the_others() -> None:
    assert set(_import_each(["json", "csv"])) == {"json", "csv"}


@pytest.mark.parametrize(
    ("cpu", "gpu", "has_gpu", "words"),
    [
        ("1.20", "1.20", True, "overwrite each other"),
        ("", "1.20", True, "the build with CUDA"),
        ("1.20", "", True, "onnxruntime-gpu"),
        ("1.20", "", False, ""),
    ],
)
def test_the_build_of_onnxruntime_suits_the_machine(cpu: str, gpu: str, has_gpu: bool, words: str) -> None:
    findings = list(check_runtimes(cpu, gpu, has_gpu))
    assert bool(findings) == bool(words)
    assert words in "".join(finding.text for finding in findings)
    assert "install 'onnxruntime>" not in "".join(finding.text for finding in findings), "never the CPU build over the other"


def test_need_names_the_command() -> None:
    with pytest.raises(MissingLibraryError, match=r"laspy: is not installed, .*-m pip install .*'laspy>=2\.5'"):
        raise MissingLibraryError(explain(ModuleNotFoundError("No module named 'laspy'", name="laspy")))
    need("yaml")


def test_an_import_that_fails_inside_a_library_blames_the_library() -> None:
    sentence = explain(ImportError("numpy.core.multiarray failed to import", name="scipy.linalg._fblas"))
    assert sentence.startswith("scipy: is installed but cannot be imported")
    assert explain(ModuleNotFoundError("No module named 'weakseg_ros.gone'", name="weakseg_ros.gone")) == ""


def test_the_table_says_what_setup_py_says() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup")
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    extras = {"": ast.literal_eval(arguments["install_requires"]), **ast.literal_eval(arguments["extras_require"])}
    for library in LIBRARIES:
        assert library.requirement in extras[library.extra], library.module
    assert {library.requirement for library in LIBRARIES if library.extra == ""} == set(extras[""])


def test_every_library_that_the_package_imports_is_in_the_table() -> None:
    known = {library.module for library in LIBRARIES} | ROS | BEHIND_ANOTHER | set(sys.stdlib_module_names) | {"weakseg_ros"}
    for file in (ROOT / "weakseg_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            unknown = {name.partition(".")[0] for name in names} - known
            assert {name for name in unknown if not re.fullmatch(r"\w+_(msgs|srvs|interfaces)", name)} <= set(), file.name
