# SPDX-License-Identifier: Apache-2.0
"""What a folder is that has no layout of ours: a data set as another program prepared it, or one beside the right folder."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from weakseg_ros.data.bag_files import METADATA, under_another_name

_OWNERS_KITTI = "unpack KITTI's data_odometry_velodyne.zip over them"
MOST_LOOKED_AT = 50
"""folders around the one that was named"""
_OWNERS_S3DIS = "download Stanford3dDataset_v1.2_Aligned_Version from its owners, whose text files hold all points"
_OWNERS_SCANNET = "download *_vh_clean_2.ply and its labels of each scene with the owners' script"
FORMS = (
    ("ply_data_all_*.h5", f"S3DIS as blocks of 4096 points of another program; {_OWNERS_S3DIS}"),
    ("Area_[1-6]_*.npy", f"S3DIS's rooms as arrays of another program; {_OWNERS_S3DIS}"),
    ("original_ply/Area_[1-6]_*.ply", f"S3DIS's rooms as another program prepared them; {_OWNERS_S3DIS}"),
    ("area_[1-6]*/3d/pointcloud.mat", f"2D-3D-Semantics, of which S3DIS is the part with annotated rooms; {_OWNERS_S3DIS}"),
    ("scans/scene*/*.sens", f"ScanNet's recordings without meshes; {_OWNERS_SCANNET}"),
    ("*/scene*.pth", f"ScanNet's scenes as another program prepared them; {_OWNERS_SCANNET}"),
    ("scene*.pth", f"ScanNet's scenes as another program prepared them; {_OWNERS_SCANNET}"),
    ("input_*/*.ply", "tiles that were thinned out; results count on all points, so name the folder of the originals"),
    ("sequences/*/labels/*.label", f"SemanticKITTI's labels without their scans; {_OWNERS_KITTI}"),
    ("sequences/*/voxels/*.bin", f"SemanticKITTI's voxels without the scans; {_OWNERS_KITTI}"),
    ("[aA][rR][eE][aA]*/*/Annotations/*.txt", "S3DIS's areas under other names; call them Area_1 to Area_6"),
    ("L00[1-4].las", "Toronto-3D in another format; download its .ply files"),
)
"""what the names of files say, and what to do"""

_AS_POINTS = "save the points as .ply, .las or .npy"
FOREIGN = (
    ((".gz", ".tgz", ".bz2", ".xz", ".lz4", ".zip", ".tar", ".7z", ".rar"), "packed", "unpack it first"),
    (
        (".pcap", ".pcapng"),
        "raw packets of a LiDAR",
        "play them through the sensor's driver, which publishes PointCloud2, and record that",
    ),
    ((".osf",), "Ouster's own format", "export it with ouster-cli, for example as a bag"),
    ((".csv", ".txt", ".xyz", ".asc", ".pts"), "text", f"load the numbers with numpy.loadtxt, and {_AS_POINTS}"),
    ((".e57", ".drc", ".ptx", ".obj", ".stl"), "a format that is not read here", f"{_AS_POINTS}, for example with CloudCompare"),
    ((".h5", ".hdf5", ".mat", ".pkl", ".pickle", ".pt", ".pth"), "another library's data", _AS_POINTS),
)
"""endings of files, what they are, and what to do"""


def foreign(path: Path) -> str:
    """What a file that is neither bag nor cloud is, or most such files of a folder, and what to do, as a clause; else nothing."""
    if path.is_file() and path.name == METADATA:
        return f"it describes the bag in {path.parent}; name that folder"
    try:
        names = [path] if path.is_file() else [one for one in path.iterdir() if one.is_file()] if path.is_dir() else []
    except OSError:
        return ""
    for endings, what, how in FOREIGN:
        found = [name for name in names if name.suffix.lower() in endings]
        if found:
            where = "it is" if path.is_file() else f"{found[0].name} in it is"
            return f"{where} {what}: {how}"
    return next(filter(None, map(under_another_name, islice(names, MOST_LOOKED_AT))), "")


def of_another_program(folder: Path) -> str:
    """What is there and what to do where another program prepared the data, as the end of a sentence; else nothing."""
    for pattern, text in FORMS:
        first = next(folder.glob(pattern), None)
        if first is not None:
            return f"; it holds {text} (found {first.relative_to(folder)})"
    return ""


def below(folder: Path, is_data: Callable[[Path], bool]) -> str:
    """The advice to name a folder below, where that `is_data`; else nothing."""
    places = (place for level in ("*/", "*/*/") for place in islice(sorted(folder.glob(level)), MOST_LOOKED_AT))
    return next((f"; name {place}" for place in places if is_data(place)), "")


def above(folder: Path, is_data: Callable[[Path], bool]) -> str:
    """The advice to name the folder above, where that `is_data`; else nothing."""
    outer = folder.resolve().parent
    return f"; {outer} holds data, name that if it is meant" if is_data(outer) else ""
