# SPDX-License-Identifier: Apache-2.0
"""Wild bytes for everything that reads what others wrote: nothing but the errors that are meant for it may come of them.

    python bench/fuzz.py --count 20000                          each target so often (make fuzz)
    python bench/fuzz.py --targets clouds cdr --count 10000000  the long form, 0.1 to 0.3 ms each

Targets: cdr (serialized PointCloud2), clouds (messages of any layout), labels (label maps), yaml, bundles (bundle.yaml), bags,
archives of clicks (label files), messages (of the page, through its door), page (the same, to a live server). hypothesis draws
the structured ones from a seed; bytes are mutated from a corpus: what was found once is kept in --corpus and tried first.
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
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from weakseg_ros.config import read_yaml
from weakseg_ros.data.bags import CloudBagWriter, find_cloud_topic, read_clouds
from weakseg_ros.data.scan_files import read_raw_labels
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, BundleInfo, NetRule, write_bundle
from weakseg_ros.deploy.input_spec import IntensityRule, plain_spec
from weakseg_ros.errors import WeaksegError
from weakseg_ros.files import environment
from weakseg_ros.points.cloud import decode, decode_cdr, make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

SHOWN = 5
SPLICES = (b"", b"\0", b"\xff" * 8, b"\x7f\xff\xff\xff", b"*a", b"&a", b"{", b"[", b"!!int ''", b"\x1b]0;x\x07", b"1e999", b"-1")


@dataclasses.dataclass
class Target:
    """Something that reads, and what it is given."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Bytes with a few of them changed, doubled, cut, moved or replaced by something that often matters."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + rng.choice((1, 4, 64))]
        elif kind == 3:
            data[at:at] = data[at : at + rng.choice((1, 4, 64))]
        elif kind == 4:
            data[at : at + rng.choice((0, 4))] = rng.choice(SPLICES)
        elif kind == 5 and rng.random() < 0.1:
            del data[at:]
    return bytes(data)


def serialized_cloud() -> bytes:
    """A small cloud as DDS carries it."""
    with tempfile.TemporaryDirectory() as folder:
        bag = write_bag(Path(folder) / "bag")
        from weakseg_ros.data.bags import read_raw

        return next(iter(read_raw(bag))).data


def write_bag(path: Path) -> Path:
    """Three small clouds."""
    rng = np.random.default_rng(0)
    with CloudBagWriter(path, "/points") as writer:
        for number in range(3):
            writer.write(make_cloud(rng.normal(size=(20, 3)), rng.random(20), stamp_ns=number, frame_id="lidar"))
    return path


def tiny_bundle(folder: Path) -> Bundle:
    """A bundle whose model file is no model: only its reading is tried."""
    labels = LabelMap("two", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i,)) for i in range(3)))
    told = plain_spec(RangeSpec(16, 32), ("range",), IntensityRule(False))
    info = BundleInfo(name="tiny", input=told, labels=labels, net=NetRule("light"))
    return write_bundle(folder, info, {"model.onnx": (KIND_ONNX, b"model")}, "card\n")


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
        "cdr": Target(decode_cdr, (serialized_cloud(),)),
        "labels": Target(read_labels, (plain,)),
        "yaml": Target(read_any_yaml, (info.read_bytes(), b"a: [1, 2.5, 2001-01-01, !!set {x}]\nb: &b {c: d}\n")),
        "bundles": Target(read_bundle, (info.read_bytes(),)),
        "bags": Target(read_bag, (mcap.read_bytes(),)),
        "clicks": Target(read_clicks, (np.arange(20, dtype="<u4").tobytes(),)),
        **({"messages": Target(read_message, page_messages())} if importlib.util.find_spec("viser") else {}),
    }


def page_messages() -> tuple[bytes, ...]:
    """What a browser sends to the labelling page."""
    import msgspec

    update = {"type": "GuiUpdateMessage", "uuid": "00", "updates": {"value": 3.5}}
    camera = {"type": "ViewerCameraMessage", "wxyz": [1, 0, 0, 0], "position": [0, 0, 1], "fov": 1.0, "near": 0.1, "far": 9.0}
    camera |= {"look_at": [0, 0, 0], "up_direction": [0, 0, 1], "image_height": 10, "image_width": 10}
    share: dict[str, Any] = {"type": "ShareUrlRequest"}
    return tuple(msgspec.msgpack.encode(message) for message in (update, camera, share))


def read_message(data: bytes) -> object:
    """The door says of any bytes whether they come in."""
    from weakseg_ros.improve.label.door import fault_of

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fault_of(data)


class Message:
    """A PointCloud2 as any library may give it."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


def wild_messages() -> st.SearchStrategy[Message]:
    """Layouts of any kind, few of them possible."""
    small = st.integers(0, 40)
    number = st.one_of(small, st.integers(0, 2**32 - 1))
    name = st.sampled_from(["x", "y", "z", "intensity", "ring", "i", "reflectivity", "", "\x1b[2J", "t"])
    field = st.builds(Message, name=name, offset=number, datatype=st.integers(0, 12), count=st.one_of(st.just(1), number))
    stamp = st.builds(Message, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 2**32 - 1))
    return st.builds(
        Message,
        header=st.builds(Message, stamp=stamp, frame_id=st.text(max_size=5)),
        height=number,
        width=number,
        fields=st.lists(field, max_size=7),
        is_bigendian=st.booleans(),
        point_step=number,
        row_step=number,
        data=st.binary(max_size=400).map(lambda blob: np.frombuffer(blob, np.uint8)),
        is_dense=st.booleans(),
    )


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


def fuzz_bytes(name: str, target: Target, count: int, number: int, corpus: Path | None) -> Found:
    """Mutate the good examples and what was found before, and keep what is found now."""
    found, rng = Found(), random.Random(f"{number} {name}")
    kept = [path.read_bytes() for path in sorted((corpus / name).glob("*"))] if corpus and (corpus / name).is_dir() else []
    for blob in [*target.seeds, *kept][:count]:
        found.note(target.read, blob)
    while found.tried < count:
        blob = mutated(rng.choice(target.seeds), rng)
        if found.note(target.read, blob) and corpus is not None:
            (corpus / name).mkdir(parents=True, exist_ok=True)
            (corpus / name / hashlib.sha256(blob).hexdigest()[:16]).write_bytes(blob)
    return found


def fuzz_clouds(count: int, number: int) -> Found:
    """Messages of any layout through the decoder, drawn by hypothesis in shares that bound its memory."""
    found = Found()
    for part in range(-(-count // 5000)):

        @seed(number * 1_000_003 + part)
        @settings(
            max_examples=min(5000, count - 5000 * part), deadline=None, database=None, phases=[Phase.generate],
            verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(wild_messages())
        def try_one(message: Message) -> None:
            found.note(decode, message)

        try_one()
    return found


def fuzz_page(count: int, number: int) -> Found:
    """Messages to a live server, over one connection; it has to answer afterwards."""
    import viser
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    from weakseg_ros.improve.label.serve import start_server

    found, rng, seeds = Found(), random.Random(number), page_messages()
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
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz/fuzz.json"), help="JSON file for the figures")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="weakseg_fuzz_") as scratch, quiet_logs():
        targets: dict[str, Callable[[], Found]] = {}
        for name, target in byte_targets(Path(scratch)).items():
            count = -(-options.count // 20) if name == "bags" else options.count
            targets[name] = lambda n=name, t=target, c=count: fuzz_bytes(n, t, c, options.seed, options.corpus)  # type: ignore[misc]
        targets["clouds"] = lambda: fuzz_clouds(options.count, options.seed)
        if importlib.util.find_spec("viser"):
            targets["page"] = lambda: fuzz_page(options.count, options.seed)
        for name in options.targets or targets:
            started = time.monotonic()
            found = targets[name]()
            seconds = time.monotonic() - started
            results[name] = {**dataclasses.asdict(found), "seconds": round(seconds, 1)}
            faults = sum(found.unexpected.values())
            print(f"{name}: {found.tried} tried, {found.refused} refused, {faults} unexpected, {seconds:.0f} s")
            for fault, times in found.unexpected.most_common(SHOWN):
                print(f"    {times} x {fault}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"seed": options.seed, "targets": results, "environment": environment()}
    options.out.write_text(json.dumps(content, indent=2) + "\n")
    return int(any(row["unexpected"] for row in results.values()))


if __name__ == "__main__":
    sys.exit(main())
