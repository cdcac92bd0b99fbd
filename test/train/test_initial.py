# SPDX-License-Identifier: Apache-2.0
"""A training begins with the weights of a bundle or of a published checkpoint, and unpickles nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

import pytest

from support import optional

torch = optional("torch")

from safetensors.torch import load_file

from weakseg_ros.cli import main
from weakseg_ros.nets.published import salsanext_modules
from weakseg_ros.nets.salsanext import SalsaNext
from weakseg_ros.train.commands import parse_training
from weakseg_ros.train.initial import options_for_its_input, read_initial

STEPS = "--steps 1 --warmup-steps 0 --average-decay 0 --learning-rate 1e-8 --weight-decay 0 --batch-size 1".split()
PLACE = "--height 16 --width 128 --validate-every 0 --accelerator cpu --precision 32-true".split()
TINY = [*STEPS, *PLACE, "--net-width", "16"]
OWN = """- {id: 0, name: none, color: [0, 0, 0], thing: false, raw_ids: [0]}
- {id: 1, name: building, color: [1, 0, 0], thing: false, raw_ids: [50]}
- {id: 2, name: asphalt, color: [2, 0, 0], thing: false, raw_ids: [40]}
"""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, layouts: ModuleType) -> Path:
    folder: Path = layouts.write_bare(tmp_path_factory.mktemp("initial") / "scans", 3)
    return folder


@pytest.fixture(scope="module")
def first(scans: Path) -> Path:
    bundle = scans.parent / "first"
    words = ["train", str(scans), "--out", str(scans.parent / "run"), "--out-bundle", str(bundle), *TINY]
    assert main([*words, "--seed", "7", "--learning-rate", "0.01", "--lift", "vote"]) == 0
    return bundle


def test_a_training_goes_on_from_a_bundle_and_its_classes_are_matched_by_name(
    scans: Path, first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    words = ["train", str(scans), "--out", str(tmp_path / "run"), "--init", str(first), *TINY]
    with caplog.at_level(logging.INFO):
        assert main([*words, "--label-map", str(tmp_path / "own.yaml")]) == 0
    assert "classes initialised at random: asphalt" in caplog.text
    theirs, ours = load_file(first / "weights.safetensors"), load_file(tmp_path / "run" / "last" / "net.safetensors")
    torch.testing.assert_close(ours["stem.0.weight"], theirs["stem.0.weight"], atol=1e-6, rtol=0)
    building = 13  # of SemanticKITTI's classes
    torch.testing.assert_close(ours["classifier.weight"][1], theirs["classifier.weight"][building], atol=1e-6, rtol=0)
    assert (ours["classifier.weight"][2] - theirs["classifier.weight"]).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    assert (tmp_path / "run" / "statistics.yaml").read_text().split("class_counts")[0] == (
        scans.parent / "run" / "statistics.yaml"
    ).read_text().split("class_counts")[0]  # the input is normalised as the weights expect it
    assert all("lift: vote" in file.read_text() for file in (first / "bundle.yaml", tmp_path / "run" / "statistics.yaml"))


def test_what_keeps_the_input_of_the_first_weights_is_said_where_it_differs(
    scans: Path, first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["train", str(scans), "--init", str(first), *TINY]
    assert main([*words, "--out", str(tmp_path / "same")]) == 0
    assert "another input" not in caplog.text
    assert main([*words, "--out", str(tmp_path / "other"), "--channels", "range", "height", "intensity", "--level"]) == 0
    asked = "another input; to keep it, add --channels range x y z intensity --no-level"
    assert asked in caplog.text


def test_the_included_file_keeps_the_input_of_the_shipped_model() -> None:
    config = parse_training(["scans", "--config", "from_street"])
    assert options_for_its_input(read_initial(config), config) == ""


def test_another_net_is_refused_with_the_option_that_helps(
    scans: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(scans), "--out", str(tmp_path / "run"), "--init", str(first), *TINY]
    assert main([*words, "--net", "salsanext"]) == 2
    assert "holds a 'light', but the training's net is 'salsanext'; add --net light" in capsys.readouterr().err
    assert main([*words, "--net-width", "32"]) == 2
    assert "check --net, --net-width" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_published_checkpoint_is_read_by_its_own_names(scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(3)
    net = SalsaNext(5, 20, width=8)
    modules = salsanext_modules()
    official = {
        f"module.{modules[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor
        for name, tensor in net.state_dict().items()
    }
    torch.save({"epoch": 150, "state_dict": official, "info": {"best": 0.5}}, tmp_path / "SalsaNext_valid_best")
    words = ["train", str(scans), "--out", str(tmp_path / "run"), "--init", str(tmp_path / "SalsaNext_valid_best")]
    with caplog.at_level(logging.INFO):
        assert main([*words, *TINY, "--net", "salsanext", "--net-width", "8"]) == 0
    count = len(net.state_dict())
    assert f"starts from {count} of {count} tensors" in caplog.text
    trained = load_file(tmp_path / "run" / "last" / "net.safetensors")
    torch.testing.assert_close(trained["classifier.weight"], net.state_dict()["classifier.weight"], atol=1e-6, rtol=0)


class Evil:
    """Unpickled, it would leave a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.place,)  # type: ignore[return-value]


def test_a_file_that_needs_unpickling_is_refused(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "model": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    assert main(["train", str(scans), "--out", str(tmp_path / "run"), "--init", str(tmp_path / "evil.pth"), *TINY]) == 2
    assert "unpickling it could run any code" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert main(["train", str(scans), "--out", str(tmp_path / "run"), "--init", str(tmp_path / "text.pth"), *TINY]) == 2


@pytest.mark.parametrize("kind", ["checkpoint", "onnx", "folder"])
def test_models_of_other_projects_are_named_as_such(
    kind: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "darknet53").mkdir()
    (tmp_path / "darknet53" / "arch_cfg.yaml").write_text("dataset: {}\n")
    (tmp_path / "darknet53" / "model.onnx").write_bytes(b"\x08\x07")
    torch.save({"state_dict": {}}, tmp_path / "best")
    other = tmp_path / "darknet53"
    place = {"checkpoint": tmp_path / "best", "onnx": other / "model.onnx", "folder": other}[kind]
    assert main(["evaluate", str(scans), "--bundle", str(place), "--out", str(tmp_path / "out")]) == 2
    text = capsys.readouterr().err
    assert "there is no such folder" not in text
    assert {"checkpoint": "--init", "onnx": "is a file", "folder": "a model of another project"}[kind] in text
