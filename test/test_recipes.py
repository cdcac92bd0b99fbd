# SPDX-License-Identifier: Apache-2.0
"""The recipes of CONTRIBUTING: a method with settings of its own, and a head, are one file and one line of the registry each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from support import optional
from support.small_scans import record
from weakseg_ros import registry
from weakseg_ros.errors import ConfigError
from weakseg_ros.source import class_named_by

ROOT = Path(__file__).resolve().parent.parent
LINES = """
import sys
from weakseg_ros import registry
registry.METHODS.update(smooth="smooth:Smooth", bright="bright:Bright")
registry.HEADS["brightness"] = "brightness:Brightness"
"""
NO_TORCH = "sys.modules['torch'] = None\n"
MAIN = """
import json
from weakseg_ros.cli import main
sys.exit(next(filter(None, map(main, json.loads(sys.argv[1]))), 0))
"""
BRIGHT = '''
from torch import Tensor

from brightness import Brightness
from weakseg_ros.methods.method import Method
from weakseg_ros.nets.heads.head import Heads


class Bright(Method):
    """Deploys a head, and has no settings."""

    def __init__(self, settings, task) -> None:
        super().__init__(settings, task)
        self.head = Brightness.behind(task.net, 2)

    def losses(self, batch, out, progress) -> dict[str, Tensor]:
        return {"level": self.head(out)[0].square().mean()}

    def deployable(self) -> Heads:
        return Heads([self.head])
'''
HEAD = '''
import torch
from torch import nn

from weakseg_ros.nets.heads.head import Head


class Brightness(Head):
    """How bright a pixel is."""

    name = "brightness"
    outputs = ("brightness",)
    tables = {"brightness": {"dtype": "float32", "shape": ("B", "H", "W"), "meaning": "how bright a pixel is"}}

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    @classmethod
    def behind(cls, net, num_classes, gain: float = 2.0) -> "Brightness":
        return cls(gain)

    @property
    def kwargs(self) -> dict[str, float]:
        return {"gain": self.gain.item()}

    def forward(self, out) -> tuple[torch.Tensor]:
        return (out.features.sum(dim=1) * self.gain,)
'''


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the method that CONTRIBUTING prints, and with a method and a head of the test's own."""
    folder = tmp_path_factory.mktemp("plug_ins")
    printed = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert printed is not None
    for name, text in {"smooth": printed[1], "bright": BRIGHT, "brightness": HEAD}.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def weakseg(files: Path, prelude: str, *commands: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """Commands one after the other, up to the first that fails, in a process that knows the files."""
    code = f"import sys\nsys.path.insert(0, {str(files)!r}){LINES}{prelude}{MAIN}"
    words = json.dumps([[str(word) for word in command] for command in commands])
    return subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True)


def test_a_method_of_one_file_is_in_the_manual_without_torch(files: Path) -> None:
    done = weakseg(files, NO_TORCH, ["train", "--help"])
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.replace("│", " ").split())
    assert "smooth Makes the predictions of neighbouring pixels agree." in said
    assert "Sets how much neighbouring pixels must agree. These settings take effect only if `method` names smooth." in said
    assert "--smooth.weight FLOAT Sets the weight of the loss (0 to 100). (default: 0.1)" in said
    assert "bright Deploys a head, and has no settings." in said
    assert "--bright." not in said


@pytest.mark.slow
def test_a_method_of_one_file_trains_resumes_and_deploys(files: Path, tmp_path: Path) -> None:
    """Its settings come from the command line, lie in the run folder, and come back from there."""
    optional("torch")
    optional("lightning_fabric")
    optional("onnxscript")
    small = ["--net-width", 16, "--warmup-steps", 1, "--batch-size", 2, "--log-every", 1, "--validate-every", 0]
    small += ["--precision", "32-true"]  # in bf16 so small a net sometimes becomes NaN, see "Not measured" in docs/results.md
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    asked = ["--method", "smooth+bright+erda", "--smooth.weight", 0.25, "--steps", 2, *small, "--accelerator", "cpu"]
    first = ["train", record(tmp_path / "scans", 5), *asked, "--out", run]
    done = weakseg(files, "", first, ["train", "--resume", "--out", run, "--steps", 3, "--out-bundle", bundle])
    assert done.returncode == 0, done.stderr
    told = yaml.safe_load((run / "config.yaml").read_text())
    assert told["smooth"] == {"weight": 0.25}
    assert "bright" not in told
    losses = [row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row]
    assert [row["step"] for row in losses] == [0, 1, 2]
    assert all({"smooth.step", "bright.level"} <= row.keys() for row in losses)
    assert yaml.safe_load((bundle / "bundle.yaml").read_text())["heads"][0]["name"] == "brightness"
    wrong = weakseg(files, NO_TORCH, ["train", tmp_path, "--config", run / "config.yaml", "--smooth.weight", 1000])
    assert wrong.returncode == 2
    assert "weight: 1000.0 is outside 0.0..100.0" in wrong.stderr


ROWS = [(table, name) for table in (registry.METHODS, registry.NETS) for name in table]


@pytest.mark.parametrize(("table", "name"), ROWS, ids=[name for _, name in ROWS])
def test_settings_read_from_the_source_are_those_of_the_class(table: dict[str, str], name: str) -> None:
    optional("torch")
    module, _, attribute = table[name].partition(":")
    named = vars(registry.load(table, name)).get("Settings")
    assert class_named_by(module, attribute, "Settings") is named
    assert registry.settings_of(table, name) is named


def test_a_class_made_of_the_source_may_be_met_by_the_one_of_the_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optional("torch")
    monkeypatch.syspath_prepend(str(files))
    monkeypatch.setitem(registry.METHODS, "smooth", "smooth:Smooth")
    from weakseg_ros.train.sections import as_section

    read = registry.settings_of(registry.METHODS, "smooth")
    assert read is not None
    assert "smooth" not in sys.modules
    imported = registry.load(registry.METHODS, "smooth").Settings
    monkeypatch.delitem(sys.modules, "smooth")
    assert imported is not read
    assert as_section("smooth", read, imported(weight=3.0)) == read(weight=3.0)
    with pytest.raises(ConfigError, match=r"smooth: expected SmoothSettings, found SimpleNamespace; give this part its own"):
        as_section("smooth", read, SimpleNamespace())


def test_a_row_cannot_take_the_name_of_a_setting(files: Path) -> None:
    done = weakseg(files, 'registry.METHODS["draw"] = "smooth:Smooth"\n', ["train", "--help"])
    assert "registry: 'draw' has the name of a training setting; give the row another name" in done.stderr


def test_settings_are_the_name_of_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up.py").write_text("import torch\nclass Method:\n    Settings = torch.load('x')\nclass Other:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert class_named_by("made_up", "Other", "Settings") is None
    with pytest.raises(ConfigError, match=r"made_up:Method: Settings is not the name of a class; write 'Settings = TheClass'"):
        class_named_by("made_up", "Method", "Settings")
