# SPDX-License-Identifier: Apache-2.0
"""`weakseg export`: from a trained network to a bundle; the ONNX file is compared with torch before anyone relies on it."""

from __future__ import annotations

import copy
import dataclasses
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from weakseg_ros import registry
from weakseg_ros.batches.batches import label_image
from weakseg_ros.config import load_yaml, to_mapping
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.data.scans import splits_of
from weakseg_ros.deploy.bundle import (
    KIND_ONNX,
    KIND_WEIGHTS,
    Bundle,
    BundleInfo,
    NetRule,
    Provenance,
    write_bundle,
)
from weakseg_ros.deploy.bundle_place import INFO_FILE
from weakseg_ros.deploy.engines.torch import rules_of
from weakseg_ros.deploy.frontends import Answers, FrontendSettings, answer, make_frontend
from weakseg_ros.deploy.graph import DeployGraph, join_weights
from weakseg_ros.deploy.input_spec import InputSpec
from weakseg_ros.environment import environment
from weakseg_ros.errors import BundleError, ConfigError, DataError, counted, say
from weakseg_ros.files import put_in_place, staged
from weakseg_ros.nets.class_prior import adjust_to_shares
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.progress import Progress
from weakseg_ros.train.calibrate import fit_temperature
from weakseg_ros.train.config import ExportConfig, TrainConfig
from weakseg_ros.train.model_card import model_card
from weakseg_ros.train.onnx_file import HALVED_ELEMENTS, Samples, compare, export_onnx
from weakseg_ros.train.outputs import check_bundle_place, still_free
from weakseg_ros.train.referring_export import referring_files
from weakseg_ros.train.run_data import open_run_data
from weakseg_ros.train.run_folder import CONFIG, LABELS, SPEC, STATISTICS, RunFolder
from weakseg_ros.train.session import make_method, make_net, restore
from weakseg_ros.train.survey import DataStatistics

MAX_DIFFERENCE = 1e-3
"""of confidence and uncertainty between torch and the ONNX file, and of further outputs as a share of their largest value"""
MIN_CLASS_AGREEMENT = 0.999
MIN_CLASS_AGREEMENT_HALF = 0.99
PARITY_IMAGES = 4
PIXELS_PER_SCAN = 20_000
ELSEWHERE = ("data", "out", "out_bundle", "overwrite", "resume")
"""settings of a training that say where it is, not what it does"""


def run(config: ExportConfig) -> int:
    """Do what `weakseg export` was asked for; returns its exit code."""
    if config.run is not None:
        _check_run(config.run)
    if config.from_bundle is not None:
        _check_bundle(config.from_bundle)
        if config.scans is None:
            raise ConfigError("scans: name scans of the training data with --scans; a bundle does not hold them")
    if config.scans is not None:
        splits_of(config.scans)  # a wrong path is told before the work
    check_bundle_place(config.out, config.overwrite, "--out")
    with staged(config.out) as fresh:  # a bundle that still lacks its variants would be taken for all that was asked for
        folder = fresh / config.out.absolute().name
        if config.run is not None:
            _report(export_run(config.run, folder, config.name, config.calibrate, config.half, config.class_prior), config.out)
        if config.variants:
            _add_variants(config, folder)
        put_in_place(folder, still_free(config.out, config.overwrite))
    return 0


def _check_run(folder: Path) -> None:
    """DataError, with what to name instead, unless a training has written the folder."""
    if not (folder / CONFIG).is_file():
        usual = "name the folder that 'weakseg train' wrote with --out"
        advice = f"it is a bundle, so write --from {folder}" if (folder / INFO_FILE).is_file() else usual
        raise DataError(f"{folder}: is not the folder of a training run ({CONFIG} is missing); {advice}")


def _check_bundle(folder: Path) -> None:
    """BundleError where a folder is no bundle, with what to write for that of a training run."""
    if (folder / CONFIG).is_file() and not (folder / INFO_FILE).is_file():
        raise BundleError(f"{folder}: is the folder of a training run and not a bundle; write it without --from")
    Bundle.load(folder)


def _add_variants(config: ExportConfig, folder: Path) -> None:
    """Write the bundle once more to `folder`, with the variants that answer alike, and say what came of each."""
    from weakseg_ros.train.variants import add_variants, in_words, open_data_for  # the tools take seconds to import

    bundle = Bundle.load(config.from_bundle or folder)
    if bundle.file_of(KIND_ONNX) is None and config.run is not None:
        return
    if bundle.info.input.points is not None and config.run is not None:
        say("  float32 only: half precision and int8 need a network on range images")
        return
    if config.scans is not None:
        train_scans, val_scans = open_data_for(bundle, config.scans)
    else:
        assert config.run is not None, "a bundle comes with scans"
        train_scans, val = open_run_data(RunFolder(config.run))
        val_scans = val or train_scans
    if config.name:
        bundle = dataclasses.replace(bundle, info=dataclasses.replace(bundle.info, name=config.name))
    _, found = add_variants(bundle, folder, config.variants, train_scans, val_scans)
    say(f"{config.out}: {', '.join(found.facts) or 'no variant'} in addition to float32")
    for line in in_words(found):
        say(f"  {line}")


def _report(bundle: Bundle, folder: Path) -> None:
    """Say what a bundle is that will lie at `folder`."""
    info, size = bundle.info, sum(file.stat().st_size for file in bundle.folder.iterdir())
    say(
        f"{folder}: {info.name}, {size / 1e6:.1f} MB, {counted(bundle.num_classes - 1, 'class')}, "
        f"temperature {info.temperature:.3g}"
    )
    say("  " + ", ".join(f"{name} {value:.4g}" for name, value in info.metrics.items() if isinstance(value, (int, float))))
    if info.parity:
        say("  against torch: " + ", ".join(f"{name} {value:.4g}" for name, value in info.parity.items()))
    else:
        why = registry.load(registry.NETS, info.net.name).why_no_onnx
        say(f"  no ONNX file: {why}; only the torch engine runs this bundle")


def export_run(
    run_path: Path, folder: Path, name: str = "", scans: int = 24, half: bool = False, class_prior: float = 0.0
) -> Bundle:
    """The best net of a run folder as a bundle, calibrated on up to `scans` of its validation scans.

    With `class_prior` its scores are shifted first, see `adjust_to_shares`.

    Without validation scans the temperature stays 1. Raises DataError where the run is incomplete or its data are gone,
    BundleError where the ONNX file answers otherwise than torch or cannot be written.
    """
    run = RunFolder(run_path)
    config = load_yaml(TrainConfig, run_path / CONFIG)
    statistics = load_yaml(DataStatistics, run_path / STATISTICS)
    labels = load_yaml(LabelMap, run_path / LABELS)
    spec = load_yaml(RangeSpec, run_path / SPEC)
    net = make_net(config, statistics, labels.num_classes).eval()
    weights, figures = run.load_best()
    restore(run, "net", net, weights)
    if class_prior:
        adjust_to_shares(net, statistics.class_counts, class_prior)
        figures["class_prior"] = class_prior
    heads = _load_heads(run, config, net, statistics, labels)
    told = statistics.input_spec(spec, config.points_spec)
    train_scans, val_scans = open_run_data(run)
    images, logits, class_id = measure_scans(net, val_scans or train_scans, told, scans)
    info = BundleInfo(
        name=name or folder.absolute().name,
        input=told,
        inputs=dict(make_frontend(told, labels).inputs),
        labels=labels,
        net=NetRule(config.net, config.net_arguments),
        heads=rules_of(heads),
        statistics=statistics.clouds,
        metrics=figures,
        provenance=_provenance(run, config, statistics),
    )
    if val_scans is not None and len(class_id):
        fit = dataclasses.asdict(fit_temperature(logits, class_id))
        info = dataclasses.replace(info, temperature=fit.pop("temperature"), metrics={**figures, **fit})
    return export_bundle(net, info, folder, images, half, heads)


def _load_heads(
    run: RunFolder, config: TrainConfig, net: nn.Module, statistics: DataStatistics, labels: LabelMap
) -> Heads | None:
    """What the run's method adds for the robot, with the weights of the best validation; None = nothing."""
    heads, weights = make_method(config, net, statistics, labels).deployable(), run.load_best_heads()
    if heads is None or not weights:  # runs of older versions kept none
        return None
    restore(run, "heads", heads, weights)
    return heads


def export_bundle(
    net: nn.Module,
    info: BundleInfo,
    folder: Path,
    sample_images: Samples,
    half: bool = False,
    heads: Heads | None = None,
) -> Bundle:
    """Write `net` as a bundle and prove it: the ONNX file must answer as torch does on `sample_images`.

    `sample_images` are network inputs of real scans, images (M, C, H, W) or all inputs by name. `info` brings everything
    but parity, files and hash. With `half` the weights are stored in half precision. `heads` are those that `info.heads`
    names.
    Both modules are left as they are. A net that states `why_no_onnx` gets a bundle for torch alone. Raises BundleError
    where ONNX and torch disagree, before anything is written at `folder`.
    """
    net, heads = copy.deepcopy((net, heads))
    graph = DeployGraph(net, info.labels.num_classes, info.temperature, heads).eval().cpu()
    tensors = join_weights(net.state_dict(), {} if heads is None else heads.state_dict())
    weights = {name: _stored(tensor, half) for name, tensor in tensors.items()}
    files = {"weights.safetensors": (KIND_WEIGHTS, save_safetensors(weights))}
    parity: dict[str, float] = {}
    if not getattr(net, "why_no_onnx", ""):
        model, parity = _proven_onnx(graph, info, folder, sample_images, half)
        files["model.onnx"] = (KIND_ONNX, model)
        more, further = referring_files(heads)
        _check_referring(further, folder)
        files, parity = files | more, parity | further
    info = dataclasses.replace(info, parity=parity, metrics=_plain(info.metrics), variants={})
    return write_bundle(folder, info, files, model_card(info))


def _proven_onnx(
    graph: DeployGraph, info: BundleInfo, folder: Path, sample_images: Samples, half: bool
) -> tuple[bytes, dict[str, float]]:
    """The ONNX file and its parity with torch; BundleError where that is not good enough for the bundle at `folder`."""
    model = export_onnx(graph, info, half)
    least = MIN_CLASS_AGREEMENT_HALF if half else MIN_CLASS_AGREEMENT
    parity = compare(graph, model, sample_images)
    apart = max(value for name, value in parity.items() if name.endswith("_difference"))
    if not (parity["class_agreement"] >= least and (half or apart <= MAX_DIFFERENCE)):
        raise BundleError(
            f"{folder}: the ONNX file's predictions differ from torch's (class agreement {parity['class_agreement']:.4f}, "
            f"largest difference {apart:.2g}), so nothing was written; try another version of torch or onnxruntime"
        )
    return model, parity


def _check_referring(parity: Mapping[str, float], folder: Path) -> None:
    """BundleError where a referring head's files do not answer as torch does."""
    apart = max(parity.values(), default=0.0)
    if not apart <= MAX_DIFFERENCE:
        raise BundleError(
            f"{folder}: the ONNX files of the referring head differ from torch by {apart:.2g}, so nothing was written; try "
            "another version of torch or onnxruntime"
        )


@torch.inference_mode()
def measure_scans(net: nn.Module, scans: ScanSet, spec: InputSpec, count: int) -> tuple[Samples, Tensor, Tensor]:
    """Network inputs of a few scans, and logits (P, K) with class ids (P,) of labelled pixels of `count` scans."""
    frontend = make_frontend(spec, scans.labels)
    frontend.settings = FrontendSettings(allow_no_intensity=True)
    samples: list[dict[str, NDArray[Any]]] = []
    logits, class_id = [], []
    rng = np.random.default_rng(0)
    numbers = np.unique(np.linspace(0, len(scans) - 1, min(count, len(scans))).round().astype(int))
    for number in Progress(numbers, what="calibrate", unit="scan"):
        scan = scans[int(number)]
        inputs, view = frontend.encode(scan.cloud)
        if len(samples) < PARITY_IMAGES and not frontend.sees_nothing(view):
            samples.append({name: values[: frontend.at_once] for name, values in inputs.items()})
        if scan.class_id is None or frontend.sees_nothing(view):
            continue
        truth = label_image(scan.class_id, view.pixels).ravel()
        labelled = np.flatnonzero(truth)
        chosen = rng.choice(labelled, min(PIXELS_PER_SCAN, len(labelled)), replace=False)
        found = answer(frontend, lambda part: {"logits": _logits(net, part)}, inputs, view)["logits"]
        logits.append(torch.from_numpy(np.moveaxis(found, 1, -1).reshape(-1, found.shape[1])[chosen]))  # (P, K)
        class_id.append(torch.from_numpy(truth[chosen]))
    if not samples:
        raise DataError(
            f"{scans.name}: holds no scan to compare the exported model on; name the data that the run was trained on"
        )
    empty = torch.zeros(0, scans.labels.num_classes), torch.zeros(0, dtype=torch.uint8)
    return samples, torch.cat([empty[0], *logits]), torch.cat([empty[1], *class_id])


def _logits(net: nn.Module, inputs: Answers) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = net(*map(torch.from_numpy, inputs.values())).logits.numpy()
    return logits


def command_of(config: TrainConfig) -> str:
    """The command line that repeats the training: every setting that is not the default."""
    return " ".join(["weakseg train", shlex.quote(str(config.data)), *options_of(config, TrainConfig(), ELSEWHERE)])


def options_of(settings: Any, defaults: Any, left_out: Sequence[str] = ()) -> list[str]:
    """The settings that differ from `defaults`, each as it is written on a shell's command line."""
    usual = dict(_flat(defaults))
    return [_option(name, value) for name, value in _flat(settings) if value != usual[name] and name not in left_out]


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in to_mapping(settings).items():
        nested = getattr(settings, name)
        if dataclasses.is_dataclass(nested):
            yield from _flat(nested, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _option(name: str, value: Any) -> str:
    """One setting as it is written on the command line."""
    group, dot, last = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return f"--{group}{dot}{'' if value else 'no-'}{last}"
    many = [word for pair in value.items() for word in pair] if isinstance(value, dict) else value
    return f"--{group}{dot}{last} {shlex.join(map(str, many if isinstance(many, list) else [many]))}"


def _provenance(run: RunFolder, config: TrainConfig, statistics: DataStatistics) -> Provenance:
    facts = run.environment()
    return Provenance(
        seed=config.seed,
        data=facts["data"]["name"],
        data_hash=facts["data"]["hash"],
        label_ratio=statistics.label_ratio,
        command=command_of(config),
        environment={name: facts[name] for name in environment() if name in facts},
    )


def _plain(value: Any) -> Any:
    """Numbers, strings and lists alone, NaN as None: what YAML and JSON give back unchanged."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and math.isnan(value) else value


def _stored(tensor: Tensor, half: bool) -> Tensor:
    halved = half and tensor.dtype == torch.float32 and tensor.numel() >= HALVED_ELEMENTS
    return (tensor.half() if halved else tensor).detach().contiguous().clone()
