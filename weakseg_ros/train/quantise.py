# SPDX-License-Identifier: Apache-2.0
"""The deploy graph in other arithmetic, by onnxruntime's own tools: half precision, and int8 after training.

int8 needs two files. CPUs want bytes from 0 with a zero point; TensorRT wants signed bytes around 0, a pair of
QuantizeLinear and DequantizeLinear for each use, and biases in float.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from weakseg_ros.files import scratch_folder, temporary_files_in
from weakseg_ros.train.onnx_file import quiet

LEARNT = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTISED = ("Conv", "Add", "Relu")
TOOL_FILES, TIMES_THE_MODEL = 3, 2
"""as many files of this size the tool is allowed; it keeps up to five at a time, each about as large as the model"""
FOR_CPUS: dict[str, Any] = {"CalibMovingAverage": True}
"""the range of each tensor is the mean over scans of its extremes; one wild scan does not coarsen all others"""
FOR_TENSORRT: dict[str, Any] = {
    **FOR_CPUS,
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "DedicatedQDQPair": True,
}


def half(model: onnx.ModelProto, images: NDArray[np.float32]) -> bytes:
    """The graph in half precision, but for its inputs, outputs and the steps behind the network."""
    tail = [node.name for node in model.graph.node if node.name not in learnt_part(model)]
    with quiet(None):
        return content_of(convert_float_to_float16(model, keep_io_types=True, node_block_list=tail))


def int8(model: onnx.ModelProto, images: NDArray[np.float32]) -> bytes:
    """The graph in int8 for CPUs, calibrated on network inputs (M, C, H, W)."""
    return _quantised(model, images, QuantType.QUInt8, FOR_CPUS)


def int8_tensorrt(model: onnx.ModelProto, images: NDArray[np.float32]) -> bytes:
    """The graph in int8 for TensorRT, calibrated on network inputs (M, C, H, W)."""
    return _quantised(model, images, QuantType.QInt8, FOR_TENSORRT)


MAKERS: dict[str, Callable[[onnx.ModelProto, NDArray[np.float32]], bytes]] = {
    "fp16": half,
    "int8": int8,
    "int8-tensorrt": int8_tensorrt,
}
"""by the names of bundle.VARIANTS"""


def _quantised(model: onnx.ModelProto, images: NDArray[np.float32], activations: QuantType, options: dict[str, Any]) -> bytes:
    """The learnt part in int8, but for its first and last convolution, which cost little and matter most."""
    with scratch_folder("weakseg_variants") as scratch, temporary_files_in(scratch), quiet(None):
        plain, prepared, made = (scratch / f"{name}.onnx" for name in ("plain", "prepared", "made"))
        onnx.save(model, plain)  # by its place: given the model itself, the tool loses its weights
        _refuse_a_full_disk(scratch, model.ByteSize())
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared)
        learnt = learnt_part(graph)
        convolutions = [node.name for node in graph.graph.node if node.op_type in LEARNT and node.name in learnt]
        excluded = [node.name for node in graph.graph.node if node.name not in learnt]
        quantize_static(
            prepared,
            made,
            _Images(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*excluded, *convolutions[:1], *convolutions[-1:]],
            extra_options=dict(options),
        )
        return content_of(onnx.load(made))


def _refuse_a_full_disk(folder: Path, model_bytes: int) -> None:
    """OSError where the tool's own files have no room: it would read what was cut off, or leave its optimisation out."""
    with contextlib.ExitStack() as stack:
        for _ in range(TOOL_FILES):
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            os.posix_fallocate(file.fileno(), 0, TIMES_THE_MODEL * model_bytes)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Feeds the calibration one image at a time."""

    def __init__(self, name: str, images: NDArray[np.float32]) -> None:
        self._inputs = iter([{name: image[None]} for image in images])

    def get_next(self) -> Any:
        return next(self._inputs, None)


def learnt_part(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes with learnt weights and of all that they depend on; what is left turns scores into answers.

    A convolution with ones, which sums over classes in the deploy graph, is not learnt.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    maker = {output: node for node in model.graph.node for output in node.output}
    found: set[str] = set()
    waiting = [node for node in model.graph.node if node.op_type in LEARNT and _is_learnt(node, weights)]
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found.add(node.name)
            waiting += [maker[name] for name in node.input if name in maker]
    return found


def _is_learnt(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    weight = weights.get(node.input[1])
    return weight is not None and not bool(np.all(onnx.numpy_helper.to_array(weight) == 1.0))


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with its weights in float32 and every node named; files of bundles may store half weights behind a Cast."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen_weights(wide)
    for number, node in enumerate(wide.graph.node):
        node.name = node.name or f"node_{number}"
    return wide


def _widen_weights(model: onnx.ModelProto) -> None:
    """Undo `onnx_file._halve_weights`."""
    weights = {weight.name: weight for weight in model.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT16}
    kept = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in weights and node.attribute[0].i == onnx.TensorProto.FLOAT:
            wide = onnx.numpy_helper.to_array(weights[node.input[0]]).astype(np.float32)
            weights[node.input[0]].CopyFrom(onnx.numpy_helper.from_array(wide, node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def classes_to_bytes_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model; where it is of an older version, classes get their 1 before they become bytes, which TensorRT asks for."""
    maker = {output: node for node in model.graph.node for output in node.output}
    add = maker.get("class_id")
    cast = maker.get(add.input[0]) if add is not None and add.op_type == "Add" else None
    if add is None or cast is None or cast.op_type != "Cast" or maker[cast.input[0]].op_type != "ArgMax":
        return model
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.int64), "weakseg.one_class"))
    best, byte_of_one, number = cast.input[0], add.input[1], "weakseg.class_number"
    cast.CopyFrom(onnx.helper.make_node("Add", [best, "weakseg.one_class"], [number], name=number))
    byte = onnx.TensorProto.UINT8
    add.CopyFrom(onnx.helper.make_node("Cast", [number], ["class_id"], name="weakseg.class_byte", to=byte))
    for weight in [weight for weight in model.graph.initializer if weight.name == byte_of_one]:
        model.graph.initializer.remove(weight)
    return model


def content_of(model: onnx.ModelProto) -> bytes:
    """The bytes of its file."""
    content: bytes = model.SerializeToString()
    return content
