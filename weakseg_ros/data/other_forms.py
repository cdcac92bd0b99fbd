# SPDX-License-Identifier: Apache-2.0
"""What a folder is that has no layout of ours: a data set as another program prepared it, or one beside the right folder."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

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
    ("L00[1-4].las", "Toronto-3D in another format; download its .ply files"),
)
"""what the names of files say, and what to do"""


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
