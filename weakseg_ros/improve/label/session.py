# SPDX-License-Identifier: Apache-2.0
"""What a person does on the page, without the page: one frame, one marked point, one class, and the click store."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.clicks import LARGEST_INSTANCE, ClickStore
from weakseg_ros.improve.label.pick import pick
from weakseg_ros.improve.label.source import Frame, Source
from weakseg_ros.weak.masks_by_rule import ClickSettings, segment_from_clicks

MasksOfClicks = Callable[..., NDArray[np.int32]]
"""`weak.masks_by_rule.segment_from_clicks`, or a learned one that is called alike: which click each point belongs to"""
Mode = Literal["mark", "paint", "object", "erase"]
MODES: tuple[Mode, ...] = ("mark", "paint", "object", "erase")
PAUSE_S = 60.0
"""longer gaps between two clicks are a break, not work"""
GROWTH = 1.3
"""by how much a mask's reach grows or shrinks at a time"""
SMALLEST_REACH, LARGEST_REACH = 0.1, 10.0
ERASER_M = 0.3
"""an eraser takes what is so close to the clicked point along with it"""


@dataclass(frozen=True)
class Proposal:
    """A mask that waits for the person's judgement."""

    click: int
    """the clicked point"""
    class_id: int
    reach: float
    points: NDArray[np.int64]
    """the points that would be labelled"""


@dataclass
class Pace:
    """How fast the work goes."""

    gaps_s: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    last_s: float = -np.inf

    def beat(self) -> None:
        """One click was made."""
        now = time.monotonic()
        if now - self.last_s < PAUSE_S:
            self.gaps_s.append(now - self.last_s)
        self.last_s = now

    @property
    def seconds(self) -> float | None:
        """The median time of the last clicks, None before the second one."""
        return statistics.median(self.gaps_s) if self.gaps_s else None


class Session:
    """The state of the page; each action changes it and, where something is labelled, the disk.

    `masks_of_clicks` finds the points of a clicked object. `message` is what the person is told next, `warning` whether it
    is a fault. Actions raise DataError where a frame is damaged or the disk refuses; the state is then as before.
    """

    def __init__(self, store: ClickStore, source: Source, masks_of_clicks: MasksOfClicks = segment_from_clicks) -> None:
        self.store, self.source, self.labels = store, source, source.labels
        self._masks_of_clicks = masks_of_clicks
        self.mode: Mode = "mark"
        self.chosen = 1
        self._named = False  # whether a key has said what the next objects are; until then the model may guess
        self.instances = True
        self.same_object = False
        self.point: int | None = None
        self.suggested: int | None = None
        self.proposal: Proposal | None = None
        self.message, self.warning = "", False
        self.pace = Pace()
        self._skipped: dict[str, set[int]] = {}
        done = set(store.done)
        self._open_first([*(key for key in source.keys if key not in done), *source.keys])

    def open(self, key: str) -> None:
        """Show a frame, at its first suggested point that has no label yet."""
        frame = self.source.frame(key)
        self.store.labelled(key)  # a damaged label file is told now, not at the first click
        self.frame: Frame = frame
        self.point = self.suggested = self.proposal = None
        self.same_object = False
        self.next_suggestion()

    def turn_page(self, step: int) -> None:
        """Show the next frame of the list, or the one before with `step` -1."""
        at = self._place()
        keys = self.source.keys[at + 1 :] if step > 0 else self.source.keys[:at][::-1]
        if keys:
            self._open_first(keys)
        else:
            self._say("This is the last frame." if step > 0 else "This is the first frame.")

    def finish(self) -> None:
        """Mark the frame as done and go to the next that is not."""
        self.store.mark_done(self.frame.key)
        done, at = set(self.store.done), self._place()
        keys = [key for key in [*self.source.keys[at + 1 :], *self.source.keys[:at]] if key not in done]
        if keys:
            self._open_first(keys)
        else:
            self._say("All frames are done. Thank you!")

    def refresh(self) -> None:
        """Look for frames that came since the list was made."""
        before = len(self.source)
        self.source = Source(self.source.folder, self.labels)
        self._say(f"{len(self.source)} frames, {max(0, len(self.source) - before)} of them new.")

    def choose_mode(self, mode: Mode) -> None:
        """Say what a mouse click does."""
        self.mode = mode
        self.proposal, self._named = None, False
        if mode in ("paint", "erase", "object"):
            self.suggested = self.point = None
        if mode == "object" and not self.labels.things[self.chosen]:
            self.chosen = next(iter(np.flatnonzero(self.labels.things).tolist()), self.chosen)
        if mode == "mark":
            self.next_suggestion()
        else:
            self._say(self._advice())

    def press(self, class_id: int) -> None:
        """A class was named: for the marked point, for the mask that is shown, or for the clicks to come."""
        self.chosen, self._named = class_id, True
        if self.proposal is not None:
            self._propose(self.proposal.click, self.proposal.reach)
        elif self.mode == "mark" and self.point is not None:
            self._label([self.point], class_id)
            if self.suggested is not None:
                self._skipped.get(self.frame.key, set()).discard(self.suggested)  # should the label be taken back
                self.next_suggestion()
            else:
                self.point = None
                self._say(f"{self._name(class_id)}. Click the next point, or N for a suggested one.")
        else:
            self._say(self._advice())

    def click(self, origin: NDArray[np.floating], direction: NDArray[np.floating], radius_m: float) -> int | None:
        """A click into the scene along a ray; returns the point that was meant."""
        cloud = self.frame.cloud
        point = pick(cloud.xyz, cloud.valid, origin, direction, radius_m)
        if point is None:
            self._say("There is no point here.")
            return None
        if self.mode == "erase":
            self._erase(point)
        elif self.mode == "paint":
            self._label([point], self.chosen)
            self._say(f"{self._name(self.chosen)}. Undo: Z")
        elif self.mode == "object":
            guess = 0 if self._named or self.frame.prediction is None else int(self.frame.prediction[point])
            self.chosen = guess if self.labels.things[guess] else self.chosen
            self._propose(point, ClickSettings().reach)
        else:
            self.point, self.suggested = point, None
            self._say("What is the marked point? Press the key of its class.")
        return point

    def skip(self) -> None:
        """Pass over the current suggested point, so that it does not come again by itself, and mark the next one."""
        if self.suggested is not None:
            self._skipped.setdefault(self.frame.key, set()).add(self.suggested)
        self.next_suggestion()

    def next_suggestion(self, step: int = 1) -> None:
        """Mark the next suggested point that has no label and was not passed over, or with `step` -1 the one before."""
        count, class_id = len(self.frame.suggestions), self.store.labelled(self.frame.key)[0]
        self.mode, self.proposal = "mark", None
        passed = self._skipped.get(self.frame.key, set()) if step > 0 else set()
        outside = -1 if step > 0 else count
        start = outside if self.suggested is None else self.suggested
        around = range(start + 1, count) if step > 0 else range(start - 1, -1, -1)
        for at in [*around, *(range(start + 1) if step > 0 else ())]:
            if step < 0 or (at not in passed and not class_id[self.frame.suggestions[at].point]):
                self.suggested, self.point = at, self.frame.suggestions[at].point
                self._say(f"Suggested point {at + 1} of {count}: press the key of its class.")
                return
        self.suggested = self.point = None
        self._say("No suggested point is left here: press End for the next frame, or click any point to label more.")

    def scale(self, larger: bool) -> None:
        """Let the mask on show reach farther, or less far."""
        if self.proposal is not None:
            reach = self.proposal.reach * (GROWTH if larger else 1.0 / GROWTH)
            self._propose(self.proposal.click, min(max(reach, SMALLEST_REACH), LARGEST_REACH))

    def accept(self) -> None:
        """Label the mask on show."""
        if self.proposal is not None:
            mask, self.proposal = self.proposal, None
            self._label(mask.points, mask.class_id)
            self._say(f"{self._name(mask.class_id)} with {len(mask.points)} points. Click the next object.")

    def reject(self) -> None:
        """Drop the mask on show, or the mark."""
        if self.proposal is None:
            self.point = self.suggested = None
        self.proposal = None
        self._say(self._advice())

    def undo(self) -> None:
        """Take the last change back and show where it was."""
        self._turned(self.store.undo(), "Taken back.", "There is nothing to take back.")

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._turned(self.store.redo(), "Done again.", "There is nothing to do again.")

    def complain(self, text: str) -> None:
        """Tell the person about a fault."""
        self.message, self.warning = text, True

    def labelled_suggestions(self) -> int:
        """How many of the frame's suggested points have a label."""
        class_id = self.store.labelled(self.frame.key)[0]
        return sum(bool(class_id[suggestion.point]) for suggestion in self.frame.suggestions)

    def _place(self) -> int:
        """Where the frame is in the list; -1 where it was replaced in the log."""
        return self.source.keys.index(self.frame.key) if self.frame.key in self.source.keys else -1

    def _open_first(self, keys: Sequence[str]) -> None:
        """Open the first of some frames that can be read; tell about those that cannot."""
        problems = []
        for key in keys:
            try:
                self.open(key)
            except DataError as error:
                problems.append(error)
                continue
            break
        else:
            raise problems[0]
        if problems:
            self.complain(f"passed over: {problems[0]}")

    def _label(self, points: NDArray[np.int64] | list[int], class_id: int) -> None:
        instance = self._instance(class_id) if self.instances and self.labels.things[class_id] else 0
        self.store.add(self.frame.key, points, class_id, instance, clicks=1)
        self.pace.beat()

    def _instance(self, class_id: int) -> int:
        """The id for the next object: a new one, or that of the last object of this class."""
        classes, instances = self.store.labelled(self.frame.key)
        largest = int(instances.max(initial=0))
        mine = instances[classes == class_id]
        if self.same_object and mine.any():
            return int(mine.max())
        if largest >= LARGEST_INSTANCE:
            raise DataError(f"{self.frame.key}: all {LARGEST_INSTANCE} instance ids are used; label it without instances")
        return largest + 1

    def _erase(self, point: int) -> None:
        """The label of a point, with those close by of the same class and object."""
        class_id, instance = self.store.labelled(self.frame.key)
        near = np.linalg.norm(self.frame.cloud.xyz - self.frame.cloud.xyz[point], axis=1) <= ERASER_M
        near &= class_id > 0
        if instance[point]:
            near = (class_id == class_id[point]) & (instance == instance[point])
        if not near.any():
            self._say("This point has no label.")
            return
        self.store.erase(self.frame.key, np.flatnonzero(near))
        self._say(f"{int(near.sum())} labels erased. Undo: Z")

    def _propose(self, point: int, reach: float) -> None:
        class_id = self.chosen
        if not self.labels.things[class_id]:
            self._say(f"{self._name(class_id)} has no single objects: press the key of a class marked with a star first.")
            return
        settings = dataclasses.replace(ClickSettings(), reach=reach)
        frame = self.frame
        owner = self._masks_of_clicks(
            frame.cloud, np.array([point]), np.array([class_id]), self.labels, frame.spec, settings, frame.view
        )
        self.proposal = Proposal(point, class_id, reach, np.flatnonzero((owner == 0) & frame.cloud.valid))
        count = len(self.proposal.points)
        self._say(f"{self._name(class_id)}, {count} points: Enter accepts, Esc rejects.")

    def _turned(self, key: str | None, done: str, nothing: str) -> None:
        self.proposal = None
        if key is not None and key != self.frame.key:
            self.open(key)
        self._say(done if key is not None else nothing)

    def _advice(self) -> str:
        if self.mode == "paint":
            return f"Every click labels a point as {self._name(self.chosen)}; other keys, other classes."
        if self.mode == "object":
            if self._named or self.frame.prediction is None:
                return f"Click an object of class {self._name(self.chosen)} (keys choose another class)."
            return "Click an object; the model guesses its class, a key corrects it."
        if self.mode == "erase":
            return "Click what is labelled wrongly."
        return "Click a point, then press the key of its class; N marks a suggested one."

    def _name(self, class_id: int) -> str:
        return self.labels.names[class_id]

    def _say(self, text: str) -> None:
        self.message, self.warning = text, False
