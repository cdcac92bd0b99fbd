# SPDX-License-Identifier: Apache-2.0
"""models/current: changed in one step, rolled back, never a mixture, and its history survives a crash."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from weakseg_ros.cli import main
from weakseg_ros.deploy.bundle import KIND_WEIGHTS, Bundle, BundleInfo, NetRule, write_bundle
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.errors import BundleError, ConfigError
from weakseg_ros.files import put_in_place
from weakseg_ros.improve.retrain.versions import REJECTED, UNJUDGED, Versions
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

LABELS = LabelMap("two", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i,)) for i in range(3)))


def make(folder: Path, content: bytes = b"weights") -> Bundle:
    info = BundleInfo(
        name=folder.name,
        input=InputSpec(geometry=RangeSpec(16, 32), channels=("range",), mean=(0.0,), std=(1.0,), intensity=IntensityRule(False)),
        labels=LABELS,
        net=NetRule("light"),
    )
    return write_bundle(folder, info, {"weights.safetensors": (KIND_WEIGHTS, content + folder.name.encode())}, "card\n")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make(tmp_path / "models" / "street")
    return tmp_path / "models"


def test_the_first_promotion_makes_current_and_can_be_rolled_back(models: Path) -> None:
    versions = Versions(models)
    assert versions.current is None
    candidate = make(versions.new_folder("street"))
    versions.promote(candidate.folder, "better", previous=models / "street")
    assert Bundle.load(models / "current").content_hash == candidate.content_hash
    assert versions.rollback("worse on Mondays").name == "street"
    assert versions.current == (models / "street").resolve()
    assert [(c.action, c.bundle, c.previous) for c in versions.history()] == [
        ("promote", "versions/street-1", "street"),
        ("rollback", "street", "versions/street-1"),
    ]
    with pytest.raises(BundleError, match="no version from before street"):
        versions.rollback()


def test_rolling_back_twice_goes_two_back(models: Path) -> None:
    versions = Versions(models)
    folders = [versions.new_folder("street") for _ in range(3)]
    assert [folder.name for folder in folders] == ["street-1", "street-2", "street-3"]
    for folder in folders:
        make(folder)
        versions.promote(folder)
    assert versions.rollback().name == "street-2"
    assert versions.rollback().name == "street-1"
    with pytest.raises(BundleError, match="no version from before"):
        versions.rollback()


def test_each_rollback_goes_one_further_and_the_last_says_so(models: Path) -> None:
    versions = Versions(models)
    first, second = (make(versions.new_folder("street")).folder for _ in range(2))
    for folder in (first, second, first):
        versions.promote(folder)
    assert [versions.rollback().folder for _ in range(2)] == [second, first]
    for _ in range(2):
        with pytest.raises(BundleError, match="no version from before"):
            versions.rollback()
    versions.promote(second)
    assert versions.rollback().folder == first


def test_a_change_that_was_noted_but_not_made_does_not_count_and_is_noted_once(models: Path) -> None:
    versions = Versions(models)
    first, second, third = (make(versions.new_folder("street")).folder for _ in range(3))
    versions.promote(first)
    versions.promote(second)
    link = os.readlink(models / "current")

    def killed_before_the_link_changed(change: Callable[[], object]) -> None:
        change()
        os.unlink(models / "current")
        os.symlink(link, models / "current")

    killed_before_the_link_changed(lambda: versions.promote(third))
    assert versions.stack() == ["versions/street-1", "versions/street-2"]
    versions.promote(third)
    assert len(versions.history()) == 3
    assert versions.rollback().folder == second
    killed_before_the_link_changed(versions.rollback)
    assert versions.rollback().folder == first
    assert len(versions.history()) == 5


def test_a_candidate_that_nobody_judged_is_promoted_only_with_a_flag(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions = Versions(models)
    with versions.candidate("street") as (folder, fresh):
        versions.mark_unjudged(folder, models / "run")
        candidate = make(fresh / folder.name)
        versions.mark_unjudged(candidate.folder, models / "run")
        put_in_place(candidate.folder, folder)
        assert versions.abandoned() == [], "its retraining is alive"
    assert versions.abandoned() == [(folder, models / "run")]
    arguments = ["promote", str(folder), "--models", str(models)]
    assert main(arguments) == 2
    assert "the gate has not judged it" in capsys.readouterr().err
    assert main([*arguments, "--unjudged"]) == 0
    assert versions.abandoned() == []
    assert not (folder / UNJUDGED).exists()


def test_a_candidate_stays_unjudged_until_it_is_deployed(models: Path) -> None:
    """What a retraining that is ended between its verdict and its deployment leaves is removed by the next one."""
    versions = Versions(models)
    with versions.candidate("street") as (folder, fresh):
        candidate = make(fresh / folder.name)
        versions.mark_unjudged(candidate.folder, models / "run")
        put_in_place(candidate.folder, folder)
        (models / "versions" / "history.jsonl").mkdir()  # the promotion ends before it is in force
        with pytest.raises(BundleError, match="cannot be changed"):
            versions.promote(folder, unjudged=True)
    (models / "versions" / "history.jsonl").rmdir()
    assert versions.abandoned() == [(folder, models / "run")]
    (models / "versions" / ".street-1.4194304-0.new").mkdir()
    (models / "current").symlink_to("versions/street-1")
    assert versions.abandoned() == [], "it was deployed, and ended before the mark was off"
    assert sorted(path.name for path in (models / "versions").iterdir()) == ["street-1"]
    assert not (folder / UNJUDGED).exists()


def test_a_candidate_whose_mark_was_being_written_is_abandoned(models: Path) -> None:
    folder = Versions(models).new_folder("street")
    (folder / f".{UNJUDGED}.4194304-0.tmp").write_text("half")
    assert Versions(models).abandoned() == [(folder, None)]


def test_a_candidate_of_which_nothing_came_leaves_nothing(models: Path) -> None:
    versions = Versions(models)

    def interrupted() -> None:
        with versions.candidate("street") as (folder, _):
            versions.mark_unjudged(folder, models / "run")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(models / "versions") == []


def test_a_name_with_control_characters_is_refused_and_shown(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="x1b"):
        make(models / "b\x1b[2J")
    assert main(["promote", str(models / "b\x1b]0;pwned\x07"), "--models", str(models)]) == 2
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert r"b\x1b]0;pwned\x07" in shown


def test_a_moved_models_folder_still_works(models: Path, tmp_path: Path) -> None:
    versions = Versions(models)
    for _ in range(2):
        versions.promote(make(versions.new_folder("street")).folder)
    models.rename(tmp_path / "elsewhere")
    moved = Versions(tmp_path / "elsewhere")
    assert moved.current == tmp_path / "elsewhere" / "versions" / "street-2"
    assert moved.rollback().name == "street-1"


def test_what_is_damaged_or_refused_is_not_promoted_and_what_is_current_stays_it(models: Path) -> None:
    versions = Versions(models)
    good = make(versions.new_folder("street"))
    versions.promote(good.folder)
    damaged, refused = (make(versions.new_folder("street")) for _ in range(2))
    (damaged.folder / "weights.safetensors").write_bytes(b"other")
    versions.reject(refused.folder, "# refused\n", "mIoU fell")
    for folder, text in ((damaged.folder, "its hash is"), (refused.folder, REJECTED)):
        with pytest.raises(BundleError, match=text):
            versions.promote(folder)
        assert versions.current == good.folder.resolve()
    assert versions.promote(good.folder).folder == good.folder.resolve(), "given again, it is at work already"
    assert (refused.folder / REJECTED).read_text() == "# refused\n"
    assert [c.action for c in versions.history()] == ["promote", "reject"]
    Bundle.load(refused.folder)


def test_rollback_to_a_bundle_that_is_gone_changes_nothing(models: Path) -> None:
    versions = Versions(models)
    first, second = (make(versions.new_folder("street")) for _ in range(2))
    versions.promote(first.folder)
    versions.promote(second.folder)
    (first.folder / "bundle.yaml").unlink()
    with pytest.raises(BundleError, match=r"bundle\.yaml"):
        versions.rollback()
    assert versions.current == second.folder.resolve()


def test_deleted_bundles_are_named_with_what_is_left(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions = Versions(models)
    first, second, third = (make(versions.new_folder("street")).folder for _ in range(3))
    for folder in (first, second, third):
        versions.promote(folder)
    shutil.rmtree(second)
    text = rf"versions/street-2, which was deployed before versions/street-3, no longer exists; 'weakseg promote {first}'"
    with pytest.raises(BundleError, match=text):
        versions.rollback()
    shutil.rmtree(third)
    assert main(["rollback", "--list", "--models", str(models)]) == 0
    assert f"current: {third}, which no longer exists" in capsys.readouterr().out
    assert versions.promote(first).folder == first
    shutil.rmtree(first)
    with pytest.raises(BundleError, match=r"versions/street-3, .* no longer exists; promote another bundle"):
        versions.rollback()


def test_a_folder_in_the_pointers_place_is_not_touched(models: Path) -> None:
    make(models / "current")
    with pytest.raises(BundleError, match="not a link"):
        Versions(models).promote(models / "street")
    assert not (models / "current").is_symlink()


def test_a_history_that_was_cut_short_goes_on(models: Path) -> None:
    versions = Versions(models)
    versions.promote(make(versions.new_folder("street")).folder)
    path = models / "versions" / "history.jsonl"
    path.write_bytes(path.read_bytes() + b'{"time": "2026')
    versions.promote(make(versions.new_folder("street")).folder)
    assert [c.bundle for c in versions.history()] == ["versions/street-1", "versions/street-2"]
    assert versions.rollback().name == "street-1"


def test_a_crash_between_note_and_swap_leaves_a_pointer_that_can_still_be_rolled_back(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = Versions(models)
    for _ in range(2):
        versions.promote(make(versions.new_folder("street")).folder)
    third = make(versions.new_folder("street"))
    real = os.replace

    def fail(source: Any, target: Any) -> None:
        if Path(target).name == "current":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BundleError, match="No space left"):
        versions.promote(third.folder)
    monkeypatch.undo()
    assert versions.current == models / "versions" / "street-2"
    assert not list(models.glob(".current*"))
    assert versions.rollback().name == "street-1"


def test_readers_see_one_bundle_or_the_other_while_it_changes(models: Path) -> None:
    versions = Versions(models)
    bundles = [make(versions.new_folder("street"), os.urandom(2000)) for _ in range(2)]
    versions.promote(bundles[0].folder)
    ended = threading.Event()

    def read() -> set[str]:
        seen = set()
        while not ended.is_set():
            seen.add(Bundle.load(models / "current").content_hash)
        return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for i in range(60):
            versions.promote(bundles[(i + 1) % 2].folder)
        ended.set()
        assert reader.result() == {bundle.content_hash for bundle in bundles}


def test_programs_that_deploy_at_once_do_it_one_after_the_other(models: Path) -> None:
    """Each change begins where the one before it has led, so that a rollback finds its way."""
    names = [make(Versions(models).new_folder("street"), os.urandom(100)).folder for _ in range(4)]

    def deploy(folder: Path) -> None:
        for _ in range(15):
            Versions(models).promote(folder)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(deploy, names))
    changes = Versions(models).history()
    assert [change.previous for change in changes[1:]] == [change.bundle for change in changes[:-1]]
    assert Versions(models).current == (models / changes[-1].bundle).resolve()


def test_the_verbs(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollback", "--models", str(models)]) == 2
    assert "no bundle has been promoted yet" in capsys.readouterr().err
    assert main(["promote", str(models / "street"), "--models", str(models), "--why", "to begin with"]) == 0
    make(Versions(models).new_folder("street"))
    assert main(["promote", str(models / "versions" / "street-1"), "--models", str(models)]) == 0
    assert main(["rollback", "--models", str(models)]) == 0
    assert "street" in capsys.readouterr().out
    assert main(["rollback", "--models", str(models), "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in listed[:-1]] == ["promote", "promote", "rollback"]
    assert "to begin with" in listed[0]
    assert listed[-1].endswith("models/street")
