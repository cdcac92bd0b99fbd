# SPDX-License-Identifier: Apache-2.0
"""Which points a sentence means: `ask` once for each sentence, `answer` for each scan that was segmented. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import Bundle, BundleInfo
from weakseg_ros.deploy.engines.onnxruntime import open_session
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.superpoints import FoundSuperpoints, find_superpoints
from weakseg_ros.deploy.tensors import TensorSpec, check_tensors
from weakseg_ros.deploy.vocabulary import Sentence, Vocabulary
from weakseg_ros.errors import BundleError
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.lift import lift
from weakseg_ros.points.superpoints import Superpoints, describe
from weakseg_ros.registry import REFERRING_BUNDLE

HEAD = "referring"
KIND_TEXT, KIND_MATCH = "onnx-referring-text", "onnx-referring-match"
"""kinds of the bundle's two further files"""

WORDS = {
    "words": TensorSpec("float32", ("B", "T1", "D"), "the words in their sentence, and before them the whole of it"),
    "spoken": TensorSpec("bool", ("B", "T1"), "which of them are no padding"),
}
TEXT_INPUTS = {"tokens": TensorSpec("int64", ("B", "T"), "numbers of the words, 0 after the last", below="V")}
TEXT_OUTPUTS = WORDS
MATCH_INPUTS = {
    **WORDS,
    "superpoints": TensorSpec("float32", ("B", "S", "F"), "what is said of each superpoint, see points.superpoints.describe"),
    "there": TensorSpec("bool", ("B", "S"), "which of them are no padding"),
}
MATCH_OUTPUTS = {
    "mask": TensorSpec("float32", ("B", "S"), "probability that the superpoint is meant, 0..1"),
    "score": TensorSpec("float32", ("B",), "IoU that the mask is expected to have, 0..1"),
    "present": TensorSpec("float32", ("B",), "probability that anything matches, 0..1"),
}
MEANT = 0.5
"""least probability of a superpoint that is meant, and of a scan in which something matches"""


@dataclass(frozen=True)
class Question:
    """A sentence, encoded."""

    sentence: Sentence
    """which says also what words of it were not known, or were mended"""
    encoded: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Referred:
    """The answer to a question in one scan."""

    mask: NDArray[np.bool_]
    """(N,) the points that are meant; none where nothing matches"""
    score: float
    """how good the answer is expected to be, 0..1: the probability that anything matches times the IoU of the mask"""
    present: float
    """probability that anything in the scan matches, 0..1"""
    candidates: NDArray[np.float32]
    """(S,) probability of each superpoint"""
    superpoints: Superpoints
    """the S superpoints, the single objects first, the nearest at the front"""
    chosen: NDArray[np.int64]
    """the superpoints that make up the mask, the likeliest first"""

    @property
    def matches(self) -> bool:
        """Whether anything matches."""
        return len(self.chosen) > 0


class Referrer:
    """A bundle's referring head, ready to run. One thread uses it at a time.

    The segmenter that gives the answers must be told to keep what it saw: `segmenter.settings.refer = True`.
    `threads` are CPU threads, 0 leaves the number to onnxruntime. Raises BundleError for a bundle without a referring head,
    EngineError where its files cannot be run.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.bundle = bundle
        self.vocabulary = vocabulary_of(bundle.info)
        self._text, self._match = (self._open(kind, threads) for kind in (KIND_TEXT, KIND_MATCH))

    def _open(self, kind: str, threads: int) -> Any:
        file = self.bundle.file_of(kind)
        if file is None:
            raise BundleError(f"{self.bundle.folder}: has no file of kind '{kind}' for its referring head; export it again")
        return open_session(self.bundle.read(file), threads, f"{self.bundle.folder}/{file}", ["CPUExecutionProvider"])

    def ask(self, text: str) -> Question:
        """Encode a sentence, once for all the scans that it is asked of."""
        sentence = self.vocabulary.read(text)
        inputs = {"tokens": sentence.tokens[None]}
        return Question(sentence, _run(self._text, inputs, TEXT_INPUTS, TEXT_OUTPUTS, {"V": len(self.vocabulary)}))

    def answer(self, question: Question, cloud: Cloud, answer: Segmentation) -> Referred:
        """What the question means among the N points of a cloud and its answer, which holds what was seen.

        Raises BundleError where the answer was given without `settings.refer`.
        """
        if answer.seen is None:
            raise BundleError("referring: the answer has no features; set settings.refer of the segmenter before it runs")
        info = self.bundle.info
        found = find_superpoints(answer, cloud.xyz, info.labels, info.input.geometry.full_circle)
        count = len(found.superpoints)
        if not count or not question.sentence.is_understood:
            nobody = np.zeros(count, np.float32)
            return Referred(np.zeros(len(cloud), np.bool_), 0.0, 0.0, nobody, found.superpoints, np.zeros(0, np.int64))
        told = describe(found.superpoints)[None]
        inputs = {**question.encoded, "superpoints": told, "there": np.ones((1, count), np.bool_)}
        outputs = _run(self._match, inputs, MATCH_INPUTS, MATCH_OUTPUTS, {})
        return _referred(found, answer, *(outputs[name][0] for name in MATCH_OUTPUTS))


def _referred(
    found: FoundSuperpoints, answer: Segmentation, mask: NDArray[np.float32], score: np.float32, present: np.float32
) -> Referred:
    assert answer.seen is not None
    meant = (mask >= MEANT) | (mask >= mask.max())  # what is there at all is at least what is likeliest
    chosen = np.flatnonzero(meant) if present >= MEANT else np.zeros(0, np.int64)
    chosen = chosen[np.argsort(-mask[chosen], kind="stable")]
    picked = np.zeros(len(mask) + 1, np.bool_)  # the last is what -1, "none", picks
    picked[chosen] = True
    points = picked[lift(found.image, answer.seen.pixels, -1)]
    return Referred(points, float(score * present), float(present), mask, found.superpoints, chosen)


def has_referring_head(info: BundleInfo) -> bool:
    """Whether a bundle answers expressions."""
    return any(head.name == HEAD and head.kwargs for head in info.heads)


def vocabulary_of(info: BundleInfo) -> Vocabulary:
    """The words that a bundle's referring head knows; BundleError where it has none."""
    rule = next((head for head in info.heads if head.name == HEAD), None)
    if rule is None or not rule.kwargs:
        has = ", ".join(info.head_names) or "none"
        raise BundleError(
            f"{info.name}: has no referring head (heads: {has}), so it cannot answer expressions; use "
            f"{REFERRING_BUNDLE}, or train one with 'weakseg train-referring'"
        )
    return Vocabulary(str(rule.kwargs.get("vocabulary", "")).split())


def _run(
    session: Any,
    inputs: Mapping[str, NDArray[Any]],
    inputs_table: Mapping[str, TensorSpec],
    outputs_table: Mapping[str, TensorSpec],
    sizes: Mapping[str, int],
) -> dict[str, NDArray[Any]]:
    """The session's outputs by name, both sides held against their tables."""
    known = check_tensors("referring input", inputs, inputs_table, sizes)
    outputs = dict(zip(outputs_table, session.run(list(outputs_table), dict(inputs)), strict=True))
    check_tensors("referring output", outputs, outputs_table, known)
    return outputs
