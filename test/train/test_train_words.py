# SPDX-License-Identifier: Apache-2.0
"""What `weakseg train` says on the screen, and the curves that it leaves."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support import PATIENCE_S, optional

optional("torch")

from weakseg_ros.cli import main
from weakseg_ros.train.run_folder import BOARD, CURVES

SIZE = "--height 16 --width 128 --net-width 16 --batch-size 1 --accelerator cpu --precision 32-true".split()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, layouts: ModuleType) -> Path:
    folder: Path = layouts.write_bare(tmp_path_factory.mktemp("words") / "scans", 4)
    return folder


def test_a_training_ends_with_quality_bundle_time_and_the_next_command(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, bundle = tmp_path / "run", tmp_path / "mine"
    words = ["train", str(scans), "--out", str(run), "--out-bundle", str(bundle), "--steps", "3", "--warmup-steps", "1"]
    assert main([*words, *SIZE]) == 0
    shown = capsys.readouterr()
    assert "learning_rate:" not in shown.err  # the settings are in config.yaml
    assert f"all settings are in {run / 'config.yaml'}" in shown.err
    assert "trains on 3 scans, with labels on 100 % of their points" in shown.err
    assert "step 3 of 3, validation mIoU" in shown.err
    assert "over the 2 classes in the scans" in shown.err
    assert "step 1 of 3, loss" in shown.err  # this is no terminal
    assert "trained 3 steps in" in shown.out
    assert "over all 19) at step 3, on 1 validation scan\n" in shown.out
    assert f"next: weakseg evaluate {scans} --bundle {bundle}" in shown.out
    newest = max(path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file())
    assert newest <= (bundle / "bundle.yaml").stat().st_mtime_ns, "with a bundle there, nothing is missing"


def test_a_time_cap_that_ended_the_training_is_said(scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["train", str(scans), "--out", str(tmp_path / "run"), "--steps", "500000", "--max-minutes", "0.002"]
    with caplog.at_level(logging.WARNING):
        assert main([*words, *SIZE]) == 0
    assert "the time cap of max_minutes 0.002 ended the training after" in caplog.text
    assert "of 500000 steps" in caplog.text


def test_the_curves_are_drawn(scans: Path, tmp_path: Path) -> None:
    optional("matplotlib")
    from PIL import Image

    words = ["train", str(scans), "--out", str(tmp_path / "run"), "--steps", "3", "--warmup-steps", "1", "--log-every", "1"]
    assert main([*words, *SIZE]) == 0
    with Image.open(tmp_path / "run" / CURVES) as picture:
        colors = picture.convert("RGB").getcolors(1 << 20) or []
    assert len(colors) > 100


def test_tensorboard_gets_the_curves_where_it_is_installed(scans: Path, tmp_path: Path) -> None:
    optional("tensorboard")
    words = ["train", str(scans), "--out", str(tmp_path / "run"), "--steps", "2", "--warmup-steps", "1"]
    assert main([*words, *SIZE]) == 0
    assert list((tmp_path / "run" / BOARD).glob("events.*"))


def test_without_matplotlib_the_training_ends_well(scans: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from weakseg_ros.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["train", str(scans), "--out", str(tmp_path / "run"), "--steps", "2", "--warmup-steps", "1", *SIZE]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "trained 2 steps" in done.stdout
    assert not (tmp_path / "run" / CURVES).exists()
