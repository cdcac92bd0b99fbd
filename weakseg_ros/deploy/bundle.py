# SPDX-License-Identifier: Apache-2.0
"""A bundle: one folder with a network and everything it must be told about sensor, channels and classes.

    bundle.yaml            what BundleInfo says, with a hash over itself and over every model file
    model.onnx             the deploy graph (see deploy/graph.py)
    model-fp16.onnx, ...   the same network in other arithmetic, where `weakseg export` found that it answers alike
    sample.npz             inputs made of one scan, on which engines are compared where the bundle is used
    weights.safetensors    the same weights for the torch engine
    MODEL_CARD.md          on what it was trained, how well it does, where it will fail; not hashed, so it may be edited

Nothing in it is executed or unpickled, and a model file is used only where its content has the hash bundle.yaml gives.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weakseg_ros.config import check_ranges, dump_yaml, from_mapping, setting, to_mapping
from weakseg_ros.deploy.bundle_place import INFO_FILE, find_bundle
from weakseg_ros.deploy.input_spec import InputSpec
from weakseg_ros.deploy.tensors import ANSWERS, HEAD_OUTPUTS, RANGE_INPUTS, TensorSpec
from weakseg_ros.errors import BundleError, ConfigError, WeaksegError, did_you_mean
from weakseg_ros.files import content_of, put_in_place, read_regular, sha256_of_parts, staged
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.yaml_files import read_yaml

FORMAT_VERSION = 2
CARD_FILE = "MODEL_CARD.md"
MOST_INFO_BYTES, MOST_FILE_BYTES = 1 << 24, 1 << 32
"""larger files are refused before they are read"""

KIND_ONNX = "onnx"
KIND_WEIGHTS = "weights"
KIND_SAMPLE = "sample"
FP32 = "fp32"
VARIANTS = ("fp16", "int8", "int8-tensorrt")
"""arithmetic that a bundle may have an ONNX file for, besides float32"""


@dataclass(frozen=True)
class NetRule:
    """Which row of registry.NETS the weights belong to, and its arguments besides channels and num_classes."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadRule:
    """Which row of registry.HEADS stands behind the net, and its arguments besides the net and num_classes."""

    name: str
    kwargs: dict[str, Any] | None = field(default_factory=dict)
    """None: a bundle of format 1 does not say; engines that need no torch run it all the same"""
    outputs: dict[str, TensorSpec] = field(default_factory=dict)
    """what the head answers, by name; left empty for a head that deploy/tensors.py describes"""

    def __post_init__(self) -> None:
        if self.name not in HEAD_OUTPUTS and not self.outputs:
            raise ConfigError(
                f"heads: '{self.name}' is unknown and describes no outputs{did_you_mean(self.name, HEAD_OUTPUTS)}; "
                f"known: {', '.join(HEAD_OUTPUTS)}"
            )

    @property
    def answers(self) -> dict[str, TensorSpec]:
        """The table of its outputs, in the order of its graph."""
        return self.outputs or HEAD_OUTPUTS[self.name]


@dataclass(frozen=True)
class TrainingStatistics:
    """What the training clouds looked like; a robot's clouds are held against it. Empty quantiles = not known."""

    intensity: dict[float, float] = field(default_factory=dict)
    """quantiles of the intensity, in the training data's units"""
    range_m: dict[float, float] = field(default_factory=dict)
    """quantiles of the distance"""
    inclination_deg: dict[float, float] = field(default_factory=dict)
    """quantiles of the signed angle above the horizon"""
    outside_share: float = 0.0
    """share of the usable points that fall outside the image"""
    filled_share: float = 0.0
    """share of the image's pixels that hold a point"""
    beams: int = 0
    """laser beams of the sensor; 0 = not known"""


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from: enough to train them again."""

    seed: int = 0
    data: str = ""
    data_hash: str = ""
    label_ratio: float = 1.0
    """share of the points whose label was used"""
    command: str = ""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFile:
    """One file of the bundle. A kind that no engine knows is carried along, so variants can be added later."""

    sha256: str
    kind: str


@dataclass(frozen=True)
class VariantFacts:
    """How a network in other arithmetic differs from itself in float32, over validation scans."""

    class_agreement: float = setting(0.0, 0.0, 1.0)
    """share of the pixels with a point that get the same class"""
    miou: float | None = None
    """over the labelled pixels; None = the scans have no labels"""
    fp32_miou: float | None = None
    """the same in float32"""
    scans: int = setting(0, 0)
    data: str = ""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class BundleInfo:
    """Everything that bundle.yaml says; checked where it is made."""

    version: int = FORMAT_VERSION
    name: str
    content_hash: str = ""
    """hex SHA-256 over all the other entries, hence over the files' hashes too"""
    input: InputSpec
    """what the network is told of a cloud"""
    inputs: dict[str, TensorSpec] = field(default_factory=lambda: dict(RANGE_INPUTS))
    """what the network is given, by name, in the order of its graph"""
    outputs: dict[str, TensorSpec] = field(default_factory=dict)
    """what it answers, by name, in the order of its graph; left empty it follows from the heads"""
    labels: LabelMap
    net: NetRule
    heads: tuple[HeadRule, ...] = ()
    """what stands behind the net and answers besides class, confidence and uncertainty"""
    temperature: float = setting(1.0, 0.01, 100.0)
    """divides the logits inside the graph, fitted on validation data"""
    statistics: TrainingStatistics = field(default_factory=TrainingStatistics)
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    parity: dict[str, float] = field(default_factory=dict)
    """how far the exported graph is from the network it came from"""
    files: dict[str, ModelFile] = field(default_factory=dict)
    variants: dict[str, VariantFacts] = field(default_factory=dict)
    """the arithmetic besides float32 that the bundle has files for, see `kind_of`"""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.name.isprintable():
            raise ConfigError(f"name: {self.name!r} contains control characters; rename the bundle")
        names = self.head_names
        if len(set(names)) != len(names):
            raise ConfigError(f"heads: {list(names)} names a head twice; name each once")
        due = {**ANSWERS, **{name: table for head in self.heads for name, table in head.answers.items()}}
        if not self.outputs:
            object.__setattr__(self, "outputs", due)
        missing = [name for name in due if name not in self.outputs]
        if missing:
            raise ConfigError(
                f"outputs: '{missing[0]}' is missing, but the network or its heads must provide it; export the model again"
            )

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads by name."""
        return tuple(head.name for head in self.heads)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that the tables' symbols stand for, as far as the bundle settles them."""
        return {"C": len(self.input.channels), **self.input.image_sizes, "K": self.labels.num_classes}

    def refuse_points(self, verb: str) -> None:
        """BundleError where the network is on points, which `verb` cannot take."""
        if self.input.points is not None:
            raise BundleError(
                f"model '{self.name}': is a network on points, and {verb} supports networks on range images only; train it again "
                "with 'weakseg train'"
            )

    def hashed(self) -> str:
        """The hex SHA-256 that `content_hash` must hold."""
        return _hash_of(to_mapping(dataclasses.replace(self, content_hash="")))


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file was found to be what bundle.yaml says."""

    folder: Path
    info: BundleInfo

    @classmethod
    def load(cls, where: Path | str) -> Bundle:
        """Read and verify the bundle at a path, or the shipped one of that name (see find_bundle).

        Raises BundleError: nothing there, a file missing, empty or altered, an unknown version, classes or channels that
        contradict each other, a file name that leads out of the folder.
        """
        folder = find_bundle(where)
        try:
            info = _read_info(folder / INFO_FILE)
        except BundleError:
            raise
        except WeaksegError as error:
            raise BundleError(f"{folder}: {error}; export the model again") from None
        except (RecursionError, ValueError, TypeError, LookupError, OverflowError) as error:  # made to break a reader
            raise BundleError(f"{folder}: {INFO_FILE} cannot be read ({type(error).__name__}); copy the bundle again") from None
        bundle = cls(folder, info)
        for name in info.files:
            bundle.read(name)
        if not info.files:
            raise BundleError(f"{folder}: {INFO_FILE} lists no model file; export the model again")
        return bundle

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def content_hash(self) -> str:
        return self.info.content_hash

    @property
    def labels(self) -> LabelMap:
        return self.info.labels

    @property
    def num_classes(self) -> int:
        """K, counting class 0."""
        return self.labels.num_classes

    @property
    def variants(self) -> tuple[str, ...]:
        """The arithmetic that the bundle has an ONNX file for."""
        return tuple(variant for variant in (FP32, *VARIANTS) if self.file_of(kind_of(variant)) is not None)

    def file_of(self, kind: str) -> str | None:
        """Name of the first file of a kind, None where the bundle has none."""
        return next((name for name, file in self.info.files.items() if file.kind == kind), None)

    def read(self, name: str) -> bytes:
        """Content of a model file, verified now: a bundle replaced on disk meanwhile is an error, not a mixture."""
        path = self.folder / name
        # A plain name cannot lead outside. A link may (colcon's symlink install makes them), but the hash pins its content.
        if Path(name).name != name or name in ("", ".", "..") or not name.isprintable():
            raise BundleError(
                f"{self.folder}: the file name {name!r} is refused, it may lead outside the folder; copy the bundle again"
            )
        try:
            content = read_regular(path, MOST_FILE_BYTES)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}); export the model again") from None
        if not content:
            raise BundleError(f"{path}: is empty; copy the bundle again")
        found = hashlib.sha256(content).hexdigest()
        if found != self.info.files[name].sha256:
            expected = self.info.files[name].sha256
            raise BundleError(
                f"{path}: its hash is {found[:12]}, but {INFO_FILE} says {expected[:12]}; "
                "it is truncated or modified, so copy it again"
            )
        return content


def kind_of(variant: str) -> str:
    """The kind of the ONNX file that holds the network in this arithmetic."""
    return KIND_ONNX if variant == FP32 else f"{KIND_ONNX}-{variant}"


def write_bundle(folder: Path, info: BundleInfo, files: Mapping[str, tuple[str, bytes]], card: str) -> Bundle:
    """Write `{file name: (kind, content)}` and the model card as a bundle, whole or not at all; returns it verified.

    The folder is prepared beside its place and renamed into it; a bundle already there is replaced. Raises BundleError where
    something else is there, or the disk does not take it.
    """
    if folder.is_symlink():
        raise BundleError(f"{folder}: is a symbolic link, which is never replaced; name another folder")
    if folder.exists() and not (folder / INFO_FILE).is_file() and (not folder.is_dir() or content_of(folder)):
        raise BundleError(f"{folder}: exists and is not a bundle; choose another folder")
    table = {name: ModelFile(hashlib.sha256(content).hexdigest(), kind) for name, (kind, content) in files.items()}
    info = dataclasses.replace(info, files=table)
    info = dataclasses.replace(info, content_hash=info.hashed())
    contents = {name: content for name, (_, content) in files.items()}
    contents |= {CARD_FILE: card.encode(), INFO_FILE: dump_yaml(info).encode()}
    try:
        with staged(folder) as fresh:
            for name, content in contents.items():
                (fresh / name).write_bytes(content)
            Bundle.load(fresh)
            put_in_place(fresh, folder)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written ({error.strerror}); check space and permissions") from None
    return Bundle.load(folder)


def _read_info(path: Path) -> BundleInfo:
    mapping = read_yaml(path, MOST_INFO_BYTES)
    if not isinstance(mapping, dict):
        raise BundleError(f"{path}: is empty or holds no settings; copy the bundle again")
    version = mapping.get("version")
    if version not in (1, FORMAT_VERSION):
        raise BundleError(
            f"{path}: is of format {version!r}, but this program reads 1 to {FORMAT_VERSION}; update weakseg_ros or export again"
        )
    if version == 1:
        mapping, expected = from_format_1(mapping, path.name), mapping.get("content_hash")
        return dataclasses.replace(from_mapping(BundleInfo, mapping, path.name), content_hash=str(expected))
    info = from_mapping(BundleInfo, mapping, path.name)
    # over what is written there: entries that a later version adds, with their defaults, do not make an older bundle edited
    if info.content_hash != _hash_of({**mapping, "content_hash": ""}):
        raise _edited(path.name)
    return info


def from_format_1(old: dict[str, Any], where: str) -> dict[str, Any]:
    """bundle.yaml of format 1 in today's form; BundleError where it was edited.

    That format had the input's settings side by side, a method in place of heads, and no tables of tensors. Which settings a
    head had is not told apart from its method's, so only engines that run the exported graph know the heads.
    """
    told = {key: value for key, value in old.items() if old.get("outputs") or key not in ("outputs", "method")}
    if old.get("content_hash") != _hash_of({**told, "content_hash": ""}):
        raise _edited(where)
    moved = ("spec", "channels", "mean", "std", "intensity", "outputs", "method")
    geometry, channels, mean, std, intensity, outputs, _ = (old.get(key) for key in moved)
    facts = {"geometry": geometry, "channels": channels, "mean": mean, "std": std, "intensity": intensity}
    heads = [head for head, names in HEAD_OUTPUTS.items() if next(iter(names)) in (outputs or ())]
    return {
        **{key: value for key, value in old.items() if key not in moved},
        "version": FORMAT_VERSION,
        "input": facts,
        "heads": [{"name": head, "kwargs": None} for head in heads],
    }


def _hash_of(content: Mapping[str, Any]) -> str:
    return sha256_of_parts([json.dumps(content, sort_keys=True)])


def _edited(where: str) -> BundleError:
    return BundleError(f"{where}: its content does not match its own content_hash; it was edited, copy the bundle again")
