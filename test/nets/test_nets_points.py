# SPDX-License-Identifier: Apache-2.0
"""RandLA-Net and the pyramid of its points: the published size, brute force beside it, and what a batch must not mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from weakseg_ros.deploy.frontends.points_numpy import LEVEL_PARTS
from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.randlanet import RandLaNet
from weakseg_ros.points.crops import Level, PointsSpec, pyramid

SPEC = PointsSpec(points=200, neighbours=6, ratios=(4, 2))
CHANNELS, CLASSES = 5, 4


def make_net(**options: int) -> RandLaNet:
    torch.manual_seed(0)
    return RandLaNet(CHANNELS, CLASSES, width=8, **{"layers": 2, **options})


def levels_of(xyz: np.ndarray) -> list[torch.Tensor]:
    """The pyramid of one crop as the net's further inputs."""
    return [torch.from_numpy(getattr(level, part))[None] for level in pyramid(xyz, SPEC) for part in LEVEL_PARTS]


def inputs_of(*seeds: int, points: int = 60) -> tuple[torch.Tensor, ...]:
    """Channels and pyramids of one crop for each seed."""
    crops = []
    for seed in seeds:
        xyz = np.random.default_rng(seed).normal(size=(points, 3)).astype(np.float32)
        generator = torch.Generator().manual_seed(seed)
        crops.append([torch.randn(1, CHANNELS, 1, points, generator=generator), *levels_of(xyz)])
    return tuple(torch.cat(parts) for parts in zip(*crops, strict=True))


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 90), neighbours=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_pyramid_is_what_brute_force_finds(count: int, neighbours: int, seed: int) -> None:
    xyz = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    spec = PointsSpec(points=200, neighbours=neighbours, ratios=(4, 3))
    for level, ratio in zip(pyramid(xyz, spec), spec.ratios, strict=True):
        kept = xyz[: max(len(xyz) // ratio, 1)]
        np.testing.assert_array_equal(level.xyz, xyz)
        check_nearest(xyz, xyz, level.neighbours)
        check_nearest(xyz, kept, level.nearest[:, None])
        np.testing.assert_array_equal(level.pool, level.neighbours[: len(kept)])
        xyz = kept


def check_nearest(xyz: np.ndarray, there: np.ndarray, found: np.ndarray) -> None:
    """`found` (P, k) are the k points of `there` nearest to each of `xyz`; the first again where there are fewer."""
    distance = np.linalg.norm(xyz[:, None].astype(float) - there[None], axis=2)
    expected = np.sort(distance, axis=1)[:, : found.shape[1]]
    missing = found.shape[1] - expected.shape[1]
    expected = np.concatenate([expected, np.repeat(expected[:, :1], max(missing, 0), axis=1)], axis=1)
    np.testing.assert_allclose(np.take_along_axis(distance, found.astype(np.int64), axis=1), expected, atol=1e-6)


def test_published_size() -> None:
    """The paper gives 1.24 million parameters for four levels and SemanticKITTI's 20 classes."""
    assert sum(p.numel() for p in RandLaNet(3, 20, layers=4).parameters()) == pytest.approx(1.24e6, rel=0.005)


def test_crops_of_a_batch_do_not_mix_in_eval() -> None:
    net = make_net().eval()
    both, alone = net(*inputs_of(1, 2)), net(*inputs_of(2))
    torch.testing.assert_close(both.logits[1:], alone.logits, atol=1e-5, rtol=1e-4)
    assert both.logits.shape == (2, CLASSES, 1, 60)
    assert both.features.shape == (2, net.feature_channels, 1, 60)
    assert tuple(stage.shape[1] for stage in both.stages) == net.stage_channels


def test_gradient_reaches_every_parameter() -> None:
    net = make_net()
    out = net(*inputs_of(1, 2))
    (out.logits * torch.randn_like(out.logits)).sum().backward()
    assert not [key for key, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_every_channel_and_every_place_matters() -> None:
    net, inputs = make_net().eval(), list(inputs_of(1))
    before = net(*inputs).logits
    for channel in range(CHANNELS):
        other = inputs[0].clone()
        other[:, channel] += 1.0
        assert not torch.allclose(net(other, *inputs[1:]).logits, before)
    moved = [inputs[0], inputs[1] * 1.1, *inputs[2:]]
    assert not torch.allclose(net(*moved).logits, before)


def test_state_survives_save_and_load() -> None:
    net, inputs = make_net(), inputs_of(1, 2)
    net(*inputs)  # moves the running statistics
    other = RandLaNet(CHANNELS, CLASSES, width=8, layers=2)
    other.load_state_dict(load(save(net.state_dict())))
    torch.testing.assert_close(other.eval()(*inputs).logits, net.eval()(*inputs).logits, rtol=0, atol=0)


def test_a_single_point_is_answered() -> None:
    level = Level(np.zeros((1, 3), np.float32), *(np.zeros(shape, np.int32) for shape in ((1, 6), (1, 6), (1,))))
    parts = [torch.from_numpy(getattr(level, part))[None] for part in LEVEL_PARTS]
    out = make_net().eval()(torch.zeros(1, CHANNELS, 1, 1), *parts, *parts)
    assert torch.isfinite(out.logits).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        RandLaNet(CHANNELS, CLASSES, width=6)
    with pytest.raises(ConfigError, match="1 to 5 levels, and 6"):
        RandLaNet(CHANNELS, CLASSES, layers=6)
    with pytest.raises(ConfigError, match="product is at most points"):
        PointsSpec(points=100, ratios=(4, 4, 4, 4))
