# SPDX-License-Identifier: Apache-2.0
"""Variants in other arithmetic answer as float32 does or are not written, and TensorRT-RTX builds each of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support import files_of_at_most, optional

torch = optional("torch")
onnx = optional("onnx")
optional("onnxruntime")

from weakseg_ros.cli import main
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.deploy.bundle import VARIANTS, Bundle, BundleInfo, NetRule, VariantFacts
from weakseg_ros.deploy.engines.choice import measure, open_engine, sample_inputs
from weakseg_ros.deploy.engines.plans import build_plan, library_of, shapes_of
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.errors import EngineError, refusal_of
from weakseg_ros.half_written import is_ours
from weakseg_ros.nets.build import build_net
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.export import export_bundle
from weakseg_ros.train.quantise import MAKERS, classes_to_bytes_last, content_of, in_float32
from weakseg_ros.train.variants import classes_of, too_much

LABELS = LabelMap("four", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i * 10,)) for i in range(4)))
SPEC = RangeSpec(height=32, width=64, fov_up_deg=20.0, fov_down_deg=-20.0)
CHANNELS = ("range", "x", "y", "z", "intensity")
INPUT = InputSpec(
    geometry=SPEC, channels=CHANNELS, mean=(10.0, 0.0, 0.0, 0.0, 0.5), std=(5.0,) * 5, intensity=IntensityRule(required=False)
)


def export(folder: Path, net: str = "light", **options: object) -> Bundle:
    """A bundle of a net with random weights that tells its classes clearly apart."""
    torch.manual_seed(0)
    model = build_net(net, CHANNELS, INPUT.mean, INPUT.std, LABELS.num_classes, options)
    if net == "light":
        torch.nn.init.normal_(model.classifier.weight, std=3.0)
    info = BundleInfo(name=folder.name, input=INPUT, labels=LABELS, net=NetRule(net, dict(options)))
    return export_bundle(model, info, folder, np.random.default_rng(0).normal(size=(2, 5, 32, 64)).astype(np.float32), half=True)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scans of a floor and a wall."""
    folder, rng = tmp_path_factory.mktemp("data") / "scans", np.random.default_rng(0)
    with ScanWriter(folder, LABELS, SPEC, source="test", seed=0, intensity_full_scale=1.0) as writer:
        for _ in range(6):
            azimuth, inclination = rng.uniform(-np.pi, np.pi, 3000), np.radians(rng.uniform(-19, 19, 3000))
            xyz = np.stack([np.cos(azimuth), np.sin(azimuth), np.tan(inclination)], 1) * (8 + 2 * np.cos(3 * azimuth))[:, None]
            writer.write(make_cloud(xyz, rng.random(3000)), np.where(inclination > 0, 10, 20).astype(np.uint32))
    return folder


@pytest.fixture(scope="module")
def exported(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with every variant, made by the verb."""
    folder = tmp_path_factory.mktemp("bundles")
    whole = export(folder / "whole", width=16)
    out = folder / "more"
    assert main(["export", "--from", str(whole.folder), "--scans", str(scans), "--out", str(out)]) == 0
    return Bundle.load(out)


def test_every_variant_is_measured_and_answers_as_the_facts_say(exported: Bundle) -> None:
    assert exported.variants == ("fp32", *exported.info.variants)
    assert "fp16" in exported.variants
    inputs, mask = sample_inputs(exported)
    assert 0.3 < mask.mean() < 1.0  # a real scan, not noise
    reference = open_engine(exported, ["onnxruntime"], 1)[0].run(inputs)["class_id"]
    for variant, facts in exported.info.variants.items():
        found = open_engine(exported, [f"onnxruntime:{variant}"], 1)[0].run(inputs)
        assert np.mean(found["class_id"][mask] == reference[mask]) > facts.class_agreement - 0.05
        assert facts.miou is not None
        assert facts.scans == 1
    card = (exported.folder / "MODEL_CARD.md").read_text()
    assert card.count("## In other precisions") == 1
    assert "fp16: " in card


def test_a_second_export_replaces_variants_and_section(exported: Bundle, scans: Path, tmp_path: Path) -> None:
    command = ["export", "--from", str(exported.folder), "--scans", str(scans), "--out", str(tmp_path / "b")]
    assert main([*command, "--variants", "fp16"]) == 0
    again = Bundle.load(tmp_path / "b")
    assert again.variants == ("fp32", "fp16")
    card = (again.folder / "MODEL_CARD.md").read_text()
    assert card.count("## In other precisions") == 1
    assert "int8: " not in card


def test_int8_differs_from_float32_and_from_the_other_int8(exported: Bundle) -> None:
    image = sample_inputs(exported)[0]["image"]
    confidence = [
        open_engine(exported, [f"onnxruntime:{variant}"], 1)[0].run({"image": image})["confidence"]
        for variant in exported.variants
    ]
    for i, one in enumerate(confidence):
        for other in confidence[:i]:
            assert not np.array_equal(one, other)


ENDED_AMID_QUANTISATION = """
import os, signal, sys
import numpy, onnx
from weakseg_ros.train.quantise import MAKERS, in_float32

def end(event, arguments):
    if event == "open" and str(arguments[0]).startswith(os.environ["TMPDIR"]) and "quant." in arguments[0]:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(end)
MAKERS["int8"](in_float32(onnx.load(sys.argv[1])), numpy.zeros((2, 5, 32, 64), numpy.float32))
"""


@pytest.mark.slow
def test_what_the_quantiser_leaves_when_it_is_killed_is_removed_by_the_next(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = exported.folder / "model.onnx"
    command = [sys.executable, "-c", ENDED_AMID_QUANTISATION, str(model)]
    ended = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    left = os.listdir(tmp_path)
    assert sum(map(is_ours, left)) == 1
    assert not any("quant" in name for name in left), "nobody could tell that it is ours"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    MAKERS["int8"](in_float32(onnx.load(model)), np.zeros((2, 5, 32, 64), np.float32))
    assert set(os.listdir(tmp_path)) == {name for name in left if not is_ours(name)}, "the libraries have one thing each there"


def test_a_full_disk_ends_the_quantisation_instead_of_changing_what_comes_of_it(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The tool itself reads its files as they are, cut off or not, or goes on without its optimisation."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = in_float32(onnx.load(exported.folder / "model.onnx"))
    with files_of_at_most(model.ByteSize() + 1), pytest.raises(OSError, match="File too large") as refused:
        MAKERS["int8"](model, np.zeros((2, 5, 32, 64), np.float32))
    assert refusal_of(refused.value) == f"{tmp_path}: File too large"
    assert not caplog.records
    assert not any(map(is_ours, os.listdir(tmp_path)))


def test_a_variant_that_loses_too_much_is_not_written_and_that_is_said() -> None:
    assert too_much("int8", VariantFacts(0.97, 0.500, 0.505)) == ""
    assert too_much("int8", VariantFacts(0.97, None, None)) == ""
    assert too_much("int8", VariantFacts(0.90, 0.5, 0.5)) == (
        "int8: was not written, as it agrees with float32 on 90.00% of the pixels, but 95% is required"
    )
    assert "loses 0.0500 of the mIoU, but at most 0.005 is allowed" in too_much("fp16", VariantFacts(1.0, 0.45, 0.50))


def test_a_broken_variant_is_left_out_of_the_bundle(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def upside_down(model: onnx.ModelProto, images: np.ndarray) -> bytes:
        for weight in model.graph.initializer:
            if weight.name == "net.classifier.weight":
                weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
        return content_of(model)

    monkeypatch.setitem(MAKERS, "int8", upside_down)
    whole = export(tmp_path / "whole", width=16)
    command = ["export", "--from", str(whole.folder), "--scans", str(scans), "--out", str(tmp_path / "b")]
    assert main([*command, "--variants", "int8", "fp16"]) == 0
    assert "int8: was not written, as it agrees" in capsys.readouterr().out
    assert Bundle.load(tmp_path / "b").variants == ("fp32", "fp16")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs the folder of a training run, or a bundle with --from"),
        (["run", "--variants", "int9"], "unknown 'int9'; did you mean 'int8'"),
    ],
)
def test_what_export_cannot_do_is_one_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_what_is_no_run_is_told_from_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "bundle.yaml").touch()
    for name, words in (("scans", "name the folder that 'weakseg train' wrote"), ("b", f"write --from {tmp_path / 'b'}")):
        assert main(["export", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err
        assert "is not the folder of a training run (config.yaml is missing)" in told
        assert words in told


def test_a_run_or_wrong_scans_are_told_before_anything_else_is_asked_for(
    exported: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    for folder, more, words in (
        (tmp_path / "run", [], "is the folder of a training run and not a bundle; write it without --from"),
        (tmp_path / "none", [], "there is no such folder"),
        (exported.folder, [], "scans: name scans of the training data with --scans"),
        (exported.folder, ["--scans", str(tmp_path / "none")], f"{tmp_path / 'none'}: there is no such folder"),
    ):
        assert main(["export", "--from", str(folder), *more, "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err


def test_older_files_get_their_bytes_last_with_the_same_answers(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(export(tmp_path / "b", width=16).read("model.onnx"))
    images = np.random.default_rng(1).normal(size=(2, 5, 32, 64)).astype(np.float32)
    due = classes_of(content_of(model), images)
    nodes = {node.output[0]: node for node in model.graph.node}
    cast = nodes["class_id"]
    add = nodes[cast.input[0]]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.uint8(1), "one_byte"))
    best = add.input[0]
    add.CopyFrom(onnx.helper.make_node("Cast", [best], ["byte"], to=onnx.TensorProto.UINT8))
    cast.CopyFrom(onnx.helper.make_node("Add", ["byte", "one_byte"], ["class_id"]))
    np.testing.assert_array_equal(classes_of(content_of(model), images), due)
    mended = classes_to_bytes_last(model)
    assert [node.op_type for node in mended.graph.node if node.output[0] == "class_id"] == ["Cast"]
    np.testing.assert_array_equal(classes_of(content_of(mended), images), due)
    np.testing.assert_array_equal(classes_of(content_of(in_float32(mended)), images), due)


def test_auto_compares_what_the_bundle_has(exported: Bundle) -> None:
    labels = ("onnxruntime", "onnxruntime:int8")
    measured, refused = measure(exported, labels, 1)
    assert {each.label for each in measured} | {text.partition(": ")[0] for text in refused} == set(labels)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["fp32", *VARIANTS])
def test_tensorrt_rtx_builds_every_variant(exported: Bundle, variant: str) -> None:
    trt = optional("tensorrt_rtx")
    if variant not in exported.variants:
        pytest.skip(f"this net loses too much in {variant}")
    file = "model.onnx" if variant == "fp32" else f"model-{variant}.onnx"
    if variant == "int8":
        with pytest.raises(EngineError, match="tensorrt_rtx cannot read it"):
            build_plan(trt, exported.read(file), file, shapes_of(exported))
        return
    plan, _ = build_plan(trt, exported.read(file), file, shapes_of(exported))
    assert len(plan) > 10_000
    assert library_of(trt).startswith("tensorrt_rtx 1.")


@pytest.mark.slow
@pytest.mark.parametrize("net", ["salsanext", "rangenet21", "squeezesegv3"])
def test_tensorrt_rtx_builds_the_published_nets(net: str, tmp_path: Path) -> None:
    trt = optional("tensorrt_rtx")
    bundle = export(tmp_path / "b", net)
    base = in_float32(onnx.load_model_from_string(bundle.read("model.onnx")))
    images = np.random.default_rng(0).normal(size=(2, 5, 32, 64)).astype(np.float32)
    for content in (content_of(base), *(MAKERS[variant](in_float32(base), images) for variant in ("fp16", "int8-tensorrt"))):
        assert len(build_plan(trt, content, net, shapes_of(bundle))[0]) > 10_000


@pytest.mark.slow
def test_what_tensorrt_refuses_is_one_sentence(exported: Bundle) -> None:
    trt = optional("tensorrt_rtx")
    with pytest.raises(EngineError, match="m: tensorrt_rtx cannot read it"):
        build_plan(trt, b"no model", "m", shapes_of(exported))
    with pytest.raises(EngineError, match="which the bundle does not describe"):
        build_plan(trt, exported.read("model.onnx"), "m", {"picture": (1, 5, 32, 64)})
