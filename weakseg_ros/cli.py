# SPDX-License-Identifier: Apache-2.0
"""`weakseg VERB`: the one program. A verb is a row of VERBS; its module is imported when it is called, not before."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import NamedTuple

from weakseg_ros import __version__
from weakseg_ros.errors import WeaksegError, did_you_mean
from weakseg_ros.extras import explain


class Verb(NamedTuple):
    """Where a verb's `main(argv) -> exit code` lives, and what it is for in one line."""

    entry: str
    summary: str


VERBS = {
    "doctor": Verb("weakseg_ros.doctor:main", "say what works on this machine and what is missing"),
    "demo": Verb("weakseg_ros.demo:main", "the whole chain on a simulated street, without ROS or GPU"),
    "simulate": Verb("weakseg_ros.simulate.record:main", "drive through a procedural street and record scans or a bag"),
    "import": Verb("weakseg_ros.data.importer:main", "turn a bag into a folder of scans"),
    "sparse": Verb("weakseg_ros.weak.draw:main", "draw sparse labels from dense ones, once, with a seed"),
    "train": Verb("weakseg_ros.train.train:main", "train a net on dense or sparse labels and export a bundle"),
    "benchmark": Verb("weakseg_ros.benchmark.benchmark:main", "compare methods, nets and shares of labels in one table"),
    "export": Verb("weakseg_ros.train.export:main", "turn a training run into a bundle (ONNX, label map, statistics)"),
    "label": Verb("weakseg_ros.labelling:main", "label uncertain points on a page in the browser"),
    "retrain": Verb("weakseg_ros.improve.retrain.retrain:main", "train the deployed bundle on new clicks; deploy it past a gate"),
    "promote": Verb("weakseg_ros.improve.retrain.versions:promote_main", "deploy a bundle as models/current"),
    "rollback": Verb("weakseg_ros.improve.retrain.versions:rollback_main", "go back to the bundle that was deployed before"),
    "evaluate": Verb("weakseg_ros.evaluating:main", "run a bundle over a bag or scans and write a report"),
    "select": Verb("weakseg_ros.improve.log.select:main", "choose the frames and points of a bag or data set to label next"),
    "replay": Verb("weakseg_ros.ros.replay:main", "play a bag into the running node and collect its answers"),
    "node": Verb("weakseg_ros.ros.node:main", "run the ROS 2 node without a launch file"),
}


def usage() -> str:
    """The manual of the program: one line a verb."""
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        f"weakseg {__version__}: LiDAR segmentation from a few clicked points\n\n"
        f"usage: weakseg VERB [options]\n\n{rows}\n\n"
        "'weakseg VERB --help' shows the options of a verb; '--config FILE.yaml' fills them from a file."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code. A user's fault is one sentence and exit code 2, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return 0
    name, *rest = arguments
    if name not in VERBS:
        print(f"weakseg: unknown verb '{name}'{did_you_mean(name, VERBS)} ('weakseg --help' lists them)", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("weakseg_ros").setLevel(logging.INFO)  # the libraries' own progress notes are not for users
    module, _, attribute = VERBS[name].entry.partition(":")
    try:
        return int(getattr(importlib.import_module(module), attribute)(rest))
    except WeaksegError as error:
        print(f"weakseg {name}: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        sentence = explain(error)
        if not sentence:
            raise
        print(f"weakseg {name}: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"weakseg {name}: interrupted", file=sys.stderr)
        return 130
