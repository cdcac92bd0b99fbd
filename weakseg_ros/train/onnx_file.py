# SPDX-License-Identifier: Apache-2.0
"""The deploy graph as an ONNX file, and how far its outputs differ from torch's."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from weakseg_ros.deploy.bundle import BundleInfo
from weakseg_ros.deploy.engines.onnxruntime import open_session
from weakseg_ros.deploy.graph import DeployGraph
from weakseg_ros.deploy.tensors import ANSWERS
from weakseg_ros.errors import BundleError

OPSET = 18
HALVED_ELEMENTS = 256
"""weights with fewer elements stay float32"""


Samples = NDArray[np.float32] | Sequence[Mapping[str, NDArray[Any]]]
"""network inputs by name, or images (M, C, H, W) where an image is all that the network takes"""


def export_onnx(graph: DeployGraph, info: BundleInfo, half: bool = False) -> bytes:
    """The graph, which is in evaluation, as one ONNX file: any batch size, and any number of points.

    The file names no path of this machine.
    """
    samples = sample_tensors(info)
    with quiet("torch.onnx"), torch.no_grad():
        program = torch.onnx.export(
            _folded(graph),
            tuple(sample for sample, _ in samples),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(info.inputs),
            output_names=list(info.outputs),
            dynamic_shapes=(samples[0][1], *([tuple(free for _, free in samples[1:])] if samples[1:] else [])),
            verbose=False,
        )
    if program is None:
        raise BundleError("export: torch returned no ONNX program; try another version of torch")
    model = program.model_proto
    if half:
        _halve_weights(model)
    return clean(model, {"num_classes": str(info.labels.num_classes), "channels": ",".join(info.input.channels)})


def _folded(graph: nn.Module) -> nn.Module:
    """A copy where each BatchNorm right behind a convolution is part of it.

    torch's exporter does the same after it has traced both; the file is the same, and is made in three quarters of the time.
    """
    graph = copy.deepcopy(graph)
    for layers in [module for module in graph.modules() if type(module) is nn.Sequential]:
        for place, (convolution, norm) in enumerate(itertools.pairwise(layers)):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[place], layers[place + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return graph


def clean(model: onnx.ModelProto, facts: Mapping[str, str] | None = None) -> bytes:
    """A model's content with these facts in it and without the exporter's notes; onnx's checker has seen it."""
    _forget_source(model)
    onnx.helper.set_model_props(model, dict(facts or {}))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def sample_tensors(info: BundleInfo) -> list[tuple[Tensor, dict[int, Any]]]:
    """Zeros of each input's shape, and its free dimensions by number: the batch, and the sizes that the bundle does not settle.

    A size of 1 would be taken for a constant, so that a free one is larger.
    """
    ratios = () if info.input.points is None else info.input.points.ratios
    points = {f"P{level}" if level else "W": 2 * math.prod(ratios[level:]) for level in range(len(ratios) + 1)} if ratios else {}
    sizes = {"B": 2, **points, **info.sizes}
    free: dict[str, Any] = {symbol: torch.export.Dim(symbol) for symbol in ("B", *points)}
    return [
        (
            torch.zeros([int(s) if s.isdigit() else sizes[s] for s in table.shape], dtype=getattr(torch, table.dtype)),
            {number: free[s] for number, s in enumerate(table.shape) if s in free},
        )
        for table in info.inputs.values()
    ]


def compare(graph: DeployGraph, model: bytes, samples: Samples) -> dict[str, float]:
    """How far onnxruntime's answers for the ONNX file are from torch's over some inputs.

    `class_agreement` is the share of pixels with equal classes, `max_difference` the largest one of confidence or uncertainty.
    For each further output there is `NAME_difference`, the largest one over the largest value of torch's, or over 1.
    """
    names = (*ANSWERS, *(() if graph.heads is None else graph.heads.outputs))
    session = open_session(model, 0, "export", ["CPUExecutionProvider"])  # a GPU rounds to TF32
    worst, equal = dict.fromkeys(names[1:], 0.0), []
    each = [{"image": image} for image in samples[:, None]] if isinstance(samples, np.ndarray) else samples
    for inputs in each:
        with torch.inference_mode():
            ours = [value.numpy() for value in graph(*map(torch.from_numpy, inputs.values()))]
        theirs = session.run(names, dict(inputs))
        for name, a, b in zip(names[1:], ours[1:], theirs[1:], strict=True):
            apart = float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max())))
            worst[name] = float(np.fmax(worst[name], apart)) if np.isfinite(apart) else np.inf
        equal.append(float(np.mean(ours[0] == theirs[0])))
    plain = max(worst[name] for name in names[1 : len(ANSWERS)])
    more = {f"{name}_difference": worst[name] for name in names[len(ANSWERS) :]}
    return {"images": float(len(each)), "class_agreement": float(np.mean(equal)), "max_difference": plain, **more}


def _halve_weights(model: onnx.ModelProto) -> None:
    """Store large float32 weights as float16, each behind a Cast that every runtime folds away when it loads the file."""
    casts = []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < HALVED_ELEMENTS:
            continue
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _forget_source(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about the Python code of each node, paths on this machine among it."""
    for entry in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        entry.doc_string = ""
        del entry.metadata_props[:]
    del model.graph.metadata_props[:]


@contextlib.contextmanager
def quiet(logger_name: str | None) -> Iterator[None]:
    """Hold back what a tool prints and warns of, and what the logger of that name, None for all, says below an error."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
