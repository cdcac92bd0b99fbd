# SPDX-License-Identifier: Apache-2.0
"""MODEL_CARD.md: what a bundle was trained on, how well it does, and where it will fail."""

from __future__ import annotations

from weakseg_ros.deploy.bundle import BundleInfo, HeadRule
from weakseg_ros.errors import counted

RARE_IOU = 0.3
_HEADS = {
    "novelty": "Gives every point a novelty score (`novelty`), which is high for points unlike any labelled class.",
    "centres": "Separates objects by their centres.",
    "queries": "Separates objects with one learned query each.",
    "referring": "Finds the object that an English expression refers to (`weakseg refer`).",
}
_METRICS = {
    "step": "last training step",
    "classes_present": "classes in the validation scans",
    "miou": "mIoU over all classes",
    "miou_present": "mIoU over the classes in the validation scans",
    "accuracy": "point accuracy",
    "class_prior": "exponent of the class prior",
    "calibration_points": "points for calibration",
    "nll_before": "negative log-likelihood before calibration",
    "nll_after": "negative log-likelihood after calibration",
    "ece_before": "expected calibration error before calibration",
    "ece_after": "expected calibration error after calibration",
    "referring_acc25": "referring: share of answers with an IoU above 0.25",
    "referring_acc50": "referring: share of answers with an IoU above 0.5",
    "referring_expressions": "referring: expressions in training",
    "referring_false_positive_rate": "referring: answered expressions that match nothing, as a share",
    "referring_negatives": "referring: test expressions that match nothing",
    "referring_ceiling": "referring: mIoU with the best superpoint of each expression",
}
"""what the figures of a bundle mean; others are shown under their names"""


def model_card(info: BundleInfo) -> str:
    """The card's Markdown text; figures that `info` does not hold are left out."""
    return "\n\n".join([_head(info), _data(info), _quality(info), _limits(info), _again(info)]) + "\n"


def _head(info: BundleInfo) -> str:
    return (
        f"# {info.name}\n\n"
        f"Labels every point of a {'cloud' if info.input.points else 'LiDAR sweep'} with one of "
        f"{counted(info.labels.num_classes - 1, 'class')}: {', '.join(info.labels.names[1:])}.\n\n"
        f"Network `{info.net.name}` on {_seen(info)}; channels {', '.join(info.input.channels)}."
        + "".join(f" {_of_head(head)}" for head in info.heads)
    )


def _seen(info: BundleInfo) -> str:
    spec = info.input.geometry
    if info.input.points:
        return str(info.input)
    return (
        f"{info.input}, azimuth {spec.fov_right_deg:g} to {spec.fov_left_deg:g} deg, range {spec.min_range_m:g} to "
        f"{spec.max_range_m:g} m"
    )


def _of_head(head: HeadRule) -> str:
    told = "; ".join(f"`{name}`: {table.meaning or 'not described'}" for name, table in head.answers.items())
    return _HEADS.get(head.name, f"Its head `{head.name}` adds outputs ({told}).")


def _data(info: BundleInfo) -> str:
    source = info.provenance
    lines = [
        f"- data: {source.data or 'not recorded'} (hash `{source.data_hash[:16] or 'none'}`)",
        f"- share of points whose label was used: {100 * source.label_ratio:.3g} %",
    ]
    if info.statistics.beams:
        lines.append(f"- sensor: {counted(info.statistics.beams, 'beam')}")
    return "## Trained on\n\n" + "\n".join(lines)


def _quality(info: BundleInfo) -> str:
    rows = [f"- {_meaning(name)}: {_figure(value)}" for name, value in info.metrics.items() if isinstance(value, (int, float))]
    rows += [
        f"- ONNX file compared with torch, {name.replace('_', ' ')}: {_figure(value)}" for name, value in info.parity.items()
    ]
    table = "\n".join(f"| {name} | {_figure(iou)} |" for name, iou in _class_iou(info).items())
    return (
        "## Accuracy on the validation scans\n\n"
        + "\n".join(rows)
        + (f"\n\n| class | IoU |\n| --- | --- |\n{table}" if table else "")
    )


def _mounting_limit(info: BundleInfo) -> str:
    compared = "`weakseg doctor` and the node's diagnostics compare it with the training data."
    if info.input.level:
        return (
            "- Clouds are levelled and moved to a standard height above the ground found in each. If no ground is "
            f"seen, or z does not point up, the answers are unreliable; {compared}"
        )
    return f"- A sensor with other beams or another mounting height looks different to the network; {compared}"


def _limits(info: BundleInfo) -> str:
    spec, iou = info.input.geometry, _class_iou(info)
    lines = [_mounting_limit(info)]
    if info.input.points is None:
        seen = f"{spec.fov_down_deg:g} to {spec.fov_up_deg:g} deg"
        wide = f"- A sensor that sees more than {seen} gets coarser rows; points outside " if info.input.level else ""
        outside = wide or f"- Points outside {seen} or "
        lines.insert(0, f"{outside}{spec.min_range_m:g} to {spec.max_range_m:g} m get no class.")
    if "intensity" in info.input.channels and info.input.intensity.ranks:
        lines.append("- Intensity is used as its rank within each cloud: the driver's scale, gain and gamma do not matter.")
    elif "intensity" in info.input.channels:
        scale = f"0..{info.input.intensity.full_scale:g}" if info.input.intensity.full_scale else "the training data's own units"
        lines.append(f"- Intensity is expected on the scale {scale}; another scale misleads it (the node's `intensity_scale`).")
    absent = [name for name in info.labels.names[1:] if iou and iou.get(name) is None]
    weak = [f"{name} ({_figure(value)})" for name, value in iou.items() if value is not None and value < RARE_IOU]
    if weak:
        lines.append(f"- Weak classes, by IoU: {', '.join(weak)}.")
    if absent:
        lines.append(f"- Classes without validation points, whose quality is unknown: {', '.join(absent)}.")
    if not info.parity:
        lines.append(f"- Runs in torch only: the network `{info.net.name}` cannot be exported to ONNX.")
    lines += _referring_limits(info)
    lines.append("- Not for safety-critical use: its confidence is valid only on data like the training data.")
    return "## Known weaknesses\n\n" + "\n".join(lines)


def _referring_limits(info: BundleInfo) -> list[str]:
    """How often expressions are answered wrongly, as far as it was measured."""
    miou, false = (info.metrics.get(f"referring_{name}") for name in ("miou", "false_positive_rate"))
    if not isinstance(miou, (int, float)) or not isinstance(false, (int, float)):
        return []
    return [
        f"- Answers to expressions reach a mean IoU of {miou:.2f} on simulated streets; {100 * false:.0f} % of the expressions "
        "that match nothing still get an answer.",
        "- A LiDAR sees no colour, and a single scan shows no motion, so such words are ignored. An object that the network "
        "overlooks, or has no class for, is not found.",
    ]


def _again(info: BundleInfo) -> str:
    source = info.provenance
    made = ", ".join(f"{name} {value}" for name, value in source.environment.items())
    return (
        f"## Command\n\n```\n{source.command or 'not recorded'}\n```\n\nSeed {source.seed}; {made or 'environment not recorded'}."
    )


def _class_iou(info: BundleInfo) -> dict[str, float | None]:
    table = info.metrics.get("class_iou")
    return dict(table) if isinstance(table, dict) else {}


def _meaning(name: str) -> str:
    return _METRICS.get(name, name.replace("_", " "))


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
