# SPDX-License-Identifier: Apache-2.0
"""Frontends stand between a cloud and a network: one file here and one row of registry.FRONTENDS for each representation.

A frontend alone knows what a network's inputs and outputs mean. Training, validation, export, labelling and the robot
all call the same one, so that what was measured is what drives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import BundleInfo
from weakseg_ros.deploy.input_spec import InputSpec
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.tensors import ANSWERS, TensorSpec
from weakseg_ros.errors import BundleError, ConfigError, did_you_mean
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.lift import AskedLift
from weakseg_ros.registry import FRONTENDS, load

Instances = Literal["auto", "components", "none"]
Lap = Callable[[str], None]
"""told the name of each stage when it ends"""


@dataclass
class FrontendSettings:
    """What a user may ask of a frontend, changed between two clouds at will."""

    lift: AskedLift = "auto"
    """Selects how points get their class: 'pixel' gives each point the class of its pixel, 'vote' lets the pixels around it vote
    that are at its range, 'knn' is the vote of RangeNet++, and 'auto' is what the network's InputSpec says."""
    instances: Instances = "auto"
    """Selects how objects are found: 'auto' uses the bundle's own head if it has one and connected points otherwise,
    'components' connects points, and 'none' finds no objects."""
    intensity_scale: float = 0.0
    """Sets the factor on the intensity; 0 scales integer types to the full scale of the training data and leaves floats
    unchanged."""
    allow_no_intensity: bool = False
    """Feeds zeros to a network that needs intensity if a cloud has none."""
    refer: bool = False
    """Keeps the network's features with the answer, for expressions that name an object; the bundle needs a referring head."""
    passes: int = 1
    """Sets the minimum number of times that a network on points sees every point; the predictions are combined by voting."""

    def __post_init__(self) -> None:
        for name, asked, known in (("lift", self.lift, get_args(AskedLift)), ("instances", self.instances, get_args(Instances))):
            if asked not in known:
                raise ConfigError(f"{name}: unknown '{asked}'{did_you_mean(asked, known)}; known: {', '.join(known)}")


View = TypeVar("View")
"""how a cloud was seen: what `decode` needs to bring the answers back to its points"""


class Frontend(Protocol[View]):
    """Made as `Frontend(spec, labels, heads, outputs, name)
    return made`; one thread calls it at a time.

    `spec` says what the network is told, `outputs` is its table, `heads` are their names, `name` is the bundle's. Arrays may
    lie on a device where the engine's do.
    """

    settings: FrontendSettings
    inputs: Mapping[str, TensorSpec]
    """the table of what `encode` makes"""
    at_once: int
    """the largest batch that an engine is to be asked for at once, see `answer`"""

    def encode(self, cloud: Cloud, lap: Lap = ...) -> tuple[dict[str, NDArray[Any]], View]:
        """The network's inputs by name, as the bundle's table says, and the view of the cloud; a batch of one, or of its crops.

        Raises CloudError (`no_intensity`, `no_ring`, `grid_size`) where the network needs what the cloud has not.
        """

    def channels(self, cloud: Cloud) -> tuple[NDArray[np.float32], View]:
        """(C, P) the network's channels at its P points, in the order of the view's pixels; what statistics are taken from."""

    def nothing(self, view: View) -> dict[str, NDArray[Any]]:
        """What the network would answer for an image without any point, which it is not asked about."""

    def sees_nothing(self, view: View) -> bool:
        """Whether no point of the cloud can be answered."""

    def decode(self, outputs: Mapping[str, NDArray[Any]], view: View, lap: Lap = ...) -> Segmentation:
        """The answer of every point, in the cloud's order, from the network's outputs for one cloud."""


Answers = Mapping[str, NDArray[Any]]


def answer(frontend: Frontend[Any], run: Callable[[Any], Answers], inputs: Answers, view: Any) -> Answers:
    """What a network, called by `run`, answers to what a frontend made of a cloud: nothing where there is no point.

    A large batch is asked for in parts, so that memory does not grow with the cloud.
    """
    if frontend.sees_nothing(view):
        return frontend.nothing(view)
    count = len(next(iter(inputs.values())))
    if count <= frontend.at_once:
        return run(inputs)
    starts = range(0, count, frontend.at_once)
    parts = [run({name: values[at : at + frontend.at_once] for name, values in inputs.items()}) for at in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def open_frontend(info: BundleInfo) -> Frontend[Any]:
    """The frontend of a bundle; BundleError where the network needs an input that the frontend does not make."""
    frontend = make_frontend(info.input, info.labels, info.head_names, info.outputs, info.name)
    for name in info.inputs:
        if name not in frontend.inputs:
            raise BundleError(
                f"model '{info.name}': its network needs the input '{name}', which clouds as "
                f"'{info.input.representation}' do not give; use another bundle, or update weakseg_ros"
            )
    return frontend


def make_frontend(
    spec: InputSpec,
    labels: LabelMap,
    heads: tuple[str, ...] = (),
    outputs: Mapping[str, TensorSpec] = ANSWERS,
    name: str = "",
) -> Frontend[Any]:
    """The frontend of a network that is in no bundle yet; without `outputs` one that answers no more than classes."""
    made: Frontend[Any] = load(FRONTENDS, spec.representation)(spec, labels, heads, outputs, name)
    return made
