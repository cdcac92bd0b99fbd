# SPDX-License-Identifier: Apache-2.0
"""An expression's object is followed by its id, asked for anew when it is lost; and `weakseg refer` says what was found."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from support import optional

optional("torch")
optional("onnx")

from support.told import cloud_around, told_bundle
from weakseg_ros.cli import main
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.followed_words import LOST_AFTER, FollowedWords
from weakseg_ros.deploy.referring import Referrer
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter

CLOUD = cloud_around()

pytestmark = pytest.mark.slow  # a net with a referring head is exported first


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return told_bundle(tmp_path_factory)


@pytest.fixture(scope="module")
def answer(told: Bundle) -> Segmentation:
    """What the bundle says of CLOUD, with its features."""
    segmenter = Segmenter(told, "onnxruntime", watch="never")
    segmenter.settings.refer = True
    return segmenter.run(CLOUD)


def with_object(answer: Segmentation, mask: np.ndarray, instance: int) -> Segmentation:
    """The answer with one object, as a tracker calls it."""
    ids = np.where(mask, instance, 0).astype(np.uint16)
    return dataclasses.replace(answer, instance_id=ids)


def test_a_single_object_is_asked_for_once_and_then_followed(told: Bundle, answer: Segmentation) -> None:
    words = FollowedWords(Referrer(told), "the zebra")
    assert words.unknown_words == ("zebra",)
    assert words.wants_features
    mask = Referrer(told).answer(Referrer(told).ask("the zebra"), CLOUD, answer).mask
    assert mask.any()
    first = words.update(CLOUD, with_object(answer, mask, 7))
    assert (first.instance_id, first.asked) == (7, True)
    np.testing.assert_array_equal(first.mask, mask)
    assert not words.wants_features
    elsewhere = np.arange(len(CLOUD)) < 30
    without = dataclasses.replace(with_object(answer, elsewhere, 7), seen=None)
    then = words.update(CLOUD, without)
    np.testing.assert_array_equal(then.mask, elsewhere)
    assert (then.asked, then.score) == (False, first.score)
    gone = with_object(without, elsewhere, 9)
    for _ in range(LOST_AFTER):
        assert not words.wants_features
        lost = words.update(CLOUD, gone)
        assert not lost.mask.any()
        assert lost.score == 0.0
    assert words.wants_features
    assert words.update(CLOUD, with_object(answer, mask, 11)).instance_id == 11


def test_ids_that_mean_nothing_beyond_their_scan_are_not_followed(told: Bundle, answer: Segmentation) -> None:
    words = FollowedWords(Referrer(told), "the car", follow=False)
    for _ in range(2):
        assert words.wants_features
        found = words.update(CLOUD, answer)
        assert (found.asked, found.instance_id) == (True, 0)


def test_a_scan_that_was_segmented_before_the_expression_came_has_no_answer(told: Bundle, answer: Segmentation) -> None:
    words = FollowedWords(Referrer(told), "the car")
    found = words.update(CLOUD, dataclasses.replace(answer, seen=None))
    assert not found.mask.any()
    assert not found.asked
    assert words.wants_features


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, told: Bundle) -> Path:
    folder = tmp_path_factory.mktemp("scans") / "drive"
    with ScanWriter(folder, told.labels, told.info.input.geometry, source="test", seed=0, intensity_full_scale=1.0) as out:
        out.write(CLOUD)
    return folder


def refer(scans: Path, words: str, *more: str) -> int:
    return main(["refer", str(scans), words, "--engine", "onnxruntime", *more])


def test_the_verb_says_what_is_meant_and_draws_it(told, scans, tmp_path, capsys):
    picture = tmp_path / "new" / "answer.png"
    picture.parent.mkdir()
    (picture.parent / ".answer.png.4194304-0.tmp").write_text("an earlier call was killed here")
    assert refer(scans, "the zebra", "--bundle", str(told.folder), "--out", str(picture)) == 0
    said = capsys.readouterr().out
    assert "left out: zebra" in said
    assert "scan 000000: " in said
    score = float(re.search(r"to the (?:left|right), score ([0-9.]+)", said)[1])
    assert ("a guess: the model expects its own answer to be wrong" in said) == (score < 0.25)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(picture.parent.iterdir()) == [picture]


def test_words_that_are_too_many_to_be_read_are_told(told, scans, tmp_path, capsys):
    refer(scans, "the car " * 14, "--bundle", str(told.folder), "--out", str(tmp_path / "a.png"))
    assert "only the first 24 words were read, 4 words were left out; say it shorter" in capsys.readouterr().out


def test_nothing_matches_is_exit_code_1(told, scans, tmp_path, capsys):
    assert refer(scans, "?!", "--bundle", str(told.folder), "--out", str(tmp_path / "a.png")) == 1
    assert "nothing matches" in capsys.readouterr().out


def test_a_scan_that_cannot_be_asked_is_named(told, scans, tmp_path, capsys):
    optional("rosbags")
    from weakseg_ros.data.bag_writer import CloudBagWriter
    from weakseg_ros.points.cloud import make_cloud

    with CloudBagWriter(tmp_path / "bag") as bag:
        bag.write(make_cloud(np.full((9, 3), np.nan), np.zeros(9), stamp_ns=1))
        bag.write_message("/points", "sensor_msgs/msg/PointCloud2", 2, bytes(20))
    options = ["--bundle", str(told.folder), "--out", str(tmp_path / "a.png")]
    for number, sentence in enumerate(("contains no usable point", ": PointCloud2: the serialized message is damaged")):
        assert refer(tmp_path / "bag", "the car", "--scan", str(number), *options) == 2
        assert f"{tmp_path / 'bag'}: scan {number}{'' if number else ' '}{sentence}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "more", "sentence"),
    [
        ("the car", [], "has no referring head"),
        ("  ", [], "name a scan and an expression"),
        ("the car", ["--scan", "3"], "there is no scan 3"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(told, scans, tmp_path, capsys, words, more, sentence):
    bundle = ["--bundle", "models/street" if "head" in sentence else str(told.folder)]
    assert refer(scans, words, "--out", str(tmp_path / "a.png"), *bundle, *more) == 2
    assert sentence in capsys.readouterr().err
