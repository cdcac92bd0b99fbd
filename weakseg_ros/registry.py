# SPDX-License-Identifier: Apache-2.0
"""What can be plugged in: one file and one line here for a net, head, method, data set, frontend or engine.

The line is the import, resolved on first use, so an absent TensorRT costs nothing. One parametrised test runs every
row of every table through its contract.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Mapping
from typing import Any

from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.source import class_in, class_named_by

DEFAULT_BUNDLE = "models/street"
"""the bundle that verbs and node take where none is named"""
REFERRING_BUNDLE = "models/street_refer"
"""the same with a referring head: what `weakseg refer` takes where none is named"""

NETS = {
    "light": "weakseg_ros.nets.light:LightNet",
    "rangenet21": "weakseg_ros.nets.rangenet:RangeNet21",
    "rangenet53": "weakseg_ros.nets.rangenet:RangeNet53",
    "randlanet": "weakseg_ros.nets.randlanet:RandLaNet",
    "salsanext": "weakseg_ros.nets.salsanext:SalsaNext",
    "squeezesegv3": "weakseg_ros.nets.squeezesegv3:SqueezeSegV3",
}

METHODS = {
    "supervised": "weakseg_ros.methods.supervised:Supervised",
    "coarse3d": "weakseg_ros.methods.coarse3d:Coarse3d",
    "erda": "weakseg_ros.methods.erda:Erda",
    "consistency": "weakseg_ros.methods.consistency:Consistency",
    "point_panoptic": "weakseg_ros.methods.point_panoptic:PointPanoptic",
}

DATASETS = {
    "frame_log": "weakseg_ros.data.frame_log:FrameScans",
    "nuscenes": "weakseg_ros.data.nuscenes:NuScenes",
    "s3dis": "weakseg_ros.data.s3dis:S3dis",
    "scannet": "weakseg_ros.data.scannet:ScanNet",
    "semanticposs": "weakseg_ros.data.semantic_poss:SemanticPoss",
    "sensaturban": "weakseg_ros.data.sensaturban:SensatUrban",
    "toronto3d": "weakseg_ros.data.toronto3d:Toronto3d",
    "scans": "weakseg_ros.data.scans:ScanFolder",
    "semantickitti_range": "weakseg_ros.data.semantickitti_range:SemanticKittiRange",
    "vlp32_drive": "weakseg_ros.data.vlp32_drive:Vlp32Drive",
}

HEADS = {
    "centres": "weakseg_ros.nets.heads.centres:CentreHead",
    "novelty": "weakseg_ros.nets.heads.novelty:NoveltyHead",
    "queries": "weakseg_ros.nets.heads.queries:QueryHead",
    "referring": "weakseg_ros.nets.heads.referring:ReferringHead",
}

FRONTENDS = {
    "points": "weakseg_ros.deploy.frontends.points_numpy:PointsFrontend",
    "range": "weakseg_ros.deploy.frontends.range_numpy:RangeFrontend",
}

SOURCES = {
    "points": "weakseg_ros.batches.point_crops:PointCrops",
    "range": "weakseg_ros.batches.batches:ScanImages",
}
"""what a training draws its batches from, for each frontend"""

ENGINES = {
    "onnxruntime": "weakseg_ros.deploy.engines.onnxruntime:OnnxRuntimeEngine",
    "onnxruntime_cuda": "weakseg_ros.deploy.engines.onnxruntime:OnnxRuntimeCudaEngine",
    "onnxruntime_tensorrt": "weakseg_ros.deploy.engines.onnxruntime:OnnxRuntimeTensorRtEngine",
    "openvino": "weakseg_ros.deploy.engines.openvino:OpenVinoEngine",
    "tensorrt": "weakseg_ros.deploy.engines.tensorrt:TensorRtEngine",
    "tensorrt_rtx": "weakseg_ros.deploy.engines.tensorrt:TensorRtRtxEngine",
    "torch": "weakseg_ros.deploy.engines.torch:TorchEngine",
}

_KIND_OF_TABLE = {
    id(NETS): "net",
    id(METHODS): "method",
    id(DATASETS): "data set",
    id(ENGINES): "engine",
    id(HEADS): "head",
    id(FRONTENDS): "frontend",
    id(SOURCES): "source of batches",
}


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


def summaries(table: Mapping[str, str]) -> dict[str, str]:
    """The first line of each row's docstring, by name; it is read from the source, so that a manual imports no torch."""
    found = {}
    for name, row in table.items():
        module, _, attribute = row.partition(":")
        told = class_in(module, attribute)
        if told is not None:
            found[name] = (ast.get_docstring(told) or "").partition("\n")[0]
    return found


def settings_of(table: Mapping[str, str], name: str) -> type | None:
    """The frozen dataclass that a row's class names as its `Settings`, None where it names none.

    It is read from the source, too, where the row's module is not imported yet.
    """
    module, _, attribute = table[name].partition(":")
    imported = getattr(sys.modules.get(module), attribute, None)
    return class_named_by(module, attribute, "Settings") if imported is None else vars(imported).get("Settings")
