# SPDX-License-Identifier: Apache-2.0
"""Every setting is explained in one full sentence, which `--help` and the ROS parameters show as it stands."""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing
from collections.abc import Iterator

import pytest

from support import optional
from weakseg_ros.cli import VERBS
from weakseg_ros.config import field_docs

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
LEAST_WORDS = 4
VERBS_OF_HELP = frozenset(
    "Adds Aggregates Changes Checks Configures Continues Deploys Draws Enables Evaluates Excludes Exports Feeds Follows Gives "
    "Holds Initialises Keeps Levels Limits Lists Makes Moves Names Publishes Reads Replaces Resets Restricts Runs Scales Seeds "
    "Selects Sets Shows Simulates Splits Starts States Stops Stores Sums Tracks Trains Uses Varies Waits Writes".split()
)
"""what a setting does; a new verb is one more word here"""
SHOWN_WITH_BOUNDS = ("NodeConfig", "NodeInputSettings", "TrackSettings", "LogSettings")
"""settings of the node, whose manual and descriptions add the bounds by themselves"""


def with_inner(cls: type) -> Iterator[type]:
    """A class of settings and all that its fields are made of."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from with_inner(part)


def is_sentence(text: str) -> bool:
    """Whether it begins with what the setting does, ends with a full stop and has words enough to stand alone."""
    words = text.split()
    return words[0] in VERBS_OF_HELP and text.endswith(".") and len(words) >= LEAST_WORDS


def says_its_range(text: str) -> bool:
    """Whether it says what the setting may be, as in (0 to 1) or (1 or more)."""
    return bool(re.search(r"\d\S* (to \S*\d|or more)|at least \d|must be less than|above 0", text))


def test_no_verb_is_left_out() -> None:
    assert SETTINGS.keys() == VERBS.keys()


@pytest.mark.parametrize("verb", SETTINGS)
def test_each_setting_is_explained_in_one_sentence(verb: str) -> None:
    if verb == "replay":
        optional("rclpy")
    for entry in SETTINGS[verb]:
        module, _, name = entry.partition(":")
        for cls in with_inner(getattr(importlib.import_module(module), name)):
            docs = field_docs(cls)
            silent = [field.name for field in dataclasses.fields(cls) if field.init and field.name not in docs]
            assert not silent, f"{cls.__name__}: no line under {', '.join(silent)}"
            fragments = {field: text for field, text in docs.items() if not is_sentence(text)}
            assert not fragments, f"{cls.__name__}: {fragments}"
            if cls.__name__ not in SHOWN_WITH_BOUNDS:
                bounded = [field.name for field in dataclasses.fields(cls) if field.metadata.get("low") is not None]
                silent = [name for name in bounded if not says_its_range(docs[name])]
                assert not silent, f"{cls.__name__}: the range of {', '.join(silent)} is not told"


@pytest.mark.parametrize(
    "text", ["folder for the scans", "Likewise.", "and so many columns over it.", "Seconds between two checks of the bundle."]
)
def test_a_fragment_is_no_sentence(text: str) -> None:
    assert not is_sentence(text)
