# SPDX-License-Identifier: Apache-2.0
"""Installs with colcon (ament_python), which builds through setup.py, and with pip alike; see docs/decisions/0005."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "weakseg_ros"
VERSION = "0.1.0"


def shared_files():
    """(target, files) for every file under config, launch and models, folder by folder."""
    folders = [path for top in ("config", "launch", "models") for path in [Path(top), *Path(top).rglob("*")] if path.is_dir()]
    return [(f"share/{NAME}/{folder}", [str(f) for f in folder.iterdir() if f.is_file()]) for folder in sorted(folders)]


setup(
    name=NAME,
    version=VERSION,
    description="LiDAR segmentation from a few clicked points, and the ROS 2 node that runs it",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    author="The weakseg_ros authors",
    maintainer="The weakseg_ros authors",
    maintainer_email="weakseg@example.org",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "**/*.j2", "**/*.js", "**/*.xml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"lib/{NAME}", glob("scripts/*")),
        (f"share/{NAME}/hook", ["resource/weakseg_path.dsv"]),  # see colcon.pkg
        *shared_files(),
    ],
    zip_safe=False,
    install_requires=["numpy>=1.24", "pyyaml>=6.0", "tyro>=0.9", "scipy>=1.10", "tqdm>=4.64"],
    extras_require={
        "onnx": ["onnxruntime>=1.18"],
        "bags": ["rosbags>=0.11.7"],
        "report": ["jinja2>=3.1", "matplotlib>=3.7"],
        "train": ["torch>=2.6", "lightning-fabric>=2.4", "onnx>=1.16", "onnxscript>=0.3", "safetensors>=0.4"],
        "label": ["viser>=1.1.1,<2"],
        "poses": ["kiss-icp>=1.2"],
        "las": ["laspy>=2.5", "lazrs>=0.5"],
        "rerun": ["rerun-sdk>=0.21"],
        "docs": ["pdoc>=14"],
        "feather": ["pyarrow>=14"],
        "ray": ["ray>=2.40"],
        "browser": ["playwright>=1.45"],
        "openvino": ["openvino>=2024.6"],
        "tensorrt": ["tensorrt>=10.12"],
        "rtx": ["tensorrt-rtx-cu13>=1.4"],
        "ros-pip": [
            "ros-rclpy[fastrtps]",
            "ros-sensor-msgs",
            "ros-std-msgs",
            "ros-std-srvs",
            "ros-geometry-msgs",
            "ros-nav-msgs",
            "ros-diagnostic-msgs",
            "ros-visualization-msgs",
            "ros-lifecycle-msgs",
            "ros-rosgraph-msgs",
        ],
        "test": [
            "pytest>=8.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "scikit-learn>=1.3",
            "filelock>=3.4",
        ],
        "lint": ["ruff>=0.6", "mypy>=1.10", "types-PyYAML"],
    },
    tests_require=["pytest"],
    entry_points={"console_scripts": ["weakseg = weakseg_ros.cli:main", "segment_node = weakseg_ros.ros.node:console"]},
)
