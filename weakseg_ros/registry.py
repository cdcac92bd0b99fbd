# SPDX-License-Identifier: Apache-2.0
"""What can be plugged in: one file and one line here for a net, method, data set or engine.

The line is the import, resolved on first use, so an absent TensorRT costs nothing. One parametrised test runs every
row of every table through its contract.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from weakseg_ros.errors import ConfigError, did_you_mean

NETS = {
    "light": "weakseg_ros.learn.nets.light:LightNet",
    "rangenet21": "weakseg_ros.learn.nets.rangenet:RangeNet21",
    "rangenet53": "weakseg_ros.learn.nets.rangenet:RangeNet53",
    "randlanet": "weakseg_ros.learn.nets.randlanet:RandLaNet",
    "salsanext": "weakseg_ros.learn.nets.salsanext:SalsaNext",
    "squeezesegv3": "weakseg_ros.learn.nets.squeezesegv3:SqueezeSegV3",
}

METHODS = {
    "coarse3d": "weakseg_ros.learn.methods.coarse3d:Coarse3d",
    "coarse3d+point_panoptic": "weakseg_ros.learn.methods.panoptic_combined:Coarse3dPointPanoptic",
    "erda": "weakseg_ros.learn.methods.erda:Erda",
    "erda+coarse3d": "weakseg_ros.learn.methods.erda_coarse3d:ErdaCoarse3d",
    "erda+coarse3d+point_panoptic": "weakseg_ros.learn.methods.panoptic_combined:ErdaCoarse3dPointPanoptic",
    "erda+point_panoptic": "weakseg_ros.learn.methods.panoptic_combined:ErdaPointPanoptic",
    "point_panoptic": "weakseg_ros.learn.methods.point_panoptic:PointPanoptic",
    "supervised": "weakseg_ros.learn.methods.supervised:Supervised",
}

DATASETS = {
    "frame_log": "weakseg_ros.points.frame_scans:FrameScans",
    "nuscenes": "weakseg_ros.points.nuscenes:NuScenes",
    "semanticposs": "weakseg_ros.points.semantic_poss:SemanticPoss",
    "scans": "weakseg_ros.points.scans:ScanFolder",
    "semantickitti_range": "weakseg_ros.points.scan_archives:SemanticKittiRange",
    "vlp32_drive": "weakseg_ros.points.scan_archives:Vlp32Drive",
}

ENGINES = {
    "onnxruntime": "weakseg_ros.deploy.engines.onnxruntime:OnnxRuntimeEngine",
    "torch": "weakseg_ros.deploy.engines.torch:TorchEngine",
}

LIVE = {
    "dds": "weakseg_ros.ros.live:live_answers",
}
"""how `weakseg evaluate --live` reaches the node, which belongs to a later chapter than evaluation"""

_KIND_OF_TABLE = {id(NETS): "net", id(METHODS): "method", id(DATASETS): "data set", id(ENGINES): "engine", id(LIVE): "transport"}


def load(table: Mapping[str, str], name: str) -> Any:
    """The class registered in `table` under `name`.

    Raises ConfigError, with the nearest known name, where there is no such row.
    """
    if name not in table:
        kind = _KIND_OF_TABLE.get(id(table), "entry")
        hint = did_you_mean(name, table)
        raise ConfigError(f"{kind}: unknown '{name}'{hint}; known: {', '.join(sorted(table))}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
