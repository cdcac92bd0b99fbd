# SPDX-License-Identifier: Apache-2.0
"""The settings of verbs that go through many bags, one after another here or as the tasks of a Ray cluster."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weakseg_ros.config import setting
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.input_settings import InputSettings


@dataclass(frozen=True, kw_only=True)
class RaySettings(InputSettings):
    """Sets where many bags are processed, and how they get there."""

    ray: str = ""
    """Runs the bags as tasks on a Ray cluster: 'local' starts one on this machine for the duration of the command, and an
    address such as 10.0.0.5:6379 joins a running one; an empty string processes the bags one after another."""
    ray_workers: int = setting(0, 0, 1_000_000)
    """Limits how many bags are processed at once on the cluster (1 to 1000000); 0 uses as many as its CPUs allow."""
    ray_cpus: float = setting(1.0, 0.01, 1024.0)
    """Sets the number of CPUs that each bag occupies on the cluster (0.01 to 1024); the engine uses as many threads, rounded
    up."""
    ray_gpus: float = setting(0.0, 0.0, 64.0)
    """Sets the number of GPUs that each bag occupies on the cluster (0 to 64); 0.25 lets four bags share one, and 0 hides the
    GPUs."""
    ray_retries: int = setting(2, 0, 100)
    """Sets how often a bag is retried on the cluster after its worker or node was lost, or after it could not be read (0 to
    100)."""
    fetch: str = ""
    """Sets a command that copies a bag to the machine that processes it, for example 'aws s3 cp {bag} {folder}/'; {bag} is the
    name as you gave it, and {folder} is an empty folder that is removed afterwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = [part for part in ("{bag}", "{folder}") if self.fetch and part not in self.fetch]
        if missing:
            raise ConfigError(f"fetch: '{self.fetch}' lacks {' and '.join(missing)}; give both, as in 'cp -r {{bag}} {{folder}}'")

    @property
    def engine_threads(self) -> int:
        """Threads of an engine: the task's share of its machine on a cluster, else 0, which leaves it to the engine."""
        return math.ceil(self.ray_cpus) if self.ray else 0


def anywhere(settings: Any, **changes: Any) -> Any:
    """The settings without where and how the bags are worked on: what decides about the results."""
    here = {field.name: field.default for field in dataclasses.fields(RaySettings) if field.name.startswith(("ray", "fetch"))}
    return dataclasses.replace(settings, **here, **changes)


def as_given(bag: Path) -> str:
    """A bag's name as it was typed: a path has only one of the slashes of s3://bucket/drive."""
    return re.sub(r"^([a-z][a-z0-9+.-]+:)/(?=[^/])", r"\1//", str(bag))
