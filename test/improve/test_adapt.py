# SPDX-License-Identifier: Apache-2.0
"""`weakseg adapt`: what is written is a whole bundle that still agrees, what is not is said, and more steps undo nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import optional

torch = optional("torch")
optional("onnx")

from weakseg_ros import registry
from weakseg_ros.cli import main
from weakseg_ros.deploy.bundle import Bundle, BundleInfo, NetRule, Provenance, TrainingStatistics
from weakseg_ros.deploy.engines.torch import load_graph, rules_of
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import DataError
from weakseg_ros.improve.adapt.adapt import adapt
from weakseg_ros.improve.adapt.clouds import read_clouds
from weakseg_ros.improve.adapt.config import AdaptConfig
from weakseg_ros.improve.adapt.verdict import misfits, refusals
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.nets.light import LightNet
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.adapt_settings import AdaptSettings
from weakseg_ros.train.adapted import mean_confidence, watch
from weakseg_ros.train.cloud_views import CloudViews, tensor_of
from weakseg_ros.train.export import export_bundle
from weakseg_ros.train.self_training import Look, re_estimate, self_train

LABELS = LabelMap(
    "street", tuple(LabelClass(i, n, (i, i, i), n == "car", (i,)) for i, n in enumerate(("none", "road", "wall", "car")))
)
SPEC = InputSpec(
    geometry=RangeSpec(16, 64, fov_up_deg=10.0, fov_down_deg=-25.0),
    channels=("range", "z", "intensity"),
    mean=(10.0, 0.0, 0.5),
    std=(8.0, 1.0, 0.3),
    intensity=IntensityRule(required=True),
)


def street(seed: int) -> Cloud:
    """Ground 1.7 m below the sensor, and a wall 12 m away on one side."""
    rng = np.random.default_rng(seed)
    azimuth, inclination = rng.uniform(-np.pi, np.pi, 3000), np.radians(rng.uniform(-25, 10, 3000))
    distance = np.where(inclination < -0.06, 1.7 / np.sin(np.maximum(-inclination, 0.06)), np.inf)
    wall = 12.0 / np.maximum(np.sin(azimuth), 1e-3) / np.cos(inclination)
    distance = np.minimum(np.minimum(distance, wall), 40.0)
    unit = np.stack((np.cos(azimuth) * np.cos(inclination), np.sin(azimuth) * np.cos(inclination), np.sin(inclination)), 1)
    return make_cloud(unit * distance[:, None], rng.random(3000), intensity_full_scale=1.0)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    (folder / "velodyne").mkdir()
    for i in range(6):
        cloud = street(i)
        np.column_stack((cloud.xyz, cloud.intensity)).astype(np.float32).tofile(folder / "velodyne" / f"{i:06d}.bin")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A net that tells ground from what stands, by a few steps on heights, with a novelty head behind it."""
    torch.manual_seed(0)
    net = LightNet(3, len(LABELS.classes), width=16)
    info = BundleInfo(
        name="tiny", input=SPEC, labels=LABELS, net=NetRule("light", {"width": 16}), statistics=TrainingStatistics()
    )
    views = CloudViews(info, SPEC, [street(i) for i in range(10, 14)])
    seen = [views.whole(cloud) for cloud in views.clouds]
    images = torch.stack([tensor_of(one)[0] for one in seen])
    truth = torch.from_numpy(np.stack([np.where(one.mask, 1 + (one.xyz[2] > -1.5), 0) for one in seen])).long()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images).logits, truth, ignore_index=0).backward()
        optimizer.step()
    heads = Heads([registry.load(registry.HEADS, "novelty").behind(net, len(LABELS.classes), dim=8, hidden=12, prototypes=3)])
    info = dataclasses.replace(info, heads=rules_of(heads), outputs={}, provenance=Provenance(command="weakseg train streets"))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return export_bundle(net.eval(), info, folder, images.numpy(), heads=heads.eval())


def settings(scans: Path, bundle: Bundle, tmp_path: Path, **changes: Any) -> AdaptConfig:
    usual: dict[str, Any] = {"steps": 4, "check_every": 2, "guard_clouds": 2, "crop_columns": 32, "least_agreement": 0.5}
    return AdaptConfig(
        data=(scans,), bundle=str(bundle.folder), out=tmp_path / "mine", report=tmp_path / "report", **{**usual, **changes}
    )


def test_a_whole_bundle_is_written_with_heads_report_and_provenance(scans: Path, bundle: Bundle, tmp_path: Path) -> None:
    summary = adapt(settings(scans, bundle, tmp_path))
    new = Bundle.load(tmp_path / "mine")
    assert not summary["refused"]
    assert new.info.heads == bundle.info.heads
    assert new.info.parity["class_agreement"] >= 0.999
    assert new.info.provenance.command.startswith("weakseg train streets && weakseg adapt")
    assert summary["after"]["agreement"] >= 0.5
    assert sum(row["after"] for row in summary["classes"]) == pytest.approx(1.0)
    assert json.loads((tmp_path / "report" / "summary.json").read_text()) == summary
    page = tmp_path / "report" / "report.html"
    assert "Points by class" in page.read_text()
    assert page.stat().st_mtime_ns <= (tmp_path / "mine").stat().st_ctime_ns, "with a bundle there, nothing is missing"
    segmenter = Segmenter(new)
    answer = segmenter.run(street(0))
    segmenter.close()
    assert (answer.class_id > 0).mean() > 0.9
    assert Bundle.load(bundle.folder).content_hash == bundle.content_hash


def test_what_no_longer_agrees_is_refused_with_the_reason_and_not_written(
    scans: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bundle", str(bundle.folder), "--out", str(tmp_path / "mine"), "--report", str(tmp_path / "report")]
    words += ["--steps", "0", "--statistics-share", "1", "--least-agreement", "1", "--guard-clouds", "2"]
    assert main(["adapt", str(scans), *words]) == 1
    assert not (tmp_path / "mine").exists()
    assert "refused, it agrees with the original model on" in capsys.readouterr().err
    assert "Refused: nothing was written" in (tmp_path / "report" / "report.html").read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "report"]


def test_a_model_that_does_not_fit_is_named_and_not_self_trained(scans: Path, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="DOES NOT FIT THESE CLOUDS"):
        adapt(settings(scans, bundle, tmp_path, rotation_rpy_deg=(180.0, 0.0, 0.0)))
    assert not (tmp_path / "mine").exists()


def test_too_few_clouds_are_one_sentence(scans: Path, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "one" / "velodyne").mkdir(parents=True)
    file = "velodyne/000000.bin"
    (tmp_path / "one" / file).write_bytes((scans / file).read_bytes())
    with pytest.raises(DataError, match="1 cloud can be used; 2 are the minimum"):
        adapt(settings(tmp_path / "one", bundle, tmp_path))


def test_the_guard_has_clouds_of_its_own_where_there_are_enough(scans: Path, bundle: Bundle, tmp_path: Path) -> None:
    clouds = read_clouds(settings(scans, bundle, tmp_path, guard_clouds=2))
    assert (len(clouds.train), len(clouds.guard), clouds.found) == (4, 2, 6)
    few = read_clouds(settings(scans, bundle, tmp_path, guard_clouds=3))
    assert (len(few.train), len(few.guard)) == (6, 3)
    assert len(read_clouds(settings(scans, bundle, tmp_path, max_clouds=3, guard_clouds=1)).train) == 2


def test_a_long_run_that_goes_astray_keeps_what_was_good(bundle: Bundle) -> None:
    """With an absurd learning rate the net is lost at once; what comes back is the net that it began from."""
    clouds = [street(i) for i in range(4)]
    wild = AdaptSettings(steps=6, check_every=3, learning_rate=5.0, anchor=0.0, crop_columns=32, least_agreement=0.9)
    watched = watch(bundle, clouds, clouds[:2], wild)
    best, trace = self_train(watched.net, bundle.info, watched.views, watched.guard, wild)
    assert trace.stopped
    assert trace.steps == 3
    for ours, theirs in zip(best.parameters(), watched.net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_statistics_are_mixed_by_their_share(bundle: Bundle) -> None:
    net = load_graph(bundle).net
    views = CloudViews(bundle.info, SPEC, [street(i) for i in range(3)])
    images = [views.whole(cloud) for cloud in views.clouds]
    own = net.stem[1].running_mean.clone()
    with torch.no_grad():
        theirs = torch.stack([net.stem[0](tensor_of(seen)).mean((0, 2, 3)) for seen in images]).mean(0)
    re_estimate(net, images, 0.25)
    torch.testing.assert_close(net.stem[1].running_mean, 0.75 * own + 0.25 * theirs, atol=1e-5, rtol=1e-4)
    assert net.stem[1].momentum == 0.1
    assert not net.training


def test_normalisation_is_measured_on_the_clouds(bundle: Bundle) -> None:
    clouds = [dataclasses.replace(street(i), intensity=3.0 * street(i).intensity) for i in range(3)]
    watched = watch(bundle, clouds, clouds[:1], AdaptSettings(normalise="intensity"))
    values = np.concatenate([seen.image[2][seen.mask] for seen in watched.images])
    assert values.mean() == pytest.approx(0.0, abs=1e-3)
    assert values.std() == pytest.approx(1.0, abs=1e-3)
    assert watched.spec.mean[:2] == SPEC.mean[:2]


def test_the_adapted_model_is_not_surer_than_the_one_before(scans: Path, bundle: Bundle, tmp_path: Path) -> None:
    config = settings(scans, bundle, tmp_path)
    adapt(config)
    clouds = read_clouds(config).guard
    watched = watch(bundle, clouds, clouds, config)
    new = Bundle.load(tmp_path / "mine")
    after = mean_confidence(watched.guard.logits(load_graph(new).net), new.info.temperature)
    before = mean_confidence(watched.guard.logits(watched.net), bundle.info.temperature)
    assert after <= before + 1e-3


GOOD = Look(0, 1.0, 0.9, 0.7, (0.0, 0.5, 0.3, 0.2))


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (GOOD, ""),
        (dataclasses.replace(GOOD, steadiness=0.4), "keep their class"),
        (dataclasses.replace(GOOD, class_share=(0.0, 0.05, 0.05, 0.9)), "it classifies 90% of the points as car"),
        (dataclasses.replace(GOOD, confidence=0.2), "mean confidence"),
    ],
)
def test_a_misfit_is_said_in_words(look: Look, words: str) -> None:
    found = misfits(look, LABELS.names, [])
    assert bool(found) == bool(words)
    assert words in " ".join(found)


def test_a_class_that_vanishes_is_a_reason_to_refuse() -> None:
    after = dataclasses.replace(GOOD, class_share=(0.0, 0.6, 0.39, 0.01))
    assert refusals(GOOD, after, LABELS.names, AdaptConfig()) == ["car vanished: 20.0% of the points before, 1.0% after"]
    assert not refusals(GOOD, GOOD, LABELS.names, AdaptConfig())
