# SPDX-License-Identifier: Apache-2.0
"""Does the bundle fit these clouds, and may the adapted one take its place? Decided without a single label."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.improve.adapt.config import AdaptConfig
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.train.self_training import Look

MOST_OF_ONE_CLASS = 0.8
"""share of the points that one class may have before a model is taken to be lost"""
LEAST_STEADINESS = 0.6
LEAST_CONFIDENCE = 0.4
WORTH_KEEPING = 0.01
"""share of the points from which a class must not vanish"""
VANISHED = 0.1
"""of its share"""


def domain_of(bundle: Bundle, clouds: Sequence[Cloud], intensity_scale: float) -> tuple[list[str], list[str]]:
    """(where the clouds differ from the bundle's training data, what is plainly wrong with their frame or unit)."""
    segmenter = Segmenter(bundle, "torch", intensity_scale=intensity_scale, allow_no_intensity=True, instances="none")
    try:
        for cloud in clouds:
            segmenter.run(cloud)
        return segmenter.domain_report(), segmenter.wrong_geometry()
    finally:
        segmenter.close()


def misfits(look: Look, names: Sequence[str], wrong_geometry: Sequence[str]) -> list[str]:
    """Why the bundle is lost on these clouds, one sentence each; empty where its answers can teach."""
    found = list(wrong_geometry)
    share = max(look.class_share)
    if share > MOST_OF_ONE_CLASS:
        found.append(f"it classifies {share:.0%} of the points as {names[look.class_share.index(share)]}")
    if look.steadiness < LEAST_STEADINESS:
        found.append(f"only {look.steadiness:.0%} of the points keep their class when the cloud is rotated and mirrored")
    if look.confidence < LEAST_CONFIDENCE:
        found.append(f"its mean confidence is {look.confidence:.2f}")
    return found


def refusals(before: Look, after: Look, names: Sequence[str], config: AdaptConfig) -> list[str]:
    """Why the adapted model must not be written, one sentence each; empty where it may."""
    found = []
    if after.agreement < config.least_agreement:
        found.append(
            f"it agrees with the original model on {after.agreement:.0%} of the points, less than the "
            f"{config.least_agreement:.0%} of least_agreement"
        )
    if after.steadiness < before.steadiness - config.steadiness_drop:
        found.append(
            f"its predictions became less stable under rotation ({before.steadiness:.3f} before, {after.steadiness:.3f} after)"
        )
    for name, was, now in zip(names, before.class_share, after.class_share, strict=True):
        if was >= WORTH_KEEPING and now < VANISHED * was:
            found.append(f"{name} vanished: {was:.1%} of the points before, {now:.1%} after")
    return found
