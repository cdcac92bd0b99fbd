# SPDX-License-Identifier: Apache-2.0
"""Both engines give the same answers; what cannot run is refused when it is opened, with the next engine in its place."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support import PATIENCE_S, optional
from weakseg_ros.deploy.bundle import FP32, KIND_ONNX, KIND_WEIGHTS, Bundle, HeadRule, NetRule, write_bundle
from weakseg_ros.deploy.engines import example_inputs, run_checked, try_to_open
from weakseg_ros.deploy.engines.choice import LEAST_AGREEMENT, open_engine
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.deploy.tensors import HEAD_OUTPUTS, TensorSpec
from weakseg_ros.errors import BundleError, ConfigError, EngineError
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.registry import ENGINES

optional("onnxruntime")
onnx = optional("onnx")
optional("torch")


def images(bundle: Bundle, count: int) -> np.ndarray:
    spec = bundle.info.input.geometry
    return (
        np.random.default_rng(1).normal(size=(count, len(bundle.info.input.channels), spec.height, spec.width)).astype(np.float32)
    )


def with_files(bundle: Bundle, folder: Path, **contents: bytes) -> Bundle:
    """The bundle with other content under right hashes."""
    kinds = {"model.onnx": KIND_ONNX, "weights.safetensors": KIND_WEIGHTS}
    files = {name: (kind, contents.get(kind, bundle.read(name))) for name, kind in kinds.items()}
    return write_bundle(folder, bundle.info, files, "card")


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "torch"])
def test_each_engine_that_runs_here_answers_as_torch_does(tiny_bundle: Bundle, name: str) -> None:
    """Engines that this machine lacks are skipped, with the reason."""
    engine, why_not = try_to_open(tiny_bundle, name, 1)
    if engine is None:
        pytest.skip(why_not)
    batch = images(tiny_bundle, 1)
    expected = open_engine(tiny_bundle, ["torch"], threads=1)[0].run({"image": batch})
    found = engine.run({"image": batch})
    assert (engine.name, bool(engine.device), list(found)) == (name, True, list(expected))
    assert np.mean(found["class_id"] == expected["class_id"]) >= LEAST_AGREEMENT[FP32]
    for output in ("confidence", "uncertainty"):
        assert found[output].dtype == np.float32
        np.testing.assert_allclose(found[output], expected[output], atol=1e-3)
    assert not np.array_equal(engine.run({"image": batch * 2.0})["confidence"], found["confidence"])
    with pytest.raises(EngineError, match="'image' is missing"):
        engine.run({})
    engine.close()


@pytest.mark.parametrize("count", [1, 3])
def test_engines_agree_and_depend_on_the_input(tiny_bundle: Bundle, count: int) -> None:
    batch = images(tiny_bundle, count)
    answers = {}
    for name in ("onnxruntime", "torch"):
        engine, why_not = open_engine(tiny_bundle, [name], threads=1)
        assert (engine.name, why_not) == (name, [])
        answers[name] = engine.run({"image": batch})
        other = engine.run({"image": batch * 2.0})
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
    answers = engine.run({"image": batch})
    np.testing.assert_array_equal(answers["class_id"], logits.argmax(1) + 1)
    np.testing.assert_allclose(answers["confidence"], p.max(1), atol=1e-5)
    np.testing.assert_allclose(answers["uncertainty"], -(p * np.log(p)).sum(1) / np.log(4), atol=1e-5)


def test_auto_goes_on_to_torch_and_says_why(tiny_bundle: Bundle, tmp_path: Path) -> None:
    for content in (b"no onnx at all", tiny_bundle.read("model.onnx")[:2000]):
        engine, why_not = open_engine(with_files(tiny_bundle, tmp_path / "b", onnx=content))
        assert engine.name == "torch"
        assert len(why_not) == 1
        assert "not a model that onnxruntime can load" in why_not[0]


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
    grey = dataclasses.replace(info, input=dataclasses.replace(info.input, channels=("range",), mean=(0.0,), std=(1.0,)))
    wider = dataclasses.replace(info.input, geometry=dataclasses.replace(info.input.geometry, width=128))
    wide = dataclasses.replace(info, input=wider)
    files = {
        "model.onnx": (KIND_ONNX, tiny_bundle.read("model.onnx")),
        "w": (KIND_WEIGHTS, tiny_bundle.read("weights.safetensors")),
    }
    cases = ((fewer, "5 classes, but the bundle lists 4"), (grey, r"\(B, 1, 16, 64\)"), (wide, r"\(B, 5, 16, 128\)"))
    for other, expected in cases:
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
    spec, shape = bundle.info.input.geometry, ["b", bundle.info.input.geometry.height, bundle.info.input.geometry.width]
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
        [helper.make_tensor_value_info("image", types.FLOAT, ["b", len(bundle.info.input.channels), spec.height, spec.width])],
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
        (0.5, 0, r"0..0 is outside 1..4"),
        (0.5, 5, r"5..5 is outside 1..4"),
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
    assert np.all(engine.run({"image": images(good, 1)})["class_id"] == 4)


def test_nan_in_the_input_is_not_passed_on(tiny_bundle: Bundle) -> None:
    batch = images(tiny_bundle, 1)
    batch[0, 2, 3, 4] = np.nan
    for name in ("onnxruntime", "torch"):
        engine, _ = open_engine(tiny_bundle, [name])
        with pytest.raises(EngineError, match="NaN"):
            engine.run({"image": batch})


def test_an_image_of_another_size_is_an_error(tiny_bundle: Bundle) -> None:
    engine, _ = open_engine(tiny_bundle, ["onnxruntime"])
    with pytest.raises(EngineError, match=r"network input 'image': expected shape .1, 5, 16, 64., found .1, 5, 16, 32."):
        engine.run({"image": np.zeros((1, 5, 16, 32), np.float32)})


def test_outputs_are_held_against_the_bundles_table(tiny_bundle: Bundle) -> None:
    info = dataclasses.replace(tiny_bundle.info, heads=tuple(map(HeadRule, HEAD_OUTPUTS)), outputs={})
    bundle, inputs = Bundle(tiny_bundle.folder, info), example_inputs(tiny_bundle)
    sizes = {"B": 1, "H": 16, "W": 64, "K": 5, "Q": 7, "h": 4, "w": 8, "2": 2, "D": 6, "H/2": 8, "W/2": 32}
    good = {name: np.ones([sizes[symbol] for symbol in spec.shape], spec.dtype) for name, spec in info.outputs.items()}
    assert run_checked(bundle, lambda: good, inputs) == good
    for name, values in good.items():
        with pytest.raises(EngineError, match=f"network output: '{name}' is missing"):
            run_checked(bundle, lambda name=name: {key: value for key, value in good.items() if key != name}, inputs)
        with pytest.raises(EngineError, match=f"'{name}': expected shape"):
            run_checked(bundle, lambda name=name, values=values: {**good, name: values[None]}, inputs)
        with pytest.raises(EngineError, match=f"'{name}': expected {info.outputs[name].dtype}, found float64"):
            run_checked(bundle, lambda name=name, values=values: {**good, name: values.astype(np.float64)}, inputs)
        if values.dtype == np.float32:
            with pytest.raises(EngineError, match=f"'{name}': holds NaN"):
                run_checked(bundle, lambda name=name, values=values: {**good, name: values * np.nan}, inputs)


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


def test_an_input_that_no_cloud_gives_is_refused_at_once(tiny_bundle: Bundle) -> None:
    prompt = TensorSpec("float32", ("B", "2"))
    info = dataclasses.replace(tiny_bundle.info, inputs={**tiny_bundle.info.inputs, "prompt": prompt})
    with pytest.raises(BundleError, match="needs the input 'prompt'"):
        Segmenter(dataclasses.replace(tiny_bundle, info=info))


def test_a_second_input_reaches_the_network(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """As a referring head will ask for: an image and an encoded expression."""
    prompt = TensorSpec("int64", ("B", "T"), "tokens of the expression")
    info = dataclasses.replace(tiny_bundle.info, inputs={**tiny_bundle.info.inputs, "prompt": prompt})
    bundle = write_bundle(tmp_path / "two", info, {"model.onnx": (KIND_ONNX, with_prompt(tiny_bundle))}, "card")
    engine, _ = open_engine(bundle, ["onnxruntime"])
    image = images(bundle, 1)
    plain, asked = (engine.run({"image": image, "prompt": np.full((1, 3), word, np.int64)}) for word in (0, 1))
    np.testing.assert_array_equal(asked["class_id"], plain["class_id"])
    np.testing.assert_allclose(asked["uncertainty"], plain["uncertainty"] + 3.0, rtol=1e-6)
    with pytest.raises(EngineError, match="'prompt' is missing"):
        engine.run({"image": image})


def test_the_torch_engine_answers_tensors_with_tensors_and_refuses_what_its_graph_does_not_take(tiny_bundle: Bundle) -> None:
    import torch

    engine, _ = open_engine(tiny_bundle, ["torch"], threads=1)
    image = images(tiny_bundle, 2)
    arrays, tensors = engine.run({"image": image}), engine.run({"image": torch.from_numpy(image)})
    for name, values in tensors.items():
        assert isinstance(values, torch.Tensor)
        np.testing.assert_array_equal(values.numpy(), arrays[name])
    with pytest.raises(EngineError, match="NaN"):
        engine.run({"image": torch.full(image.shape, torch.nan)})
    further = {**tiny_bundle.info.inputs, "prompt": TensorSpec("int64", ("B", "T"))}
    with pytest.raises(EngineError, match="does not take the inputs image, prompt"):
        open_engine(Bundle(tiny_bundle.folder, dataclasses.replace(tiny_bundle.info, inputs=further)), ["torch"])


def with_prompt(bundle: Bundle) -> bytes:
    """The bundle's network, with the sum of a second input's values added to the uncertainty."""
    model = onnx.load_model_from_string(bundle.read("model.onnx"))
    helper, types = onnx.helper, onnx.TensorProto
    for node in model.graph.node:
        node.output[:] = ["plain" if name == "uncertainty" else name for name in node.output]
    model.graph.input.append(helper.make_tensor_value_info("prompt", types.INT64, ["b", "t"]))
    model.graph.node.extend(
        [
            helper.make_node("ReduceSum", ["prompt"], ["total"], keepdims=0),
            helper.make_node("Cast", ["total"], ["shift"], to=types.FLOAT),
            helper.make_node("Add", ["plain", "shift"], ["uncertainty"]),
        ]
    )
    return bytes(model.SerializeToString())


def test_onnxruntime_reports_to_nobody(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """Its builds may keep a record of what they ran, and the machine's number, in the user's folder."""
    code = (
        "import sys; from weakseg_ros.deploy.bundle import Bundle; from weakseg_ros.deploy.engines.choice import open_engine;"
        "open_engine(Bundle.load(sys.argv[1]), ['onnxruntime'])"
    )
    homes = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(tiny_bundle.folder)]
    subprocess.run(command, check=True, env={**os.environ, **homes}, timeout=PATIENCE_S)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("turned", [False, True], ids=["as exported", "value before key"])
def test_weights_in_another_file_are_refused(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turned: bool
) -> None:
    """It would be looked for in the folder that the program runs in, and no hash covers it."""
    model = onnx.load_from_string(tiny_bundle.read("model.onnx"))
    tensor = model.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    blob = model.SerializeToString()
    if turned:
        blob = blob.replace(b"\x0a\x08location\x12\x0bweights.bin", b"\x12\x0bweights.bin\x0a\x08location")
    monkeypatch.chdir(tmp_path)
    bundle = with_files(tiny_bundle, tmp_path / "bundle", onnx=blob)
    with pytest.raises(EngineError, match="External data|external data" if turned else "keeps weights in another file"):
        open_engine(bundle, ["onnxruntime"])
