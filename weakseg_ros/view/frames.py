# SPDX-License-Identifier: Apache-2.0
"""What is viewed: the scans of bags or folders one by one, with what some models say of each."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.bag_files import is_bag
from weakseg_ros.data.many_bags import bags_of
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.referring import Question, Referred, Referrer, has_referring_head
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import CloudError, DataError
from weakseg_ros.measure.inputs import Input, open_input, open_inputs
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.matched_labels import in_data_of

KEPT_POINTS = 6_000_000
"""points of the scans that are kept in memory with their answers, about 400 MB with two models"""


@dataclass(frozen=True)
class Shown:
    """One scan with everything that can be drawn of it; class ids are those of the frames' label map."""

    name: str
    """recording and number of the scan, for people"""
    cloud: Cloud
    truth: NDArray[np.uint8] | None
    """(N,) class ids, 0 = unknown; None where the scan has no labels"""
    truth_instance: NDArray[np.uint16] | None
    answers: tuple[Segmentation | None, ...] = ()
    """one for each model; None where it cannot take the scan"""
    problems: tuple[str, ...] = ()
    """why a model could not take the scan"""
    found: tuple[Referred | None, ...] = ()
    """what each model takes a question to mean; None where it was asked nothing"""


class UnreadableScanError(DataError):
    """One scan cannot be read; those behind it may be sound."""


class Frames(Protocol):
    """Scans to view, by number; of a running node their number grows."""

    labels: LabelMap
    models: tuple[str, ...]
    """names of the models, in the order of the answers"""
    notes: list[str]
    """what was assumed or left out, one sentence each"""
    live: bool

    def __len__(self) -> int: ...

    def frame(self, index: int) -> Shown:
        """A scan with its answers; DataError where it cannot be read."""

    def ask(self, text: str) -> bool:
        """Look for what an expression means from now on, '' for nothing; False where no model answers expressions."""


ClassesTo = Callable[[LabelMap, LabelMap], NDArray[np.uint8]]
"""(K,) the class id of the second map, 0 = none, for each class id of the first"""


def by_raw_id(own: LabelMap, shown: LabelMap) -> NDArray[np.uint8]:
    """Classes that have the same raw ids are the same; where the maps number them in their own ways, those of the same name."""
    return in_data_of(shown, own)[0].to_class(own.to_raw(np.arange(own.num_classes)))


def by_name(own: LabelMap, shown: LabelMap) -> NDArray[np.uint8]:
    """Classes that have the same name are the same."""
    ids = {row.name: row.id for row in shown.classes}
    return np.array([ids.get(row.name, 0) for row in own.classes], np.uint8)


class Model:
    """A bundle that answers in the classes of another label map."""

    def __init__(
        self, bundle: Bundle, labels: LabelMap, engine: str, reading: InputSettings, classes_to: ClassesTo = by_raw_id
    ) -> None:
        self.name = bundle.info.name
        no_intensity = not reading.intensity_field
        scale = reading.intensity_scale
        self.segmenter = Segmenter(bundle, engine, intensity_scale=scale, allow_no_intensity=no_intensity)
        own = bundle.labels
        self._to_shown = classes_to(own, labels)
        self._referrer = Referrer(bundle) if has_referring_head(bundle.info) else None
        self._question: Question | None = None
        lost = ", ".join(own.names[k] for k in range(1, own.num_classes) if not self._to_shown[k])
        self.notes = [f"{self.name}: its classes {lost} are not among those shown, and are drawn as unknown"] if lost else []

    def ask(self, text: str) -> bool:
        """Look for what an expression means in the clouds that follow, '' for nothing; False where the model answers none."""
        self._question = self._referrer.ask(text) if self._referrer is not None and text.strip() else None
        self.segmenter.settings.refer = self._question is not None
        return self._referrer is not None

    def answer(self, cloud: Cloud) -> tuple[Segmentation, Referred | None]:
        """What the model says of a cloud, and what it takes the question to mean; CloudError where it cannot take it."""
        answer, found = self.segmenter.run(cloud), None
        if self._question is not None and self._referrer is not None:
            found = self._referrer.answer(self._question, cloud, answer)
        return dataclasses.replace(answer, class_id=self._to_shown[answer.class_id]), found


class Recording:
    """The scans of one or several bags, or of a folder, as one row of frames."""

    live = False

    def __init__(
        self, inputs: Sequence[Input], labels: LabelMap, models: Sequence[Model], kept_points: int = KEPT_POINTS
    ) -> None:
        self.labels = labels
        self.models = tuple(model.name for model in models)
        self.notes = [note for model in models for note in model.notes]
        self.notes += dict.fromkeys(note for source in inputs for note in source.notes)
        self._inputs, self._answering = inputs, models
        self._ends = np.cumsum([len(source) for source in inputs])
        self._kept: OrderedDict[int, Shown] = OrderedDict()
        self._kept_points = kept_points

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def frame(self, index: int) -> Shown:
        if index not in self._kept:
            self._kept[index] = self._read(index)
        self._kept.move_to_end(index)
        while len(self._kept) > 1 and sum(len(shown.cloud) for shown in self._kept.values()) > self._kept_points:
            self._kept.popitem(last=False)
        return self._kept[index]

    def readable(self, every: int, problems: list[str]) -> Iterator[tuple[int, Shown]]:
        """Number and content of every n-th scan that can be read; what cannot be read or answered is told in `problems`, once.

        A bag that is damaged ends at its damage; those behind it are read. Raises DataError where nothing can be read.
        """
        seen, first = 0, 0
        for end in self._ends.tolist():
            for index in range(-(-first // every) * every, end, every):
                try:
                    shown = self.frame(index)
                except DataError as error:
                    problems.append(str(error))
                    if isinstance(error, UnreadableScanError):
                        continue
                    break
                problems += (problem for problem in shown.problems if problem not in problems)
                seen += 1
                yield index, shown
            first = end
        if not seen:
            raise DataError(next(iter(problems), "no scan can be read"))

    def ask(self, text: str) -> bool:
        """Look for what an expression means, '' for nothing; False where no model answers expressions."""
        self._kept.clear()
        return any([model.ask(text) for model in self._answering])

    def close(self) -> None:
        """Release the engines."""
        for model in self._answering:
            model.segmenter.close()

    def _read(self, index: int) -> Shown:
        part = int(np.searchsorted(self._ends, index, side="right"))
        source = self._inputs[part]
        first = int(self._ends[part - 1]) if part else 0
        try:
            item = source.item(index - first)
        except IndexError:
            raise DataError(f"{source.name}: ends before scan {index - first}; record or copy it again") from None
        except CloudError as error:
            raise UnreadableScanError(f"{source.name}: scan {index - first}: {error}") from None
        name = f"{source.name}, {item.key}" if len(self._inputs) > 1 else item.key
        return answered(Shown(name, item.cloud, item.truth, item.truth_instance), self._answering)


def answered(shown: Shown, models: Sequence[Model]) -> Shown:
    """A scan with the answers of more models; one that cannot take it is told among the problems."""
    answers, problems = list(shown.answers), list(shown.problems)
    found = [*shown.found, *[None] * (len(answers) - len(shown.found))]
    for model in models:
        try:
            answer, meant = model.answer(shown.cloud)
        except CloudError as error:
            answer, meant = None, None
            problems.append(f"{model.name}: {error}")
        answers.append(answer)
        found.append(meant)
    return dataclasses.replace(shown, answers=tuple(answers), problems=tuple(problems), found=tuple(found))


def open_models(
    bundles: Sequence[str], labels: LabelMap | None, engine: str, reading: InputSettings, classes_to: ClassesTo = by_raw_id
) -> list[Model]:
    """The models of some bundles, all in the classes of `labels`, or else of the first bundle."""
    loaded = [Bundle.load(bundle) for bundle in bundles]
    models = [Model(bundle, labels or loaded[0].labels, engine, reading, classes_to) for bundle in loaded]
    names = [model.name for model in models]
    for model, folder in zip(models, bundles, strict=True):
        if names.count(model.name) > 1:
            model.name = folder.rstrip("/")
    return models


def open_recording(
    path: Path,
    bundles: Sequence[str] = (),
    topic: str = "",
    split: str = "",
    truth: Path | None = None,
    label_map: str = "",
    engine: str = "auto",
    reading: InputSettings | None = None,
    more: Sequence[Path] = (),
) -> Recording:
    """A bag, several, or a folder of scans, as `weakseg evaluate` takes them, with what the bundles say of each scan.

    Classes are those of `label_map` where it is given, else of the first bundle, else the data's own. Raises DataError.
    """
    settings = reading or InputSettings()
    bags = bags_of(path, more)
    given = LabelMap.load(label_map) if label_map else None
    labels = given or (Bundle.load(bundles[0]).labels if bundles else _own_labels(path, bags, split))
    inputs, problems = open_inputs(bags or [path], lambda one: open_input(one, labels, topic, split, truth, settings))
    if not sum(map(len, inputs)):
        raise DataError(f"{path}: holds no scan; check the topic and the split")
    recording = Recording(inputs, labels, open_models(bundles, given, engine, settings))
    recording.notes += [f"left out: {problem}" for problem in problems]
    return recording


def _own_labels(path: Path, bags: Sequence[Path], split: str) -> LabelMap:
    """The map of the data's own labels; bags have none, and label files beside them are taken for SemanticKITTI's."""
    return LabelMap.load("semantickitti") if bags or is_bag(path) else open_scans(path, split).labels
