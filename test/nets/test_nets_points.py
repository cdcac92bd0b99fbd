# SPDX-License-Identifier: Apache-2.0
"""RandLA-Net and its pyramid of points, beside brute force; its bundle runs in torch alone and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.nets.point_pyramid import pyramid
from weakseg_ros.nets.randlanet import RandLaNet
from weakseg_ros.nets.settings import RandLaSettings
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.commands import export_main
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.train import train

MEAN, STD = (10.0, 1.0, 2.0, -1.0, 0.2), (12.0, 11.0, 7.0, 0.9, 0.1)


def image_of(xyz: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(P, 3) metres in the first pixels of a normalised (1, 5, H, W) image."""
    raw = torch.cat((xyz.norm(dim=1, keepdim=True), xyz, torch.full((len(xyz), 1), 0.5)), dim=1)
    image = torch.zeros(height * width, 5)
    image[: len(xyz)] = (raw - torch.tensor(MEAN)) / torch.tensor(STD)
    return image.T.reshape(1, 5, height, width)


def make_net(**options: int) -> RandLaNet:
    torch.manual_seed(0)
    net = RandLaNet(5, 4, width=8, **options)
    net.set_normalisation(MEAN, STD)
    return net


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(0, 90), min_size=1, max_size=4).filter(any),
    points=st.integers(1, 100),
    neighbours=st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
def test_pyramid_is_what_brute_force_finds(counts: list[int], points: int, neighbours: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clouds = [rng.normal(size=(count, 3)).astype(np.float32) for count in counts]
    levels, sampled, nearest = pyramid(clouds, [seed] * len(clouds), points, neighbours, depth=3)
    sampled, nearest = sampled.numpy(), nearest.numpy()
    whole, cloud_of = np.concatenate(clouds), np.repeat(np.arange(len(counts)), counts)
    assert len(set(sampled.tolist())) == sum(min(count, points) for count in counts)
    xyz, owner = whole[sampled], cloud_of[sampled]
    np.testing.assert_array_equal(levels[0].xyz, xyz)
    check_nearest(whole, cloud_of, xyz, owner, nearest[:, None])
    for level, sparser in zip(levels, [*levels[1:], None], strict=True):
        kept_xyz, kept_owner = xyz[level.kept.numpy()], owner[level.kept.numpy()]
        check_nearest(xyz, owner, xyz, owner, level.neighbours.numpy())
        check_nearest(xyz, owner, kept_xyz, kept_owner, level.nearest_kept.numpy()[:, None])
        for cloud in np.unique(owner):
            count = np.sum(owner == cloud)
            assert np.sum(kept_owner == cloud) == max(count // 4, min(count, neighbours))
        if sparser is not None:
            np.testing.assert_array_equal(sparser.xyz, kept_xyz)
        xyz, owner = kept_xyz, kept_owner


def check_nearest(xyz: np.ndarray, owner: np.ndarray, there: np.ndarray, there_owner: np.ndarray, found: np.ndarray) -> None:
    """`found` (P, k) are the k points of `there` nearest to each of `xyz` in its cloud; the first again where it has fewer."""
    distance = np.linalg.norm(xyz[:, None].astype(float) - there[None], axis=2)
    distance[owner[:, None] != there_owner[None]] = np.inf
    expected = np.sort(distance, axis=1)[:, : found.shape[1]]
    expected = np.pad(expected, ((0, 0), (0, found.shape[1] - expected.shape[1])), constant_values=np.inf)
    expected = np.where(np.isinf(expected), expected[:, :1], expected)
    np.testing.assert_allclose(np.take_along_axis(distance, found, axis=1), expected, atol=1e-6)


def test_published_size() -> None:
    """The paper gives 1.24 million parameters."""
    assert sum(p.numel() for p in RandLaNet(5, 20).parameters()) == pytest.approx(1.24e6, rel=0.03)


def test_where_a_point_lies_in_the_image_does_not_matter() -> None:
    """It is a net on points: the same points in other pixels get the same answers."""
    xyz = torch.randn(200, 3) * 10
    net = make_net().eval()
    out = net(image_of(xyz, 4, 60)).logits[0].flatten(1)[:, :200]
    again = net(image_of(xyz, 12, 40)).logits[0].flatten(1)[:, :200]
    torch.testing.assert_close(again, out, atol=1e-5, rtol=1e-4)


def test_neighbours_are_sought_in_metres() -> None:
    """Normalisation stretches z twelvefold against x; the net must not see neighbours through it."""
    xyz = torch.randn(300, 3) * torch.tensor([10.0, 10.0, 1.0])
    told, untold = make_net().eval(), make_net().eval()
    untold.set_normalisation([0.0] * 5, [1.0] * 5)
    image = image_of(xyz, 5, 60)
    assert not torch.allclose(told(image).logits, untold(image).logits, atol=1e-3)
    positions = []
    told.encoder[0].register_forward_pre_hook(lambda _, inputs: positions.append(inputs[1].xyz))
    told(image)
    torch.testing.assert_close(positions[0].sort(dim=0).values, xyz.sort(dim=0).values, atol=1e-4, rtol=1e-4)


def test_pixels_left_out_answer_as_their_nearest_point() -> None:
    pairs = torch.randn(100, 3) * 10
    xyz = torch.cat((pairs, pairs + 1e-4))  # each point twice, and only a part of them drawn
    out = make_net(points=60).eval()(image_of(xyz, 4, 50)).logits[0].flatten(1)
    same = (out[:, :100] - out[:, 100:200]).abs().amax(dim=0) < 1e-6
    assert same.float().mean() > 0.5
    assert len(out[:, :200].T.unique(dim=0)) <= 60


def test_draw_is_fixed_in_eval_and_new_in_training() -> None:
    image = image_of(torch.randn(200, 3) * 10, 4, 50)
    net = make_net(points=50).eval()
    torch.testing.assert_close(net(image).logits, net(image).logits, rtol=0, atol=0)
    net.train().dropout.eval()
    torch.manual_seed(5)
    first, second = net(image).logits, net(image).logits
    torch.manual_seed(5)
    torch.testing.assert_close(net(image).logits, first, rtol=0, atol=0)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("count", [0, 1, 2, 17])
@pytest.mark.parametrize("training", [False, True])
def test_images_almost_without_points_are_answered(count: int, training: bool) -> None:
    net = make_net().train(training)
    out = net(torch.cat((image_of(torch.randn(count, 3), 4, 8), torch.zeros(1, 5, 4, 8))))
    assert torch.isfinite(out.logits).all()
    assert not out.features.flatten(2)[..., count:].any()
    out.logits.sum().backward()
    assert all(torch.isfinite(tensor).all() for tensor in net.state_dict().values())


def test_it_trains_and_its_bundle_runs_in_torch_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = LabelMap("two", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i * 10,)) for i in range(3)))
    rng = np.random.default_rng(0)
    spec = RangeSpec(height=8, width=32, fov_up_deg=20.0, fov_down_deg=-20.0)
    with ScanWriter(tmp_path / "scans", labels, spec, source="test", seed=0, intensity_full_scale=1.0) as writer:
        for _ in range(4):
            azimuth, inclination = rng.uniform(-np.pi, np.pi, 400), np.radians(rng.uniform(-19, 19, 400))
            xyz = np.stack([np.cos(azimuth), np.sin(azimuth), np.tan(inclination)], 1) * rng.uniform(3, 20, (400, 1))
            writer.write(make_cloud(xyz, rng.random(400)), np.where(inclination > 0, 10, 20).astype(np.uint32))
    options = {"points": 100, "neighbours": 8}
    config = TrainConfig(
        data=tmp_path / "scans", out=tmp_path / "run", net="randlanet", net_width=8, randlanet=RandLaSettings(**options),
        steps=3, warmup_steps=1,
        validate_every=0, accelerator="cpu", precision="32-true",
    )  # fmt: skip
    train(config)
    assert export_main([str(tmp_path / "run"), "--out", str(tmp_path / "bundle")]) == 0
    assert "no ONNX file: net 'randlanet' searches neighbours" in capsys.readouterr().out
    bundle = Bundle.load(tmp_path / "bundle")
    assert list(bundle.info.files) == ["weights.safetensors"]
    assert bundle.info.net.kwargs == {"width": 8, **options}
    assert "Runs in torch only" in (bundle.folder / "MODEL_CARD.md").read_text()
    answer = Segmenter(bundle).run(open_scans(tmp_path / "scans")[0].cloud)
    assert np.mean(answer.class_id > 0) > 0.99
