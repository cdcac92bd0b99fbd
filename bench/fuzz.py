# SPDX-License-Identifier: Apache-2.0
"""Wild bytes for everything that reads what others wrote: nothing but the errors that are meant for it may come of them.

    python bench/fuzz.py --count 20000                                    each target so often (make fuzz)
    python bench/fuzz.py --targets cdr bent --count 5000000 --resume      the long form, about 0.1 ms each

Targets: cdr (serialized PointCloud2, from sound clouds of 64 layouts), bent (sound clouds with some of their numbers changed),
clouds (messages of any layout, drawn by hypothesis, some 3 ms each), labels (label maps), yaml, bundles (bundle.yaml), bags,
clicks (label files), messages (of the page, through its door), page (the same, to a live server). All is drawn from the seed.
Bytes are mutated from good examples; what was found once is kept in --corpus and tried first.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz_inputs import (
    Message,
    bent_message,
    mutated,
    page_messages,
    serialized_clouds,
    tiny_bundle,
    wild_messages,
    write_bag,
)
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from weakseg_ros.data.bags import find_cloud_topic, read_clouds
from weakseg_ros.data.scan_files import read_raw_labels
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.environment import environment
from weakseg_ros.errors import WeaksegError
from weakseg_ros.files import write_json
from weakseg_ros.points.cloud import Cloud, decode, decode_cdr
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.yaml_files import read_yaml

SHOWN = 5
SHARE, SHARE_OF_BAGS = 10_000, 500
"""inputs after which the figures are written, so that a run that was ended goes on from there"""


@dataclasses.dataclass
class Target:
    """Something that reads, and what it is given."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def byte_targets(scratch: Path) -> dict[str, Target]:
    """What reads bytes or a file, with a good example of each."""
    bundle = tiny_bundle(scratch / "bundle")
    bag = write_bag(scratch / "bag")
    mcap = next(bag.glob("*.mcap"))
    info, rows = bundle.folder / "bundle.yaml", [dataclasses.asdict(row) for row in bundle.labels.classes]
    file = scratch / "file.yaml"

    def read_labels(data: bytes) -> object:
        file.write_bytes(data)
        return LabelMap.from_yaml(file)

    def read_any_yaml(data: bytes) -> object:
        file.write_bytes(data)
        return read_yaml(file)

    def read_bundle(data: bytes) -> object:
        info.write_bytes(data)
        return Bundle.load(bundle.folder)

    def read_bag(data: bytes) -> object:
        mcap.write_bytes(data)
        return [cloud for _, cloud in read_clouds(bag, find_cloud_topic(bag).name)]

    def read_clicks(data: bytes) -> object:
        file.write_bytes(data)
        return read_raw_labels(file, 20)

    plain = yaml.safe_dump([{**row, "color": list(row["color"]), "raw_ids": list(row["raw_ids"])} for row in rows]).encode()
    return {
        "cdr": Target(lambda data: checked(decode_cdr(data)), serialized_clouds()),
        "labels": Target(read_labels, (plain,)),
        "yaml": Target(read_any_yaml, (info.read_bytes(), b"a: [1, 2.5, 2001-01-01, !!set {x}]\nb: &b {c: d}\n")),
        "bundles": Target(read_bundle, (info.read_bytes(),)),
        "bags": Target(read_bag, (mcap.read_bytes(),)),
        "clicks": Target(read_clicks, (np.arange(20, dtype="<u4").tobytes(),)),
        **({"messages": Target(read_message, page_messages())} if importlib.util.find_spec("viser") else {}),
    }


def checked(cloud: Cloud) -> Cloud:
    """A cloud whose promises hold: what passes with anything else is a fault, too."""
    usable = cloud.xyz[cloud.valid]
    if not np.isfinite(usable).all() or not np.isfinite(cloud.intensity).all():
        raise AssertionError("a usable point is not finite")
    if ((usable == 0).all(axis=1)).any():
        raise AssertionError("a non-return counts as usable")
    return cloud


def read_message(data: bytes) -> object:
    """The door says of any bytes whether they come in."""
    from weakseg_ros.improve.label.door import fault_of

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fault_of(data)


@dataclasses.dataclass
class Found:
    """What came of a target."""

    tried: int = 0
    refused: int = 0
    unexpected: Counter[str] = dataclasses.field(default_factory=Counter)

    def note(self, read: Callable[[Any], object], given: Any) -> str:
        """Try one; the fault's name where it is one that nobody meant."""
        self.tried += 1
        try:
            read(given)
        except WeaksegError:
            self.refused += 1
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {str(error)[:80]}"
            self.unexpected[fault] += 1
            return fault
        return ""

    def add(self, other: Found) -> None:
        """Take in what came of a further share."""
        self.tried, self.refused = self.tried + other.tried, self.refused + other.refused
        self.unexpected += other.unexpected


Share = Callable[[int, str], Found]
"""tries as many inputs as the first argument says, drawn from the text"""


def fuzz_bytes(name: str, target: Target, corpus: Path) -> Share:
    """Mutates the good examples; what was found before is tried first, and what is found is kept."""
    waiting = [*target.seeds, *(path.read_bytes() for path in sorted((corpus / name).glob("*")))]

    def share(count: int, seed_text: str) -> Found:
        found, rng = Found(), random.Random(seed_text)
        while found.tried < count:
            blob = waiting.pop() if waiting else mutated(rng.choice(target.seeds), rng)
            if found.note(target.read, blob):
                (corpus / name).mkdir(parents=True, exist_ok=True)
                (corpus / name / hashlib.sha256(blob).hexdigest()[:16]).write_bytes(blob)
        return found

    return share


def fuzz_bent(count: int, seed_text: str) -> Found:
    """Sound clouds with a few faults."""
    found, rng = Found(), random.Random(seed_text)
    for _ in range(count):
        found.note(lambda message: checked(decode(message)), bent_message(rng))
    return found


def fuzz_clouds(count: int, seed_text: str) -> Found:
    """Messages of any layout, drawn by hypothesis."""
    found = Found()

    @seed(seed_text)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(wild_messages())
    def try_one(message: Message) -> None:
        found.note(lambda drawn: checked(decode(drawn)), message)

    try_one()
    return found


def fuzz_page(count: int, seed_text: str) -> Found:
    """Messages to a live server, over one connection; it has to answer afterwards."""
    import viser
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    from weakseg_ros.improve.label.serve import start_server

    found, rng, seeds = Found(), random.Random(seed_text), page_messages()
    server = start_server(free_port())
    try:
        where, protocol = f"ws://127.0.0.1:{server.get_port()}", [f"viser-v{viser.__version__}"]
        with connect(where, subprotocols=protocol, max_size=None) as connection:
            for _ in range(count):
                found.tried += 1
                try:
                    connection.send(mutated(rng.choice(seeds), rng))
                except ConnectionClosed as error:
                    found.unexpected[f"the connection was closed: {error}"] += 1
                    break
            if not connection.ping().wait(60):
                found.unexpected["the server does not answer any more"] += 1
    finally:
        server.stop()
    return found


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """What is refused is refused a million times; once is said by the table."""
    import logging

    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    """The table; exit code 1 where something came that nobody meant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="*", default=[], help="only these")
    parser.add_argument("--count", type=int, default=20_000, help="inputs for each target; bags get a twentieth")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--corpus", type=Path, default=Path("runs/fuzz/corpus"), help="folder of what was found, tried first")
    parser.add_argument("--resume", action="store_true", help="go on from the figures in --out, if they are of the same seed")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz/fuzz.json"), help="JSON file for the figures")
    options = parser.parse_args()
    before = json.loads(options.out.read_text()) if options.resume and options.out.is_file() else {}
    results: dict[str, Any] = before.get("targets", {}) if before.get("seed") == options.seed else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="weakseg_fuzz_") as scratch, quiet_logs():
        targets = all_targets(Path(scratch), options.corpus)
        for name in options.targets or targets:
            count = -(-options.count // 20) if name == "bags" else options.count
            for row in in_shares(name, targets[name], count, options.seed, results.get(name, {})):
                results[name] = row
                content = {"seed": options.seed, "targets": results, "environment": environment()}
                write_json(options.out, content)
            print(told(name, results[name]), flush=True)
    return int(any(row["unexpected"] for row in results.values()))


def all_targets(scratch: Path, corpus: Path) -> dict[str, Share]:
    """Everything that can be fuzzed here."""
    targets = {name: fuzz_bytes(name, target, corpus) for name, target in byte_targets(scratch).items()}
    targets |= {"bent": fuzz_bent, "clouds": fuzz_clouds}
    return {**targets, "page": fuzz_page} if importlib.util.find_spec("viser") else targets


def in_shares(name: str, share: Share, count: int, number: int, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The figures after each share, on from those of an earlier run."""
    found = Found(before.get("tried", 0), before.get("refused", 0), Counter(before.get("unexpected", {})))
    seconds, most = before.get("seconds", 0.0), SHARE_OF_BAGS if name == "bags" else SHARE
    yield {**dataclasses.asdict(found), "seconds": seconds}
    while found.tried < count:
        started = time.monotonic()
        found.add(share(min(most, count - found.tried), f"{number} {name} {found.tried}"))
        seconds = round(seconds + time.monotonic() - started, 1)
        yield {**dataclasses.asdict(found), "seconds": seconds}


def told(name: str, row: dict[str, Any]) -> str:
    """A line, and what nobody meant below it."""
    faults = sum(row["unexpected"].values())
    line = f"{name}: {row['tried']} tried, {row['refused']} refused, {faults} unexpected, {row['seconds']:.0f} s"
    return "\n".join([line, *(f"    {times} x {fault}" for fault, times in Counter(row["unexpected"]).most_common(SHOWN))])


if __name__ == "__main__":
    sys.exit(main())
