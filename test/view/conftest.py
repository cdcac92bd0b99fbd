# SPDX-License-Identifier: Apache-2.0
"""What is looked at: a folder of scans, and one scan with an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import optional
from support.viewed_scans import LABELS, SCANS, answer_of, cloud_of, truth_of
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.points.projection import RangeSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "scans"
    class_id, instance = truth_of()
    raw = LABELS.to_raw(class_id).astype(np.uint32) | instance.astype(np.uint32) << 16
    with ScanWriter(path, LABELS, RangeSpec(16, 64), source="test", seed=0, intensity_full_scale=1.0) as out:
        for index in range(SCANS):
            out.write(cloud_of(index), raw)
    return path


@pytest.fixture
def shown() -> Any:
    """A `Shown`: a scan of which the model calls the person a car."""
    optional("onnxruntime")
    from weakseg_ros.view.frames import Shown

    class_id, instance = truth_of()
    said = class_id.copy()
    said[40:60] = 2
    return Shown("000000", cloud_of(0), class_id, instance, (answer_of(said),))
