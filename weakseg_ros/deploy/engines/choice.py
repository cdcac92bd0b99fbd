# SPDX-License-Identifier: Apache-2.0
"""What `auto` means on this machine: the engine and arithmetic that answered fastest here, among those that answer alike.

No ranking of engines holds on every CPU, so the candidates are timed once, in turn on the same input, and the result is
remembered for this bundle, machine, number of threads and these versions.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.arrays import open_archive
from weakseg_ros.deploy.bundle import FP32, KIND_SAMPLE, Bundle
from weakseg_ros.deploy.engines import Engine, engine_names, example_inputs, label_of, open_first, try_to_open
from weakseg_ros.deploy.engines.cache import Cache
from weakseg_ros.environment import cpu_name, version_of
from weakseg_ros.errors import EngineError, WeaksegError, counted
from weakseg_ros.extras import has_nvidia_gpu, is_here
from weakseg_ros.files import sha256_of_parts

log = logging.getLogger(__name__)

AUTO = "auto"
VARIABLE = "WEAKSEG_AUTO"
"""the environment variable that says what `auto` is on this machine, where nothing shall be timed: a fleet that must give the
same figures everywhere, a container that starts without its cache"""
REFERENCE = "onnxruntime"
LAST_RESORT = "torch"
ON_CPU = {"onnxruntime": (FP32, "int8"), "openvino": (FP32, "bf16", "int8")}
ON_GPU = {
    "tensorrt": ("int8-tensorrt", "fp16", FP32),
    "tensorrt_rtx": ("int8-tensorrt", "fp16", FP32),
    "onnxruntime": ("fp16", FP32),
}
"""engines that `auto` compares, with the arithmetic to try in each; the module of an engine has its name"""
LEAST_AGREEMENT = {FP32: 0.999, "bf16": 0.98, "fp16": 0.99, "int8": 0.95, "int8-tensorrt": 0.93}
"""share of the pixels with a point that must get the class that they get in float32"""
ROUNDS, ROUNDS_TO_WARM_UP = 7, 2
MOST_SAMPLE_BYTES = 1 << 30
WORTH_A_CHANGE = 0.95
"""a later candidate is taken where its time is below this share of an earlier one's, so that noise decides nothing"""
WORTH_PRECISION = 0.8
"""the same where the later one calculates more coarsely: some pixels change their class, and all confidences lose digits"""


class Chain(NamedTuple):
    """The order in which engines are to be tried, and why; `why` is '' where the user said it."""

    labels: tuple[str, ...]
    why: str = ""


class Measured(NamedTuple):
    """One candidate: milliseconds a frame, and the share of pixels that get the same class as in float32."""

    label: str
    milliseconds: float
    agreement: float


def chain_of(bundle: Bundle, preference: Sequence[str] = (AUTO,), threads: int = 0) -> Chain:
    """The engines of a preference in the order to try them, each once; `auto` stands for what is fastest here.

    Raises ConfigError where WEAKSEG_AUTO names no engine.
    """
    labels: list[str] = []
    why = ""
    for entry in preference:
        if entry == AUTO:
            chosen = _told() or _automatic(bundle, threads)
            labels, why = [*labels, *chosen.labels], chosen.why
        else:
            labels.append(entry)
    return Chain(tuple(dict.fromkeys(labels)), why)


def _told() -> Chain | None:
    """What the environment says `auto` is, or None where it says nothing."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    labels = engine_names(text, f"the environment variable {VARIABLE}")
    why = f"auto uses {', else '.join(labels)}, as the environment variable {VARIABLE} requests"
    return Chain((*labels, REFERENCE, LAST_RESORT), why)


def open_engine(bundle: Bundle, preference: Sequence[str] = ("auto",), threads: int = 0) -> tuple[Engine, list[str]]:
    """The first engine of `preference` that runs this bundle, and one sentence for each that did not.

    An entry is ENGINE, ENGINE:VARIANT for another arithmetic than float32 (`onnxruntime:int8`), or `auto` for the order that
    `chain_of` finds; `threads` 0 leaves the number of CPU threads to the engine. Raises EngineError where none works,
    ConfigError for a name that is not registered.
    """
    chain = chain_of(bundle, preference, threads)
    if chain.why:
        log.info("%s: %s", bundle.name, chain.why)
    return open_first(bundle, chain.labels, threads)


def pinned(bundle: Bundle, engine: str) -> str:
    """The engine itself, or for `auto` the label of the one that this machine takes: other machines are to answer as it does."""
    if engine != AUTO:
        return engine
    opened, _ = open_first(bundle, chain_of(bundle).labels, 0)
    opened.close()
    log.info("%s: 'auto' means %s here, and all workers use it; choose another with --engine", bundle.name, label_of(opened))
    return label_of(opened)


def _automatic(bundle: Bundle, threads: int) -> Chain:
    """What is remembered of this machine, or measured now; with one candidate there is nothing to measure."""
    gpu = has_nvidia_gpu()
    candidates = candidates_of(bundle, gpu)
    rest = (REFERENCE, LAST_RESORT)
    if len(candidates) < 2:
        return Chain((*candidates, *rest), "")
    cache, key = Cache("choices"), _key(bundle, threads, candidates)
    stored = cache.get(key)
    if stored is not None:
        order, why = json.loads(stored)
        return Chain((*order, *rest), f"{why} (measured on an earlier start)")
    log.info("%s: these engines are timed on this machine, once for this model: %s", bundle.name, ", ".join(candidates))
    try:
        measured, refused = measure(bundle, candidates, threads)
    except WeaksegError as error:
        return Chain((*candidates, *rest), f"auto uses the first that works, because they cannot be compared: {error}")
    chosen = rank(measured, refused)
    if measured:
        cache.put(key, json.dumps([chosen.labels, chosen.why]).encode())
    return Chain((*chosen.labels, *rest), chosen.why)


def candidates_of(bundle: Bundle, gpu: bool) -> tuple[str, ...]:
    """The labels that `auto` compares: engines that are installed, in arithmetic that the bundle has files for.

    PyTorch is the last resort and not compared: it needs seconds to import, and is slower than onnxruntime on each of our nets.
    """
    table = {**ON_GPU, **{name: each for name, each in ON_CPU.items() if name not in ON_GPU}} if gpu else ON_CPU
    has = {*bundle.variants, *(("bf16",) if FP32 in bundle.variants else ())}
    return tuple(
        name if variant == FP32 else f"{name}:{variant}"
        for name, variants in table.items()
        if is_here(name)
        for variant in variants
        if variant in has
    )


def measure(bundle: Bundle, candidates: Sequence[str], threads: int) -> tuple[list[Measured], list[str]]:
    """(time and agreement of each candidate that runs, one sentence for each that does not or that answers otherwise)."""
    refused: list[str] = []
    inputs, mask = sample_inputs(bundle)
    reference = _answer_of_reference(bundle, inputs, threads)
    running: dict[str, Engine] = {}
    try:
        for label in candidates:
            engine, why_not = try_to_open(bundle, label, threads)
            if engine is None:
                refused.append(why_not)
            else:
                running[label] = engine
        agreements = {}
        for label, engine in running.items():
            try:
                agreements[label] = _agreement(engine.run(inputs), reference, mask)
            except EngineError as error:
                refused.append(f"{label}: {error}")
        apart = [label for label, share in agreements.items() if share < LEAST_AGREEMENT[_variant(label)]]
        refused += [f"{label}: agrees with float32 on only {agreements[label]:.1%} of the pixels" for label in apart]
        alike = {label: running[label] for label in agreements if label not in apart}
        times = time_in_turn(alike, inputs)
        return [Measured(label, times[label], agreements[label]) for label in alike], refused
    finally:
        for engine in running.values():
            engine.close()


def rank(measured: Sequence[Measured], refused: Sequence[str]) -> Chain:
    """The candidates from the fastest on, and what was found of each in words."""
    best: list[Measured] = []
    for each in measured:  # in the candidates' order, which decides between equals
        best.insert(next((i for i, other in enumerate(best) if _is_better(each, other)), len(best)), each)
    figures = [f"{each.label} ({each.milliseconds:.1f} ms, {each.agreement:.2%} of the classes as in float32)" for each in best]
    why = f"auto uses {figures[0]}" if figures else "auto found no engine that can be measured"
    others = f"; others: {', '.join(figures[1:])}" if figures[1:] else ""
    return Chain(tuple(each.label for each in best), f"{why}{others}{''.join(f'; not used: {text}' for text in refused)}")


def _is_better(later: Measured, earlier: Measured) -> bool:
    coarser = _variant(later.label) != FP32 and _variant(earlier.label) == FP32
    return later.milliseconds < (WORTH_PRECISION if coarser else WORTH_A_CHANGE) * earlier.milliseconds


def time_in_turn(engines: Mapping[str, Engine], inputs: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Median milliseconds of each, in turn, so that other work on the machine slows all alike."""
    laps: dict[str, list[float]] = {label: [] for label in engines}
    for turn in range(ROUNDS_TO_WARM_UP + ROUNDS):
        for label, engine in engines.items():
            start = time.perf_counter()
            engine.run(inputs)
            if turn >= ROUNDS_TO_WARM_UP:
                laps[label].append((time.perf_counter() - start) * 1e3)
    return {label: median(values) for label, values in laps.items()}


def sample_inputs(bundle: Bundle) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """(inputs for one frame, which pixels hold a point): the bundle's own sample, or noise where it has none."""
    file = bundle.file_of(KIND_SAMPLE)
    if file is None:
        rng = np.random.default_rng(0)
        inputs = {
            name: rng.normal(size=values.shape).astype(values.dtype) if values.dtype.kind == "f" else values
            for name, values in example_inputs(bundle).items()
        }
    else:
        try:
            with open_archive(bundle.read(file), MOST_SAMPLE_BYTES) as stored:
                inputs = {name: stored[name].astype(spec.dtype) for name, spec in bundle.info.inputs.items()}
        except (OSError, ValueError, KeyError) as error:
            raise EngineError(f"{bundle.folder}/{file}: cannot be read ({error}); export the model again") from None
    first = next(iter(inputs.values()))
    return inputs, np.asarray(np.any(first != 0, axis=1))


def _answer_of_reference(bundle: Bundle, inputs: Mapping[str, Any], threads: int) -> NDArray[Any] | None:
    """Classes in float32 on the CPU; None where onnxruntime cannot run the bundle, so that nobody can be compared with it."""
    engine, _ = try_to_open(bundle, REFERENCE, threads)
    if engine is None:
        return None
    try:
        classes: NDArray[Any] = engine.run(inputs)["class_id"]
        return classes
    except WeaksegError:
        return None
    finally:
        engine.close()


def _agreement(found: Mapping[str, Any], reference: NDArray[Any] | None, mask: NDArray[np.bool_]) -> float:
    if reference is None or not mask.any():
        return 1.0
    return float(np.mean(found["class_id"][mask] == reference[mask]))


def _variant(label: str) -> str:
    return label.partition(":")[2] or FP32


def _key(bundle: Bundle, threads: int, candidates: Sequence[str]) -> str:
    """What the result holds for: the model, the machine, its threads, the candidates and their libraries' versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    libraries = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13")
    versions = [f"{name} {version_of(name)}" for name in libraries]
    machine = [platform.machine(), cpu_name(), counted(cores or 1, "core"), counted(threads, "thread"), *gpu_names()]
    return sha256_of_parts([bundle.content_hash, *machine, *versions, *candidates])


def gpu_names() -> list[str]:
    """The NVIDIA GPUs as the driver names them; empty where there are none."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in files for line in file.read_text(errors="replace").splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
