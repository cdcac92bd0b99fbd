# SPDX-License-Identifier: Apache-2.0
"""`auto` takes what is fastest and answers alike, remembers it, says why, and lives without a cache or with a damaged one."""

from __future__ import annotations

import dataclasses
import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support import optional
from weakseg_ros.deploy.bundle import KIND_ONNX, KIND_SAMPLE, KIND_WEIGHTS, Bundle, kind_of, write_bundle
from weakseg_ros.deploy.engines import cache as caching
from weakseg_ros.deploy.engines import choice, label_of
from weakseg_ros.deploy.engines.cache import Cache, cache_folder
from weakseg_ros.deploy.engines.choice import Measured, candidates_of, chain_of, measure, open_engine, rank
from weakseg_ros.errors import ConfigError, EngineError
from weakseg_ros.extras import has_nvidia_gpu

optional("onnxruntime")


@pytest.fixture(autouse=True)
def auto_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user; the other tests say what `auto` is."""
    monkeypatch.delenv(choice.VARIABLE)


def test_the_environment_says_what_auto_is(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "openvino, torch")
    assert chain_of(tiny_bundle, ("openvino:bf16", "auto")).labels == ("openvino:bf16", "openvino", "torch", "onnxruntime")
    assert "as the environment variable WEAKSEG_AUTO requests" in chain_of(tiny_bundle).why
    monkeypatch.setenv(choice.VARIABLE, "onnxruntim")
    with pytest.raises(ConfigError, match="variable WEAKSEG_AUTO: unknown engine 'onnxruntim'; did you mean 'onnxruntime'"):
        chain_of(tiny_bundle)


@pytest.fixture
def own_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "weakseg_ros"


def with_variant(bundle: Bundle, folder: Path, variant: str, model: bytes, name: str = "m") -> Bundle:
    """The bundle with a further ONNX file, and a sample of one frame."""
    sample = io.BytesIO()
    image = np.random.default_rng(3).normal(size=(1, len(bundle.info.input.channels), 16, 64)).astype(np.float16)
    np.savez_compressed(sample, image=image)
    files = {
        "model.onnx": (KIND_ONNX, bundle.read("model.onnx")),
        "weights.safetensors": (KIND_WEIGHTS, bundle.read("weights.safetensors")),
        name: (kind_of(variant), model),
        "sample.npz": (KIND_SAMPLE, sample.getvalue()),
    }
    return write_bundle(folder, bundle.info, files, "card")


def test_openvino_answers_as_onnxruntime_does(tiny_bundle: Bundle) -> None:
    optional("openvino")
    spec = tiny_bundle.info.input.geometry
    image = (
        np.random.default_rng(1)
        .normal(size=(1, len(tiny_bundle.info.input.channels), spec.height, spec.width))
        .astype(np.float32)
    )
    reference = open_engine(tiny_bundle, ["onnxruntime"], threads=1)[0].run({"image": image})
    engine, why_not = open_engine(tiny_bundle, ["openvino"], threads=1)
    assert (label_of(engine), engine.device, why_not) == ("openvino", "cpu", [])
    found = engine.run({"image": image})
    assert np.mean(found["class_id"] == reference["class_id"]) > 0.999
    for name in ("confidence", "uncertainty"):
        np.testing.assert_allclose(found[name], reference[name], atol=1e-3)
    kept = {name: values.copy() for name, values in found.items()}
    engine.run({"image": image * 2})
    for name, values in kept.items():
        np.testing.assert_array_equal(found[name], values)  # an answer is the caller's own


def test_openvino_refuses_in_a_sentence(tiny_bundle: Bundle, tmp_path: Path) -> None:
    optional("openvino")
    with pytest.raises(
        EngineError, match=r"can run it \(openvino: runs fp32, bf16, int8 on a CPU, not fp16; use another engine\)$"
    ):
        open_engine(tiny_bundle, ["openvino:fp16"])
    with pytest.raises(EngineError, match=r"has no ONNX file in int8 \(has fp32\); make one with 'weakseg export --from'"):
        open_engine(tiny_bundle, ["openvino:int8"])
    broken = write_bundle(tmp_path / "b", tiny_bundle.info, {"model.onnx": (KIND_ONNX, b"no model")}, "card")
    with pytest.raises(EngineError, match="not a model that openvino can load"):
        open_engine(broken, ["openvino"])


@pytest.mark.skipif(has_nvidia_gpu(), reason="this machine has an NVIDIA GPU")
def test_an_engine_that_needs_a_gpu_is_one_sentence_without_one(tiny_bundle: Bundle) -> None:
    for name in ("onnxruntime_cuda", "onnxruntime_tensorrt", "tensorrt", "tensorrt_rtx"):
        with pytest.raises(EngineError, match=name):
            open_engine(tiny_bundle, [name])
        engine, why_not = open_engine(tiny_bundle, [name, "onnxruntime"])
        assert engine.name == "onnxruntime"
        assert len(why_not) == 1
        assert not why_not[0].startswith(f"{name}: {name}"), "named once"


def test_the_candidates_are_what_is_installed_and_has_a_file(tiny_bundle: Bundle, tmp_path: Path) -> None:
    more = with_variant(tiny_bundle, tmp_path / "b", "int8", tiny_bundle.read("model.onnx"))
    assert "onnxruntime" in candidates_of(tiny_bundle, gpu=False)
    assert set(candidates_of(more, gpu=False)) - set(candidates_of(tiny_bundle, gpu=False)) >= {"onnxruntime:int8"}
    assert all(label.partition(":")[0] in ("onnxruntime", "openvino") for label in candidates_of(more, gpu=False))


def test_what_answers_otherwise_is_not_taken_however_fast(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """The int8 file is another network of the same interface, as after a bad quantisation."""
    onnx = optional("onnx")
    model = onnx.load_model_from_string(tiny_bundle.read("model.onnx"))
    for weight in model.graph.initializer:
        if weight.name == "net.classifier.weight":
            weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    bundle = with_variant(tiny_bundle, tmp_path / "b", "int8", model.SerializeToString())
    measured, refused = measure(bundle, ("onnxruntime", "onnxruntime:int8"), 1)
    assert [each.label for each in measured] == ["onnxruntime"]
    assert measured[0].agreement == 1.0
    assert len(refused) == 1
    assert refused[0].startswith("onnxruntime:int8: agrees with float32 on only ")
    good = with_variant(tiny_bundle, tmp_path / "c", "int8", tiny_bundle.read("model.onnx"))
    measured, refused = measure(good, ("onnxruntime", "onnxruntime:int8"), 1)
    assert [each.label for each in measured] == ["onnxruntime", "onnxruntime:int8"]
    assert refused == []


def test_the_fastest_comes_first_and_the_reason_names_all() -> None:
    chain = rank([Measured("a", 60.0, 1.0), Measured("b", 58.0, 1.0), Measured("c:int8", 30.0, 0.98)], ["d: broken"])
    assert chain.labels == ("c:int8", "a", "b")  # b is not faster by enough to be worth a change
    assert chain.why == (
        "auto uses c:int8 (30.0 ms, 98.00% of the classes as in float32); others: "
        "a (60.0 ms, 100.00% of the classes as in float32), b (58.0 ms, 100.00% of the classes as in float32); "
        "not used: d: broken"
    )


def test_a_coarser_arithmetic_has_to_save_a_fifth() -> None:
    assert rank([Measured("a", 1.5, 1.0), Measured("b:bf16", 1.3, 0.998)], []).labels == ("a", "b:bf16")
    assert rank([Measured("a", 1.5, 1.0), Measured("b:bf16", 1.1, 0.998)], []).labels == ("b:bf16", "a")


def test_a_choice_is_measured_once_and_remembered(
    tiny_bundle: Bundle, tmp_path: Path, own_cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = with_variant(tiny_bundle, tmp_path / "b", "int8", tiny_bundle.read("model.onnx"))
    with caplog.at_level(logging.INFO):
        first = chain_of(bundle, threads=1)
        assert "are timed on this machine" in caplog.text
        caplog.clear()
        second = chain_of(bundle, threads=1)
        assert "are timed on this machine" not in caplog.text
    assert first.labels == second.labels
    assert second.why == f"{first.why} (measured on an earlier start)"
    (file,) = (own_cache_folder / "choices").glob("[0-9a-f]*[0-9a-f]")
    content = file.read_bytes()
    for damaged in (b"", content[:-3], content[:-1] + b"x", b"other"):
        file.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert chain_of(bundle, threads=1).labels
        assert "truncated or modified" in caplog.text
        assert "are timed on this machine" in caplog.text
    other = dataclasses.replace(bundle, info=dataclasses.replace(bundle.info, content_hash="0" * 64))
    assert choice._key(other, 1, ()) != choice._key(bundle, 1, ())
    assert choice._key(bundle, 2, ()) != choice._key(bundle, 1, ())


def test_the_chain_goes_on_after_an_engine_that_does_not_open(
    tiny_bundle: Bundle, tmp_path: Path, own_cache_folder: Path
) -> None:
    bundle = with_variant(tiny_bundle, tmp_path / "b", "int8", b"no model at all")
    chain = chain_of(bundle, ("onnxruntime:int8", "auto"), 1)
    assert chain.labels[0] == "onnxruntime:int8"
    assert set(chain.labels[1:]) >= {"onnxruntime", "torch"}
    assert "not used: onnxruntime:int8:" in chain.why
    engine, why_not = open_engine(bundle, ("onnxruntime:int8", "auto"), 1)
    assert label_of(engine) != "onnxruntime:int8"
    assert why_not[0].startswith("onnxruntime:int8: ")


def test_a_user_without_a_home_has_no_cache_and_all_works(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(caching.os.path, "expanduser", lambda text: text)  # what Python answers for a user without an entry
    assert cache_folder() is None
    bundle = with_variant(tiny_bundle, tmp_path / "b", "int8", tiny_bundle.read("model.onnx"))
    assert open_engine(bundle, threads=1)[0].name in ("onnxruntime", "openvino")


def test_a_folder_that_takes_nothing_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "weakseg_ros").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache("plans").get_or_make("key", lambda: b"built") == b"built"
    assert "cannot be written" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["weakseg_ros"]


BUILDER = """
import os, sys, time
from pathlib import Path
from weakseg_ros.deploy.engines.cache import Cache
folder = Path(sys.argv[1])

def make():
    (folder / f"built by {os.getpid()}").touch()
    while len(list(folder.glob("asks *"))) < 3:
        time.sleep(0.01)
    time.sleep(0.5)  # for the last one to ask
    return b"plan"

(folder / f"asks {os.getpid()}").touch()
sys.exit(Cache("plans", folder).get_or_make("key", make) != b"plan")
"""


def test_of_several_processes_one_builds(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", BUILDER, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("built by *"))) == 1
    assert Cache("plans", tmp_path).get("key") == b"plan"
    assert not [path for path in (tmp_path / "plans").iterdir() if path.name.endswith(".tmp")]
