# SPDX-License-Identifier: Apache-2.0
"""`weakseg train`, `export` and `wrap`: settings are read first; torch is imported only for what they ask for."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.config import parse
from weakseg_ros.data.scans import recognised_as
from weakseg_ros.errors import complain
from weakseg_ros.options import with_included_file
from weakseg_ros.registry import METHODS, NETS, summaries
from weakseg_ros.train.config import ExportConfig, TrainConfig, sections
from weakseg_ros.train.older import words_in_sections
from weakseg_ros.train.referring_config import TrainReferringConfig
from weakseg_ros.train.wrap_config import WrapConfig


def train_main(argv: Sequence[str]) -> int:
    """The verb: train, and export the best net where the settings name a bundle."""
    config = parse_training(argv)
    started = None
    if config.resume:
        from weakseg_ros.train.resuming import as_started

        started = as_started(config.out)
    if started is not None:  # what the command says besides is meant, also where it is the default of a new run
        config = parse_training(argv, started)
    if not config.resume:  # whose run may be what is missing
        recognised_as(config.data)  # torch takes seconds to import, and a wrong path is told before
    usual = TrainConfig()
    idle = [name for name in config.without_effect if getattr(config, name) != getattr(usual, name)]
    if idle:
        where = f"method '{config.method}' and net '{config.net}'"
        complain(f"weakseg train: the settings of {', '.join(idle)} have no effect with {where}")
    from weakseg_ros.train.train import run

    return run(config, all_meant=started is not None)


def parse_training(argv: Sequence[str], default: TrainConfig | None = None) -> TrainConfig:
    """The settings of a training from a command line, that of an older version included; `default` where it says nothing."""
    wants_manual = bool({"-h", "--help"} & set(argv))
    words = with_included_file(argv, "train", "training file")
    return parse(TrainConfig, words_in_sections(words, sections()), "train", default, choices() if wants_manual else "")


def choices() -> str:
    """The methods and nets by name, with a line on each."""
    tables = {"methods, joined by '+' (--method)": METHODS, "nets (--net)": NETS}
    parts = []
    for title, table in tables.items():
        width = max(map(len, table))
        parts.append("\n".join([f"{title}:", *(f"  {name:<{width}}  {text}" for name, text in summaries(table).items())]))
    return "\n\n".join(parts)


def export_main(argv: Sequence[str]) -> int:
    """The verb: writes the bundle and says how good it is."""
    config = parse(ExportConfig, argv, "export")
    from weakseg_ros.train.export import run

    return run(config)


def train_referring_main(argv: Sequence[str]) -> int:
    """The verb: trains a referring head behind a bundle's network and writes the bundle with it."""
    config = parse(TrainReferringConfig, argv, "train-referring")
    from weakseg_ros.train.referring_run import run

    return run(config)


def wrap_main(argv: Sequence[str]) -> int:
    """The verb: writes a bundle around an ONNX file of another project and says what is not known of it."""
    config = parse(WrapConfig, argv, "wrap")
    from weakseg_ros.train.wrap import run

    return run(config)
