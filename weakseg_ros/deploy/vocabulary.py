# SPDX-License-Identifier: Apache-2.0
"""From a sentence to the numbers of its words: small letters, synonyms and typing errors replaced, unknown words named."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.synonyms import LONGEST_PHRASE, SYNONYMS
from weakseg_ros.errors import ConfigError

LONGEST = 24
"""words of a sentence that are read"""
PADDING, UNKNOWN, FIRST_WORD = 0, 1, 2
_LEAST_TO_MEND, _LEAST_TO_MEND_TWICE = 4, 8
"""letters of a word in which one, or two typing errors are mended"""
_LEAST_WITH_WRONG_LETTER = 6
"""letters of a word in which a wrong letter is mended; shorter ones are often another word, such as 'cone' and 'gone'"""
_WORD = re.compile(r"[a-z]+|[0-9]+")
_MOST_LETTERS = 1 << 16


@dataclass(frozen=True)
class Sentence:
    """A sentence as the network reads it."""

    text: str
    tokens: NDArray[np.int64]
    """(LONGEST,) number of each word, PADDING after the last"""
    unknown: tuple[str, ...] = ()
    """words that the vocabulary does not hold and nothing like them"""
    mended: tuple[tuple[str, str], ...] = ()
    """words as they were typed, and as they were read: synonyms and typing errors"""
    left_out: int = 0
    """words after the first LONGEST, which are not read"""

    @property
    def is_understood(self) -> bool:
        """Whether the vocabulary holds at least one word of it; otherwise every answer would be a guess."""
        return bool((self.tokens >= FIRST_WORD).any())


class Vocabulary:
    """The words that a network knows, the commonest first; ConfigError for one that no sentence can hold, or is there twice."""

    def __init__(self, words: Sequence[str]) -> None:
        for word in words:
            if not _WORD.fullmatch(word):
                raise ConfigError(f"vocabulary: '{word}' is neither a lower-case word nor a number; export the model again")
        self.words = tuple(words)
        self._number = {word: number for number, word in enumerate(words, FIRST_WORD)}
        if len(self._number) != len(words):
            raise ConfigError("vocabulary: holds a word twice; export the model again")
        self._nearest = cache(self._look_up)

    def __len__(self) -> int:
        """Numbers that tokens may have, padding and the unknown word counted."""
        return FIRST_WORD + len(self.words)

    def read(self, text: str) -> Sentence:
        """The sentence in numbers; without a single word of letters or digits all of it is padding."""
        said, mended = self._in_known_words(list(words_of(text)))
        tokens = np.zeros(LONGEST, np.int64)
        unknown = []
        for place, word in enumerate(said[:LONGEST]):
            known = word if word in self._number else self._nearest(word)
            tokens[place] = self._number.get(known, UNKNOWN)
            if not known:
                unknown.append(word)
            elif known != word:
                mended.append((word, known))
        return Sentence(text, tokens, tuple(unknown), tuple(mended), max(len(said) - LONGEST, 0))

    def _in_known_words(self, said: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
        """The words, with phrases that hold an unknown word replaced by synonyms of known words; and what was replaced."""
        words: list[str] = []
        replaced = []
        place = 0
        while place < len(said):
            typed, known = next(self._synonyms_at(said, place), ([said[place]], None))
            if known is not None and len(words) < LONGEST:
                replaced.append((" ".join(typed), " ".join(known)))
            words += typed if known is None else known
            place += len(typed)
        return words, replaced

    def _synonyms_at(self, said: list[str], place: int) -> Iterator[tuple[list[str], list[str]]]:
        """The phrases that begin here and have a synonym, the longest first, each with its synonym's words."""
        for length in range(min(LONGEST_PHRASE, len(said) - place), 0, -1):
            typed = said[place : place + length]
            known = SYNONYMS.get(" ".join(typed), "").split()
            if known and all(word in self._number for word in known) and any(word not in self._number for word in typed):
                yield typed, known

    def _look_up(self, word: str) -> str:
        """The commonest word with the fewest typing errors; '' where there is none."""
        if len(word) < _LEAST_TO_MEND or not word.isalpha():
            return ""
        for most in range(1, 2 + (len(word) >= _LEAST_TO_MEND_TWICE)):
            near = (known for known in self.words if len(known) >= _LEAST_TO_MEND and _mistyped(word, known, most))
            if (found := next(near, "")) != "":
                return found
        return ""


def words_of(text: str) -> Iterable[str]:
    """The words and numbers of a text in small letters, without accents and apostrophes; long texts are cut."""
    plain = unicodedata.normalize("NFKD", text[:_MOST_LETTERS]).replace("'", "").replace("\u2019", "").casefold()
    marks = (letter for letter in plain if not unicodedata.combining(letter))
    return (match.group() for match in islice(_WORD.finditer("".join(marks)), _MOST_LETTERS))


def _mistyped(word: str, known: str, most: int) -> bool:
    """Whether at most `most` letters are missing, too many, wrong, or exchanged with the next (Damerau and Levenshtein).

    A first letter is seldom mistyped, so it is right or exchanged; a wrong letter in a short word makes another word of it.
    """
    if abs(len(word) - len(known)) > most or known[0] not in word[:2]:
        return False
    wrong = 1 if len(word) >= _LEAST_WITH_WRONG_LETTER else most + 1
    before: list[int] = []
    row = list(range(len(known) + 1))
    for i, letter in enumerate(word, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(known, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + wrong * (letter != other))
            if i > 1 and j > 1 and letter == known[j - 2] and word[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return False
    return row[-1] <= most
