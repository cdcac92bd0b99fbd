# SPDX-License-Identifier: Apache-2.0
"""Engines run the deploy graph. Each is one file here and one row of registry.ENGINES."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import FP32, Bundle, kind_of
from weakseg_ros.deploy.tensors import check_tensors
from weakseg_ros.errors import BundleError, ConfigError, EngineError, did_you_mean
from weakseg_ros.extras import explain
from weakseg_ros.registry import ENGINES, load

Inputs = Mapping[str, Any]
"""arrays by name: numpy's, or torch's on any device for an engine that takes them"""


class DeviceLostError(EngineError):
    """The accelerator gives no more answers in this process; only a new process helps."""


class Engine(Protocol):
    """Runs a bundle's network; one thread calls it at a time.

    Made as `Engine(bundle, threads)`, or as `Engine(bundle, threads, variant)` where it is asked for another arithmetic than
    float32. Raises EngineError where the bundle has no such file, or the engine cannot run it.
    """

    name: str
    """row of registry.ENGINES"""
    device: str
    """`cpu`, `cuda:0`, ..."""

    def run(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """The network's outputs by name; both as the tables `inputs` and `outputs` of the bundle say, see deploy/tensors.py.

        Any number of inputs; an engine knows tensors and never what they mean. The torch engine answers in kind: tensors on
        any device give tensors on its own device, so that a frontend that works there copies nothing.
        Raises EngineError where the engine fails or its answer cannot be used.
        """

    def close(self) -> None:
        """Release the model; `run` must not be called afterwards."""


def engine_names(text: str, where: str, *also: str) -> tuple[str, ...]:
    """The engines of a list that is separated by commas, each ENGINE or ENGINE:VARIANT, or one of `also`.

    Raises ConfigError that begins with `where` for a name that is not registered.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in also and name.partition(":")[0] not in ENGINES:
            known = ", ".join([*also, *sorted(ENGINES)])
            raise ConfigError(f"{where}: unknown engine '{name}'{did_you_mean(name, ENGINES)}; known: {known}")
    return names


def open_first(bundle: Bundle, labels: Sequence[str], threads: int) -> tuple[Engine, list[str]]:
    """The first engine of these labels that runs this bundle, and one sentence for each that did not.

    `threads` 0 leaves the number of CPU threads to the engine. Raises EngineError where none works, ConfigError for a name
    that is not registered.
    """
    failures: list[str] = []
    for label in labels:
        engine, why_not = try_to_open(bundle, label, threads)
        if engine is not None:
            return engine, failures
        failures.append(why_not)
    raise EngineError(f"{bundle.folder}: no engine can run it ({' | '.join(failures) or 'none was asked for'})")


def try_to_open(bundle: Bundle, label: str, threads: int) -> tuple[Engine | None, str]:
    """The engine of a label (ENGINE or ENGINE:VARIANT), or None and one sentence why not."""
    name, _, variant = label.partition(":")
    made = load(ENGINES, name)
    try:
        return (made(bundle, threads, variant) if variant not in ("", FP32) else made(bundle, threads)), ""
    except ConfigError:
        raise
    except (EngineError, BundleError) as error:
        return None, str(error) if str(error).startswith(f"{name}: ") else f"{label}: {error}"
    except ImportError as error:
        return None, explain(error) or f"{label}: {error}"
    except Exception as error:  # a foreign library may raise anything; the next engine gets its turn
        return None, f"{label}: {type(error).__name__}: {str(error).strip() or 'no text'}"


KEEPS_WEIGHTS_ELSEWHERE = b"\x0a\x08location\x12"
"""the entry of an ONNX tensor that names the file of its values: a path from the folder that a program happens to run in"""


def label_of(engine: Engine) -> str:
    """What names this engine and its arithmetic in a preference."""
    variant = getattr(engine, "variant", FP32)
    return engine.name if variant == FP32 else f"{engine.name}:{variant}"


def onnx_of(bundle: Bundle, variant: str, kind: str = "") -> tuple[bytes, str]:
    """(content, place) of the bundle's ONNX file in this arithmetic; EngineError where it has none.

    `kind` where that is not the variant's own.
    """
    file = bundle.file_of(kind or kind_of(variant))
    if file is None and variant == FP32:
        raise EngineError(f"{bundle.folder}: has no ONNX file; run it in torch, or export the model again")
    if file is None:
        raise EngineError(
            f"{bundle.folder}: has no ONNX file in {variant} (has {', '.join(bundle.variants) or 'none'}); make one with "
            "'weakseg export --from'"
        )
    content, where = bundle.read(file), str(bundle.folder / file)
    if KEEPS_WEIGHTS_ELSEWHERE in content:
        raise EngineError(f"{where}: keeps weights in another file, which no hash covers; export it again as a single file")
    return content, where


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def run_checked(bundle: Bundle, run: Callable[[], Mapping[str, Any]], inputs: Inputs) -> dict[str, Any]:
    """What `run` answers to `inputs`, both held against the bundle's tables; EngineError where either is not as they say."""
    info = bundle.info
    sizes = check_tensors("network input", inputs, info.inputs, info.sizes)
    outputs = dict(run())
    check_tensors("network output", outputs, info.outputs, sizes)
    return outputs


def example_inputs(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """Inputs of the right shapes that hold zeros, for a batch of one: what an engine is warmed up with."""
    info = bundle.info
    sizes = {"B": 1, **info.sizes}
    shapes = {
        name: [int(symbol) if symbol.isdigit() else sizes.get(symbol, 1) for symbol in spec.shape]
        for name, spec in info.inputs.items()
    }
    return {name: np.zeros(shape, info.inputs[name].dtype) for name, shape in shapes.items()}
