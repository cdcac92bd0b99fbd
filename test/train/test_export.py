# SPDX-License-Identifier: Apache-2.0
"""An exported bundle answers as the network it came from, is as sure as it is right, and says where it comes from."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path

import numpy as np
import pytest

from support import optional

torch = optional("torch")
onnx = optional("onnx")
optional("onnxruntime")

from weakseg_ros.cli import main
from weakseg_ros.config import parse
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle, BundleInfo, NetRule
from weakseg_ros.deploy.engines.choice import open_engine
from weakseg_ros.deploy.engines.torch import stores_half
from weakseg_ros.deploy.graph import DeployGraph
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import BundleError, DataError, WeaksegError
from weakseg_ros.methods.settings import Coarse3dSettings, SupervisedSettings
from weakseg_ros.nets.light import LightNet
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train import export as exporting
from weakseg_ros.train.calibrate import fit_temperature
from weakseg_ros.train.commands import export_main
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import command_of, export_bundle, export_run
from weakseg_ros.train.onnx_file import compare, export_onnx
from weakseg_ros.train.train import train

LABELS = LabelMap("four", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i * 10,)) for i in range(4)))
SPEC = RangeSpec(height=8, width=32, fov_up_deg=20.0, fov_down_deg=-20.0)
INFO = BundleInfo(
    name="small",
    input=InputSpec(
        geometry=SPEC, channels=("range", "z"), mean=(10.0, 0.0), std=(5.0, 2.0), intensity=IntensityRule(required=False)
    ),
    labels=LABELS,
    net=NetRule("light", {"width": 16}),
    temperature=0.7,
    metrics={"miou": np.float32(0.5), "class_iou": {"class 1": 0.9, "class 2": float("nan"), "class 3": 0.1}},
)


@pytest.fixture(scope="module")
def net() -> LightNet:
    torch.manual_seed(0)
    made = LightNet(2, 4, width=16)
    torch.nn.init.normal_(made.classifier.weight, std=0.3)
    made(torch.randn(4, 2, 8, 32))  # running statistics of its own
    return made.train()


@pytest.fixture(scope="module")
def whole(net: LightNet, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(net, INFO, tmp_path_factory.mktemp("whole") / "small", images())


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2, 8, 32)).astype(np.float32)


def test_bundle_answers_as_the_network(net: LightNet, whole: Bundle) -> None:
    assert whole.info.parity["images"] == 3
    assert whole.info.parity["class_agreement"] == 1.0
    assert whole.info.parity["max_difference"] < 1e-5
    with torch.inference_mode():
        logits = net.eval()(torch.from_numpy(images())).logits[:, 1:]
    net.train()
    for name in ("onnxruntime", "torch"):
        engine, _ = open_engine(whole, [name])
        answers = engine.run({"image": images()})
        np.testing.assert_array_equal(answers["class_id"], logits.argmax(1).numpy() + 1)
        np.testing.assert_allclose(answers["confidence"], (logits / 0.7).softmax(1).amax(1).numpy(), atol=1e-5)


def test_half_precision_halves_the_bundle(net: LightNet, whole: Bundle, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    half = export_bundle(net, INFO, tmp_path / "half", images(), half=True)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    for name in ("model.onnx", "weights.safetensors"):
        assert len(half.read(name)) < 0.6 * len(whole.read(name))
    assert stores_half(half)
    assert not stores_half(whole)
    assert 0 < half.info.parity["max_difference"] < 0.02
    answers = [open_engine(half, [name])[0].run({"image": images()})["confidence"] for name in ("onnxruntime", "torch")]
    np.testing.assert_allclose(answers[0], answers[1], atol=0.02)


def test_onnx_file_is_made_quietly_self_contained_and_tells_no_paths(
    net: LightNet, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = export_onnx(DeployGraph(net, 4).eval(), INFO)
    assert capfd.readouterr() == ("", "")
    assert str(root).encode() not in content
    assert b"site-packages" not in content
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"num_classes": "4", "channels": "range,z"}
    assert not any(weight.external_data for weight in model.graph.initializer)


def test_a_file_that_answers_otherwise_is_not_written(whole: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = LightNet(2, 4, width=16).eval()
    model = whole.read("model.onnx")
    assert compare(DeployGraph(other, 4), model, images())["max_difference"] > 1e-3
    monkeypatch.setattr(exporting, "export_onnx", lambda *_: model)
    with pytest.raises(BundleError, match="predictions differ from torch's"):
        export_bundle(other, INFO, tmp_path / "small", images())
    assert os.listdir(tmp_path) == []


def test_model_card_says_how_well_and_where_not(whole: Bundle) -> None:
    card = (whole.folder / "MODEL_CARD.md").read_text()
    assert "| class 1 | 0.9 |" in card
    assert "Weak classes, by IoU: class 3 (0.1)" in card
    assert "Classes without validation points, whose quality is unknown: class 2" in card
    assert "-20 to 20 deg" in card


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 2.5])
def test_temperature_is_found(true_temperature: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20_000, 5)) * 3
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    truth = (p.cumsum(1) > rng.random((20_000, 1))).argmax(1) + 1
    logits = np.concatenate([rng.normal(size=(20_000, 1)) * 50, scores * true_temperature], 1)
    fit = fit_temperature(torch.from_numpy(logits), torch.from_numpy(truth))
    assert fit.temperature == pytest.approx(true_temperature, rel=0.05)
    assert fit.nll_after <= fit.nll_before
    assert fit.ece_after < 0.02
    assert fit.ece_before == pytest.approx(fit.ece_after, abs=0.01) or fit.ece_before > 2 * fit.ece_after


def test_calibration_needs_labels() -> None:
    with pytest.raises(DataError, match="no labelled point"):
        fit_temperature(torch.zeros(0, 4), torch.zeros(0))


def write_scans(folder: Path) -> None:
    """Scans whose class follows from the height."""
    rng = np.random.default_rng(0)
    with ScanWriter(folder, LABELS, SPEC, source="test", seed=0, intensity_full_scale=1.0) as writer:
        for _ in range(10):
            azimuth, inclination = rng.uniform(-np.pi, np.pi, 600), np.radians(rng.uniform(-19, 19, 600))
            xyz = np.stack([np.cos(azimuth), np.sin(azimuth), np.tan(inclination)], 1) * rng.uniform(3, 20, (600, 1))
            raw = np.where(inclination > 0.1, 10, np.where(inclination < -0.1, 20, 30)).astype(np.uint32)
            writer.write(make_cloud(xyz, rng.random(600)), raw)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `scans` and a `run` on them."""
    folder = tmp_path_factory.mktemp("trained")
    write_scans(folder / "scans")
    config = TrainConfig(data=folder / "scans", out=folder / "run", net_width=16, steps=6, warmup_steps=1, validate_every=0)
    train(dataclasses.replace(config, accelerator="cpu", precision="32-true", learning_rate=0.01))
    return folder


def test_run_becomes_a_bundle_that_segments_its_scans(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_main([str(trained / "run"), "--out", str(tmp_path / "yard"), "--name", "our yard"]) == 0
    said = capsys.readouterr().out
    assert "our yard" in said
    assert "class_agreement 1" in said
    bundle = Bundle.load(tmp_path / "yard")
    info = bundle.info
    assert (info.name, info.labels, info.input.channels) == ("our yard", LABELS, ("range", "x", "y", "z", "intensity"))
    assert info.input.intensity == IntensityRule(required=True, full_scale=1.0)
    assert info.metrics["nll_after"] <= info.metrics["nll_before"]
    assert info.temperature != 1.0
    assert info.provenance.command == (
        f"weakseg train {trained / 'scans'} --net-width 16 --steps 6 --learning-rate 0.01 --warmup-steps 1 "
        "--validate-every 0 --precision 32-true --accelerator cpu"
    )
    segmenter = Segmenter(bundle)
    answer = segmenter.run(open_scans(trained / "scans")[0].cloud)
    assert np.mean(answer.class_id > 0) > 0.99
    assert segmenter.domain_report() == []


def test_an_export_that_ends_before_its_variants_leaves_no_bundle_that_lacks_them(trained: Path, tmp_path: Path) -> None:
    """The next start would refuse to replace it."""
    command = [str(trained / "run"), "--out", str(tmp_path / "yard")]
    assert main(["export", *command, "--scans", str(tmp_path / "gone")]) == 2
    assert os.listdir(tmp_path) == []
    assert main(["export", *command, "--variants", "fp16"]) == 0
    assert Bundle.load(tmp_path / "yard").variants == ("fp32", "fp16")
    assert os.listdir(tmp_path) == ["yard"]


def test_what_the_method_learnt_for_the_robot_is_in_the_bundle(tmp_path: Path) -> None:
    """The averaged prototypes of the best validation, and novelty that both engines agree on."""
    write_scans(tmp_path / "scans")
    config = TrainConfig(
        data=tmp_path / "scans", out=tmp_path / "run", method="coarse3d", coarse3d=Coarse3dSettings(embedding=16, warmup=0.0),
        net_width=16, steps=4, warmup_steps=1, validate_every=2, batch_size=2, accelerator="cpu", precision="32-true",
    )  # fmt: skip
    run = train(config)
    kept, last = run.load_best_heads(), run.load_last()[0]
    assert kept["parts.0.bank.moved"].any(dim=1).all()
    assert kept.keys() == last["extra"].keys()
    assert last["method"]["parts.coarse3d.bank.keys"].shape == kept["parts.0.bank.keys"].shape
    bundle = export_run(run.path, tmp_path / "b", scans=2)
    assert bundle.info.head_names == ("novelty",)
    assert bundle.info.parity["novelty_difference"] < 1e-4
    assert "a novelty score" in (bundle.folder / "MODEL_CARD.md").read_text()
    cloud = open_scans(tmp_path / "scans")[0].cloud
    ours, theirs = (Segmenter(bundle, engine).run(cloud).novelty for engine in ("onnxruntime", "torch"))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert 0.0 <= ours.min() < ours.max() <= 1.0
    resumed = train(dataclasses.replace(config, resume=True))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in resumed.load_best_heads().items())


def test_a_run_without_the_methods_tensors_becomes_a_plain_bundle(tmp_path: Path) -> None:
    write_scans(tmp_path / "scans")
    config = TrainConfig(
        data=tmp_path / "scans", out=tmp_path / "run", method="coarse3d", coarse3d=Coarse3dSettings(novelty=False),
        net_width=16, steps=1, warmup_steps=0, validate_every=0, batch_size=2, accelerator="cpu", precision="32-true",
    )  # fmt: skip
    run = train(config)
    assert run.load_best_heads() == {}
    settings = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(settings.replace("novelty: false", "novelty: true"))  # as an older version's run
    assert export_run(run.path, tmp_path / "b", scans=2).info.heads == ()


def test_heads_laid_out_as_in_another_version_are_one_sentence(tmp_path: Path) -> None:
    """A run whose best weights name the method's tensors without the head that they belong to today."""
    write_scans(tmp_path / "scans")
    config = TrainConfig(
        data=tmp_path / "scans", out=tmp_path / "run", method="coarse3d", coarse3d=Coarse3dSettings(embedding=16),
        net_width=16, steps=1, warmup_steps=0, validate_every=0, batch_size=2, accelerator="cpu", precision="32-true",
    )  # fmt: skip
    run = train(config)
    (weights, figures), heads = run.load_best(), run.load_best_heads()
    run.save_best(weights, figures, {name.removeprefix("parts.0."): tensor for name, tensor in heads.items()})
    with pytest.raises(WeaksegError, match=r"another layout of the weights of the heads; .* start a new one"):
        export_run(run.path, tmp_path / "b", scans=2)


def test_command_repeats_the_training() -> None:
    config = TrainConfig(Path("drive"), out=Path("x"), resume=True, channels=("range", "z"), method="coarse3d")
    config = dataclasses.replace(
        config, coarse3d=Coarse3dSettings(anchors=9, novelty=False), supervised=SupervisedSettings(gamma=0.5)
    )
    config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, where="points"))
    command = command_of(config)
    parsed = parse(TrainConfig, command.split()[2:], "train")
    assert parsed == dataclasses.replace(config, out=TrainConfig().out, resume=False)


def test_command_repeats_the_training_on_data_whose_path_has_spaces() -> None:
    config = TrainConfig(Path("my drives/anna's"), sparse_labels=Path("my drives/a && b"), split="first part")
    words = shlex.split(command_of(config))
    assert parse(TrainConfig, words[2:], "train") == config


def test_no_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match="cannot be read"):
        export_run(tmp_path / "nothing", tmp_path / "b")
