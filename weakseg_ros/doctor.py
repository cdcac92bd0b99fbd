# SPDX-License-Identifier: Apache-2.0
"""`weakseg doctor`: what works on this machine, what is missing, and whether a model fits a sensor.

It runs where hardly anything is installed: with the standard library and PyYAML.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_type_hints

from weakseg_ros.config import field_docs, from_mapping, load_yaml, refuse_more_paths, setting
from weakseg_ros.data.ray_settings import RaySettings
from weakseg_ros.environment import environment
from weakseg_ros.errors import WeaksegError, say
from weakseg_ros.extras import LIBRARIES, Library, explain, has_nvidia_gpu, install_command, pip_install
from weakseg_ros.files import share_folder
from weakseg_ros.registry import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from weakseg_ros.deploy.bundle import Bundle
    from weakseg_ros.measure.inputs import Input

Mark = Literal["ok", "note", "fault"]
SENSOR = "sensor"
SHM_NEEDED_BYTES = 64 * 2**20
"""a container's default; below it the tuned transport falls back to UDP, which costs tens of milliseconds a cloud"""


class CheckLine(NamedTuple):
    """One line of the report: `fault` = the robot or the trainer cannot work, `note` = an optional part is absent."""

    mark: Mark
    topic: str
    text: str


@dataclass(frozen=True)
class DoctorConfig(RaySettings):
    """Check this machine, and with --data whether a bundle fits a sensor."""

    bundle: str = DEFAULT_BUNDLE
    """Names the model to check: the path of its folder, or the name of an installed one."""
    data: tuple[Path, ...] = ()
    """Lists bags, folders of bags or a folder of scans from your sensor, which are compared with the model's training data."""
    topic: str = ""
    """Names the topic of the clouds in the bag; it may be empty if there is only one."""
    clouds: int = setting(20, 1, 10000)
    """Sets the number of clouds to check (1 to 10000)."""

    @classmethod
    def from_older(cls, mapping: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """A file that was written when `data` was one path."""
        data = mapping.get("data", ())
        return {**mapping, "data": [data]} if isinstance(data, str) else mapping


def check_machine() -> Iterator[CheckLine]:
    """Python, cores, and the room in shared memory that large clouds travel through."""
    facts = environment()
    yield CheckLine("ok", "machine", facts["machine"])
    mark: Mark = "ok" if sys.version_info >= (3, 10) else "fault"
    yield CheckLine(mark, "python", f"{facts['python']} on {facts['system']} (3.10 or newer is needed)")
    if os.path.isdir("/dev/shm"):
        free = shutil.disk_usage("/dev/shm").free
        advice = (
            "" if free >= SHM_NEEDED_BYTES else "; large clouds will be slow or lost: start the container with --shm-size=256m"
        )
        yield CheckLine("ok" if not advice else "note", "shared memory", f"{free / 2**20:.0f} MiB free in /dev/shm{advice}")


def check_libraries(libraries: Sequence[Library] = LIBRARIES) -> Iterator[CheckLine]:
    """Which of the Python libraries can be imported; what came with the package is a fault when it cannot, an extra is a note."""
    found = _import_each([library.module for library in libraries])
    said: set[str] = set()
    for library in libraries:
        mark: Mark = "note" if library.extra else "fault"
        state = found[library.module]
        if "version" in state:
            yield CheckLine("ok", library.module, f"{state['version'] or 'imported'} ({library.used_by})")
        elif state["absent"]:
            command = install_command(library)
            how = "comes with the same command" if command in said else command
            said.add(command)
            yield CheckLine(mark, library.module, f"not installed; needed for {library.used_by}: {how}")
        else:
            advice = f"needed for {library.used_by}: {pip_install('--upgrade', library.requirement)}"
            yield CheckLine("fault", library.module, f"installed, but cannot be imported ({state['error']}); {advice}")
    yield from check_runtimes(_installed("onnxruntime"), _installed("onnxruntime-gpu"), has_nvidia_gpu())


def check_runtimes(cpu: str, gpu: str, has_gpu: bool) -> Iterator[CheckLine]:
    """Whether the build of onnxruntime suits the machine, from the versions of both builds ('' = absent)."""
    if cpu and gpu:
        advice = f"{pip_install('--force-reinstall', f'onnxruntime-gpu=={gpu}')} after: pip uninstall onnxruntime"
        yield CheckLine("note", "onnxruntime", f"{cpu} and onnxruntime-gpu {gpu} overwrite each other's files; {advice}")
    elif gpu:
        yield CheckLine("ok", "onnxruntime-gpu", f"{gpu} (the build with CUDA)")
    elif cpu and has_gpu:
        advice = f"pip uninstall onnxruntime, then: {pip_install('onnxruntime-gpu')}"
        yield CheckLine("note", "onnxruntime", f"this machine has an NVIDIA GPU, which this build does not use; {advice}")


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


IMPORTER = """
import importlib, json, sys
for name in sys.argv[1:]:
    try:
        found = {"version": str(getattr(importlib.import_module(name), "__version__", ""))}
    except BaseException as error:
        absent = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == name
        found = {"absent": absent, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps([name, found]), flush=True)
"""


def _import_each(modules: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Import modules in another process: by name its version, or why it cannot be. One that ends the process is found out."""
    found: dict[str, dict[str, Any]] = {}
    while rest := [module for module in modules if module not in found]:
        done = subprocess.run([sys.executable, "-c", IMPORTER, *rest], capture_output=True, text=True)
        found |= dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
        if done.returncode:
            culprit = next((module for module in rest if module not in found), rest[-1])
            found[culprit] = {"absent": False, "error": f"the import ended Python with exit code {done.returncode}"}
    return found


STARTER = """
from weakseg_ros.ros.starting import start_ros
start_ros()
from rclpy.utilities import get_rmw_implementation_identifier
print(get_rmw_implementation_identifier())
"""
ROS_PACKAGES = {
    "nav_msgs": "odometry_topic",
    "vision_msgs": "~/detections and ~/label_info",
    "tf2_ros": "target_frame and odometry_extrinsic:=tf",
    "bondpy": "nav2's lifecycle manager",
}
"""what a full ROS 2 has, and what of the node needs it"""


def check_ros() -> Iterator[CheckLine]:
    """Whether a node can start here: ROS in a process of its own, since a broken one ends the process."""
    done = subprocess.run([sys.executable, "-c", STARTER], capture_output=True, text=True)
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or ["the process died without an error message"])[-1]
        sentence = re.sub(r"^weakseg_ros\.\w+\.\w+: ", "", last_line)
        yield CheckLine("note", "rclpy", f"the node cannot start here: {sentence}")
        return
    distro = os.environ.get("ROS_DISTRO", "from PyPI")
    yield CheckLine("ok", "rclpy", f"{distro}, {done.stdout.strip()}")
    absent = [name for name, state in _import_each(list(ROS_PACKAGES)).items() if "version" not in state]
    if absent:
        parts = ", ".join(f"{name} ({ROS_PACKAGES[name]})" for name in absent)
        yield CheckLine(
            "note", "ROS packages", f"not installed here, with what needs them: {parts}; apt has them as ros-$ROS_DISTRO-NAME"
        )
    profile = os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE") or os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE")
    if profile:
        yield CheckLine("ok" if Path(profile).is_file() else "fault", "transport", f"profile {profile}")
    else:
        advice = "set the same in your LiDAR driver's shell, or clouds above 512 KiB may be lost (docs/transport.md)"
        yield CheckLine("note", "transport", f"the node sets its own profile; {advice}")


def check_bundle(name: str) -> Iterator[CheckLine]:
    """Whether the model loads, and on which engine it would run."""
    try:
        from weakseg_ros.deploy.bundle import Bundle
        from weakseg_ros.deploy.engines import label_of, open_first
        from weakseg_ros.deploy.engines.choice import chain_of

        bundle = Bundle.load(name)
        chain = chain_of(bundle)
        engine, refused = open_first(bundle, chain.labels, 0)
    except WeaksegError as error:
        yield CheckLine("fault", "model", str(error))
        return
    except ImportError as error:
        yield CheckLine("fault", "model", f"cannot be opened: {explain(error) or error}")
        return
    spec = bundle.info.input.geometry
    image = f"{spec.height} x {spec.width}, {spec.fov_down_deg}..{spec.fov_up_deg} deg"
    seen = image if bundle.info.input.points is None else str(bundle.info.input)
    yield CheckLine("ok", "model", f"{bundle.info.name}, {seen}, runs on {label_of(engine)} ({engine.device})")
    if chain.why:
        yield CheckLine("ok", "engine", chain.why)
    yield from (CheckLine("note", "engine", text) for text in refused)
    engine.close()


def check_sensor(config: DoctorConfig, data: Sequence[Path]) -> Iterator[CheckLine]:
    """What the model would meet on this sensor that its training never showed it."""
    from weakseg_ros.data.fetching import fetched
    from weakseg_ros.data.many_bags import Job, bags_for, names_of
    from weakseg_ros.deploy.bundle import Bundle
    from weakseg_ros.fleet.cluster import runner_of

    bags = bags_for(config, data[0], data[1:])
    if not bags:
        bundle = Bundle.load(config.bundle)
        yield from (CheckLine(mark, SENSOR, text) for mark, text in _findings(config, bundle, data[0]))
        return

    def look(bag: Path, name: str) -> dict[str, Any]:
        return {"complete": True, "findings": list(_findings(config, Bundle.load(config.bundle), bag))}

    work = fetched(look, config.fetch) if config.fetch else look
    for job, row in runner_of(config, None)(work, [Job(*one) for one in zip(bags, names_of(bags), strict=True)]):
        faults = [("fault", row["problem"])] if "problem" in row else []  # the next bag may be sound
        yield from (CheckLine(mark, SENSOR, f"{job.name}: {text}") for mark, text in (*row.get("findings", ()), *faults))


def _check_data(config: DoctorConfig) -> None:
    """DataError where the data cannot be looked at: nobody waits half a minute for that. Of several bags one may be sound."""
    if not config.data or config.fetch:
        return
    from weakseg_ros.data.many_bags import bags_for

    if not bags_for(config, config.data[0], config.data[1:]):
        _open(config, config.data[0])


def _open(config: DoctorConfig, bag: Path) -> Input:
    from weakseg_ros.measure.inputs import open_input
    from weakseg_ros.points.labels import NO_LABELS

    return open_input(bag, NO_LABELS, config.topic, reading=config)


def _findings(config: DoctorConfig, bundle: Bundle, bag: Path) -> Iterator[tuple[Mark, str]]:
    """What one bag or folder of scans shows the model that its training did not."""
    from weakseg_ros.deploy.segmenter import Segmenter
    from weakseg_ros.measure import sensor_check

    source = _open(config, bag)
    options: dict[str, Any] = {"intensity_scale": config.intensity_scale, "allow_no_intensity": not config.intensity_field}
    segmenter = Segmenter(bundle, threads=config.engine_threads, **options)
    yield from sensor_check.check_sensor(segmenter, source, bag, config.clouds)
    segmenter.close()


def read_arguments(argv: Sequence[str]) -> DoctorConfig:
    """The settings from a command line, without the library that the other verbs read theirs with."""
    parser = argparse.ArgumentParser(
        prog="weakseg doctor",
        description=DoctorConfig.__doc__,
        epilog="Exit code 0: no fault (notes are optional parts); 1: a fault was found; 2: the check could not be made.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="Names a YAML file with the options below.")
    hints = get_type_hints(DoctorConfig)
    for field in fields(DoctorConfig):
        count = "+" if field.name == "data" else len(field.default) if isinstance(field.default, tuple) else None
        kind = str if field.name == "data" else float if count else type(field.default)
        choices = get_args(hints[field.name]) if kind is str and not count else ()
        word = "PATH" if field.name == "data" else "{" + ",".join(choices) + "}" if choices else kind.__name__.upper()
        text = (field_docs(DoctorConfig)[field.name] + _default(field.default)).replace("%", "%%")
        parser.add_argument(f"--{field.name.replace('_', '-')}", dest=field.name, type=kind, nargs=count, metavar=word, help=text)
    words = [_dashed(word) for word in argv]
    known, left = parser.parse_known_args(words)
    if left:
        refuse_more_paths(left)
        parser.parse_args(words)  # says what is wrong with them, and ends the process
    options = vars(known)
    file = options.pop("config")
    base = load_yaml(DoctorConfig, file) if file else DoctorConfig()
    return from_mapping(DoctorConfig, {name: value for name, value in options.items() if value is not None}, "doctor", base)


def _dashed(word: str) -> str:
    """An option with its name as the manual has it; the other verbs take it with underscores, too."""
    option, equals, value = word.partition("=")
    return f"{option.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _default(value: object) -> str:
    return f" (default: {value})" if value not in ("", ()) else ""


def main(argv: Sequence[str]) -> int:
    """The verb: prints every finding. Exit code 0: no fault; 1: a fault was found; 2: the check itself could not be made."""
    config = read_arguments(argv)
    share_folder()
    with contextlib.suppress(ImportError):  # which the libraries' lines explain
        _check_data(config)
    findings: list[CheckLine] = []
    checks = [check_machine(), check_libraries(), check_ros(), check_bundle(config.bundle)]
    if config.data:
        checks.append(check_sensor(config, config.data))
    for check in checks:
        for finding in check:
            findings.append(finding)
            say(f"{finding.mark:>5}  {finding.topic:<17} {finding.text}")
    faults = sum(finding.mark == "fault" for finding in findings)
    say(f"\n{_verdict(faults, any(f.mark == 'note' and f.topic == SENSOR for f in findings))}")
    return 1 if faults else 0


def _verdict(faults: int, sensor_differs: bool) -> str:
    if faults:
        return f"{faults} {'fault' if faults == 1 else 'faults'}; see above."
    if sensor_differs:
        return "The model was not trained for clouds like these; see the notes on the sensor."
    return "No fault was found; notes are about optional parts."
