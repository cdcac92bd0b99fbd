# SPDX-License-Identifier: Apache-2.0
"""What a fleet's bags cost: one process beside a Ray cluster of one and two workers, killed workers, damaged bags, and memory.

Figures go to runs/fleet_bench/fleet.json. Bags are tiny, so that the overhead shows: what a bag costs beside its scans.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.many_bags import Job
from weakseg_ros.data.ray_settings import RaySettings
from weakseg_ros.environment import environment
from weakseg_ros.files import make_folder, write_json
from weakseg_ros.fleet.cluster import cluster, runner_of
from weakseg_ros.measure.evaluate import EvaluateConfig
from weakseg_ros.measure.evaluate import evaluate as evaluate_one
from weakseg_ros.measure.merge import merge
from weakseg_ros.points.cloud import make_cloud

RUNS: dict[str, list[str]] = {"one_process": [], "ray_1": ["--ray-workers", "1"], "ray_2": ["--ray-workers", "2"]}
ROBOTS = 10
SCANS_A_BAG = 2
TIMES = ("times_ms", "cold_ms", "worst_ms", "times_stride")
KILLER = """
import os, shutil, signal, sys
bag, folder, marks = sys.argv[1:]
mark = os.path.join(marks, os.path.basename(bag))
if os.path.basename(bag) in ("drive_3", "drive_5") and not os.path.exists(mark):
    open(mark, "w").close()
    os.kill(os.getppid(), signal.SIGKILL)
    raise SystemExit
shutil.copytree(bag, os.path.join(folder, "drive"))
"""
"""brings a bag, and kills the worker that asked for it, once for each of two bags"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bags", type=int, default=200, help="bags of the comparison (10 or more)")
    parser.add_argument("--many", type=int, default=1000, help="bags of the simulated manifest that memory is measured on")
    parser.add_argument("--bundle", default="models/street", help="the model")
    parser.add_argument("--worker", type=int, default=0, help="only the memory of one worker over so many bags, without Ray")
    parser.add_argument("--out", type=Path, default=Path("runs/fleet_bench"))
    chosen = parser.parse_args()
    shutil.rmtree(chosen.out, ignore_errors=True)
    make_folder(chosen.out)
    found: dict[str, Any] = {"bags": chosen.bags, "scans_a_bag": SCANS_A_BAG, "environment": environment()}
    if chosen.worker:
        found["worker"] = worker_memory(chosen.out, chosen.bundle, chosen.worker)
        keep(chosen.out, found)
        return
    write_bags(chosen.out / "bags", chosen.bags)
    begin = time.monotonic()
    with cluster(RaySettings(ray="local", ray_workers=2)) as ray:
        found["start_of_the_cluster_s"] = round(time.monotonic() - begin, 1)
        address = ["--ray", ray.get_runtime_context().gcs_address]
        for name, options in RUNS.items():
            joined = [*address, *options] if options else []
            found[name] = evaluate(chosen.out / "bags" / "*" / "*", chosen.out / name, chosen.bundle, joined)
            keep(chosen.out, found)
        figures = [counts_of(chosen.out / name) for name in RUNS]
        found["same_to_the_last_digit"] = all(figure == figures[0] for figure in figures)
        found["killed_and_damaged"] = killed_and_damaged(chosen.out, chosen.bundle, address)
        keep(chosen.out, found)
        found["memory"] = memory(chosen.out, chosen.many)
        keep(chosen.out, found)


def keep(out: Path, found: dict[str, Any]) -> None:
    """Write what is known so far, and print it."""
    write_json(out / "fleet.json", found)
    print(json.dumps({name: value for name, value in found.items() if name != "environment"}, indent=2), flush=True)


def write_bags(folder: Path, count: int) -> None:
    """`count` bags of `ROBOTS` robots, each of a few clouds of 16 x 256 points around a sensor 1.8 m above the ground."""
    inclination = np.radians(np.linspace(10.0, -20.0, 16))[:, None]
    azimuth = np.radians(np.linspace(180.0, -180.0, 256, endpoint=False))[None, :]
    for number in range(count):
        rng = np.random.default_rng(number)
        with CloudBagWriter(folder / f"robot_{number % ROBOTS}" / f"drive_{number}", "/points") as bag:
            for index in range(SCANS_A_BAG):
                away = rng.uniform(5.0, 30.0, (16, 256))
                ground = np.where(inclination < 0, 1.8 / np.maximum(np.sin(-inclination), 1e-3), np.inf)
                away = np.minimum(away, ground)
                across = away * np.cos(inclination)
                xyz = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), away * np.sin(inclination)], -1)
                stamp_ns = 1_700_000_000_000_000_000 + number * 60_000_000_000 + index * 100_000_000
                intensity = rng.random(xyz.shape[:2]).astype(np.float32)
                cloud = make_cloud(
                    xyz.reshape(-1, 3), intensity.ravel(), stamp_ns=stamp_ns, frame_id="lidar", height=16, width=256
                )
                bag.write(cloud)


def evaluate(bags: Path, out: Path, bundle: str, options: list[str]) -> dict[str, Any]:
    """Wall time of an evaluation in a process of its own, CPU time of it and its children, and its largest memory."""
    listed = out.with_suffix(".txt")
    found = sorted(bags.parent.parent.glob("*/*"), key=lambda bag: int(bag.name.rpartition("_")[2]))
    listed.write_text("\n".join(map(str, found)))
    command = [
        sys.executable,
        "-m",
        "weakseg_ros",
        "evaluate",
        str(listed),
        "--bundle",
        bundle,
        "--engine",
        "onnxruntime",
        "--no-pictures",
    ]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*command, "--out", str(out), *options], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = json.loads((out / "bags.json").read_text())
    seconds = [row["cpu_seconds"] for row in rows if "cpu_seconds" in row]
    return {
        "exit_code": done.returncode,
        "wall_s": round(time.monotonic() - begin, 1),
        "cpu_s_of_this_process": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "cpu_s_a_bag": round(float(np.mean(seconds)), 3) if seconds else None,
        "bytes_a_bag": round(sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / max(1, len(rows))),
        "load_of_the_machine": round(os.getloadavg()[0], 1),
    }


def counts_of(out: Path) -> str:
    """Everything that a summary counts but the times, as text."""
    summary = json.loads((out / "summary.json").read_text())
    counts = {name: value for name, value in summary["counts"].items() if name not in TIMES}
    return json.dumps([counts, summary["panoptic_counts"], summary["track_counts"], summary["data_hash"], summary["classes"]])


def killed_and_damaged(out: Path, bundle: str, address: list[str]) -> dict[str, Any]:
    """Ten bags, of which two lose their worker to SIGKILL, and three damaged ones beside them."""
    folder, marks = out / "some", out / "marks"
    marks.mkdir()
    (out / "fetch.py").write_text(KILLER)
    for bag in sorted((out / "bags").glob("*/*"), key=lambda bag: int(bag.name.rpartition("_")[2]))[:10]:
        shutil.copytree(bag, folder / bag.parent.name / bag.name)
    for number in range(100, 103):
        broken = folder / "robot_x" / f"drive_{number}"
        broken.mkdir(parents=True)
        (broken / "a.mcap").write_bytes(b"no bag")
    fetch = f"{sys.executable} {out / 'fetch.py'} {{bag}} {{folder}} {marks}"
    options = [*address, "--ray-workers", "2", "--ray-retries", "1", "--fetch", fetch]
    done = evaluate(folder / "*" / "*", out / "killed", bundle, options)
    rows = json.loads((out / "killed" / "bags.json").read_text())
    return {
        "exit_code": done["exit_code"],
        "whole": [row["name"] for row in rows if row["complete"]],
        "lost_a_worker": {row["name"]: row["failures"] for row in rows if row.get("failures") and row["complete"]},
        "not_evaluated": {row["name"]: row["problem"] for row in rows if "problem" in row},
        "scans": json.loads((out / "killed" / "summary.json").read_text())["scans"],
    }


def worker_memory(out: Path, bundle: str, bags: int) -> dict[str, Any]:
    """Resident memory of this process after each bag that it evaluates; a worker does so, and is replaced after 50 bags."""
    write_bags(out / "bags", bags)
    after: list[float] = []
    for number, bag in enumerate(sorted((out / "bags").glob("*/*"))):
        evaluate_one(EvaluateConfig(data=bag, bundle=bundle, engine="onnxruntime", out=out / f"{number}", pictures=False))
        after.append(resident_mib())
        print(f"{number + 1} bags: {after[-1]} MiB", flush=True)
    half = after[len(after) // 2 :]
    slope = float(np.polyfit(np.arange(len(half)), half, 1)[0]) if len(half) > 1 else 0.0
    return {"mib_after_each_bag": after, "mib_a_bag_in_the_second_half": round(slope, 3)}


def memory(out: Path, many: int) -> list[dict[str, Any]]:
    """Resident memory of the driver and bytes in the object store while a manifest of `many` bags goes over the cluster.

    The work is nothing; the rows and the adding up of as many summaries are real: each is that of one evaluated bag.
    """
    import ray

    part = out / "one_process" / "drive_0"
    looks: list[dict[str, Any]] = []
    settings = RaySettings(ray="local", ray_workers=2)
    begin = time.monotonic()
    jobs = [Job(Path(f"bag_{number}"), f"bag_{number}") for number in range(many)]
    watched = set(np.linspace(many // 10, many, 10, dtype=int).tolist())
    for number, _ in enumerate(runner_of(settings, out / "memory")(lambda bag, name: {"complete": True}, jobs), 1):
        if number in watched:
            has, free = ray.cluster_resources(), ray.available_resources()
            store = has.get("object_store_memory", 0) - free.get("object_store_memory", 0)
            looks.append({"rows": number, "driver_mib": resident_mib(), "object_store_bytes": int(store)})
    looks.append({"rows": many, "wall_ms_a_row": round(1e3 * (time.monotonic() - begin) / many, 2)})
    for count in (many // 10, many):
        begin = time.process_time()
        merge([part] * count, out / "merged")
        cpu_s = round(time.process_time() - begin, 2)
        looks.append({"merged": count, "driver_mib": resident_mib(), "cpu_s": cpu_s})
    return looks


def resident_mib() -> float:
    """Resident memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)


if __name__ == "__main__":
    main()
