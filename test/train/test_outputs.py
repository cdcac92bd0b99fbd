# SPDX-License-Identifier: Apache-2.0
"""What exists is replaced only where that was asked for, and places that cannot be written are refused before the work."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from support import optional

optional("torch")

from weakseg_ros.cli import main
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.bundle_place import INFO_FILE
from weakseg_ros.train import train
from weakseg_ros.train.run_folder import RunFolder

SIZE = "--height 16 --width 128 --net-width 16 --batch-size 1".split()
TINY = [*SIZE, *"--steps 2 --warmup-steps 0 --validate-every 0 --accelerator cpu --precision 32-true".split()]
UNFIT = [["--net", "rangenet"], ["--method", "erda", "--options", "beeta", "1"]]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, layouts: ModuleType) -> Path:
    folder: Path = layouts.write_bare(tmp_path_factory.mktemp("outputs") / "scans", 3)
    return folder


@pytest.fixture(scope="module")
def good(scans: Path) -> Path:
    folder = scans.parent / "good"
    assert main(["train", str(scans), "--out", str(scans.parent / "first"), "--out-bundle", str(folder), *TINY]) == 0
    return folder


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("option", ["--bundle", "--out-bundle"])
def test_a_bundle_that_exists_is_not_replaced_unasked(
    option: str, scans: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashlib.sha256((good / INFO_FILE).read_bytes()).hexdigest()
    assert main(["train", str(scans), "--out", str(tmp_path / "run"), option, str(good), *TINY]) == 2
    text = capsys.readouterr().err
    assert f"{good}: already holds a bundle;" in text
    assert "--out-bundle" in text
    assert "--overwrite" in text
    assert hashlib.sha256((good / INFO_FILE).read_bytes()).hexdigest() == before
    assert not (tmp_path / "run").exists()


def test_a_bundle_is_replaced_where_that_was_asked_for(scans: Path, good: Path, tmp_path: Path) -> None:
    target, run = tmp_path / "mine", tmp_path / "run"
    assert main(["train", str(scans), "--out", str(run), "--out-bundle", str(target), *TINY]) == 0
    assert main(["export", str(run), "--out", str(target)]) == 2
    before = (target / INFO_FILE).stat().st_ino
    assert main(["export", str(run), "--out", str(target), "--overwrite"]) == 0
    assert (target / INFO_FILE).stat().st_ino != before


def test_a_bundle_that_comes_meanwhile_is_not_replaced_and_the_work_is_not_lost(
    scans: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two trainings into one bundle; the other one ends while this one draws its curves."""
    target, drawn = tmp_path / "mine", train.draw_curves

    def draw(run: RunFolder) -> Path | None:
        shutil.copytree(good, target)
        return drawn(run)

    monkeypatch.setattr(train, "draw_curves", draw)
    assert main(["train", str(scans), "--out", str(tmp_path / "run"), "--out-bundle", str(target), *TINY, "--seed", "1"]) == 0
    assert (target / INFO_FILE).read_bytes() == (good / INFO_FILE).read_bytes()
    assert Bundle.load(tmp_path / "mine-2").content_hash != Bundle.load(target).content_hash
    assert f"{target}: another process wrote a bundle there meanwhile, so this one goes to {target}-2" in caplog.text


@pytest.mark.parametrize("verb", ["train", "export"])
def test_a_link_is_never_replaced(verb: str, scans: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "current"
    link.symlink_to(good)
    train = ["train", str(scans), "--out", str(tmp_path / "run"), "--out-bundle", str(link), *TINY]
    export = ["export", str(scans.parent / "first"), "--out", str(link)]
    assert main([*(train if verb == "train" else export), "--overwrite"]) == 2
    assert "is a link" in last_line(capsys)
    assert link.is_symlink()
    assert link.resolve() == good.resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current"]


def test_the_former_name_of_an_option_is_understood_with_a_sentence(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "fresh"
    assert main(["train", str(scans), "--out", str(tmp_path / "run"), f"--bundle={fresh}", *TINY]) == 0
    assert "weakseg train --bundle: is now called --out-bundle" in capsys.readouterr().err
    assert (fresh / INFO_FILE).is_file()


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/sys").is_dir(), reason="root may write anywhere here")
@pytest.mark.parametrize("option", ["--out", "--out-bundle"])
def test_a_place_that_cannot_be_written_is_refused_before_the_training(
    option: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """/proc takes no file, from root either."""
    words = ["train", str(scans), option, "/proc/sys/none", *TINY]
    assert main([*words, "--out", str(tmp_path / "run")] if option == "--out-bundle" else words) == 2
    text = last_line(capsys)
    assert "cannot be written" in text
    assert option in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", UNFIT)
def test_settings_that_do_not_fit_leave_no_run_folder(wrong: list[str], scans: Path, tmp_path: Path) -> None:
    words = ["train", str(scans), "--out", str(tmp_path / "run"), *TINY]
    assert main([*words, *wrong]) == 2
    assert not (tmp_path / "run").exists()
    assert main(words) == 0
