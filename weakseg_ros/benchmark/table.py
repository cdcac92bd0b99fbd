# SPDX-License-Identifier: Apache-2.0
"""What a benchmark compares: every row of its table as the settings of one training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import tyro

from weakseg_ros import registry
from weakseg_ros.benchmark.published import Published
from weakseg_ros.config import check_ranges, from_mapping, load_yaml, setting, shard_of, to_mapping
from weakseg_ros.data.scans import splits_of
from weakseg_ros.deploy.bundle_place import INFO_FILE
from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.files import sha256_of, share_folder
from weakseg_ros.methods.parts import parts_of
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.weak.protocols import SparseConfig
from weakseg_ros.yaml_files import parse_yaml

FILE_ONLY: Any = tyro.conf.Suppress
"""nested settings that only a YAML file can give"""
_SCOPE = ("methods", "nets", "ratios")
_WITHOUT_EFFECT = (
    *("data", "out", "resume", "bundle", "val_data", "workers", "cache_gib", "log_every", "sparse_labels"),
    "poses_file",
)
"""settings that say where things are and how fast they are read, not what is trained"""
_LATER = ("points", "grid_m")
"""settings of the draw that rows of an earlier version know nothing of"""

Mapped = dict[str, Any]


@dataclass(frozen=True)
class BenchmarkConfig:
    """Train every method with every net, label ratio and seed, and compare them on one data set."""

    data: tyro.conf.Positional[Path] = Path(".")
    """Names the folder of labelled scans, in any layout that 'weakseg check' recognises."""
    out: Path = Path("runs/benchmark")
    """Names the folder of the table, with rows.jsonl, benchmark.md, benchmark.png and summary.json; finished rows in it are not
    trained again."""

    base: Path = Path()
    """Names a training file, for example config/train/vlp32.yaml, whose settings all rows start from; the default means those of
    'weakseg train'."""
    train: Annotated[Mapped, FILE_ONLY] = field(default_factory=dict)
    """Changes settings of all trainings, for example {split: train, val_split: val}."""
    override: tuple[str, ...] = ()
    """Changes settings of all trainings by dotted name, for example steps=200 augment.mix=0 coarse3d.anchors=64."""
    hold_out: float = setting(0.0, 0.0, 0.9)
    """Holds out this share of the training scans (0 to 0.9), taken from the end, and validates on it instead of the validation
    scans, so that settings are not chosen on the reported scans; 0 validates as usual."""

    folds: tuple[str, ...] = ()
    """Lists recordings, areas or places for a cross-validation: each row is trained once for each of them, on the others, and the
    points of all are counted together; an empty list validates as usual."""

    methods: tuple[str, ...] = ("supervised", "erda", "coarse3d", "erda+coarse3d")
    """Lists the methods to compare by name; names joined by '+' form one combined method."""
    nets: tuple[str, ...] = ("light",)
    """Lists the nets to compare by name."""
    ratios: tuple[float, ...] = (1.0, 0.01, 0.001)
    """Lists the label ratios to train with, above 0 and up to 1; 1 uses all labels, and smaller ones are drawn with the
    settings of `draw`."""
    seeds: tuple[int, ...] = (1,)
    """Lists the random seeds; each row is trained once with each seed, which also seeds its label draw."""
    draw: SparseConfig = field(default_factory=SparseConfig)
    """Sets how sparse labels are drawn; the ratio and seed are those of the row."""
    classes: tuple[str, ...] = ()
    """Lists by name the classes whose IoUs are averaged; an empty list means all classes that occur in the validation scans."""

    method_settings: Annotated[dict[str, Mapped], FILE_ONLY] = field(default_factory=dict)
    """Changes the settings of all trainings with a method, for example {erda+coarse3d: {erda: {pseudo_share: 0.5}}}."""
    net_settings: Annotated[dict[str, Mapped], FILE_ONLY] = field(default_factory=dict)
    """Changes the settings of all trainings with a net, for example {salsanext: {net_width: 16}}."""
    variants: Annotated[dict[str, Mapped], FILE_ONLY] = field(default_factory=dict)
    """Adds rows with other settings under a name, for example {without_contrast: {methods: [coarse3d], ratios: [0.001],
    coarse3d: {weight: 0.0}}}; methods, nets and ratios select the rows that get the variant."""

    published: Annotated[tuple[Published, ...], FILE_ONLY] = ()
    """Lists published figures to show next to the rows, each with its source."""

    step_turns: int = setting(15, 0, 10000)
    """Sets how many training steps of each method are timed once all rows are finished, for steps.json (1 to 10000); 0 skips
    the timing."""
    shard: str = ""
    """Trains only every n-th row, starting with row i, given as i/n with i from 1 to n; several processes may share `out`."""
    report_only: bool = False
    """Trains nothing and writes the report of the finished rows."""
    keep_runs: bool = False
    """Keeps the weights of each training."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("methods", "nets", "ratios", "seeds"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: is empty; give at least one")
        if len(self.folds) == 1 or (self.folds and self.hold_out):
            raise ConfigError("folds: only one is named, or hold_out is set too; list two or more folds, and leave hold_out at 0")
        for ratio in self.ratios:
            if not 0.0 < ratio <= 1.0:
                raise ConfigError(f"ratios: {ratio} is outside 0..1; 1 means all labels, 0.001 one in a thousand")
        if self.draw.protocol == "full" and min(self.ratios) < 1.0:
            raise ConfigError("draw.protocol: 'full' keeps all labels whatever the ratio; choose voxel or per_class")
        for method in (*self.methods, *self.method_settings):
            parts_of(method)
        _check_nets([*self.nets, *self.net_settings])
        for name, variant in self.variants.items():
            _check_variant(name, variant)
        shard_of(self.shard)

    @classmethod
    def from_older(cls, mapping: Mapping[str, Any], where: str) -> Mapped:
        """The mapping as it is written today: what `options` said by method stands in `method_settings`."""
        today = dict(mapping)
        given = today.pop("options", {})
        if not _are_mappings(given, *(given.values() if isinstance(given, Mapping) else ())):
            raise ConfigError(f"{where}.options: expected settings by method, found '{given}'")
        older = {method: TrainConfig.from_older({"options": values}, f"{where}.{method}") for method, values in given.items()}
        return {**today, "method_settings": {**older, **today.get("method_settings", {})}} if older else today


@dataclass(frozen=True)
class Row:
    """One training of the table."""

    method: str
    net: str
    ratio: float
    seed: int
    variant: str
    """empty for the plain method"""
    draw: SparseConfig
    """the labels to train on"""
    train: TrainConfig
    """everything else, without paths of this table"""

    @property
    def key(self) -> str:
        """The row's name in rows.jsonl, and that of its run folder."""
        variant = f"-{self.variant}" if self.variant else ""
        return f"{self.method}{variant}-{self.net}-r{self.ratio:g}-s{self.seed}"

    @property
    def settings_hash(self) -> str:
        """Another one where something else is asked for, also by another content of a file that is named, whatever the data.

        Settings at their default are left out, so that a new one that a later version brings leaves finished rows finished;
        so are those of methods and nets that the row does not use.
        """
        asked = _asked_for(self.train, TrainConfig())
        used = {name: value for name, value in asked.items() if name not in self.train.without_effect}
        usual = to_mapping(SparseConfig())
        draw = {name: value for name, value in to_mapping(self.draw).items() if name not in _LATER or value != usual[name]}
        files = _named_files(self.train)
        return _hash({"train": used, "draw": draw, **({"files": files} if files else {})})


def _check_nets(names: Iterable[str]) -> None:
    for net in names:
        if net not in registry.NETS:
            raise ConfigError(f"net: unknown '{net}'{did_you_mean(net, registry.NETS)}; known: {', '.join(registry.NETS)}")


def _check_variant(name: str, variant: Mapped) -> None:
    """ConfigError where a variant cannot be a row's name and folder, or is for something that does not exist."""
    if not re.fullmatch(r"[\w.+ -]*\w[\w.+ -]*", name):
        raise ConfigError(f"variants: the name '{name}' is no name of a folder; use letters, digits, '_', '-', '.' and '+'")
    scope = variant if isinstance(variant, Mapping) else {}
    for key in _SCOPE:
        if not isinstance(scope.get(key, []), list):
            raise ConfigError(f"variants.{name}.{key}: expected a list, found '{scope[key]}'")
    for method in scope.get("methods", []):
        parts_of(str(method))
    _check_nets(scope.get("nets", []))


def base_settings(config: BenchmarkConfig) -> TrainConfig:
    """The settings that all rows begin from."""
    base = TrainConfig() if config.base == Path() else load_yaml(TrainConfig, _find(config.base))
    changes: Mapped = reduce(_joined, map(_override, config.override), config.train)
    base = _changed(base, changes, "train")
    if config.hold_out:
        base = dataclasses.replace(base, val_data=None, val_split="", val_sequences=(), hold_out=config.hold_out)
        if not base.split and not base.sequences and "train" in splits_of(config.data):
            base = dataclasses.replace(base, split="train")  # without one, data with a val of their own are validated on that
    if base.devices > 1 or base.num_nodes > 1:
        raise ConfigError(f"{config.base}: a row is trained by one process; leave devices at 1 and run several with shard")
    if base.sparse_labels is not None or base.draw.protocol != "full":
        where = "train" if config.base == Path() else config.base
        raise ConfigError(f"{where}: names labels to train on; a benchmark draws its own (draw, ratios)")
    precision: Any = "32-true" if base.precision == "auto" else base.precision  # of the table, not of a machine
    return dataclasses.replace(base, data=config.data, resume=False, out_bundle=None, precision=precision)


def _override(text: str) -> Mapped:
    """The nested mapping that 'augment.mix=0' stands for."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"override: '{text}' lacks '='; write for example steps=200")
    return reduce(lambda inner, part: {part: inner}, reversed(name.split(".")), parse_yaml(value, f"override: '{text}'"))


def _joined(first: Mapped, second: Mapped) -> Mapped:
    """Both mappings in one, nested ones too; the second wins."""
    both = {key: _joined(first[key], value) if _are_mappings(first.get(key), value) else value for key, value in second.items()}
    return {**first, **both}


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def table(config: BenchmarkConfig) -> list[Row]:
    """All rows; seed by seed, so that an unfinished table compares everything on few seeds rather than little on all."""
    base = base_settings(config)
    rows = []
    for seed in config.seeds:
        unchanged: dict[str, Mapped] = {"": {}}
        for name, variant in (unchanged | config.variants).items():
            for net, ratio, method in _scope(config, variant):
                rows.append(_row(config, base, variant, Row(method, net, ratio, seed, name, config.draw, base)))
    other = next((row for row in rows if row.train.precision != base.precision), None)
    if other is not None:
        raise ConfigError(
            f"precision: row {other.key} asks for {other.train.precision} and the others for {base.precision}; set one for all "
            "rows under train"
        )
    return rows


def _row(config: BenchmarkConfig, base: TrainConfig, variant: Mapping[str, Any], row: Row) -> Row:
    """The row with its settings: those of the base, of its net, of its method, of its variant, in this order."""
    where = f"variants.{row.variant}"
    train = dataclasses.replace(base, net=row.net, method=row.method, seed=row.seed)
    train = _changed(train, config.net_settings.get(row.net, {}), f"net_settings.{row.net}")
    for method, changes in config.method_settings.items():
        if parts_of(method) == parts_of(row.method):
            train = _changed(train, changes, f"method_settings.{method}")
    own = {name: value for name, value in variant.items() if name not in _SCOPE}
    draw = from_mapping(SparseConfig, own.pop("draw", {}), f"{where}.draw", row.draw)
    train = _changed(train, own, where)
    protocol = "full" if row.ratio == 1.0 else draw.protocol
    draw = dataclasses.replace(draw, protocol=protocol, ratio=row.ratio, seed=row.seed)
    return dataclasses.replace(row, draw=draw, train=train)


def _scope(config: BenchmarkConfig, variant: Mapping[str, Any]) -> Iterator[tuple[str, float, str]]:
    """(net, ratio, method) of each row that the variant is for, within those of the table."""
    for net in config.nets:
        for ratio in config.ratios:
            for method in config.methods:
                if all(item in variant.get(key, [item]) for key, item in zip(_SCOPE, (method, net, ratio), strict=True)):
                    yield net, ratio, method


def _changed(settings: TrainConfig, changes: Mapping[str, Any], where: str) -> TrainConfig:
    """The settings with `changes`."""
    if not isinstance(changes, Mapping):
        raise ConfigError(f"{where}: expected settings by name, found '{changes}'")
    return from_mapping(TrainConfig, changes, where, settings)


def _find(path: Path) -> Path:
    """The file as given, or as the installation has it."""
    return path if path.is_file() or path.is_absolute() else share_folder() / path


def _asked_for(settings: Any, default: Any) -> Mapped:
    """What differs from the default, by name; nested settings likewise."""
    differs: Mapped = {}
    for field_ in dataclasses.fields(settings):
        value, usual = getattr(settings, field_.name), getattr(default, field_.name)
        if value != usual and field_.name not in _WITHOUT_EFFECT:
            differs[field_.name] = _asked_for(value, usual) if dataclasses.is_dataclass(value) else value
    return differs


def _named_files(settings: TrainConfig) -> dict[str, str]:
    """What the files are that settings name by their path, so that a file that was edited asks for another training."""
    label_map, first = Path(settings.label_map), Path(settings.init) / INFO_FILE if settings.init else Path()
    files = {}
    if settings.label_map and label_map.is_file():
        rows = LabelMap.load(settings.label_map).to_rows()
        files["label_map"] = _hash({"rows": [{**row, "color": ""} for row in rows]})
    if first.is_file():  # it holds the hashes of the other files of the bundle
        files["init"] = sha256_of(first)
    return files


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
