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
    """Where many bags are worked on, and how they get there."""

    ray: str = ""
    """Run the bags as tasks of a Ray cluster: 'local' starts one on this machine for as long as the command runs, and an
    address such as 10.0.0.5:6379 joins one; empty works on them one after another."""
    ray_workers: int = setting(0, 0, 1_000_000)
    """Largest number of bags that are worked on at once over the cluster; 0 takes as many as its CPUs allow."""
    ray_cpus: float = setting(1.0, 0.01, 1024.0)
    """Number of CPUs (0.01 to 1024) that one bag occupies on the cluster, which rounded up is also the engine's number of
    threads."""
    ray_gpus: float = setting(0.0, 0.0, 64.0)
    """Number of GPUs (0 to 64) that one bag occupies on the cluster; 0.25 lets four bags share one, and 0 hides the GPUs."""
    ray_retries: int = setting(2, 0, 100)
    """Number of times (0 to 100) that a bag is tried again on the cluster when its worker or node was lost, or when it could
    not be read."""
    fetch: str = ""
    """Command that brings a bag to the machine that works on it, for example 'aws s3 cp {bag} {folder}/'; {bag} is its name
    as you gave it, and {folder} is an empty folder that is removed afterwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = [part for part in ("{bag}", "{folder}") if self.fetch and part not in self.fetch]
        if missing:
            raise ConfigError(
                f"fetch: '{self.fetch}' does not say {' and '.join(missing)}; give both, as in 'cp -r {{bag}} {{folder}}'"
            )

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
