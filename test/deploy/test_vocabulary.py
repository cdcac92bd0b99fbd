# SPDX-License-Identifier: Apache-2.0
"""Sentences of every kind become numbers of words; typing errors are mended, and what is not known is named."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weakseg_ros.deploy.synonyms import SYNONYMS
from weakseg_ros.deploy.vocabulary import FIRST_WORD, LONGEST, PADDING, UNKNOWN, Vocabulary, words_of
from weakseg_ros.errors import ConfigError

WORDS = Vocabulary(["the", "car", "pedestrian", "left", "truck", "behind", "2"])
EVERYTHING = Vocabulary(sorted({word for known in ("the", "car", *SYNONYMS.values()) for word in known.split()}))


@given(st.text(max_size=300))
@example("\x00 \u2019 ' \ud7ff \U0001f697 I\u0307")
@example("left " * 200)
@settings(deadline=None, max_examples=150)
def test_every_text_becomes_numbers_of_words(text: str) -> None:
    read = WORDS.read(text)
    assert read.tokens.shape == (LONGEST,)
    assert read.tokens.min() >= PADDING
    assert read.tokens.max() < len(WORDS)
    said = int((read.tokens > PADDING).sum())
    assert not read.tokens[said:].any()  # padding is last
    assert read.left_out == 0 or said == LONGEST
    assert int((read.tokens == UNKNOWN).sum()) == len(read.unknown)


@given(st.sampled_from(["pedestrian", "truck", "behind", "left"]), st.integers(0, 9), st.integers(0, 3), st.sampled_from("qxz"))
def test_one_typing_error_is_mended(word: str, place: int, kind: int, letter: str) -> None:
    place %= len(word) - 1
    typed = {
        0: word[:place] + word[place + 1 :],
        1: word[:place] + letter + word[place:],
        2: word[:place] + letter + word[place + 1 :],
        3: word[:place] + word[place + 1] + word[place] + word[place + 2 :],
    }[kind]
    read = WORDS.read(typed)
    lost_its_beginning = kind in (0, 2) and place == 0
    if len(typed) >= 4 and not lost_its_beginning and (kind != 2 or len(word) >= 6):
        assert read.tokens[0] == WORDS.read(word).tokens[0]
        assert read.mended == (((typed, word),) if typed != word else ())
    else:
        assert read.unknown == (typed,)


@pytest.mark.parametrize("other", ["cone", "home", "rack", "catch", "head", "great", "more", "line"])
def test_another_word_is_no_typing_error(other: str) -> None:
    known = Vocabulary(["gone", "some", "back", "watch", "ahead", "greet", "move", "lane"])
    assert known.read(other).unknown == (other,)


def test_synonyms_are_read_as_words_that_are_known() -> None:
    known = Vocabulary(["the", "man", "near", "next", "to", "car", "oak"])
    read = known.read("The bloke in the vicinity of the AUTOMOBILE, adjacent to the oak tree")
    assert read.mended == (("bloke", "man"), ("in the vicinity of", "near"), ("automobile", "car"), ("adjacent to", "next to"))
    assert read.unknown == ("tree",)  # 'oak tree' would be a tree, a word that is not known


@given(st.lists(st.sampled_from([*SYNONYMS, "the", "car", "zeppelin"]), max_size=12))
@settings(deadline=None)
def test_sentences_of_synonyms_become_numbers_of_words(said: list[str]) -> None:
    read = EVERYTHING.read(" ".join(said))
    assert set(read.unknown) <= {"zeppelin"}
    assert read.tokens.max(initial=0) < len(EVERYTHING)


def test_each_synonym_can_be_met_and_is_no_circle() -> None:
    for phrase, known in SYNONYMS.items():
        assert phrase == " ".join(words_of(phrase))
        assert known == " ".join(words_of(known))
        assert phrase != known


def test_case_accents_apostrophes_and_marks_do_not_matter() -> None:
    plain = WORDS.read("the car behind the truck")
    assert plain.tokens[:5].tolist() == [FIRST_WORD, FIRST_WORD + 1, FIRST_WORD + 5, FIRST_WORD, FIRST_WORD + 4]
    assert (WORDS.read("The c\u00e1r, BEHIND (the) truck!").tokens == plain.tokens).all()


def test_what_is_not_known_is_named_and_short_words_are_not_guessed() -> None:
    read = WORDS.read("the cat left zeppelin 3")
    assert read.unknown == ("cat", "zeppelin", "3")
    assert read.mended == ()


@pytest.mark.parametrize("words", [["car", "car"], ["Car"], ["two words"], [""]])
def test_a_vocabulary_that_no_sentence_can_use_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="vocabulary"):
        Vocabulary(words)
