# SPDX-License-Identifier: Apache-2.0
"""A bundle with a referring head answers as torch does, reads a sentence once, and finds nothing where nothing is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from support import optional
from support.told import LABELS, cloud_around, told_bundle

torch = optional("torch")
optional("onnx")

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.torch import load_graph
from weakseg_ros.deploy.referring import KIND_MATCH, Referrer
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.deploy.superpoints import find_superpoints
from weakseg_ros.errors import BundleError
from weakseg_ros.nets.heads.referring import ReferringHead
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.superpoints import GEOMETRY, Superpoints, columns, describe

pytestmark = pytest.mark.slow  # a net with a referring head is exported first


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return told_bundle(tmp_path_factory)


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    return cloud_around()


def test_the_files_answer_as_torch_does_on_a_real_answer(bundle: Bundle, cloud: Cloud) -> None:
    segmenter, referrer = Segmenter(bundle, "onnxruntime", watch="never"), Referrer(bundle)
    segmenter.settings.refer = True
    answer = segmenter.run(cloud)
    question = referrer.ask("the zebra left of a person")
    referred = referrer.answer(question, cloud, answer)
    found = find_superpoints(answer, cloud.xyz, LABELS, bundle.info.input.geometry.full_circle)
    heads = load_graph(bundle).heads
    assert heads is not None
    head = heads.each[0]
    assert isinstance(head, ReferringHead)
    told = torch.from_numpy(describe(found.superpoints))[None]
    with torch.inference_mode():
        words, spoken = head.read(torch.from_numpy(question.sentence.tokens)[None])
        matched = head.match(words, spoken, told, torch.ones(told.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(torch.from_numpy(referred.candidates), matched.masks[-1][0].sigmoid(), atol=1e-4, rtol=1e-3)
    assert referred.present == pytest.approx(float(matched.present.sigmoid()), abs=1e-4)
    assert question.sentence.unknown == ("zebra", "of", "a")
    chosen = set(referred.chosen.tolist())
    likely = np.flatnonzero((referred.candidates >= 0.5) | (referred.candidates == referred.candidates.max()))
    assert chosen == set(likely.tolist())
    assert answer.seen is not None
    pixel = answer.seen.pixels.pixel_of_point
    of_point = np.where(pixel >= 0, found.image.ravel()[pixel], -1)
    np.testing.assert_array_equal(referred.mask, np.isin(of_point, list(chosen)))


def test_padding_changes_no_answer(bundle: Bundle) -> None:
    heads = load_graph(bundle).heads
    assert heads is not None
    head = heads.each[0]
    assert isinstance(head, ReferringHead)
    told = torch.randn(2, 9, columns(LABELS.num_classes, 16), generator=torch.Generator().manual_seed(0))
    there = torch.ones(2, 9, dtype=torch.bool)
    there[1, 4:] = False
    tokens = torch.tensor([[2, 3, 4, 5], [4, 2, 0, 0]])
    with torch.inference_mode():
        both = head.match(*head.read(tokens), told, there)
        alone = head.match(*head.read(tokens[1:, :2]), told[1:, :4], there[1:, :4])
    torch.testing.assert_close(both.masks[-1][1, :4], alone.masks[-1][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both.present[1:], alone.present, atol=1e-5, rtol=1e-4)


def test_the_net_answers_the_same_with_and_without_the_question(bundle: Bundle, cloud: Cloud) -> None:
    segmenter = Segmenter(bundle, "onnxruntime", watch="never")
    plain = segmenter.run(cloud)
    assert plain.seen is None
    segmenter.settings.refer = True
    asked = segmenter.run(cloud)
    np.testing.assert_array_equal(plain.class_id, asked.class_id)
    assert asked.seen is not None
    assert asked.seen.features.shape == (16, 9, 33)
    with pytest.raises(BundleError, match="before it runs"):
        Referrer(bundle).answer(Referrer(bundle).ask("the car"), cloud, plain)


@pytest.mark.parametrize("text", ["", "?!", "xyzzy qoph", "the car"])
def test_nothing_matches_where_nothing_is_seen_or_asked(bundle: Bundle, cloud: Cloud, text: str) -> None:
    segmenter, referrer = Segmenter(bundle, "onnxruntime", watch="never"), Referrer(bundle)
    segmenter.settings.refer = True
    nothing = make_cloud(np.full((5, 3), np.nan, np.float32), np.zeros(5, np.float32))
    for seen in [
        nothing,
        make_cloud(np.zeros((0, 3), np.float32), np.zeros(0, np.float32)),
        *([] if text == "the car" else [cloud]),
    ]:
        referred = referrer.answer(referrer.ask(text), seen, segmenter.run(seen))
        assert not referred.matches
        assert referred.mask.shape == (len(seen),)
        assert not referred.mask.any()
        assert referred.score == 0.0


def test_superpoints_part_the_cloud(bundle: Bundle, cloud: Cloud) -> None:
    segmenter = Segmenter(bundle, "onnxruntime", watch="never")
    segmenter.settings.refer = True
    answer = segmenter.run(cloud)
    found = find_superpoints(answer, cloud.xyz, LABELS, True)
    count = len(found.superpoints)
    np.testing.assert_array_equal(np.unique(found.image[found.image >= 0]), np.arange(count))
    np.testing.assert_allclose(found.superpoints.classes.sum(axis=1), 1.0, rtol=1e-5)
    for number in np.flatnonzero(found.superpoints.single):
        inside = found.image == number
        points = cloud.xyz[answer.seen.pixels.point_of_pixel[inside]]  # type: ignore[union-attr]
        np.testing.assert_allclose(found.superpoints.centre[number], points.mean(axis=0), atol=1e-3)
        assert len(np.unique(answer.class_image[inside])) == 1
    table = describe(found.superpoints)
    assert table.shape == (count, columns(LABELS.num_classes, 16))
    assert np.isfinite(table).all()


def test_orders_and_sides_are_told_and_mirrored() -> None:
    place = np.array([[10, 4, 0], [5, -2, 0], [20, 1, 0], [-6, 1, 0]], np.float32)
    ones = np.ones(4, np.float32)
    car, nothing = np.eye(5, dtype=np.float32)[[3, 3, 3, 3]], np.zeros((4, 5), np.float32)
    superpoints = Superpoints(place, ones, ones, ones, ones, car, nothing, ones > 0, np.zeros((4, 2), np.float32))
    told = dict(zip(GEOMETRY, describe(superpoints).T, strict=False))
    np.testing.assert_allclose(told["nearest"], [1 / 3, 1, 1 / 4, 1 / 2], rtol=1e-6)
    np.testing.assert_allclose(told["nearest_ahead"], [1 / 2, 1, 1 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(told["nearest_on_side"], [1, 1, 1 / 2, 0], rtol=1e-6)
    np.testing.assert_allclose(told["leftmost"], [1, 1 / 3, 1 / 2, 0], rtol=1e-6)
    np.testing.assert_allclose(told["alone"], 1 / 4)
    mirrored = dict(zip(GEOMETRY, describe(superpoints.mirrored()).T, strict=False))
    np.testing.assert_allclose(mirrored["rightmost"], told["leftmost"])
    np.testing.assert_allclose(mirrored["left"], -told["left"])
    turned = superpoints.turned(np.pi / 2)
    np.testing.assert_allclose(turned.centre[:, 1], place[:, 0], atol=1e-5)


def test_a_bundle_without_the_head_or_its_files_says_so(bundle: Bundle) -> None:
    without = dataclasses.replace(bundle, info=dataclasses.replace(bundle.info, heads=()))
    with pytest.raises(BundleError, match="has no referring head"):
        Referrer(without)
    files = {name: file for name, file in bundle.info.files.items() if file.kind != KIND_MATCH}
    with pytest.raises(BundleError, match="has no file of kind"):
        Referrer(dataclasses.replace(bundle, info=dataclasses.replace(bundle.info, files=files)))
