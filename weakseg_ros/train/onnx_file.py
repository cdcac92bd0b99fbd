# SPDX-License-Identifier: Apache-2.0
"""The deploy graph as an ONNX file, and how far its outputs differ from torch's."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import BundleInfo
from weakseg_ros.deploy.engines.onnxruntime import open_session
from weakseg_ros.deploy.graph import DeployGraph
from weakseg_ros.deploy.tensors import ANSWERS
from weakseg_ros.errors import BundleError

OPSET = 18
HALVED_ELEMENTS = 256
"""weights with fewer elements stay float32"""


def export_onnx(graph: DeployGraph, info: BundleInfo, half: bool = False) -> bytes:
    """The graph as one ONNX file: any batch size, the image size of `info.spec`; it names no path of this machine."""
    spec, channels = info.spec, len(info.channels)
    sample = torch.zeros(2, channels, spec.height, spec.width)  # a batch of 1 would be taken for a constant
    with quiet("torch.onnx"), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (sample,),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(info.inputs),
            output_names=list(info.outputs),
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    if program is None:
        raise BundleError("export: torch returned no ONNX program; try another version of torch")
    model = program.model_proto
    if half:
        _halve_weights(model)
    return clean(model, {"num_classes": str(info.labels.num_classes), "channels": ",".join(info.channels)})


def clean(model: onnx.ModelProto, facts: Mapping[str, str] | None = None) -> bytes:
    """A model's content with these facts in it and without the exporter's notes; onnx's checker has seen it."""
    _forget_source(model)
    onnx.helper.set_model_props(model, dict(facts or {}))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def compare(graph: DeployGraph, model: bytes, images: NDArray[np.float32]) -> dict[str, float]:
    """How far onnxruntime's answers for the ONNX file are from torch's over (M, C, H, W) images.

    `class_agreement` is the share of pixels with equal classes, `max_difference` the largest one of confidence or uncertainty.
    For each further output there is `NAME_difference`, the largest one over the largest value of torch's, or over 1.
    """
    names = (*ANSWERS, *(() if graph.heads is None else graph.heads.outputs))
    session = open_session(model, 0, "export", ["CPUExecutionProvider"])  # a GPU rounds to TF32
    worst, equal = dict.fromkeys(names[1:], 0.0), []
    for image in images[:, None]:
        with torch.inference_mode():
            ours = [value.numpy() for value in graph(torch.from_numpy(image))]
        theirs = session.run(names, {"image": image})
        for name, a, b in zip(names[1:], ours[1:], theirs[1:], strict=True):
            apart = float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max())))
            worst[name] = float(np.fmax(worst[name], apart)) if np.isfinite(apart) else np.inf
        equal.append(float(np.mean(ours[0] == theirs[0])))
    plain = max(worst[name] for name in names[1 : len(ANSWERS)])
    more = {f"{name}_difference": worst[name] for name in names[len(ANSWERS) :]}
    return {"images": float(len(images)), "class_agreement": float(np.mean(equal)), "max_difference": plain, **more}


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
