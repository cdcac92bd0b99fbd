# SPDX-License-Identifier: Apache-2.0
"""Both engines give the same answers; what cannot run is refused when it is opened, with the next engine in its place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.deploy.bundle import KIND_ONNX, KIND_WEIGHTS, Bundle, NetRule, write_bundle
from weakseg_ros.deploy.engines import check_outputs, open_engine
from weakseg_ros.errors import ConfigError, EngineError
from weakseg_ros.points.labels import LabelMap

pytest.importorskip("onnxruntime", reason="no onnxruntime: pip install weakseg_ros[onnx]")
onnx = pytest.importorskip("onnx", reason="no onnx: pip install weakseg_ros[train]")
pytest.importorskip("torch", reason="no torch: pip install weakseg_ros[train]")


def images(bundle: Bundle, count: int) -> np.ndarray:
    spec = bundle.info.spec
    return np.random.default_rng(1).normal(size=(count, len(bundle.info.channels), spec.height, spec.width)).astype(np.float32)


def with_files(bundle: Bundle, folder: Path, **contents: bytes) -> Bundle:
    """The bundle with other content under right hashes."""
    kinds = {"model.onnx": KIND_ONNX, "weights.safetensors": KIND_WEIGHTS}
    files = {name: (kind, contents.get(kind, bundle.read(name))) for name, kind in kinds.items()}
    return write_bundle(folder, bundle.info, files, "card")


@pytest.mark.parametrize("count", [1, 3])
def test_engines_agree_and_depend_on_the_input(tiny_bundle: Bundle, count: int) -> None:
    batch = images(tiny_bundle, count)
    answers = {}
    for name in ("onnxruntime", "torch"):
        engine, why_not = open_engine(tiny_bundle, [name], threads=1)
        assert (engine.name, why_not) == (name, [])
        answers[name] = engine.run(batch)
        other = engine.run(batch * 2.0)
        assert not np.array_equal(other["confidence"], answers[name]["confidence"])
        engine.close()
    ours, theirs = answers["onnxruntime"], answers["torch"]
    assert ours["class_id"].dtype == np.uint8
    assert set(np.unique(ours["class_id"])) <= {1, 2, 3, 4}
    assert len(np.unique(ours["class_id"])) > 1
    np.testing.assert_array_equal(ours["class_id"], theirs["class_id"])
    for name in ("confidence", "uncertainty"):
        assert ours[name].shape == (count, 16, 64)
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)


def test_answers_are_those_of_the_definition(tiny_bundle: Bundle) -> None:
    import torch

    from weakseg_ros.deploy.engines.torch import load_graph

    batch = images(tiny_bundle, 2)
    with torch.inference_mode():
        logits = load_graph(tiny_bundle).net(torch.from_numpy(batch)).logits.numpy().astype(np.float64)[:, 1:]
    odds = np.exp((logits - logits.max(1, keepdims=True)) / tiny_bundle.info.temperature)
    p = odds / odds.sum(1, keepdims=True)
    engine, _ = open_engine(tiny_bundle)
    answers = engine.run(batch)
    np.testing.assert_array_equal(answers["class_id"], logits.argmax(1) + 1)
    np.testing.assert_allclose(answers["confidence"], p.max(1), atol=1e-5)
    np.testing.assert_allclose(answers["uncertainty"], -(p * np.log(p)).sum(1) / np.log(4), atol=1e-5)


def test_auto_goes_on_to_torch_and_says_why(tiny_bundle: Bundle, tmp_path: Path) -> None:
    for content in (b"no onnx at all", tiny_bundle.read("model.onnx")[:2000]):
        engine, why_not = open_engine(with_files(tiny_bundle, tmp_path / "b", onnx=content))
        assert engine.name == "torch"
        assert len(why_not) == 1
        assert "no model that onnxruntime can load" in why_not[0]


def test_no_engine_left_is_one_error_with_every_reason(tiny_bundle: Bundle, tmp_path: Path) -> None:
    broken = with_files(tiny_bundle, tmp_path / "b", onnx=b"x", weights=b"y")
    with pytest.raises(EngineError, match=r"onnxruntime: .* \| torch: .*safetensors"):
        open_engine(broken)


def test_a_missing_kind_is_named(tiny_bundle: Bundle, tmp_path: Path) -> None:
    int8_only = write_bundle(tmp_path / "b", tiny_bundle.info, {"m": ("onnx-int8", b"1")}, "card")
    with pytest.raises(EngineError, match=r"no ONNX file.*no weights"):
        open_engine(int8_only)


def test_an_unknown_engine_is_a_setting_to_correct(tiny_bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="did you mean 'torch'"):
        open_engine(tiny_bundle, ["auto", "torhc"][1:])


def test_classes_or_channels_of_another_model_are_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    info = tiny_bundle.info
    fewer = dataclasses.replace(info, labels=LabelMap("four", info.labels.classes[:4]))
    grey = dataclasses.replace(info, channels=("range",), mean=(0.0,), std=(1.0,))
    wide = dataclasses.replace(info, spec=dataclasses.replace(info.spec, width=128))
    files = {
        "model.onnx": (KIND_ONNX, tiny_bundle.read("model.onnx")),
        "w": (KIND_WEIGHTS, tiny_bundle.read("weights.safetensors")),
    }
    for other, expected in ((fewer, "5 classes, the bundle lists 4"), (grey, r"\[1, 16, 64\]"), (wide, r"\[5, 16, 128\]")):
        bundle = write_bundle(tmp_path / "b", other, files, "card")
        with pytest.raises(EngineError, match=expected):
            open_engine(bundle, ["onnxruntime"])
    bundle = write_bundle(tmp_path / "b", dataclasses.replace(info, net=NetRule("light", {"width": 32})), files, "card")
    with pytest.raises(EngineError, match="does not fit the net 'light'"):
        open_engine(bundle, ["torch"])
    bundle = write_bundle(tmp_path / "b", dataclasses.replace(info, net=NetRule("lihgt")), files, "card")
    with pytest.raises(ConfigError, match="did you mean 'light'"):
        open_engine(bundle, ["torch"])


def constant_model(bundle: Bundle, confidence: float, class_id: int) -> bytes:
    """An ONNX file of the right interface that answers the same everywhere."""
    spec, shape = bundle.info.spec, ["b", bundle.info.spec.height, bundle.info.spec.width]
    helper, numpy_helper, types = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    nodes = [
        helper.make_node("ReduceMax", ["image", "axes"], ["peak"], keepdims=0),
        helper.make_node("Mul", ["peak", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["no_class"], to=types.UINT8),
        helper.make_node("Add", ["no_class", "class"], ["class_id"]),
        helper.make_node("Add", ["nothing", "level"], ["confidence"]),
        helper.make_node("Identity", ["nothing"], ["uncertainty"]),
    ]
    constants = {"axes": np.array([1]), "zero": np.float32(0), "class": np.uint8(class_id), "level": np.float32(confidence)}
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("image", types.FLOAT, ["b", len(bundle.info.channels), spec.height, spec.width])],
        [
            helper.make_tensor_value_info("class_id", types.UINT8, shape),
            helper.make_tensor_value_info("confidence", types.FLOAT, shape),
            helper.make_tensor_value_info("uncertainty", types.FLOAT, shape),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("confidence", "class_id", "expected"),
    [
        (float("nan"), 1, "NaN"),
        (float("inf"), 1, "infinite"),
        (0.5, 0, "outside the 4 classes"),
        (0.5, 5, "outside the 4 classes"),
    ],
)
def test_an_unusable_answer_is_an_error(
    tiny_bundle: Bundle, tmp_path: Path, confidence: float, class_id: int, expected: str
) -> None:
    bundle = with_files(tiny_bundle, tmp_path / "b", onnx=constant_model(tiny_bundle, confidence, class_id))
    with pytest.raises(EngineError, match=expected):
        open_engine(bundle, ["onnxruntime"])
    good = with_files(tiny_bundle, tmp_path / "b", onnx=constant_model(tiny_bundle, 0.5, 4))
    engine, _ = open_engine(good, ["onnxruntime"])
    assert np.all(engine.run(images(good, 1))["class_id"] == 4)


def test_nan_in_the_input_is_not_passed_on(tiny_bundle: Bundle) -> None:
    batch = images(tiny_bundle, 1)
    batch[0, 2, 3, 4] = np.nan
    for name in ("onnxruntime", "torch"):
        engine, _ = open_engine(tiny_bundle, [name])
        with pytest.raises(EngineError, match="NaN"):
            engine.run(batch)


def test_an_image_of_another_size_is_an_error(tiny_bundle: Bundle) -> None:
    engine, _ = open_engine(tiny_bundle, ["onnxruntime"])
    with pytest.raises(EngineError, match="onnxruntime failed"):
        engine.run(np.zeros((1, 5, 16, 32), np.float32))


def test_missing_and_misshapen_outputs() -> None:
    good = {"class_id": np.ones((1, 2, 3), np.uint8), "confidence": np.ones((1, 2, 3)), "uncertainty": np.ones((1, 2, 3))}
    assert check_outputs(good, (1, 5, 2, 3), 3) is good
    with pytest.raises(EngineError, match="'uncertainty' is missing"):
        check_outputs({name: good[name] for name in ("class_id", "confidence")}, (1, 5, 2, 3), 3)
    with pytest.raises(EngineError, match=r"expected shape \(2, 2, 3\), found \(1, 2, 3\)"):
        check_outputs(good, (2, 5, 2, 3), 3)


@pytest.mark.parametrize(
    ("name", "shape", "wrong"),
    [
        ("novelty", (1, 2, 3), (1, 2)),
        ("centre", (1, 2, 3), (1, 3, 2)),
        ("offset", (1, 2, 2, 3), (1, 3, 2, 3)),
        ("query_class", (1, 7, 3), (1, 7, 4)),
        ("query_mask", (1, 7, 1, 2), (7, 1, 2)),
    ],
)
def test_further_outputs_are_checked_where_the_bundle_lists_them(
    name: str, shape: tuple[int, ...], wrong: tuple[int, ...]
) -> None:
    three = {"class_id": np.ones((1, 2, 3), np.uint8), "confidence": np.ones((1, 2, 3)), "uncertainty": np.ones((1, 2, 3))}
    good = {**three, name: np.zeros(shape, np.float32)}
    assert check_outputs(good, (1, 5, 2, 3), 3, [name]) is good
    with pytest.raises(EngineError, match=f"'{name}': expected shape"):
        check_outputs({**three, name: np.zeros(wrong, np.float32)}, (1, 5, 2, 3), 3, [name])
    with pytest.raises(EngineError, match=f"'{name}' is missing"):
        check_outputs(three, (1, 5, 2, 3), 3, [name])
    with pytest.raises(EngineError, match=f"'{name}': holds NaN"):
        check_outputs({**three, name: np.full(shape, np.nan, np.float32)}, (1, 5, 2, 3), 3, [name])


@pytest.mark.parametrize(
    ("available", "used", "said"),
    [
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "CPUExecutionProvider", True),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "CUDAExecutionProvider", False),
        (["CPUExecutionProvider"], "CPUExecutionProvider", False),
    ],
)
def test_a_gpu_build_that_runs_on_the_cpu_says_so(available: list[str], used: str, said: bool) -> None:
    from weakseg_ros.deploy.engines.onnxruntime import fallen_back

    assert bool(fallen_back(available, used)) == said
