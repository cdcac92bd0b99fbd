# SPDX-License-Identifier: Apache-2.0
"""`weakseg label`: the labelling page, with objects found by rule or by what a training learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weakseg_ros.config import parse
from weakseg_ros.errors import ConfigError
from weakseg_ros.extras import need
from weakseg_ros.improve.label.serve import LabelConfig, serve
from weakseg_ros.weak.masks_by_rule import segment_from_clicks

if TYPE_CHECKING:
    from weakseg_ros.improve.label.masks import MasksOfClicks


def main(argv: Sequence[str]) -> int:
    """Serve the page until Ctrl+C."""
    config = parse(LabelConfig, argv, "label")
    need("viser")
    return serve(config, _masks_of_clicks(config.objects))


def _masks_of_clicks(run: Path | None) -> MasksOfClicks:
    if run is None:
        return segment_from_clicks
    from weakseg_ros.train.click_segmenter import ClickSegmenter  # needs torch, the rule does not

    segmenter = ClickSegmenter(run)
    if not segmenter.learned:
        raise ConfigError(
            f"objects: {run} is a training without learned objects; name a run folder of the method point_panoptic, "
            "or leave --objects out"
        )
    return segmenter.segment
