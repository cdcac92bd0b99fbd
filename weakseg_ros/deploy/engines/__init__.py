# SPDX-License-Identifier: Apache-2.0
"""Engines run the deploy graph. Each is one file here and one row of registry.ENGINES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import OUTPUTS, Bundle
from weakseg_ros.errors import BundleError, ConfigError, EngineError
from weakseg_ros.extras import explain
from weakseg_ros.registry import ENGINES, load

AUTO = ("onnxruntime", "torch")
"""what `auto` tries, in this order"""


class DeviceLostError(EngineError):
    """The accelerator gives no more answers in this process; only a new process helps."""


class Engine(Protocol):
    """Runs a bundle's network on range images. Made as `Engine(bundle, threads)`; one thread calls it at a time."""

    name: str
    """row of registry.ENGINES"""
    device: str
    """`cpu`, `cuda:0`, ..."""

    def run(self, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """`image` (B, C, H, W) normalised, 0 where no point is, to `class_id` u8, `confidence` and `uncertainty` f32 (B, H, W).

        And to those of EXTRA_OUTPUTS that the bundle lists, f32: `novelty` and `centre` (B, H, W) 0..1; `offset`
        (B, 2, H, W) m; `query_class` (B, Q, K) and `query_mask` (B, Q, h, w) logits, see `deploy.queries`.
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


def output_names(bundle: Bundle) -> tuple[str, ...]:
    """What the bundle's network answers, in the order of its graph."""
    return (*OUTPUTS, *bundle.info.outputs)


def check_outputs(
    outputs: dict[str, NDArray[Any]], image_shape: tuple[int, ...], num_classes: int, extra: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """The outputs as they came, or EngineError: one missing, of a wrong shape, NaN or infinite, or a class that is not one.

    `image_shape` is (B, C, H, W), `extra` names the outputs besides the three that every network has.
    """
    names = (*OUTPUTS, *extra)
    for name in names:
        if name not in outputs:
            raise EngineError(f"network output: '{name}' is missing (has {', '.join(outputs)}); export the model again")
        expected, found = _expected_shape(name, image_shape, num_classes), outputs[name].shape
        if len(found) != len(expected) or any(size not in (None, known) for size, known in zip(expected, found, strict=True)):
            raise EngineError(
                f"network output '{name}': expected shape {_shape_text(expected)}, found {found}; export the model again"
            )
    for name in names[1:]:
        if not np.isfinite(outputs[name]).all():
            raise EngineError(f"network output '{name}': holds NaN or infinite values; the weights or the input are damaged")
    low, high = int(outputs["class_id"].min(initial=1)), int(outputs["class_id"].max(initial=1))
    if low < 1 or high >= num_classes:
        raise EngineError(f"network output 'class_id': {low}..{high} is outside the {num_classes - 1} classes of the bundle")
    return outputs


def _expected_shape(name: str, image_shape: tuple[int, ...], num_classes: int) -> tuple[int | None, ...]:
    """The shape that an output must have, None where it may have any size."""
    batch, _, height, width = image_shape
    special: dict[str, tuple[int | None, ...]] = {
        "offset": (batch, 2, height, width),
        "query_class": (batch, None, num_classes),
        "query_mask": (batch, None, None, None),
    }
    return special.get(name, (batch, height, width))


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
