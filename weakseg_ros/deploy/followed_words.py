# SPDX-License-Identifier: Apache-2.0
"""An expression asked once and its object followed from scan to scan by the tracker's id. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.referring import Referrer
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.points.cloud import Cloud

ONE_OBJECT = 0.8
"""least share of the answer's points that belong to an object, for the object to be followed"""
LOST_AFTER = 5
"""scans without the object after which the expression is asked again"""


@dataclass(frozen=True)
class Found:
    """What an expression means in one scan."""

    mask: NDArray[np.bool_]
    """(N,) the points; none where nothing matches, or where the followed object is out of sight"""
    score: float
    """how good the answer is expected to be, 0..1, at the scan in which it was given; 0 without points"""
    instance_id: int
    """of the object that is followed; 0 where the answer is no single object"""
    asked: bool
    """whether the network was asked in this scan"""


class FollowedWords:
    """One expression over the scans of a drive. One thread calls `update`, scan after scan.

    The network is asked until it answers with a single object; then that object's id is followed at no cost, until it was
    not seen for LOST_AFTER scans. Without a tracker, whose ids mean nothing beyond their scan, give `follow` as False.
    """

    def __init__(self, referrer: Referrer, text: str, follow: bool = True) -> None:
        self.text, self.bundle = text, referrer.bundle
        self._referrer, self._question = referrer, referrer.ask(text)
        self.follows = follow
        self._id, self._score, self._unseen = 0, 0.0, 0

    @property
    def unknown_words(self) -> tuple[str, ...]:
        """Words of the expression that the model does not know, and leaves out."""
        return self._question.sentence.unknown

    @property
    def wants_features(self) -> bool:
        """Whether the next scan has to be segmented with `settings.refer`."""
        return not self._id

    def update(self, cloud: Cloud, answer: Segmentation) -> Found:
        """What is meant in the next scan; `answer` has the tracker's ids, and features where `wants_features` asked for them."""
        if self._id:
            mask = np.asarray(answer.instance_id == self._id)
            self._unseen = 0 if mask.any() else self._unseen + 1
            found = Found(mask, self._score if mask.any() else 0.0, self._id, asked=False)
            if self._unseen >= LOST_AFTER:
                self._id = 0
            return found
        if answer.seen is None:  # it was segmented before the expression came
            return Found(np.zeros(len(cloud), bool), 0.0, 0, asked=False)
        referred = self._referrer.answer(self._question, cloud, answer)
        instance = _single(answer.instance_id[referred.mask]) if self.follows else 0
        mask = np.asarray(answer.instance_id == instance) if instance else referred.mask
        self._id, self._score, self._unseen = instance, referred.score, 0
        return Found(mask, referred.score if referred.mask.any() else 0.0, instance, asked=True)


def _single(ids: NDArray[np.uint16]) -> int:
    """The object that nearly all of an answer's points belong to, 0 where there is none."""
    if not len(ids):
        return 0
    counts = np.bincount(ids)
    best = int(counts.argmax())
    return best if counts[best] >= ONE_OBJECT * len(ids) else 0
