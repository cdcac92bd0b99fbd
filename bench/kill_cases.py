# SPDX-License-Identifier: Apache-2.0
"""What bench/kill_sweep.py ends: every verb that writes, on the smallest data there is, and what must not change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from fuzz_inputs import tiny_bundle

SENSOR = "name: tiny\nbeams: 8\ncolumns: 64\nmount_height_m: 1.6\n"
WIDE = "name: wide\nbeams: 24\ncolumns: 256\nmount_height_m: 1.7\n"
ARCH_CFG = """dataset:
  sensor: {fov_up: 3, fov_down: -25, img_prop: {height: 8, width: 64}, img_means: [0, 0, 0, 0, 0], img_stds: [1, 1, 1, 1, 1]}
"""
DATA_CFG = """labels: {0: unlabeled, 40: road, 50: building}
learning_map: {0: 0, 40: 1, 50: 2}
learning_map_inv: {0: 0, 1: 40, 2: 50}
learning_ignore: {0: true, 1: false, 2: false}
"""
STREETS, STREETS_OF_DEMO, FLOORS = (0, 1, 2), (900, 901, 902, 910, 911, 912, 913), 2
"""seeds of the streets, and the first floors of building 0, that the cases drive through"""
TRY_LIMIT_S = 900
TRAIN = (
    *("--steps", "3", "--warmup-steps", "1", "--batch-size", "1", "--net-width", "16", "--validate-every", "1"),
    *("--log-every", "1", "--accelerator", "cpu", "--precision", "32-true", "--hold-out", "0.4"),
)


@dataclass(frozen=True)
class Case:
    """A verb on the smallest data there is."""

    verb: str
    arguments: tuple[str, ...]
    """in a folder of its own, beside which `data` lies"""
    prepare: Callable[[Path], None] = lambda folder: None
    """what has to be there before"""
    again: tuple[str, ...] = ()
    """further arguments of the second start"""
    codes: tuple[int, ...] = (0,)
    """exit codes of a run that did its work"""
    own_call: Callable[[], int] | None = None
    """instead of the verb, where it would wait for a person"""
    needs: str = ""
    """a library without which the case is left out"""


def cases(data: Path) -> dict[str, Case]:
    """Every verb that writes, by name."""
    return {row.verb: row for row in (*of_data(data), *of_models(data))}


def of_data(data: Path) -> list[Case]:
    """The verbs that write scans, labels, answers and reports."""
    street, sim = str(data / "bundle"), str(data / "sim")
    sensor = ("--sensor", str(data / "tiny.yaml"), "--workers", "1")
    rooms = ("--rooms", "--floors", "2", "--scans", "2", "--columns", "64", "--workers", "1")
    bags = (str(data / "bag"), str(data / "bag_b"))

    def scans(folder: Path) -> None:
        shutil.copytree(data / "sim", folder / "scans")

    def old_scans(folder: Path) -> None:
        shutil.copytree(data / "other", folder / "out")

    def old_import(folder: Path) -> None:
        quietly(["import", str(data / "bag"), "--out", "out", "--limit", "1"])

    def predicted(folder: Path) -> None:
        (folder / "out").mkdir()
        for number in range(5):
            (folder / "out" / f"{number:06d}.npy").write_bytes(b"predicted by another model" * 100)

    def selected(folder: Path) -> None:
        shutil.copytree(data / "log", folder / "log")

    return [
        Case("simulate", ("--scans", "2", "--streets", "2", "--out", "out", "--bag", "bag", *sensor)),
        Case("simulate --overwrite", ("--scans", "2", "--out", "out", "--overwrite", *sensor), old_scans),
        Case("simulate --rooms", (*rooms, "--out", "out", "--bag", "bag")),
        Case(
            "simulate --rooms --view s3dis", ("--rooms", "--view", "s3dis", "--points", "1000", "--workers", "1", "--out", "out")
        ),
        Case("simulate --expressions", ("--expressions", "4", "--scans", "2", "--streets", "2", "--out", "out", *sensor)),
        Case("import", (str(data / "bag"), "--out", "out")),
        Case("import --overwrite", (str(data / "bag"), "--out", "out", "--overwrite"), old_import),
        Case("import (two bags)", (*bags, "--out", "out")),
        Case("import (files)", (str(data / "sim" / "velodyne"), "--out", "out")),
        Case("check", (sim,)),
        Case("sparse", (sim, "--out", "out", "--ratio", "0.05")),
        Case("sparse --overwrite", (sim, "--out", "out", "--ratio", "0.05", "--overwrite"), drawn(data)),
        Case("evaluate", (sim, "--bundle", street, "--out", "out", *ENGINE), codes=(0, 1)),
        Case("evaluate (two bags)", (*bags, "--bundle", street, "--out", "out", *ENGINE), codes=(0, 1)),
        Case("evaluate --shard", (sim, "--bundle", street, "--shard", "1/2", "--out", "out", *ENGINE), codes=(0, 1)),
        Case("evaluate --merge", ("--merge", str(data / "eval_a"), str(data / "eval_b"), "--out", "out"), codes=(0, 1)),
        Case("fleet", (str(data / "eval_bags"), "--log", str(data / "log"), "--out", "out"), codes=(0, 1)),
        Case(
            "refer",
            (str(data / "told"), "the car", "--bundle", str(data / "refer"), "--out", "out/answer.png", *ENGINE),
            codes=(0, 1),
        ),
        Case("select (two bags)", (*bags, "--bundle", street, "--out", "log", "--frames", "4", "--points", "2", *ENGINE)),
        Case("select --together", (*bags, "--together", "--bundle", street, "--out", "log", "--frames", "3", *ENGINE)),
        Case("select", (sim, "--bundle", street, "--out", "log", "--frames", "3", "--points", "2")),
        Case("label", (), scans, own_call=label),
        Case("predict", (sim, "--bundle", street, "--out", "out", *ENGINE)),
        Case("predict --format npy", (sim, "--bundle", street, "--out", "out", "--format", "npy", *ENGINE), predicted),
        Case("predict --format ply", (sim, "--bundle", street, "--out", "out", "--format", "ply", *ENGINE)),
        Case("predict (two bags)", (*bags, "--bundle", street, "--out", "out", *ENGINE)),
        Case("predict --submission", (str(data / "kitti"), "--bundle", street, "--out", "out", "--submission", *ENGINE)),
        Case("view --rrd", (sim, "--bundle", street, "--rrd", "out.rrd", *ENGINE), needs="rerun"),
        Case("view --mcap", (sim, "--bundle", street, "--mcap", "out", *ENGINE)),
        Case("compare", (str(data / "eval_a"), str(data / "eval_b"), "--out", "out")),
        Case("export-frames", ("log", "--out", "frames"), selected),
    ]


def of_models(data: Path) -> list[Case]:
    """The verbs that write runs and bundles, and those that choose among them."""
    street, sim = str(data / "bundle"), str(data / "sim")
    foreign = ("--spec", str(data / "arch_cfg.yaml"), "--label-map", str(data / "data_cfg.yaml"))

    def models(folder: Path) -> None:
        for name in ("a", "b"):
            shutil.copytree(data / "bundle", folder / name)
        quietly(["promote", "a"])

    def deployed_twice(folder: Path) -> None:
        models(folder)
        quietly(["promote", "b"])

    def a_run(folder: Path) -> None:
        shutil.copytree(data / "run", folder / "run")

    def a_run_and_a_bundle(folder: Path) -> None:
        a_run(folder)
        shutil.copytree(data / "bundle", folder / "models" / "mine")

    def referring_before(folder: Path) -> None:
        shutil.copytree(data / "bundle", folder / "models" / "refer")

    def clicked(folder: Path) -> None:
        shutil.copytree(data / "sim", folder / "log")
        for key in ("000000", "000001", "000002", "000003"):
            click(folder / "log", key)

    return [
        Case("train", (sim, "--out", "run", "--out-bundle", "models/mine", *TRAIN), again=("--resume",)),
        Case("export", ("run", "--out", "models/mine", "--overwrite"), a_run_and_a_bundle),
        Case("export --from", ("--from", street, "--out", "models/more", "--scans", sim)),
        Case("train-referring", (str(data / "told"), "--out-bundle", "models/refer", *REFERRING, "--bundle", street)),
        Case(
            "train-referring --overwrite",
            (str(data / "told"), "--out-bundle", "models/refer", "--overwrite", *REFERRING, "--bundle", street),
            referring_before,
        ),
        Case("demo", (), own_call=demo),
        Case("benchmark", (sim, "--config", str(data / READY), "--out", "out")),
        Case("adapt", (sim, "--bundle", street, "--out", "models/adapted", "--report", "report", *ADAPT), codes=(0, 1)),
        Case("build-engine", (), own_call=keep_a_plan),
        Case("wrap", (str(data / "other.onnx"), *foreign, "--out", "models/other")),
        Case("promote", ("b",), models),
        Case("rollback", (), deployed_twice),
        Case("retrain", (*RETRAIN, "--frames", "log", "--bundle", street, "--replay", sim), clicked, codes=(0, 1)),
    ]


ENGINE = ("--engine", "onnxruntime")
REFERRING = (
    *("--cache", "cache", "--training.burn-in", "1", "--training.steps", "2", "--training.batch", "2"),
    *("--training.scans-per-batch", "1", "--training.width", "8", "--training.layers", "1"),
)
ADAPT = (
    *("--steps", "2", "--batch-size", "2", "--crop-columns", "0", "--check-every", "1", "--unfit", "--least-agreement", "0"),
    *("--steadiness-drop", "1", "--guard-clouds", "1"),
)
RETRAIN = (
    *("--steps", "2", "--batch-size", "2", "--gate.new-gain", "-1", "--gate.latency-ratio", "100", "--gate.miou-drop", "1"),
    *("--gate.class-drop", "1", "--gate.pq-drop", "1"),
)


def drawn(data: Path) -> Callable[[Path], None]:
    """Sparse labels of another draw in the place of the new ones."""
    return lambda folder: quietly(["sparse", str(data / "sim"), "--out", "out", "--ratio", "0.1", "--seed", "5"])


def click(folder: Path, key: str) -> None:
    """A person names three points of a scan, otherwise than its own labels do; what is there already is not clicked again."""
    from weakseg_ros.data.scans import open_scans
    from weakseg_ros.improve.label.clicks import ClickStore

    store, truth = ClickStore(folder), open_scans(folder)
    class_id = truth[list(truth.keys).index(key)].class_id
    assert class_id is not None
    for point in class_id.nonzero()[0][:3]:
        wanted = int(class_id[point]) % (truth.labels.num_classes - 1) + 1
        if store.labelled(key)[0][point] != wanted:
            store.add(key, [int(point)], wanted)


def label() -> int:
    """The clicks of a person on two scans; whoever was ended clicks on."""
    from weakseg_ros.errors import WeaksegError

    try:
        for key in ("000000", "000001"):
            click(Path("scans"), key)
    except WeaksegError as error:  # the page shows the sentence
        print(error)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def keep_a_plan() -> int:
    """What build-engine changes on disk, without the GPU that builds: a plan is kept, by whoever is the first to need it."""
    from weakseg_ros.deploy.engines.cache import Cache

    plan = b"a plan of TensorRT" * 10_000
    try:
        return int(Cache("plans", Path("cache")).get_or_make("bundle-fp16", lambda: plan) != plan)
    except KeyboardInterrupt:
        return 130


def demo() -> int:
    """The whole chain on the smallest streets, as it runs where ROS is not installed."""
    sys.modules["rclpy"] = None  # type: ignore[assignment]
    os.cpu_count = lambda: 1  # so that streets are simulated in this process, which is the one that is ended
    tiny = ("--columns", "64", "--streets", "1", "--scans-per-street", "2", "--test-scans-per-street", "1", "--steps", "2")
    return verb(["demo", "--out", "demo", "--label-ratio", "0.05", *tiny])


TRAINED = {
    *(
        "adapt",
        "view",
        "compare",
        "train",
        "export",
        "benchmark",
        "evaluate",
        "predict",
        "wrap",
        "select",
        "export-frames",
        "retrain",
        "fleet",
        "refer",
        "train-referring",
        "demo",
    ),
}
"""verbs that need torch, or a model that was trained"""
REFERRING_VERBS = {"refer", "train-referring"}


READY = "table.yaml"
"""what is prepared last"""


def prepare_data(data: Path, trained: bool, referring: bool) -> None:
    """The smallest scans, bags, run, bundles and table; a bundle that cannot run where nobody runs it."""
    (data / "tiny.yaml").write_text(SENSOR)
    sensor = ["--sensor", str(data / "tiny.yaml"), "--workers", "1"]
    quietly(["simulate", "--scans", "5", "--out", "sim", "--bag", "bag", "--stride", "5", *sensor])
    quietly(["simulate", "--scans", "3", "--out", "other", "--seed", "1", *sensor])
    quietly(["simulate", "--scans", "3", "--bag", "bag_b", "--seed", "2", *sensor])
    if trained:
        quietly(["train", str(data / "sim"), "--out", "run", "--out-bundle", "bundle", *TRAIN])
        quietly(["select", str(data / "sim"), "--bundle", "bundle", "--out", "log", "--frames", "2", "--points", "2"])
        for name in ("eval_a", "eval_b"):
            quietly(["evaluate", str(data / "sim"), "--bundle", "bundle", "--out", name, *ENGINE])
        bags = [str(data / "bag"), str(data / "bag_b"), "--bundle", "bundle", "--out", "eval_bags", *ENGINE]
        quietly(["evaluate", *bags])
        shutil.copytree(data / "sim", data / "kitti" / "sequences" / "11")
        foreign_model(data)
    else:
        tiny_bundle(data / "bundle")
    if referring:
        (data / "wide.yaml").write_text(WIDE)
        told = ["--expressions", "8", "--scans", "2", "--out", "told", "--workers", "1", "--sensor", str(data / "wide.yaml")]
        quietly(["simulate", *told])
        quietly(["train-referring", "told", "--out-bundle", "refer", "--bundle", "bundle", *REFERRING])
    table: dict[str, Any] = {"nets": ["light"], "methods": ["supervised"], "ratios": [0.05], "seeds": [0], "step_turns": 0}
    table["train"] = {
        "steps": 3,
        "warmup_steps": 1,
        "batch_size": 1,
        "net_width": 16,
        "validate_every": 1,
        "precision": "32-true",
    }
    (data / READY).write_text(json.dumps({**table, "hold_out": 0.4}))


def foreign_model(folder: Path) -> None:
    """An ONNX file of another project, that one convolution is, and its two descriptions."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight, bias = np.eye(3, 5, dtype=np.float32)[..., None, None], np.zeros(3, np.float32)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 8, 64]) for n, c in (("scan", 5), ("logits", 3))]
    node = helper.make_node("Conv", ["scan", "weight", "bias"], ["logits"])
    stored = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph([node], "foreign", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "other.onnx")
    (folder / "arch_cfg.yaml").write_text(ARCH_CFG)
    (folder / "data_cfg.yaml").write_text(DATA_CFG)


def quietly(argv: Sequence[str]) -> None:
    """A verb that has to succeed."""
    code, said = in_child(lambda: verb(argv))
    if code:
        raise SystemExit(f"kill_sweep: weakseg {' '.join(argv)} ended with {code}:\n{said}")


def verb(argv: Sequence[str]) -> int:
    """A verb in this process."""
    from weakseg_ros.cli import main

    return main(list(argv))


def in_child(work: Callable[[], int], log: Path | None = None) -> tuple[int, str]:
    """(exit code, minus the signal's number where one ended it; what it said) of a forked child."""
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            signal.alarm(TRY_LIMIT_S)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
            code = 70
            try:
                code = work()
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError):
                        stream.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read()


def run(case: Case, extra: Sequence[str] = ()) -> int:
    """The verb of a case in the current folder."""
    if case.own_call is not None:
        return case.own_call()
    return verb([case.verb.split()[0], *case.arguments, *extra])


def content(folder: Path) -> dict[str, str]:
    """What a run left, by path: a hash of what must be the same in every run."""
    paths = [path for path in sorted(folder.rglob("*")) if path.parent.name != UNDONE]
    return {str(path.relative_to(folder)): _of(path) for path in paths}


UNDONE = ".changes"
"""what a person can take back, named by the time of day; of a click under way when it was ended, only the click is kept"""
VOLATILE = re.compile(
    r"elapsed_s|wall_s|seconds|peak_mib|step_ms|made|time|latency|ms$|_ms|ms:|environment|machine|cores|command|histogram|hash|folder|path"
)
"""what a file says of when, where and how fast it was made, and the hashes over that"""
LOCKS = ("_holder", ".lock")


def _of(path: Path) -> str:
    """A hash of what must be the same in every run; of a link, where it leads."""
    if path.is_symlink():
        return os.readlink(path)
    if path.is_dir():
        return "folder"
    if path.suffix in (".html", ".png", ".mcap", ".md", ".npz", ".rrd") or path.name.endswith(LOCKS):
        return path.suffix  # hold the time of day, or the process
    blob = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:  # which holds the times of its files
            blob = repr([(entry.filename, entry.CRC) for entry in archive.infolist()]).encode()
    elif path.suffix == ".json":
        blob = json.dumps(_lasting(json.loads(blob))).encode()
    elif path.suffix == ".jsonl":
        blob = json.dumps([_lasting(json.loads(line)) for line in blob.splitlines() if line.strip()]).encode()
    elif path.suffix == ".yaml":
        blob = json.dumps(_lasting(yaml.safe_load(blob)), default=str).encode()
    elif path.parent.name == "sessions":
        blob = json.dumps(_lasting(json.loads(blob))).encode()
    return hashlib.sha256(blob).hexdigest()[:12]


def _lasting(value: Any) -> Any:
    """What a file holds, without the entries whose name says that they change from run to run."""
    if isinstance(value, dict) and VOLATILE.search(str(value.get("name", ""))):
        return value["name"]  # a check of the gate on the time per scan
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if not VOLATILE.search(str(key).lower())}
    if isinstance(value, list):
        return [_lasting(item) for item in value]
    return "PATH" if isinstance(value, str) and value.startswith("/") else value


@contextlib.contextmanager
def fresh(place: Path, case: Case) -> Iterator[None]:
    """A folder of its own for a case, as the current one."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    before = os.getcwd()
    os.chdir(place)
    try:
        case.prepare(place)
        yield
    finally:
        os.chdir(before)
