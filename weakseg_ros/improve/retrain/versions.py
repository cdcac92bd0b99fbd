# SPDX-License-Identifier: Apache-2.0
"""Which bundle is deployed: `models/current` is a link to one of them, changed in one step, and its history is kept.

    models/current                 a symbolic link: what nodes and `--bundle models/current` mean
    models/versions/street-3     candidates and former ones; a refused one holds REJECTED.md, one that is yet to be
                                   judged NOT_JUDGED.md
    models/versions/history.jsonl  one line per change, oldest first

A reader sees the old bundle or the new one, never a mixture, and a deployed bundle is never written to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from weakseg_ros.config import from_mapping, parse
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.bundle_place import CURRENT, INFO_FILE, find_bundle
from weakseg_ros.errors import BundleError, DataError, WeaksegError, say
from weakseg_ros.files import (
    append_json_line,
    content_of,
    is_being_written,
    read_json_lines,
    replace_link,
    staged,
    sweep,
    write_atomic,
)
from weakseg_ros.locks import in_turn_at

VERSIONS = "versions"
HISTORY = "history.jsonl"
REJECTED = "REJECTED.md"
UNJUDGED = "NOT_JUDGED.md"
_RUN_LINE = "Run folder: "
MOST_VERSIONS = 100_000


@dataclass(frozen=True)
class VersionChange:
    """One line of the history."""

    time: str
    """UTC, ISO 8601"""
    action: Literal["promote", "rollback", "reject"]
    bundle: str
    """the folder that the change is about, relative to the models folder where it lies in it"""
    name: str
    hash: str
    previous: str = ""
    """what `current` meant before, in the same words as `bundle`; empty where it meant nothing"""
    why: str = ""


class Versions:
    """The bundles of one models folder. Every change is in the history before it is in force."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.pointer = models / CURRENT
        self._is_alone = False

    @property
    def current(self) -> Path | None:
        """The folder that `current` means at this moment, None where there is none yet.

        Raises BundleError where `current` is a folder of its own, which could not be changed in one step.
        """
        if self.pointer.is_symlink():
            return Path(os.path.realpath(self.pointer))
        if self.pointer.exists():
            raise BundleError(f"{self.pointer}: is a folder, not a link; move it away and promote a bundle")
        return None

    def history(self) -> list[VersionChange]:
        """Every change so far; a line that was cut short by a crash is left out."""
        changes = []
        for row in read_json_lines(self.models / VERSIONS / HISTORY, "action"):
            with contextlib.suppress(WeaksegError):
                changes.append(from_mapping(VersionChange, row, HISTORY))
        return changes

    def stack(self) -> list[str]:
        """The bundles that a rollback would meet, oldest first, `current` last; each in the words of the history."""
        now = self._in_words(self.current) if self.current else ""
        changes = [change for change in self.history() if change.action != "reject"]
        if changes and changes[-1].bundle != now == changes[-1].previous:
            changes.pop()  # noted, but ended before it was in force
        stack: list[str] = []
        for change in changes:
            _cut_to(stack, change.previous if change.action == "promote" else change.bundle)
            if change.action == "promote":
                stack.append(change.bundle)
        _cut_to(stack, now)
        return stack

    def stem_of(self, bundle: Bundle) -> str:
        """What the versions of a bundle are called: its name, without the number where it is such a version."""
        return re.sub(r"-\d+$", "", bundle.name) if bundle.folder.parent.name == VERSIONS else bundle.name

    def new_folder(self, stem: str) -> Path:
        """An empty folder `versions/STEM-n` that nobody else has."""
        parent = self.models / VERSIONS
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(match[1]) for entry in parent.iterdir() if (match := re.fullmatch(re.escape(stem) + r"-(\d+)", entry.name))]
        for number in range(max(taken, default=0) + 1, MOST_VERSIONS):
            with contextlib.suppress(FileExistsError):
                (parent / f"{stem}-{number}").mkdir()
                return parent / f"{stem}-{number}"
        raise BundleError(f"{parent}: has no room for another {stem}; remove old versions")

    @contextlib.contextmanager
    def candidate(self, stem: str) -> Iterator[tuple[Path, Path]]:
        """A folder `versions/STEM-n` that nobody else has, and one in which to prepare it; both go where nothing came of it."""
        folder = self.new_folder(stem)
        with staged(folder) as fresh:
            try:
                yield folder, fresh
            finally:
                if not (folder / INFO_FILE).is_file():
                    shutil.rmtree(folder, ignore_errors=True)

    def mark_unjudged(self, folder: Path, run: Path) -> None:
        """Say in a candidate's folder that no gate has judged it yet, and where it is trained."""
        text = "# Not judged yet\n\nThe gate has not finished comparing this candidate with the deployed bundle.\n"
        write_atomic(folder / UNJUDGED, f"{text}\n{_RUN_LINE}{run.absolute()}\n")

    def abandoned(self) -> list[tuple[Path, Path | None]]:
        """(candidate, run folder) of each retraining that was ended before its bundle was deployed or refused.

        The deployed bundle is none of them, even where it still has the mark. Half-written folders of dead processes go.
        """
        parent = self.models / VERSIONS
        sweep(parent)
        if self.current is not None:
            self.judged(self.current)
        found: list[tuple[Path, Path | None]] = []
        for folder in content_of(parent):
            unjudged = folder / UNJUDGED
            unfinished = folder.is_dir() and (unjudged.is_file() or not content_of(folder))
            if unfinished and folder.resolve() != self.current and not is_being_written(folder):
                found.append((folder, _run_of(folder)))
        return found

    def deployed_at_the_last_moment(self) -> tuple[Path, Path] | None:
        """(deployed bundle, run folder) of a retraining that was ended when it had deployed its bundle; None where there is none.

        The mark is still there then: it is the last that goes.
        """
        run = _run_of(self.current) if self.current is not None else None
        return (self.current, run) if self.current is not None and run is not None else None

    def judged(self, folder: Path) -> None:
        """Take the mark off a candidate that was judged."""
        (folder / UNJUDGED).unlink(missing_ok=True)

    def promote(
        self, folder: Path, why: str = "", previous: Path | None = None, unjudged: bool = False, keep_mark: bool = False
    ) -> Bundle:
        """Make `current` mean the bundle in `folder`; returns it, verified.

        `previous` is what a first promotion can be rolled back to. The bundle that is current already stays it. `keep_mark` is
        for a retraining, which takes the mark off as its very last step. Raises BundleError for a bundle that is damaged, was
        refused by the gate, or was not judged by it (unless `unjudged`).
        """
        with self.alone():
            return self._promoted(Bundle.load(find_bundle(folder).resolve()), folder, why, previous, unjudged, keep_mark)

    def _promoted(self, bundle: Bundle, folder: Path, why: str, previous: Path | None, unjudged: bool, keep_mark: bool) -> Bundle:
        before = self.current
        if before == bundle.folder:  # a promotion that was ended after its last step is given again
            self.judged(bundle.folder)
            return bundle
        if (bundle.folder / REJECTED).is_file():
            report = bundle.folder / REJECTED
            raise BundleError(f"{folder}: was refused by the gate; {report} says why, remove it to promote the bundle anyway")
        if (bundle.folder / UNJUDGED).is_file() and not unjudged:
            raise BundleError(
                f"{folder}: the gate has not judged it, because its retraining still runs or was interrupted; "
                "run 'weakseg retrain' again, or add --unjudged to promote it anyway"
            )
        before = before or (previous.resolve() if previous else None)
        self._change("promote", bundle, before, why)
        if not keep_mark:
            self.judged(bundle.folder)  # last: a candidate that was ended before it is deployed stays one
        return bundle

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other programs from changing what is deployed until the block has ended; may be nested.

        Raises BundleError where the models folder cannot be written.
        """
        if self._is_alone:
            yield
            return
        try:
            (self.models / VERSIONS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refusal(error) from None
        with in_turn_at(self.models / VERSIONS):
            self._is_alone = True
            try:
                yield
            finally:
                self._is_alone = False

    def reject(self, folder: Path, report: str, why: str) -> None:
        """Mark a candidate as refused, with the report that says why; it stays where it is, and its mark "not judged", too."""
        bundle = Bundle.load(folder)
        self._note("reject", bundle, None, why)
        write_atomic(folder / REJECTED, report)

    def rollback(self, why: str = "") -> Bundle:
        """Make `current` mean what it meant before the bundle at work was promoted; again goes one further back.

        Raises BundleError where there is nothing before it, or it is gone or damaged; all stays as it is then.
        """
        if self.current is None:
            raise BundleError(f"{self.pointer}: no bundle has been promoted yet; promote one first")
        with self.alone():
            return self._rolled_back(self.current, why)

    def _rolled_back(self, now: Path, why: str) -> Bundle:
        stack = self.stack()
        if len(stack) < 2:
            raise BundleError(f"{self.pointer}: no version from before {self._in_words(now)} is recorded; promote another bundle")
        if not (self.models / stack[-2]).exists():
            raise BundleError(f"{self.pointer}: {self._before_is_gone(stack)}")
        bundle = Bundle.load((self.models / stack[-2]).resolve())
        self._change("rollback", bundle, now, why)
        return bundle

    def _before_is_gone(self, stack: Sequence[str]) -> str:
        """What to do where the version before the current one, of those that a rollback would meet, no longer exists."""
        earlier = [change.bundle for change in self.history() if change.action != "reject" and change.bundle != stack[-1]]
        left = next((name for name in reversed(earlier) if (self.models / name).exists()), None)
        advice = f"'weakseg promote {self.models / left}' deploys the latest that does" if left else "promote another bundle"
        return f"{stack[-2]}, which was deployed before {stack[-1]}, no longer exists; {advice}"

    def _change(self, action: Literal["promote", "rollback"], bundle: Bundle, before: Path | None, why: str) -> None:
        try:
            sweep(self.pointer)
            self._note(action, bundle, before, why)
            replace_link(self.pointer, self._in_words(bundle.folder))
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> BundleError:
        return BundleError(f"{self.pointer}: cannot be changed ({error.strerror}); check space and permissions")

    def _note(self, action: Literal["promote", "rollback", "reject"], bundle: Bundle, before: Path | None, why: str) -> None:
        change = VersionChange(
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            action=action,
            bundle=self._in_words(bundle.folder),
            name=bundle.name,
            hash=bundle.content_hash,
            previous=self._in_words(before) if before else "",
            why=why,
        )
        path = self.models / VERSIONS / HISTORY
        path.parent.mkdir(parents=True, exist_ok=True)
        last = next(reversed(self.history()), None)
        if last is None or dataclasses.replace(last, time=change.time) != change:  # else it was noted, but not done
            append_json_line(path, asdict(change))

    def _in_words(self, folder: Path) -> str:
        """A folder as link and history hold it: relative to the models folder, so that a whole tree can be moved."""
        root, target = self.models.resolve(), folder.resolve()
        return os.path.relpath(target, root) if target.is_relative_to(root.parent) else str(target)


def _run_of(candidate: Path) -> Path | None:
    """The run folder that the mark of a candidate names; None without a mark, or where it was cut short."""
    mark = candidate / UNJUDGED
    lines = mark.read_text(encoding="utf-8").splitlines() if mark.is_file() else []
    return next((Path(line.removeprefix(_RUN_LINE)) for line in lines if line.startswith(_RUN_LINE)), None)


def _cut_to(stack: list[str], top: str) -> None:
    """Take from the stack what lies above `top`; where it is not in it, put it on."""
    if not top:
        return
    if top not in stack:
        stack.append(top)
    while stack[-1] != top:
        stack.pop()


@dataclass(frozen=True)
class RollbackConfig:
    """Redeploy the bundle that was deployed before."""

    models: Path = Path("models")
    """Names the folder that holds `current` and `versions`."""
    list: bool = False
    """Lists the deployments, oldest first, and changes nothing."""
    why: str = ""
    """Sets the reason to record in the deployment history."""


@dataclass(frozen=True)
class PromoteConfig:
    """Deploy a bundle; nodes that watch `models/current` hot-swap it while they run."""

    bundle: Positional[Path]
    """Names the folder of the bundle to deploy."""
    models: Path = Path("models")
    """Names the folder that holds `current` and `versions`."""
    why: str = ""
    """Sets the reason to record in the deployment history."""
    unjudged: bool = False
    """Deploys a candidate even if the gate has not judged it."""


def rollback_main(argv: Sequence[str]) -> int:
    """`weakseg rollback`."""
    config = parse(RollbackConfig, argv, "rollback")
    versions = Versions(config.models)
    if config.list:
        say(_table(versions))
        return 0
    bundle = versions.rollback(config.why)
    say(f"{versions.pointer}: {bundle.name} ({bundle.content_hash[:12]}) again, from {bundle.folder}")
    return 0


def promote_main(argv: Sequence[str]) -> int:
    """`weakseg promote BUNDLE`."""
    config = parse(PromoteConfig, argv, "promote")
    versions = Versions(config.models)
    bundle = versions.promote(config.bundle, config.why, unjudged=config.unjudged)
    say(f"{versions.pointer}: now {bundle.name} ({bundle.content_hash[:12]}), from {bundle.folder}")
    return 0


def _table(versions: Versions) -> str:
    changes, current = versions.history(), versions.current
    if not changes:
        raise DataError(f"{versions.models / VERSIONS}: holds no history; nothing was promoted from here yet")
    rows = [f"{change.time}  {change.action:8}  {change.bundle}  {change.hash[:12]}  {change.why}".rstrip() for change in changes]
    gone = ", which no longer exists" if current is not None and not current.exists() else ""
    return "\n".join([*rows, f"current: {current or 'none'}{gone}"])
