# SPDX-License-Identifier: Apache-2.0
"""Engines run the deploy graph. Each is one file here and one row of registry.ENGINES."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.tensors import check_tensors
from weakseg_ros.errors import BundleError, ConfigError, EngineError
from weakseg_ros.extras import explain
from weakseg_ros.registry import ENGINES, load

Inputs = Mapping[str, Any]
"""arrays by name: numpy's, or torch's on any device for an engine that takes them"""

AUTO = ("onnxruntime", "torch")
"""what `auto` tries, in this order"""


class DeviceLostError(EngineError):
    """The accelerator gives no more answers in this process; only a new process helps."""


class Engine(Protocol):
    """Runs a bundle's network. Made as `Engine(bundle, threads)`; one thread calls it at a time."""

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


def open_engine(bundle: Bundle, preference: Sequence[str] = ("auto",), threads: int = 0) -> tuple[Engine, list[str]]:
    """The first engine of `preference` that runs this bundle, and one sentence for each that did not.

    `auto` stands for AUTO; `threads` 0 leaves the number of CPU threads to the engine. Raises EngineError where none works,
    ConfigError for a name that is not registered.
    """
    names = list(dict.fromkeys(name for entry in preference for name in (AUTO if entry == "auto" else (entry,))))
    failures: list[str] = []
    for name in names:
        try:
            return load(ENGINES, name)(bundle, threads), failures
        except ConfigError:
            raise
        except (EngineError, BundleError) as error:
            failures.append(f"{name}: {error}")
        except ImportError as error:
            failures.append(explain(error) or f"{name}: {error}")
        except Exception as error:  # a foreign library may raise anything; the next engine gets its turn
            failures.append(f"{name}: {type(error).__name__}: {str(error).strip() or 'no text'}")
    raise EngineError(f"{bundle.folder}: no engine can run it. {' | '.join(failures) or 'none was asked for'}")


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
