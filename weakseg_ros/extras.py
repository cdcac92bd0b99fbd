# SPDX-License-Identifier: Apache-2.0
"""The libraries that only some verbs need: what each is for, and the command that installs it where the user is."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from weakseg_ros.errors import WeaksegError


class MissingLibraryError(WeaksegError):
    """A library that this verb needs is not installed, or is installed and cannot be imported."""


class Library(NamedTuple):
    """One library: the module that is imported, what pip calls it, what it is for, and its extra in setup.py."""

    module: str
    requirement: str
    used_by: str
    extra: str
    """'' = installed with the package itself"""


LIBRARIES = (
    Library("numpy", "numpy>=1.24", "everything", ""),
    Library("yaml", "pyyaml>=6.0", "everything", ""),
    Library("scipy", "scipy>=1.10", "the node, labelling and training", ""),
    Library("tyro", "tyro>=0.9", "the command line of every verb but node and doctor", ""),
    Library("tqdm", "tqdm>=4.64", "progress bars", ""),
    Library("onnxruntime", "onnxruntime>=1.18", "the node's default engine", "onnx"),
    Library("rosbags", "rosbags>=0.11.7", "reading and writing bags", "bags"),
    Library("jinja2", "jinja2>=3.1", "reports", "report"),
    Library("matplotlib", "matplotlib>=3.7", "reports", "report"),
    Library("torch", "torch>=2.6", "training and the torch engine", "train"),
    Library("lightning_fabric", "lightning-fabric>=2.4", "training", "train"),
    Library("onnx", "onnx>=1.16", "export", "train"),
    Library("onnxscript", "onnxscript>=0.3", "export", "train"),
    Library("safetensors", "safetensors>=0.4", "training and the torch engine", "train"),
    Library("viser", "viser>=1.1.1,<2", "the labelling page and the viewer", "label"),
    Library("rerun", "rerun-sdk>=0.21", "recordings for the Rerun viewer", "rerun"),
    Library("kiss_icp", "kiss-icp>=1.2", "estimating poses for scans without poses", "poses"),
    Library("laspy", "laspy>=2.5", "reading and writing .las files", "las"),
    Library("lazrs", "lazrs>=0.5", "reading and writing .laz files", "las"),
    Library("pyarrow", "pyarrow>=14", "reading .feather files", "feather"),
    Library("ray", "ray>=2.40", "working on many bags at once (--ray)", "ray"),
    Library("openvino", "openvino>=2024.6", "the openvino engine, for CPUs with matrix units", "openvino"),
    Library("tensorrt", "tensorrt>=10.12", "the tensorrt engine, for NVIDIA GPUs", "tensorrt"),
    Library("tensorrt_rtx", "tensorrt-rtx-cu13>=1.4", "the tensorrt_rtx engine, for NVIDIA GPUs", "rtx"),
)
GPU_RUNTIME = "onnxruntime-gpu>=1.18"
"""has the module of onnxruntime, too; the two are not installed beside each other"""
ROS_WHEELS = (
    *("ros-rclpy[fastrtps]", "ros-sensor-msgs", "ros-std-msgs", "ros-std-srvs", "ros-geometry-msgs", "ros-nav-msgs"),
    *("ros-diagnostic-msgs", "ros-visualization-msgs", "ros-lifecycle-msgs", "ros-rosgraph-msgs"),
)
"""rclpy and the messages as PyPI has them, for x86-64"""


def need(*modules: str) -> None:
    """Import each of `modules`, or raise MissingLibraryError with the command that installs what is missing."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingLibraryError(explain(error, module)) from None


def explain(error: ImportError, module: str = "") -> str:
    """One sentence on an import that failed, with the command that mends it; '' where it is none of LIBRARIES or rclpy."""
    name = module or (error.name or "").partition(".")[0]
    library = next((entry for entry in LIBRARIES if entry.module == name), None)
    if name == "rclpy" or (name == "rpyutils" and not module):
        return f"rclpy: cannot be imported ({error}); {how_to_get_rclpy()}"
    if library is None:
        return ""
    if isinstance(error, ModuleNotFoundError) and (error.name or name).partition(".")[0] == name:
        return f"{name}: is not installed, and it is needed for {library.used_by}; run: {install_command(library)}"
    return (
        f"{name}: is installed but cannot be imported ({error}), and it is needed for {library.used_by}; "
        f"run: {pip_install(library.requirement, '--upgrade')}"
    )


def install_command(library: Library) -> str:
    """The pip command for a library, together with whatever else of its extra is missing here."""
    siblings = [entry for entry in LIBRARIES if entry.extra == library.extra and (entry is library or not is_here(entry.module))]
    return pip_install(*(_for_this_machine(entry) for entry in (siblings if library.extra else [library])))


def pip_install(*arguments: str) -> str:
    """A pip command that works in this Python: in a virtual environment as it is, else past the distribution's lock."""
    python = sys.executable if sys.prefix != sys.base_prefix else "python3"
    unlock = ["--user", "--break-system-packages"] if _is_managed_by_the_distribution() else []
    return shlex.join([python, "-m", "pip", "install", *unlock, *arguments])


def how_to_get_rclpy() -> str:
    """Half a sentence: source the ROS 2 that is installed here, or install the wheels."""
    setups = sorted(Path("/opt/ros").glob("*/setup.bash"))
    if setups and not os.environ.get("ROS_DISTRO"):
        return f"run: source {setups[-1]}"
    if setups:
        return f"use the Python that your ROS 2 was built for ({os.environ['ROS_DISTRO']}), not {sys.executable}"
    if os.uname().machine == "x86_64":
        return f"source your ROS 2, or without one run: {pip_install(*ROS_WHEELS)}"
    return "install ROS 2 (https://docs.ros.org) and source its setup.bash"


def has_nvidia_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU with its driver loaded."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/etc/nv_tegra_release").exists()


def _for_this_machine(library: Library) -> str:
    return GPU_RUNTIME if library.module == "onnxruntime" and has_nvidia_gpu() else library.requirement


def is_here(module: str) -> bool:
    """Whether a module is installed; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _is_managed_by_the_distribution() -> bool:
    """Whether pip refuses to install here (PEP 668), as on Ubuntu 24.04 outside a virtual environment."""
    return sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()
