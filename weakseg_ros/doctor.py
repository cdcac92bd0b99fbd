# SPDX-License-Identifier: Apache-2.0
"""`weakseg doctor`: what works on this machine, what is missing, and whether a model fits a sensor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from weakseg_ros.config import check_ranges, parse, setting
from weakseg_ros.errors import CloudError, WeaksegError
from weakseg_ros.files import environment, share_folder

Mark = Literal["ok", "note", "fault"]
SHM_NEEDED_BYTES = 64 * 2**20
"""a container's default; below it the tuned transport falls back to UDP, which costs tens of milliseconds a cloud"""


class Finding(NamedTuple):
    """One line of the report: `fault` = the robot or the trainer cannot work, `note` = an optional part is absent."""

    mark: Mark
    topic: str
    text: str


@dataclass(frozen=True)
class DoctorConfig:
    """Check this machine, and with --data whether a bundle fits a sensor."""

    bundle: str = "models/street64"
    """the model to check: a folder, or a name under models/"""
    data: Path | None = None
    """a bag or a folder of scans of your sensor, to compare with what the model was trained on"""
    topic: str = ""
    """topic of the clouds in the bag; empty = the only PointCloud2 topic"""
    clouds: int = setting(20, 1, 10000)
    """how many clouds to look at"""

    def __post_init__(self) -> None:
        check_ranges(self)


# library, what needs it, the extra that brings it
LIBRARIES = (
    ("numpy", "everything", ""),
    ("scipy", "everything", ""),
    ("onnxruntime", "the node's default engine", "onnx"),
    ("torch", "training, the torch engine", "train"),
    ("lightning-fabric", "training", "train"),
    ("onnx", "export", "train"),
    ("onnxscript", "export", "train"),
    ("safetensors", "training, the torch engine", "train"),
    ("rosbags", "bags", "bags"),
    ("jinja2", "reports", "report"),
    ("matplotlib", "reports", "report"),
    ("tensorrt", "NVIDIA engines", "tensorrt"),
)


def check_machine() -> Iterator[Finding]:
    """Python, cores, and the room in shared memory that large clouds travel through."""
    facts = environment()
    yield Finding("ok", "machine", facts["machine"])
    mark: Mark = "ok" if sys.version_info >= (3, 10) else "fault"
    yield Finding(mark, "python", f"{facts['python']} on {facts['system']} (3.10 or newer is needed)")
    if os.path.isdir("/dev/shm"):
        free = shutil.disk_usage("/dev/shm").free
        advice = (
            "" if free >= SHM_NEEDED_BYTES else "; large clouds will be slow or lost: start the container with --shm-size=256m"
        )
        yield Finding("ok" if not advice else "note", "shared memory", f"{free / 2**20:.0f} MiB free in /dev/shm{advice}")


def check_libraries() -> Iterator[Finding]:
    """Which of the Python libraries are here; only those that everything needs are a fault when absent."""
    for name, used_by, extra in LIBRARIES:
        try:
            yield Finding("ok", name, f"{metadata.version(name)} ({used_by})")
        except metadata.PackageNotFoundError:
            how = f"pip install 'weakseg_ros[{extra}]'" if extra else f"pip install {name}"
            yield Finding("note" if extra else "fault", name, f"absent; {used_by} needs it: {how}")


def check_ros() -> Iterator[Finding]:
    """Whether a node can start here: rclpy in a process of its own, since a broken one ends the process."""
    code = "import rclpy; from rclpy.utilities import get_rmw_implementation_identifier as i; print(i())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield Finding(
            "note", "rclpy", f"not importable ({reason}); source your ROS 2, or pip install 'weakseg_ros[ros-pip]' (x86-64)"
        )
        return
    distro = os.environ.get("ROS_DISTRO", "from PyPI")
    yield Finding("ok", "rclpy", f"{distro}, {done.stdout.strip()}")
    profile = os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE") or os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE")
    if profile:
        yield Finding("ok" if Path(profile).is_file() else "fault", "transport", f"profile {profile}")
    else:
        advice = "set the same in your LiDAR driver's shell, or clouds above 512 KB may be lost (docs/transport.md)"
        yield Finding("note", "transport", f"the node sets its own profile; {advice}")


def check_bundle(name: str) -> Iterator[Finding]:
    """Whether the model loads, and on which engine it would run."""
    from weakseg_ros.deploy.bundle import Bundle
    from weakseg_ros.deploy.engines import open_engine

    try:
        bundle = Bundle.load(name)
        engine, refused = open_engine(bundle)
    except WeaksegError as error:
        yield Finding("fault", "model", str(error))
        return
    spec = bundle.info.spec
    image = f"{spec.height} x {spec.width}, {spec.fov_down_deg}..{spec.fov_up_deg} deg"
    yield Finding("ok", "model", f"{bundle.info.name}, {image}, runs on {engine.name} ({engine.device})")
    yield from (Finding("note", "engine", text) for text in refused)
    engine.close()


def check_sensor(config: DoctorConfig, data: Path) -> Iterator[Finding]:
    """What the model would meet on this sensor that its training never showed it."""
    from weakseg_ros.deploy.bundle import Bundle
    from weakseg_ros.deploy.segmenter import Segmenter
    from weakseg_ros.measure.inputs import open_input

    segmenter = Segmenter(Bundle.load(config.bundle))
    seen, refused = 0, Counter[str]()
    for item in islice(open_input(data, segmenter.bundle.labels, config.topic), config.clouds):
        seen += 1
        try:
            segmenter.run(item.cloud)
        except CloudError as error:
            refused[str(error)] += 1
    yield from (Finding("fault", "sensor", f"{count} of {seen} clouds refused: {text}") for text, count in refused.items())
    differences = segmenter.domain_report()
    yield from (Finding("note", "sensor", sentence) for sentence in differences)
    if not refused and not differences:
        yield Finding("ok", "sensor", f"{seen} clouds of {data} look like what {segmenter.bundle.name} was trained on")
    segmenter.close()


def main(argv: Sequence[str]) -> int:
    """The verb: prints every finding; exit code 1 where one is a fault."""
    config = parse(DoctorConfig, argv, "doctor")
    share_folder()
    findings: list[Finding] = []
    checks = [check_machine(), check_libraries(), check_ros(), check_bundle(config.bundle)]
    if config.data is not None:
        checks.append(check_sensor(config, config.data))
    for check in checks:
        for finding in check:
            findings.append(finding)
            print(f"{finding.mark:>5}  {finding.topic:<17} {finding.text}")
    faults = sum(finding.mark == "fault" for finding in findings)
    print(f"\n{faults} faults; notes are optional parts." if faults else "\nNothing is wrong; notes are optional parts.")
    return 1 if faults else 0
