# SPDX-License-Identifier: Apache-2.0
"""What bench/kill_sweep.py ends: every verb that writes, on the smallest data there is, and what must not change."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from kill_data import ENGINE, REFERRING, TABLE, TRAIN, drive_with_odometry
from kill_place import Case, quietly, verb


def cases(data: Path) -> dict[str, Case]:
    """Every verb that writes, by name."""
    return {row.verb: row for row in (*of_scans(data), *of_answers(data), *of_trainings(data), *of_versions(data))}


def of_scans(data: Path) -> list[Case]:
    """The verbs that write scans and labels."""
    street, sim = str(data / "bundle"), str(data / "sim")
    sensor = ("--sensor", str(data / "tiny.yaml"), "--workers", "1")
    rooms = ("--rooms", "--floors", "2", "--scans", "2", "--columns", "64", "--workers", "1")
    camera = ("--camera.width", "32", "--camera.height", "24", "--scans", "2", "--workers", "1")
    bags = (str(data / "bag"), str(data / "bag_b"))

    def scans(folder: Path) -> None:
        shutil.copytree(data / "sim", folder / "scans")

    def a_drive(folder: Path) -> None:
        drive_with_odometry(folder / "drive")

    def old_scans(folder: Path) -> None:
        shutil.copytree(data / "other", folder / "out")

    def old_import(folder: Path) -> None:
        quietly(["import", str(data / "bag"), "--out", "out", "--limit", "1"])

    return [
        Case("simulate", ("--scans", "2", "--streets", "2", "--out", "out", "--bag", "bag", *sensor)),
        Case("simulate --overwrite", ("--scans", "2", "--out", "out", "--overwrite", *sensor), old_scans),
        Case("simulate --rooms", (*rooms, "--out", "out", "--bag", "bag")),
        Case(
            "simulate --rooms --view s3dis", ("--rooms", "--view", "s3dis", "--points", "1000", "--workers", "1", "--out", "out")
        ),
        Case("simulate --rooms --view camera", ("--rooms", "--view", "camera", *camera, "--out", "out")),
        Case("simulate --expressions", ("--expressions", "4", "--scans", "2", "--streets", "2", "--out", "out", *sensor)),
        Case("import", (str(data / "bag"), "--out", "out")),
        Case("import --overwrite", (str(data / "bag"), "--out", "out", "--overwrite"), old_import),
        Case("import (two bags)", (*bags, "--out", "out")),
        Case("import (files)", (str(data / "sim" / "velodyne"), "--out", "out")),
        Case("import --odometry", ("drive", "--out", "out", "--odometry", "/odom"), a_drive),
        Case("check", (sim,)),
        Case("doctor", ("--data", sim, "--bundle", street), codes=(0, 1)),
        Case("sparse", (sim, "--out", "out", "--ratio", "0.05")),
        Case("sparse --overwrite", (sim, "--out", "out", "--ratio", "0.05", "--overwrite"), drawn(data)),
        Case("sparse --propagate", (sim, "--out", "out", "--ratio", "0.05", "--propagate")),
        Case("label", (), scans, own_call=label),
        Case("label (taken back)", (), scans, own_call=label_and_take_back),
    ]


def of_answers(data: Path) -> list[Case]:
    """The verbs that write answers, reports and what is worth a click."""
    street, sim = str(data / "bundle"), str(data / "sim")
    bags = (str(data / "bag"), str(data / "bag_b"))
    labels = (str(data / "sim" / "labels"),)

    def predicted(folder: Path) -> None:
        (folder / "out").mkdir()
        for number in range(5):
            (folder / "out" / f"{number:06d}.npy").write_bytes(b"predicted by another model" * 100)

    def selected(folder: Path) -> None:
        shutil.copytree(data / "log", folder / "log")

    return [
        Case("evaluate", (sim, "--bundle", street, "--out", "out", *ENGINE), codes=(0, 1)),
        Case("evaluate (two bags)", (*bags, "--bundle", street, "--out", "out", *ENGINE), codes=(0, 1)),
        Case("evaluate --shard", (sim, "--bundle", street, "--shard", "1/2", "--out", "out", *ENGINE), codes=(0, 1)),
        Case("evaluate --merge", ("--merge", str(data / "eval_a"), str(data / "eval_b"), "--out", "out"), codes=(0, 1)),
        Case("evaluate --parts", (bags[0], "--parts", "2", "--bundle", street, "--out", "out", *ENGINE), codes=(0, 1)),
        Case("evaluate --predictions", ("--truth", *labels, "--predictions", *labels, "--out", "out")),
        Case("fleet", (str(data / "eval_bags"), "--log", str(data / "log"), "--out", "out"), codes=(0, 1)),
        Case(
            "refer",
            (str(data / "told"), "the car", "--bundle", str(data / "refer"), "--out", "out/answer.png", *ENGINE),
            codes=(0, 1),
        ),
        Case("select (two bags)", (*bags, "--bundle", street, "--out", "log", "--frames", "4", "--points", "2", *ENGINE)),
        Case("select --together", (*bags, "--together", "--bundle", street, "--out", "log", "--frames", "3", *ENGINE)),
        Case("select", (sim, "--bundle", street, "--out", "log", "--frames", "3", "--points", "2")),
        Case("select --like-node", (sim, "--like-node", "--bundle", street, "--out", "log", *ENGINE)),
        Case("predict", (sim, "--bundle", street, "--out", "out", *ENGINE)),
        Case("predict --format npy", (sim, "--bundle", street, "--out", "out", "--format", "npy", *ENGINE), predicted),
        Case("predict --format ply", (sim, "--bundle", street, "--out", "out", "--format", "ply", *ENGINE)),
        Case("predict --format pcd", (sim, "--bundle", street, "--out", "out", "--format", "pcd", *ENGINE)),
        Case("predict --format las", (sim, "--bundle", street, "--out", "out", "--format", "las", *ENGINE), needs="laspy"),
        Case("predict (two bags)", (*bags, "--bundle", street, "--out", "out", *ENGINE)),
        Case("predict --submission", (str(data / "kitti"), "--bundle", street, "--out", "out", "--submission", *ENGINE)),
        Case("view --rrd", (sim, "--bundle", street, "--rrd", "out.rrd", *ENGINE), needs="rerun"),
        Case("view --mcap", (sim, "--bundle", street, "--mcap", "out", *ENGINE)),
        Case("compare", (str(data / "eval_a"), str(data / "eval_b"), "--out", "out")),
        Case("compare (two trainings)", (str(data / "run"), str(data / "run"), "--out", "out")),
        Case("export-frames", ("log", "--out", "frames"), selected),
        Case("export-frames --then", ("log", "--out", "frames", "--then", "test -d {}"), selected),
    ]


def of_trainings(data: Path) -> list[Case]:
    """The verbs that train and write runs, tables and bundles."""
    street, sim = str(data / "bundle"), str(data / "sim")

    def a_run(folder: Path) -> None:
        shutil.copytree(data / "run", folder / "run")

    def a_run_and_a_bundle(folder: Path) -> None:
        a_run(folder)
        a_bundle_in(data)(folder)

    def a_table(folder: Path) -> None:
        shutil.copytree(data / "table", folder / "out")

    def referring_before(folder: Path) -> None:
        shutil.copytree(data / "bundle", folder / "models" / "refer")

    return [
        Case("train", (sim, "--out", "run", "--out-bundle", "models/mine", *TRAIN), again=("--resume",)),
        Case(
            "train --overwrite",
            (sim, "--out", "run", "--out-bundle", "models/mine", "--overwrite", *TRAIN),
            a_bundle_in(data),
            again=("--resume",),
        ),
        Case("export", ("run", "--out", "models/mine"), a_run),
        Case("export --from", ("--from", street, "--out", "models/more", "--scans", sim)),
        Case("export --overwrite", ("run", "--out", "models/mine", "--overwrite"), a_run_and_a_bundle),
        Case("train-referring", (str(data / "told"), "--out-bundle", "models/refer", *REFERRING, "--bundle", street)),
        Case(
            "train-referring --overwrite",
            (str(data / "told"), "--out-bundle", "models/refer", "--overwrite", *REFERRING, "--bundle", street),
            referring_before,
        ),
        Case("demo", (), own_call=demo),
        Case("benchmark", (sim, "--config", str(data / TABLE), "--out", "out")),
        Case(
            "benchmark --folds",
            (str(data / "folds"), "--config", str(data / TABLE), "--hold-out", "0", "--folds", "00", "01", "--out", "out"),
        ),
        Case("benchmark (referring)", (str(data / "scannet"), *SCANREFER, "--out", "out")),
        Case("benchmark --report-only", (sim, "--config", str(data / TABLE), "--out", "out", "--report-only"), a_table),
    ]


def of_versions(data: Path) -> list[Case]:
    """The verbs that change bundles and choose among them."""
    street, sim = str(data / "bundle"), str(data / "sim")
    foreign = ("--spec", str(data / "arch_cfg.yaml"), "--label-map", str(data / "data_cfg.yaml"))
    clicks = ("--frames", "log", "--bundle", street, "--replay", sim)

    def bundles(folder: Path) -> None:
        for name in ("a", "b"):
            shutil.copytree(data / "bundle", folder / name)

    def models(folder: Path) -> None:
        bundles(folder)
        quietly(["promote", "a"])

    def unjudged(folder: Path) -> None:
        from weakseg_ros.improve.retrain.versions import Versions

        models(folder)
        Versions(folder / "models").mark_unjudged(folder / "b", folder / "run")

    def deployed_twice(folder: Path) -> None:
        models(folder)
        quietly(["promote", "b"])

    def clicked(folder: Path) -> None:
        shutil.copytree(data / "sim", folder / "log")
        for key in ("000000", "000001", "000002", "000003"):
            click(folder / "log", key)

    return [
        Case("adapt", (sim, "--bundle", street, "--out", "models/adapted", "--report", "report", *ADAPT), codes=(0, 1)),
        Case(
            "adapt --overwrite",
            (sim, "--bundle", street, "--out", "models/mine", "--overwrite", "--report", "report", *ADAPT),
            a_bundle_in(data),
            codes=(0, 1),
        ),
        Case("build-engine", (), own_call=keep_a_plan),
        Case("wrap", (str(data / "other.onnx"), *foreign, "--out", "models/other")),
        Case("wrap --overwrite", (str(data / "other.onnx"), *foreign, "--out", "models/mine", "--overwrite"), a_bundle_in(data)),
        Case("promote", ("b",), models),
        Case("promote (the first)", ("a",), bundles),
        Case("promote --unjudged", ("b", "--unjudged"), unjudged),
        Case("rollback", (), deployed_twice),
        Case("retrain", (*RETRAIN, *GENEROUS, *clicks), clicked, codes=(0, 1)),
        Case("retrain --no-promote", (*RETRAIN, *GENEROUS, *clicks, "--no-promote"), clicked, codes=(0, 1)),
        Case("retrain (refused)", (*RETRAIN, "--gate.new-gain", "1", *clicks), clicked, codes=(1,)),
    ]


def a_bundle_in(data: Path) -> Callable[[Path], None]:
    """A bundle in the place of the new one."""

    def copied(folder: Path) -> None:
        shutil.copytree(data / "bundle", folder / "models" / "mine")

    return copied


SCANREFER = (
    *("--config", "scanrefer_3drest", "--methods", "both", "--ratios", "0.25"),
    *("--training.steps=2", "--training.burn-in=1", "--training.batch=2", "--override"),
    *("randlanet.points=64", "randlanet.neighbours=4", "randlanet.ratios=[2, 2]", "net_width=8"),
    *("steps=2", "batch_size=1", "workers=1", "validate_every=0", "accelerator=cpu", "precision=32-true"),
)
ADAPT = (
    *("--steps", "2", "--batch-size", "2", "--crop-columns", "0", "--check-every", "1", "--unfit", "--least-agreement", "0"),
    *("--steadiness-drop", "1", "--guard-clouds", "1"),
)
RETRAIN = ("--steps", "2", "--batch-size", "2", "--gate.latency-ratio", "100")
GENEROUS = ("--gate.new-gain", "-1", "--gate.miou-drop", "1", "--gate.class-drop", "1", "--gate.pq-drop", "1")


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
    return at_the_page(lambda: [click(Path("scans"), key) for key in ("000000", "000001")])


def label_and_take_back() -> int:
    """A person clicks on a scan, takes all of it back, and names it anew."""

    def work() -> None:
        from weakseg_ros.improve.label.clicks import ClickStore

        click(Path("scans"), "000000")
        store = ClickStore(Path("scans"))
        while store.undo():
            pass
        store.redo()
        click(Path("scans"), "000000")
        store.mark_done("000000")

    return at_the_page(work)


def at_the_page(work: Callable[[], object]) -> int:
    """The exit code of what a person does at the labelling page."""
    from weakseg_ros.errors import WeaksegError

    try:
        work()
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
        "doctor",
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
