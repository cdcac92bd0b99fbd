# SPDX-License-Identifier: Apache-2.0
"""`weakseg wrap`: an ONNX file of another project becomes a bundle, with what is not known about it written on its card."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from weakseg_ros.config import from_mapping
from weakseg_ros.data.scan_sets import readable
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, BundleInfo, NetRule, Provenance, write_bundle
from weakseg_ros.deploy.engines.onnxruntime import open_session
from weakseg_ros.deploy.frontends import FrontendSettings, make_frontend
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.deploy.tensors import ANSWERS, RANGE_INPUTS
from weakseg_ros.environment import environment
from weakseg_ros.errors import BundleError, ConfigError, counted, say
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.model_card import model_card
from weakseg_ros.train.outputs import check_bundle_place
from weakseg_ros.train.wrap_config import WrapConfig
from weakseg_ros.yaml_files import read_yaml

log = logging.getLogger(__name__)

PARITY_SCANS = 4
LEAST_AGREEMENT = 0.999
OPSET = 13
TINY = 1e-37
NOT_KNOWN = """## Not known

This model is an ONNX file from another project. It is not known:

- what it was trained on, under which licence, and how accurate it is; `weakseg evaluate` on labelled scans measures the accuracy;
- what its training data looked like, so `weakseg doctor` and the node cannot tell whether a sensor fits;
- whether its confidence is calibrated (the temperature is 1);
- how its own code treats points outside the field of view; many projects clamp them into the edge rows, here they get no class.
"""


@dataclass(frozen=True)
class Image:
    """What a model is fed: the range image and the channels on it."""

    spec: RangeSpec
    channels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    intensity_full_scale: float = 0.0
    """largest intensity of its training data; 0 = unknown"""

    @property
    def input(self) -> InputSpec:
        """What the model is told of a cloud."""
        rule = IntensityRule("intensity" in self.channels, self.intensity_full_scale)
        return InputSpec(geometry=self.spec, channels=self.channels, mean=self.mean, std=self.std, intensity=rule)


def wrap(config: WrapConfig) -> Bundle:
    """Write the bundle; ConfigError where model, image and label map do not fit one another, BundleError without parity."""
    check_bundle_place(config.out, config.overwrite, "--out")
    image, labels = read_image(config.spec), LabelMap.load(config.label_map)
    model = _read_model(config.model)
    images = _sample_images(config, image)
    scores, probabilities = _scores_of(model, images, config.model)
    first = _first_class(scores.shape[1], labels, config.model)
    wrapped = with_answers(model, first, scores.shape[1] - first, probabilities)
    parity = _parity(wrapped, scores[:, first:], images)
    if parity["class_agreement"] < LEAST_AGREEMENT:
        raise BundleError(
            f"{config.out}: the wrapped model does not predict the same classes as {config.model}, so nothing was written"
        )
    info = BundleInfo(
        name=config.name or config.out.absolute().name,
        input=image.input,
        labels=labels,
        net=NetRule("wrapped"),
        parity=parity,
        provenance=Provenance(label_ratio=0.0, command=_command(config), environment=environment()),
    )
    return write_bundle(config.out, info, {"model.onnx": (KIND_ONNX, wrapped)}, f"{model_card(info)}\n{NOT_KNOWN}")


def read_image(path: Path) -> Image:
    """The image from a YAML file: lidar-bonnetal's arch_cfg.yaml, or the fields of RangeSpec with channels, mean and std."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected settings by name, found {type(content).__name__}")
    sensor = (content.get("dataset") or {}).get("sensor") if isinstance(content.get("dataset"), dict) else None
    if not isinstance(sensor, dict):
        own = {"spec": {}} | {key: content[key] for key in ("channels", "mean", "std", "intensity_full_scale") if key in content}
        return from_mapping(Image, own | {"spec": {k: v for k, v in content.items() if k not in own}}, str(path))
    try:
        size = sensor["img_prop"]
        spec = {"height": size["height"], "width": size["width"]}
        spec |= {"fov_up_deg": sensor["fov_up"], "fov_down_deg": sensor["fov_down"]}
        rule = {"mean": sensor["img_means"], "std": sensor["img_stds"]}
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: dataset.sensor has no {error}; it needs fov_up, fov_down, img_prop, img_means, img_stds"
        ) from None
    channels = ("range", "x", "y", "z", "intensity")[: len(rule["mean"])]
    return from_mapping(Image, {"spec": spec, "channels": channels, **rule, "intensity_full_scale": 1.0}, str(path))


def with_answers(model: onnx.ModelProto, first: int, classes: int, probabilities: bool) -> bytes:
    """The model with class_id, confidence and uncertainty (see DeployGraph) in place of its scores (B, K, H, W).

    Its channels from `first` on are the `classes` classes; `probabilities` where they add up to 1, else they are logits.
    """
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    graph, opset = wrapped.graph, max(each.version for each in wrapped.opset_import if each.domain in ("", "ai.onnx"))
    name = graph.output[0].name
    constants: dict[str, Any] = {"first": np.array([first]), "end": np.array([first + classes]), "axis": np.array([1])}
    constants |= {"tiny": np.float32(TINY), "one": np.int64(1), "scale": np.float32(-1.0 / math.log(max(classes, 2)))}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), f"weakseg.{key}") for key, value in constants.items())
    before = (
        [_node("Max", [name, "weakseg.tiny"], "positive"), _node("Log", ["weakseg.positive"], "logits")] if probabilities else []
    )
    source = "weakseg.logits" if probabilities else name
    peak: dict[str, Any] = {"axes": [1]} if opset < 18 else {}
    nodes = [
        *(before if probabilities else []),
        _node("Slice", [source, "weakseg.first", "weakseg.end", "weakseg.axis"], "scores"),
        _node("ArgMax", ["weakseg.scores"], "best", axis=1, keepdims=0),
        _node("Add", ["weakseg.best", "weakseg.one"], "class"),
        helper.make_node("Cast", ["weakseg.class"], ["class_id"], to=TensorProto.UINT8),
        _node("Softmax", ["weakseg.scores"], "p", axis=1),
        helper.make_node("ReduceMax", ["weakseg.p", *([] if peak else ["weakseg.axis"])], ["confidence"], keepdims=0, **peak),
        _node("Max", ["weakseg.p", "weakseg.tiny"], "p_positive"),
        _node("Log", ["weakseg.p_positive"], "log_p"),
        _node("Mul", ["weakseg.p", "weakseg.log_p"], "p_log_p"),
        _node("ReduceSum", ["weakseg.p_log_p", "weakseg.axis"], "sum", keepdims=0),
        helper.make_node("Mul", ["weakseg.sum", "weakseg.scale"], ["uncertainty"]),
    ]
    graph.node.extend(nodes)
    _name_input(graph, next(iter(RANGE_INPUTS)))
    del graph.output[:]
    kinds = (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT)
    graph.output.extend(helper.make_tensor_value_info(each, kind, [None] * 3) for each, kind in zip(ANSWERS, kinds, strict=True))
    content: bytes = wrapped.SerializeToString()
    return content


def _name_input(graph: onnx.GraphProto, name: str) -> None:
    """Give the graph's one input the name that frontends know it by."""
    weights = {weight.name for weight in graph.initializer}
    entry = next(each for each in graph.input if each.name not in weights)
    for node in graph.node:
        node.input[:] = [name if each == entry.name else each for each in node.input]
    entry.name = name


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [f"weakseg.{output}"], **attributes)


def _read_model(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        version = max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
        return _in_float32(model if version >= OPSET else version_converter.convert_version(model, OPSET))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except Exception as error:  # onnx's and protobuf's exceptions share no class of their own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = f"export it with opset {OPSET}"
        if "should be stored in" in first:
            remedy = "its weights lie in that file, copy it to the model's side"
        raise ConfigError(f"{path}: is not an ONNX model that can be wrapped ({first}); {remedy}") from None


def _in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its one input and its outputs in float32, where they were in half or double precision."""
    graph, other = model.graph, (TensorProto.FLOAT16, TensorProto.DOUBLE)
    weights = {weight.name for weight in graph.initializer}
    before, after = [], []
    for entry in graph.input:
        kind = entry.type.tensor_type
        if entry.name in weights or kind.elem_type not in other:
            continue
        inner = f"weakseg.inner.{entry.name}"
        for node in graph.node:
            node.input[:] = [inner if name == entry.name else name for name in node.input]
        before.append(helper.make_node("Cast", [entry.name], [inner], to=kind.elem_type))
        kind.elem_type = TensorProto.FLOAT
    for entry in graph.output:
        if entry.type.tensor_type.elem_type in other:
            outer = f"weakseg.float32.{entry.name}"
            after.append(helper.make_node("Cast", [entry.name], [outer], to=TensorProto.FLOAT))
            entry.name, entry.type.tensor_type.elem_type = outer, TensorProto.FLOAT
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _sample_images(config: WrapConfig, image: Image) -> NDArray[np.float32]:
    """(M, C, H, W) network inputs of a few scans; noise where no scans are named."""
    if config.data is None:
        size = (1, len(image.channels), image.spec.height, image.spec.width)
        return np.random.default_rng(0).normal(size=size).astype(np.float32)
    scans, problems = open_scans(config.data), list[str]()
    inputs = []
    frontend = make_frontend(image.input, scans.labels)
    frontend.settings = FrontendSettings(allow_no_intensity=True)
    for _, scan in readable(scans, problems):
        inputs.append(frontend.encode(scan.cloud)[0]["image"][0])
        if len(inputs) == PARITY_SCANS:
            break
    if not inputs:
        raise ConfigError(f"{config.data}: none of its scans can be read ({problems[0]}); name other scans, or none")
    return np.stack(inputs)


def _scores_of(model: onnx.ModelProto, images: NDArray[np.float32], path: Path) -> tuple[NDArray[np.float32], bool]:
    """(scores (M, K, H, W) of the model as it came, whether they are probabilities); ConfigError where it gives none."""
    session = open_session(model.SerializeToString(), 0, str(path), ["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise ConfigError(
            f"{path}: takes {counted(len(inputs), 'input')} ({names}), not one range image; export the net with that alone"
        )
    if len(outputs) > 1:
        log.warning("%s: returns %s; '%s', the first, is taken for the scores", path, ", ".join(outputs), outputs[0])
    entry = inputs[0]
    try:
        scores = np.concatenate([session.run(None, {entry.name: image[None]})[0] for image in images])
    except Exception as error:  # onnxruntime's exceptions share no class of their own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = _remedy(entry.shape, images.shape)
        raise ConfigError(
            f"{path}: takes {entry.shape}, but --spec describes images {images.shape[1:]}; {remedy} ({first})"
        ) from None
    if scores.ndim == 4 and scores.shape[1:3] == images.shape[2:] and scores.shape[2:] != images.shape[2:]:
        raise ConfigError(f"{path}: returns {scores.shape[1:]}, the classes last; export the net with them first (N, K, H, W)")
    if scores.ndim != 4 or scores.shape[2:] != images.shape[2:] or scores.dtype != np.float32:
        found, due = f"{scores.dtype} {scores.shape[1:]}", f"(K, {images.shape[2]}, {images.shape[3]})"
        raise ConfigError(
            f"{path}: returns {found}; one score per class and pixel is needed, {due}; export the net without the layers "
            "after the scores"
        )
    if not np.isfinite(scores).all():
        share = float(np.mean(~np.isfinite(scores).all(axis=1)))
        raise ConfigError(f"{path}: returns scores that are not finite on {share:.0%} of the pixels; check --spec's mean and std")
    return scores, bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3))


def _remedy(takes: Sequence[Any], images: Sequence[int]) -> str:
    """What helps where a model takes inputs of another shape than images (M, C, H, W), of which it is given one at a time."""
    if list(takes[1:]) == [*images[2:], images[1]]:
        return "export the net with the channels first (N, C, H, W)"
    if list(takes[1:]) == list(images[1:]) and takes[0] != 1:
        return "export the net for one image at a time, or with a dynamic first axis"
    return "check height, width and channels in --spec"


def _first_class(channels: int, labels: LabelMap, path: Path) -> int:
    """The channel of class 1: 1 where the model has one for 'unlabelled', 0 where it has none."""
    if channels not in (labels.num_classes, labels.num_classes - 1):
        raise ConfigError(
            f"{path}: returns {counted(channels, 'class')}, but label map '{labels.name}' "
            f"has {labels.num_classes - 1} and 'unlabelled'; "
            "give the map that it was trained with (--label-map), with its classes in the order of the channels"
        )
    return channels - (labels.num_classes - 1)


def _parity(wrapped: bytes, scores: NDArray[np.float32], images: NDArray[np.float32]) -> dict[str, float]:
    session = open_session(wrapped, 0, "wrap", ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = np.concatenate([session.run(["class_id"], {name: image[None]})[0] for image in images])
    return {"images": float(len(images)), "class_agreement": float(np.mean(found == scores.argmax(axis=1) + 1))}


def _command(config: WrapConfig) -> str:
    words = ["weakseg", "wrap", str(config.model), "--spec", str(config.spec), "--label-map", config.label_map]
    return shlex.join(words)


def run(config: WrapConfig) -> int:
    """Do what `weakseg wrap` was asked for; returns its exit code."""
    bundle = wrap(config)
    on = "noise; name scans with --data to compare on them" if config.data is None else f"scans of {config.data}"
    say(f"{bundle.folder}: {counted(bundle.num_classes - 1, 'class')}: {', '.join(bundle.labels.names[1:])}")
    say(f"  agrees with {config.model} on {bundle.info.parity['class_agreement']:.2%} of the pixels, on {on}")
    say("  its training data, quality and calibration are not known (MODEL_CARD.md)")
    say(f"next: weakseg evaluate {config.data or 'SCANS'} --bundle {bundle.folder}")
    return 0
