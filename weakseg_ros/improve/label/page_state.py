# SPDX-License-Identifier: Apache-2.0
"""What a person does on the page, without the page: one frame, one marked point, one class, and the click store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import DataError, counted
from weakseg_ros.improve.label.advice import Mode, about_scans, advice
from weakseg_ros.improve.label.brush import GROWTH, brush_radius, brush_step, painted
from weakseg_ros.improve.label.carry import NO_POSES, Around, Carrier, drawn_around
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.filters import Filters
from weakseg_ros.improve.label.frame_source import Frame, FrameSource
from weakseg_ros.improve.label.lasso import FEWEST_CORNERS, Lasso
from weakseg_ros.improve.label.masks import Mask, MaskFinder, MasksOfClicks, allowed_reach, describe, how_many, objections
from weakseg_ros.improve.label.pace import Pace
from weakseg_ros.improve.label.pick import pick
from weakseg_ros.improve.label.shown_scans import ShownScans
from weakseg_ros.improve.label.suggested import SuggestedPoints
from weakseg_ros.weak.masks_by_rule import ClickSettings, segment_from_clicks


class PageState:
    """The state of the page; each action changes it and, where something is labelled, the disk.

    `masks_of_clicks` finds the points of a clicked object. `message` is what the person is told next, `warning` whether it
    is a fault. Actions raise DataError where a frame is damaged or the disk refuses; the state is then as before.
    """

    def __init__(self, store: ClickStore, source: FrameSource, masks_of_clicks: MasksOfClicks = segment_from_clicks) -> None:
        self.store, self.source, self.labels = store, source, source.labels
        self._finder = MaskFinder(self.labels, masks_of_clicks)
        self._carrier = Carrier(store, source)
        self.mode: Mode = "mark"
        self.chosen = 1
        self._named = False  # whether a key has said what the next objects are; until then the model may guess
        self.instances = True
        self.same_object = False
        self.point: int | None = None
        self.suggested: int | None = None
        self.mask: Mask | None = None
        self._asked: Mask | None = None  # the mask that one more Enter accepts in spite of what speaks against it
        self.filters = Filters()
        self.brush_m = 0.0
        self.lasso = Lasso()
        self.around = self.together = False
        self.message, self.warning = "", False
        self.pace = Pace()
        self._suggested = SuggestedPoints()
        done = set(store.done)
        self._open_first([*(key for key in source.keys if key not in done), *source.keys])

    def open(self, key: str) -> None:
        """Show a frame, at its first suggested point that has no label yet."""
        frame = self.source.frame(key)
        self.store.labelled(key)  # a damaged label file is told now, not at the first click
        self.frame: Frame = frame
        self.point = self.suggested = None
        self._take_scans()
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

    def carry_over(self) -> None:
        """Label what has no label yet like the nearest labelled frame of the same place, before this one or after it."""
        self._say(self._carrier.from_near(self.frame.key))

    def carry_on(self) -> None:
        """Copy these labels to the next frames of the same place, where they have no label yet."""
        self._say(self._carrier.to_next(self.frame.key))

    def toggle_around(self) -> None:
        """Draw the scans before and after this one with it, or no longer."""
        self._show_around(not self.around, together=False)

    def toggle_together(self) -> None:
        """Let brush, eraser, objects, boxes and lassos label all scans that are shown, or this one alone again."""
        self._show_around(self.around or not self.together, together=not self.together)

    def _show_around(self, around: bool, together: bool) -> None:
        if self.source.pose(self.frame.key) is None:
            self._say(f"The neighbouring scans cannot be shown: {NO_POSES}.")
            return
        self.around, self.together = around, together
        self._take_scans()
        self._say(about_scans(around, together, len(self.scans)))

    def scans_around(self) -> Around:
        """The points of the scans around that are to be drawn, and what the labels say of them."""
        return drawn_around(self._carrier, self.store, self.frame, self.scans, self.around, self.filters)

    def _take_scans(self) -> None:
        """Work on the scans that are shown, or on the open one alone; what was begun on others is dropped."""
        others = self._carrier.near(self.frame.key) if self.together else []
        self.scans = ShownScans(self.frame, [(near.frame, near.xyz) for near in others])
        self.mask, self.lasso = None, Lasso()

    def review(self, accepted: bool) -> None:
        """Say that another person's frame is right, or that it is not; then go to the next one that nobody has checked."""
        if self.frame.key not in self.store.done:
            self._say("Only a finished frame can be reviewed; press End to finish it.")
            return
        self.store.review(self.frame.key, accepted)
        word = "accepted" if accepted else "rejected, and open again"
        checked = self.store.record.reviews
        left = [key for key in self.source.keys if key in self.store.done and key not in checked]
        before = self.frame.key
        if left:
            self._open_first(left)
        self._say(f"Frame {before} is {word}. {counted(len(left), 'frame is', 'frames are')} left to check.")

    def refresh(self) -> None:
        """Look for frames that came since the list was made."""
        before = len(self.source)
        self.source = FrameSource(self.source.folder, self.labels)
        self._carrier = Carrier(self.store, self.source)
        self._say(f"{counted(len(self.source), 'frame')}, {max(0, len(self.source) - before)} of them new.")

    def choose_mode(self, mode: Mode) -> None:
        """Say what a mouse click does."""
        self.mode = mode
        self.mask, self._named, self.lasso = None, False, Lasso()
        if mode != "mark":
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
        if self.mask is not None:
            self._rename(self.mask, class_id)
        elif self.mode == "mark" and self.point is not None:
            self._label(np.array([self.point]), class_id)
            if self.suggested is not None:
                self._suggested.take_up(self.frame, self.suggested)
                self.next_suggestion()
            else:
                self.point = None
                self._say(f"{self._name(class_id)}. Click the next point, or N for a suggested one.")
        else:
            self._say(self._advice())

    def click(self, origin: NDArray[np.floating], direction: NDArray[np.floating], radius_m: float) -> int | None:
        """A click into the scene along a ray; returns the point that was meant."""
        if self.mode == "lasso":
            self._add_corner(origin, direction)
            return None
        scans = ShownScans(self.frame) if self.mode == "mark" else self.scans  # marks are for the open scan
        point = pick(scans.xyz, scans.shown(self.store, self.filters), origin, direction, radius_m)
        if point is None:
            self._say("There is no point here.")
            return None
        {"erase": self._erase, "paint": self._paint, "object": self._click_object, "mark": self._mark}[self.mode](point)
        return point

    def select(self, inside: Callable[[NDArray[np.float32]], NDArray[np.bool_]]) -> None:
        """A box or a polygon was drawn, `inside` tells which points (M, 3) it holds: they wait for the name of their class."""
        points = np.flatnonzero(inside(self.scans.xyz) & self.scans.shown(self.store, self.filters))
        if not len(points):
            self._say("There is no point in it.")
            return
        self.point = self.suggested = None
        self._show(Mask(self.chosen, points))

    def shown(self) -> NDArray[np.bool_]:
        """(N,) the points of the open scan that are on the page."""
        return ShownScans(self.frame).shown(self.store, self.filters)

    def hide_class(self, class_id: int) -> None:
        """Hide a class, or show it again."""
        self.filters = dataclasses.replace(self.filters, classes=self.filters.classes ^ {class_id})
        self._say(f"{self._name(class_id)} is {'hidden' if class_id in self.filters.classes else 'shown again'}.")

    def hide_ground(self) -> None:
        """Hide the ground, or show it again."""
        self.filters = dataclasses.replace(self.filters, ground=not self.filters.ground)
        self._say("The ground is hidden." if self.filters.ground else "The ground is shown again.")

    def show_everything(self) -> None:
        """Hide nothing any more."""
        self.filters = Filters()
        self._say("All points are shown.")

    def skip(self) -> None:
        """Pass over the current suggested point, so that it does not come again by itself, and mark the next one."""
        if self.suggested is not None:
            self._suggested.pass_over(self.frame, self.suggested)
        self.next_suggestion()

    def next_suggestion(self, step: int = 1) -> None:
        """Mark the next suggested point that has no label and was not passed over, or with `step` -1 the one before."""
        frame, now = self.frame, self.suggested
        self.mode, self.mask = "mark", None
        class_id = self.store.labelled(frame.key)[0]
        at = self._suggested.next(frame, class_id, now) if step > 0 else self._suggested.previous(frame, now)
        self.suggested, self.point = at, None if at is None else frame.suggestions[at].point
        if at is None:
            self._say("No suggested point is left here: press End for the next frame, or click any point to label more.")
        else:
            self._say(f"Suggested point {at + 1} of {len(frame.suggestions)}: what is in the ring? Press the key of its class.")

    def scale(self, larger: bool) -> None:
        """Let the mask on show reach farther or less far; while painting or erasing, the brush."""
        growth = GROWTH if larger else 1.0 / GROWTH
        if self.mask is not None and self.mask.on:
            reach = allowed_reach(self.mask.reach * growth)
            self._show(self._mask_of(dataclasses.replace(self.mask, reach=reach)))
        elif self.mode in ("paint", "erase"):
            self.resize_brush(brush_step(self.brush_m, growth))

    def resize_brush(self, radius_m: float) -> None:
        """How far from the click paint and eraser reach; 0 takes the clicked point alone."""
        self.brush_m = brush_radius(radius_m)
        self._say(self._advice())

    def accept(self) -> None:
        """Close the lasso; or label the mask on show, once more where something speaks against it; or confirm the guess."""
        if self.mask is None:
            self._close_lasso() if self.mode == "lasso" else self._confirm()
            return
        mask = self.mask
        against = objections(mask, self.scans, self.scans.class_id(self.store), self.labels)
        if against and mask is not self._asked:
            self._asked = mask
            self.complain(f"Look again: {against}. Press Enter again to label it anyway, or Esc to discard it.")
            return
        size = describe(mask, self.scans)
        self._label(mask.points, mask.class_id)
        self.mask = None
        self._say(f"{self._name(mask.class_id)}: {size}. Undo: Z")

    def reject(self) -> None:
        """Drop the mask on show, or the mark."""
        if self.mask is None:
            self.point = self.suggested = None
        self.mask, self.lasso = None, Lasso()
        self._say(self._advice())

    @property
    def guess(self) -> tuple[int, float]:
        """(class id, confidence) of the model for the marked point, 0 where it has none or its confidence is not known."""
        return (0, 0.0) if self.point is None else self.frame.guess(self.point)

    def _confirm(self) -> None:
        class_id = self.guess[0]
        if class_id:
            self.press(class_id)
        elif self.point is not None:
            self._say("The model has no guess here: press the key of the class.")

    def undo(self) -> None:
        """Take the last change back and show where it was."""
        self._turned(self.store.undo(), "Taken back.", "There is nothing to undo.")

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._turned(self.store.redo(), "Done again.", "There is nothing to redo.")

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
            self.complain(f"skipped: {problems[0]}")

    def _label(self, points: NDArray[np.int64], class_id: int) -> None:
        is_object = self.instances and bool(self.labels.things[class_id])
        number = (lambda key: self.store.next_instance(key, class_id, self.same_object)) if is_object else lambda key: 0
        self.store.add_together(self.scans.parts(points, number), class_id)
        self.pace.beat()

    def _mark(self, point: int) -> None:
        self.point, self.suggested = point, None
        self._say("What is the marked point? Press the key of its class.")

    def _add_corner(self, origin: NDArray[np.floating], direction: NDArray[np.floating]) -> None:
        self.mask = None
        if self.lasso.is_closed_by(direction) and self.lasso.fits(origin):
            self._close_lasso()
            return
        began_anew = not self.lasso.fits(origin)
        self.lasso = self.lasso.with_corner(origin, direction)
        why = "The view has moved, so the polygon starts over. " if began_anew else ""
        self._say(f"{why}{counted(len(self.lasso), 'corner')}. {self._advice()}")

    def _close_lasso(self) -> None:
        if len(self.lasso) < FEWEST_CORNERS:
            self._say(f"A polygon needs {counted(FEWEST_CORNERS, 'corner')}, this one has {len(self.lasso)}. {self._advice()}")
            return
        lasso, self.lasso = self.lasso, Lasso()
        self.select(lasso.inside)

    def _paint(self, point: int) -> None:
        points = painted(self.scans.xyz, self.scans.shown(self.store, self.filters), point, self.brush_m)
        self._label(points, self.chosen)
        self._say(f"{self._name(self.chosen)}, {how_many(self.scans, points)}. Undo: Z")

    def _erase(self, point: int) -> None:
        points = self.scans.erased(self.store, self.scans.shown(self.store, self.filters), point, self.brush_m)
        if not len(points):
            self._say("There is no label here.")
            return
        self.store.erase_together(self.scans.parts(points))
        self._say(f"{how_many(self.scans, points, 'label')} erased. Undo: Z")

    def _click_object(self, point: int) -> None:
        """The first click finds an object, later ones correct it: on it, they take that part off; beside it, they add it."""
        mask = self.mask
        if mask is None or not self._finder.belongs_to(mask, self.scans.xyz, point):
            clicked = self.scans.owner(point)
            guess = 0 if self._named else clicked.frame.guess(point - clicked.start)[0]
            self.chosen = guess if self.labels.things[guess] else self.chosen
            mask = Mask(self.chosen, np.zeros(0, np.int64), (point,), (), ClickSettings().reach)
        else:
            mask = mask.corrected(point)
        self._show(self._mask_of(mask))

    def _rename(self, mask: Mask, class_id: int) -> None:
        """The person says what the mask on show is; how far an object reaches depends on it."""
        self._show(self._mask_of(dataclasses.replace(mask, class_id=class_id)) if mask.on else Mask(class_id, mask.points))

    def _mask_of(self, mask: Mask) -> Mask | None:
        return self._finder.find(mask, self.scans, self.scans.shown(self.store, self.filters))

    def _show(self, mask: Mask | None) -> None:
        """Put a mask on the page and say how large it is."""
        if mask is None:
            other = "press the key of a class marked with a star, or draw a box (Shift and drag)"
            self._say(f"{self._name(self.chosen)} has no single objects: {other}.")
            return
        self.mask, self._asked = mask, None
        more = "Click a wrong part to take it off." if mask.on else "A key names another class."
        size = describe(mask, self.scans)
        self._say(f"{self._name(mask.class_id)}, {size}. Enter accepts, Esc drops. {more}")

    def _turned(self, key: str | None, done: str, nothing: str) -> None:
        self.mask = None
        if key is not None and key != self.frame.key:
            self.open(key)
        self._say(done if key is not None else nothing)

    def _advice(self) -> str:
        guesses = not self._named and self.frame.prediction is not None
        return advice(self.mode, self._name(self.chosen), self.brush_m, guesses)

    def _name(self, class_id: int) -> str:
        return self.labels.names[class_id]

    def _say(self, text: str) -> None:
        self.message, self.warning = text, False
