# SPDX-License-Identifier: Apache-2.0
"""From a trained network to a bundle: the ONNX file, compared with torch before anyone relies on it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_safetensors
from torch import nn

from weakseg_ros.deploy.bundle import KIND_ONNX, KIND_WEIGHTS, Bundle, BundleInfo, write_bundle
from weakseg_ros.deploy.engines import OUTPUTS
from weakseg_ros.deploy.graph import DeployGraph
from weakseg_ros.errors import BundleError
from weakseg_ros.learn.model_card import model_card

OPSET = 18
MAX_DIFFERENCE = 1e-3
"""of confidence and uncertainty between torch and the ONNX file"""
MIN_CLASS_AGREEMENT = 0.999


def export_bundle(net: nn.Module, info: BundleInfo, folder: Path, sample_images: NDArray[np.float32]) -> Bundle:
    """Write `net` as a bundle and prove it: the ONNX file must answer as torch does on `sample_images`.

    `sample_images` (M, C, H, W) are normalised network inputs of real scans. The agreement is stored as `parity`. `info`
    brings everything else; its files, parity and hash are filled here. Raises BundleError where the two disagree, before
    anything is written at `folder`.
    """
    graph = DeployGraph(net, info.labels.num_classes, info.temperature).eval().cpu()
    weights = {name: tensor.detach().contiguous().cpu() for name, tensor in net.state_dict().items()}
    files = {
        "model.onnx": (KIND_ONNX, export_onnx(graph, info)),
        "weights.safetensors": (KIND_WEIGHTS, save_safetensors(weights)),
    }
    parity = compare(graph, files["model.onnx"][1], sample_images)
    info = dataclasses.replace(info, parity=parity)
    return write_bundle(folder, info, files, model_card(info))


def compare(graph: DeployGraph, model: bytes, images: NDArray[np.float32]) -> dict[str, float]:
    """How far onnxruntime's answers for the ONNX file are from torch's, over (M, C, H, W) images; BundleError where too far."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    worst, equal = 0.0, []
    for image in images[:, None]:
        with torch.inference_mode():
            ours = [value.numpy() for value in graph(torch.from_numpy(image))]
        theirs = session.run(OUTPUTS, {"image": image})
        worst = max(worst, *(float(np.abs(a - b).max()) for a, b in zip(ours[1:], theirs[1:], strict=True)))
        equal.append(float(np.mean(ours[0] == theirs[0])))
    agreement = float(np.mean(equal))
    if not (worst <= MAX_DIFFERENCE and agreement >= MIN_CLASS_AGREEMENT):
        raise BundleError(
            f"export: the ONNX file answers otherwise than torch (classes equal on {agreement:.2%} of the pixels, answers up to "
            f"{worst:.2g} apart); nothing was written, try another version of torch or onnxruntime"
        )
    return {"images": float(len(images)), "class_agreement": agreement, "max_difference": worst}


def export_onnx(graph: DeployGraph, info: BundleInfo) -> bytes:
    """The graph as one ONNX file: any batch size, the image size of `info.spec`; it names no path of this machine."""
    spec, channels = info.spec, len(info.channels)
    sample = torch.zeros(2, channels, spec.height, spec.width)  # a batch of 1 would be taken for a constant
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (sample,),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(OUTPUTS),
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    if program is None:
        raise BundleError("export: torch returned no ONNX program; try another version of torch")
    model = program.model_proto
    _forget_source(model)
    onnx.helper.set_model_props(model, {"num_classes": str(info.labels.num_classes), "channels": ",".join(info.channels)})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _forget_source(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about the Python code of each node, paths on this machine among it."""
    for entry in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        entry.doc_string = ""
        del entry.metadata_props[:]
    del model.graph.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the exporter's progress lines and its remarks on packages that we do not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
