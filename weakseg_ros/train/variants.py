# SPDX-License-Identifier: Apache-2.0
"""A bundle's network in other arithmetic, for engines that are faster so; no variant is written that loses too much."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from weakseg_ros.batches.batches import label_image
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.data.scans import open_splits
from weakseg_ros.deploy.bundle import CARD_FILE, KIND_ONNX, KIND_SAMPLE, Bundle, BundleInfo, VariantFacts, kind_of, write_bundle
from weakseg_ros.deploy.engines.choice import LEAST_AGREEMENT
from weakseg_ros.deploy.engines.onnxruntime import open_session
from weakseg_ros.deploy.frontends import FrontendSettings, make_frontend
from weakseg_ros.errors import BundleError, DataError, counted
from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.progress import Progress
from weakseg_ros.train.quantise import MAKERS, classes_to_bytes_last, content_of, in_float32

HOLD_OUT = 0.2
"""share of the scans that variants are measured on where the data have no validation split"""
CALIBRATION_SCANS, VALIDATION_SCANS = 16, 16
MOST_MIOU_LOST = {"fp16": 0.005, "int8": 0.01, "int8-tensorrt": 0.01}
SECTION = "## In other precisions"
FORMER_SECTION = "## In other arithmetic"
"""what cards of older versions call it"""


@dataclass(frozen=True)
class Frames:
    """A few scans as network inputs (M, C, H, W), which pixels hold a point (M, H, W), and their classes, 0 = not known."""

    images: NDArray[np.float32]
    filled: NDArray[np.bool_]
    truth: NDArray[np.uint8]
    name: str


@dataclass(frozen=True)
class Variants:
    """What came of it: the facts of each variant that is written, and one sentence for each that is not."""

    facts: dict[str, VariantFacts]
    left_out: tuple[str, ...]


def add_variants(bundle: Bundle, folder: Path, variants: Sequence[str], train: ScanSet, val: ScanSet) -> tuple[Bundle, Variants]:
    """The bundle again at `folder`, with ONNX files in other arithmetic and one scan to compare engines on.

    They are calibrated on training scans and measured on validation scans against the float32 file, which stays as it is but
    for turning classes into bytes in its last step. Raises BundleError where there is no such file, DataError without scans.
    """
    bundle.info.refuse_points("other precisions")
    file = bundle.file_of(KIND_ONNX)
    if file is None:
        raise BundleError(f"{bundle.folder}: has no ONNX file, so no variant can be made from it")
    base = classes_to_bytes_last(onnx.load_model_from_string(bundle.read(file)))
    calibration = frames_of(bundle.info, train, CALIBRATION_SCANS)
    validation = frames_of(bundle.info, val, VALIDATION_SCANS)
    made = {variant: MAKERS[variant](in_float32(base), calibration.images) for variant in variants}
    judged = judge(content_of(base), made, validation, bundle.num_classes)
    kinds = {kind_of(variant) for variant in MAKERS} | {KIND_SAMPLE}
    files = {name: (entry.kind, bundle.read(name)) for name, entry in bundle.info.files.items() if entry.kind not in kinds}
    files[file] = (KIND_ONNX, content_of(base))
    files |= {f"model-{variant}.onnx": (kind_of(variant), made[variant]) for variant in judged.facts}
    files["sample.npz"] = (KIND_SAMPLE, _sample(next(iter(bundle.info.inputs)), calibration.images))
    card = bundle.folder / CARD_FILE
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    info = dataclasses.replace(bundle.info, variants=judged.facts)
    return write_bundle(folder, info, files, with_section(text, judged)), judged


def judge(float32: bytes, made: dict[str, bytes], frames: Frames, num_classes: int) -> Variants:
    """How each variant differs from float32, and which of them lose too much."""
    reference = classes_of(float32, frames.images)
    facts, left_out = {}, []
    for variant, model in made.items():
        found = facts_of(reference, classes_of(model, frames.images), frames, num_classes)
        if why_not := too_much(variant, found):
            left_out.append(why_not)
        else:
            facts[variant] = found
    return Variants(facts, tuple(left_out))


def facts_of(reference: NDArray[np.uint8], found: NDArray[np.uint8], frames: Frames, num_classes: int) -> VariantFacts:
    """Agreement of two sets of classes (M, H, W) on the pixels with a point, and both mIoU on those with a label."""
    agreement = float(np.mean(reference[frames.filled] == found[frames.filled])) if frames.filled.any() else 1.0
    labelled = frames.truth > 0
    miou: list[float | None] = []
    for classes in (found, reference):
        matrix = ConfusionMatrix(num_classes)
        matrix.add(classes[labelled], frames.truth[labelled])
        miou.append(matrix.miou_present if labelled.any() else None)
    return VariantFacts(agreement, miou[0], miou[1], scans=len(frames.images), data=frames.name)


def too_much(variant: str, facts: VariantFacts) -> str:
    """One sentence where a variant differs too much from float32; '' elsewhere."""
    least, most = LEAST_AGREEMENT[variant], MOST_MIOU_LOST[variant]
    faults = []
    if facts.class_agreement < least:
        faults.append(f"agrees with float32 on {facts.class_agreement:.2%} of the pixels, but {least:.0%} is required")
    if facts.miou is not None and facts.fp32_miou is not None and facts.fp32_miou - facts.miou > most:
        faults.append(f"loses {facts.fp32_miou - facts.miou:.4f} of the mIoU, but at most {most} is allowed")
    return f"{variant}: was not written, as it {' and '.join(faults)}" if faults else ""


def frames_of(info: BundleInfo, scans: ScanSet, count: int) -> Frames:
    """Up to `count` scans, evenly spaced, as the network of `info` sees them; DataError where there is none."""
    if not len(scans):
        raise DataError(f"{scans.name}: holds no scans to make variants with; name other data with --scans")
    frontend = make_frontend(info.input, info.labels)
    frontend.settings = FrontendSettings(allow_no_intensity=True)
    images, filled, truth = [], [], []
    numbers = np.unique(np.linspace(0, len(scans) - 1, min(count, len(scans))).round().astype(int))
    for number in Progress(numbers, what="variants", unit="scan"):
        scan = scans[int(number)]
        inputs, view = frontend.encode(scan.cloud)
        images.append(inputs["image"][0])
        filled.append(view.pixels.point_of_pixel >= 0)
        known = np.zeros(len(scan.cloud), np.uint8) if scan.class_id is None else scan.class_id
        truth.append(label_image(known, view.pixels))
    return Frames(np.stack(images), np.stack(filled), np.stack(truth), scans.name)


def classes_of(model: bytes, images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(M, H, W) classes from the content of an ONNX file in onnxruntime on the CPU, image by image."""
    session = open_session(model, 0, "export", ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(["class_id"], {name: image[None]})[0] for image in images])


def open_data_for(bundle: Bundle, data: Path) -> tuple[ScanSet, ScanSet]:
    """(training, validation) scans of a folder with the bundle's classes; its last fifth where it has no validation split."""
    train, val = open_splits(data, HOLD_OUT, bundle.labels)
    return train, val if val is not None else train


def in_words(found: Variants) -> list[str]:
    """A line for each variant, written or not."""
    lines = []
    for variant, facts in found.facts.items():
        miou = "" if facts.miou is None else f", mIoU {facts.miou:.4f} (float32: {facts.fp32_miou:.4f})"
        agreement = f"{facts.class_agreement:.2%} of the pixels have the class of float32"
        lines.append(f"{variant}: {agreement}{miou}, on {counted(facts.scans, 'scan')}")
    return [*lines, *found.left_out]


def with_section(card: str, found: Variants) -> str:
    """The model card with its section on variants, in place of a former one."""
    before, _, after = card.replace(f"{FORMER_SECTION}\n", f"{SECTION}\n").partition(f"{SECTION}\n")
    rest = after.partition("\n## ")[2]
    body = "\n".join(f"- {line}" for line in in_words(found))
    return f"{before.rstrip()}\n\n{SECTION}\n\n{body}\n" + (f"\n## {rest}" if rest else "")


def _sample(name: str, images: NDArray[np.float32]) -> bytes:
    """One frame in half precision: enough to compare engines on."""
    buffer = io.BytesIO()
    sample: dict[str, Any] = {name: images[:1].astype(np.float16)}
    np.savez_compressed(buffer, **sample)
    return buffer.getvalue()
