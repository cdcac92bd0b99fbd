# SPDX-License-Identifier: Apache-2.0
"""The whole GPU checklist in under ten minutes: engines, parity, timings, the frame's way, a training step; one JSON.

    python bench/gpu.py [--bundle models/street64] [--minutes 9] [--out runs/gpu]        (or `make gpu`)

Without an NVIDIA GPU it ends with one sentence. The JSON is written after every item, so an interrupted run keeps what it has;
an item that no time is left for is listed under `left_out`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines import try_to_open
from weakseg_ros.deploy.engines.choice import chain_of, sample_inputs
from weakseg_ros.deploy.engines.gpu import first_gpu
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.environment import environment
from weakseg_ros.errors import EngineError
from weakseg_ros.files import make_folder, write_json
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor

ENGINES = {
    "tensorrt_rtx": ("fp32", "fp16", "int8-tensorrt"),
    "tensorrt": ("fp32", "fp16", "int8-tensorrt"),
    "onnxruntime_cuda": ("fp32", "fp16"),
    "torch": ("fp32",),
    "onnxruntime_tensorrt": ("fp32", "fp16"),
}
"""in the order of what is most worth knowing, should the time run out"""
FRAMES, WARM_UP = 100, 10


def quantiles(milliseconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    return {f"p{q}": round(float(np.percentile(milliseconds, q)), 3) for q in (50, 95, 99)}


def laps(work: Callable[[], Any], count: int = FRAMES) -> dict[str, float]:
    """Quantiles of the time of `work` in ms, after a warm-up."""
    times = []
    for turn in range(count + WARM_UP):
        start = time.perf_counter()
        work()
        if turn >= WARM_UP:
            times.append((time.perf_counter() - start) * 1e3)
    return quantiles(times)


def engine_row(bundle: Bundle, label: str, inputs: dict[str, Any], mask: Any, reference: Any) -> dict[str, Any]:
    """Build time, agreement with float32 on the CPU, and latency of one engine; or why it does not run."""
    start = time.perf_counter()
    engine, why_not = try_to_open(bundle, label, 0)
    if engine is None:
        return {"refused": why_not}
    opened = time.perf_counter() - start
    try:
        found = engine.run(inputs)["class_id"]
        row = {"opened_s": round(opened, 2), "agreement": float(np.mean(found[mask] == reference[mask]))}
        again = engine.run(inputs)["class_id"]
        return {**row, "device": engine.device, "repeats": bool(np.array_equal(found, again)), **laps(lambda: engine.run(inputs))}
    finally:
        engine.close()


def frame_rows(bundle: Bundle) -> dict[str, Any]:
    """Milliseconds by stage of the whole frame, from the decoded cloud to the answer, in what `auto` takes."""
    cloud = next(simulate(SimulateConfig(1, 1, sensor=load_sensor("hdl64e")))).cloud
    segmenter = Segmenter(bundle)
    stages: dict[str, list[float]] = {}
    for turn in range(FRAMES + WARM_UP):
        answer = segmenter.run(cloud)
        if turn >= WARM_UP:
            for stage, value in {**answer.timings_ms, "all": sum(answer.timings_ms.values())}.items():
                stages.setdefault(stage, []).append(value)
    rows = {"points": len(cloud), "engine": segmenter.engine.name, "why": segmenter.chain.why}
    segmenter.close()
    return {**rows, "stage_ms": {stage: quantiles(values) for stage, values in stages.items()}}


def training_row() -> dict[str, Any]:
    """What `precision: auto` takes here, and the times it was decided by."""
    from weakseg_ros.train.config import TrainConfig
    from weakseg_ros.train.machine import why_precision

    precision, why = why_precision(TrainConfig())
    return {"precision": precision, "why": why}


def main() -> int:
    """Run the checklist; returns the exit code: 0, or 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="models/street64")
    parser.add_argument("--minutes", type=float, default=9.0, help="no further item is begun after this many minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    arguments = parser.parse_args()
    try:
        gpu = first_gpu()
    except EngineError as error:
        print(f"make gpu: {error}; run it on a machine with an NVIDIA GPU", file=sys.stderr)
        return 2
    begin = time.monotonic()
    bundle = Bundle.load(arguments.bundle)
    inputs, mask = sample_inputs(bundle)
    reference_engine, _ = try_to_open(bundle, "onnxruntime", 0)
    if reference_engine is None:
        print("make gpu: onnxruntime cannot run the bundle, so nothing can be compared; install onnxruntime", file=sys.stderr)
        return 2
    reference = reference_engine.run(inputs)["class_id"]
    labels = [
        name if variant == "fp32" else f"{name}:{variant}"
        for name, variants in ENGINES.items()
        for variant in variants
        if variant in bundle.variants
    ]
    items: dict[str, Callable[[], Any]] = {
        f"engine {label}": lambda label=label: engine_row(bundle, label, inputs, mask, reference)  # type: ignore[misc]
        for label in labels
    }
    items |= {"frame": lambda: frame_rows(bundle), "training": training_row, "auto": lambda: chain_of(bundle)._asdict()}
    summary: dict[str, Any] = {"gpu": gpu._asdict(), "machine": environment(), "bundle": bundle.name, "left_out": []}
    make_folder(arguments.out)
    for name, item in items.items():
        if time.monotonic() - begin > arguments.minutes * 60:
            summary["left_out"].append(name)
            continue
        try:
            summary[name] = item()
        except Exception as error:  # one item's fault must not cost the others
            summary[name] = {"failed": f"{type(error).__name__}: {error}"}
        print(f"{name}: {summary[name]}", flush=True)
        write_json(arguments.out / "summary.json", {**summary, "minutes": round((time.monotonic() - begin) / 60, 2)})
    print(f"{arguments.out / 'summary.json'}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
