# SPDX-License-Identifier: Apache-2.0
"""A disk that fills up, a running log, and scans to label."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import bare_scans, logged_frames, night, optional, street_scene
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.improve.log import recorder
from weakseg_ros.improve.log.admission import LogSettings
from weakseg_ros.improve.log.recorder import FrameLog
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import SensorModel


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount, folder = shutil.which("mount"), tmp_path / "disk"
    folder.mkdir()
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, check=False)
    if not made or made.returncode:
        pytest.skip("mounting a tmpfs of 4 MiB takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[logged_frames.Start]:
    """Open a log that keeps all it can unless told otherwise; `log.words` has what it said. A short retry saves waiting."""
    monkeypatch.setattr(recorder, "RETRY_S", 0.05)
    opened: list[FrameLog] = []

    def run(folder: Path, **changes: Any) -> FrameLog:
        words: list[tuple[str, bool]] = []
        settings = LogSettings(folder=str(folder), **{**logged_frames.ALL, **changes})
        log = FrameLog(settings, logged_frames.LABELS, RangeSpec(), say=lambda text, is_fault: words.append((text, is_fault)))
        log.words = words  # type: ignore[attr-defined]
        opened.append(log)
        return log

    yield run
    for log in opened:
        log.close()


@pytest.fixture(scope="session")
def cloud() -> Cloud:
    """What a LiDAR sees of a plane, a car and a person."""
    return street_scene.scene()


@pytest.fixture
def street_folder(tmp_path: Path, cloud: Cloud) -> Path:
    """Two scans of the car and the person that nobody has looked at."""
    return street_scene.write_twice(tmp_path / "drive", cloud)


@pytest.fixture
def bare_folder(tmp_path: Path) -> Path:
    """Three small scans without labels."""
    return bare_scans.write_scans(tmp_path / "drive")


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans of a coarse sensor on the simulated street."""
    folder = tmp_path_factory.mktemp("label") / "street"
    sensor = SensorModel(name="coarse", beams=32, columns=512)
    spec = RangeSpec(height=32, width=512)
    with ScanWriter(folder, street_scene.STREET, spec, source="test", seed=7, intensity_full_scale=1.0) as out:
        for scan in simulate(SimulateConfig(seed=7, scans=2, stride=10, sensor=sensor)):
            out.write(scan.cloud, pose=scan.pose)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was trained by day, and frames of the night."""
    optional("torch")
    from weakseg_ros.batches.settings import AugmentConfig
    from weakseg_ros.train.config import TrainConfig
    from weakseg_ros.train.export import export_run
    from weakseg_ros.train.train import train

    root = tmp_path_factory.mktemp("world")
    night.write(root / "day", 10, night=False, seed=1)
    night.write(root / "night", 10, night=True, seed=2)
    augment = AugmentConfig(flip=0.0, turn=0.0, tilt_deg=0.0, intensity_gain=0.0, mix=0.0)
    config = TrainConfig(
        data=root / "day", out=root / "run", net_width=16, channels=("z", "intensity"), augment=augment, steps=80, warmup_steps=8,
        batch_size=4, learning_rate=1e-2, validate_every=0, precision="32-true", accelerator="cpu",
    )  # fmt: skip
    export_run(train(config).path, root / "models" / "toy", half=True)
    return root


@pytest.fixture
def place(world: Path, tmp_path: Path) -> Path:
    """A folder of one's own: the models, and a log of the night without truth."""
    night.write(tmp_path / "log", 10, night=True, seed=2, labelled=False)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy").symlink_to(world / "models" / "toy")
    return tmp_path
