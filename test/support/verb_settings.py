# SPDX-License-Identifier: Apache-2.0
"""The classes of settings of each verb, and the options that follow from them."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator

SETTINGS = {
    "doctor": ("weakseg_ros.doctor:DoctorConfig",),
    "demo": ("weakseg_ros.demo:DemoConfig",),
    "simulate": ("weakseg_ros.simulate.record:RecordConfig", "weakseg_ros.simulate.lidar:SensorModel"),
    "import": ("weakseg_ros.data.importer:ImportConfig",),
    "check": ("weakseg_ros.data.check:CheckConfig",),
    "sparse": ("weakseg_ros.weak.draw:SparseVerb",),
    "train": ("weakseg_ros.train.config:TrainConfig",),
    "train-referring": ("weakseg_ros.train.referring_config:TrainReferringConfig",),
    "benchmark": ("weakseg_ros.benchmark.table:BenchmarkConfig",),
    "export": ("weakseg_ros.train.config:ExportConfig",),
    "wrap": ("weakseg_ros.train.wrap_config:WrapConfig",),
    "label": ("weakseg_ros.improve.label.serve:LabelConfig",),
    "retrain": ("weakseg_ros.improve.retrain.config:RetrainConfig",),
    "adapt": ("weakseg_ros.improve.adapt.config:AdaptConfig",),
    "promote": ("weakseg_ros.improve.retrain.versions:PromoteConfig",),
    "rollback": ("weakseg_ros.improve.retrain.versions:RollbackConfig",),
    "evaluate": ("weakseg_ros.measure.evaluate:EvaluateConfig",),
    "fleet": ("weakseg_ros.fleet.config:FleetConfig",),
    "view": ("weakseg_ros.view.command:ViewConfig",),
    "compare": ("weakseg_ros.measure.compare:CompareConfig",),
    "predict": ("weakseg_ros.measure.predict:PredictConfig",),
    "refer": ("weakseg_ros.referring:ReferConfig",),
    "select": ("weakseg_ros.improve.log.select:SelectConfig",),
    "export-frames": ("weakseg_ros.improve.log.export_frames:ExportFramesConfig",),
    "replay": ("weakseg_ros.ros.replay:ReplayConfig",),
    "node": ("weakseg_ros.ros.params:NodeConfig",),
    "build-engine": ("weakseg_ros.deploy.engines.command:BuildConfig",),
}
"""the classes of settings by verb; those that they hold are found from them"""
OTHER_MANUALS = {
    "simulate": ("weakseg_ros.simulate.rooms.record:RoomsConfig",),
    "benchmark": ("weakseg_ros.benchmark.referring_table:ReferringTable",),
}
"""classes of settings that a verb takes instead of its own, as `simulate --rooms` does"""


def with_inner(cls: type) -> Iterator[type]:
    """A class of settings and all that its fields are made of."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from with_inner(part)


def options_of(verb: str) -> set[str]:
    """What can be typed behind a verb: `--out`, `--draw.ratio`, and `--no-track` for what can be switched off."""
    if verb == "node":
        parser = importlib.import_module("weakseg_ros.ros.node")._parser()
        return {option for action in parser._actions for option in action.option_strings}
    entries = (SETTINGS[verb][0], *OTHER_MANUALS.get(verb, ()))
    names = [name for entry in entries for name in fields_of(class_at(entry))]
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in names}


def fields_of(cls: type, prefix: str = "") -> Iterator[str]:
    """The names of settings as options have them, with those of inner classes behind a dot, and their further names."""
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        notes = getattr(hint, "__metadata__", ())
        told = [note.name for note in notes if getattr(note, "name", None) is not None]
        dashed = prefix + (told[0] if told else name.replace("_", "-"))
        yield dashed
        yield from (alias.removeprefix("--") for note in notes for alias in getattr(note, "aliases", None) or ())
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from fields_of(part, f"{dashed}." if dashed else "")


def class_at(entry: str) -> type:
    module, _, name = entry.partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
