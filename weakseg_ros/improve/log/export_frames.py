# SPDX-License-Identifier: Apache-2.0
"""`weakseg export-frames`: the frames of a log as bags with their tags, and a command of yours for each of them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from weakseg_ros.config import check_ranges, parse
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.frame_log import FrameRecord, read_frame_cloud
from weakseg_ros.errors import ConfigError, DataError, counted, say
from weakseg_ros.improve.log.context import read_context
from weakseg_ros.improve.log.frame_folder import FrameFolder, open_frames

SENT = "sent.txt"
"""the bags for which the user's command has ended well, one name a line"""
TOPIC = "/points"


@dataclass(frozen=True)
class ExportFramesConfig:
    """Export the frames of a log as MCAP bags, one bag per frame, with the seconds around it if the log kept them."""

    folder: tyro.conf.Positional[Path]
    """Names the frame log of a node or of 'weakseg select'."""
    out: Path = Path("runs/frames")
    """Names the output folder for the bags; existing bags are left alone, so that an interrupted export can be resumed."""
    tag: str = ""
    """Exports only frames with this tag; an empty string exports all frames."""
    then: str = ""
    """Sets a command to run for each new bag, with {} for the bag's folder, for example 'rclone copy {} fleet:bags/'; if the
    command fails, the next export tries that bag again."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.then and "{}" not in self.then:
            raise ConfigError(f"then: '{self.then}' has no {{}}; write {{}} where the bag's folder belongs")


def main(argv: Sequence[str]) -> int:
    """The verb; 1 where a command failed."""
    config = parse(ExportFramesConfig, argv, "export-frames")
    log = open_frames(config.folder)
    for problem in log.problems:
        say(f"left out: {problem}")
    chosen = [record for record in log.frames if not config.tag or record.tag == config.tag]
    if not chosen:
        tags = ", ".join(sorted({record.tag for record in log.frames} - {""})) or "none"
        raise DataError(f"{config.folder}: no frame has the tag '{config.tag}'; there are: {tags}")
    made = sum(export_frame(log, record, config.out) for record in chosen)
    say(f"{config.out}: {counted(made, 'new bag')} of {counted(len(chosen), 'frame')}")
    failed = _send([bag_name(record) for record in chosen], config) if config.then else 0
    return 1 if failed else 0


def bag_name(record: FrameRecord) -> str:
    """The name of a frame's bag: its key, and its tag where it has one."""
    tag = re.sub(r"[^\w-]+", "-", record.tag).strip("-")
    return f"{record.key}_{tag}" if tag else record.key


def export_frame(log: FrameFolder, record: FrameRecord, out: Path) -> bool:
    """Write a frame and the messages around it as a bag; whether it is a new one.

    Messages of types that rosbags does not know are left out, with a sentence.
    """
    path = out / bag_name(record)
    if path.exists():
        return False
    unknown: Counter[str] = Counter()
    with CloudBagWriter(path, record.sensor if record.sensor.startswith("/") else TOPIC) as bag:
        bag.describe({name: str(getattr(record, name)) for name in ("key", "tag", "note", "reason", "score", "bundle")})
        messages = 0
        for message in read_context(log.folder, record.key):
            written = bag.write_message(message.topic, message.type, message.stamp_ns, message.data)
            unknown[message.type] += not written
            messages += written
        if not messages:
            bag.write(read_frame_cloud(log.folder, record))
    for kind, count in (+unknown).items():
        say(
            f"{path}: {counted(count, 'message')} of type {kind} {'was' if count == 1 else 'were'} "
            "left out, because rosbags does not know the type"
        )
    return True


def _send(names: Sequence[str], config: ExportFramesConfig) -> int:
    """Run the user's command for each bag for which it has not ended well before; the number of failures."""
    ledger = config.out / SENT
    sent = set(ledger.read_text(encoding="utf-8").split()) if ledger.is_file() else set()
    failed = 0
    for name in names:
        if name in sent:
            continue
        command = [word.replace("{}", str(config.out / name)) for word in shlex.split(config.then)]
        try:
            code = subprocess.run(command, check=False).returncode
        except OSError as error:
            raise ConfigError(f"then: {command[0]} cannot be run ({error.strerror}); check the command") from None
        if code:
            say(f"{name}: the command exited with code {code}; the next export retries it")
            failed += 1
            continue
        with open(ledger, "a", encoding="utf-8") as file:
            file.write(f"{name}\n")
    return failed
