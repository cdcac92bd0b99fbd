# SPDX-License-Identifier: Apache-2.0
"""`weakseg VERB`: the one program. A verb is a row of VERBS; its module is imported when it is called, not before."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from weakseg_ros import __version__
from weakseg_ros.errors import WeaksegError, complain, did_you_mean, printable, refusal_of, say
from weakseg_ros.extras import explain
from weakseg_ros.memory import keep_large_blocks


class Verb(NamedTuple):
    """Where a verb's `main(argv) -> exit code` lives, and what it is for in one line."""

    entry: str
    summary: str


VERBS = {
    "doctor": Verb("weakseg_ros.doctor:main", "report what works on this machine and what is missing"),
    "demo": Verb("weakseg_ros.demo:main", "run the whole pipeline on simulated streets, without ROS or GPU"),
    "simulate": Verb("weakseg_ros.simulate.record:main", "simulate drives through procedural streets and record scans or a bag"),
    "import": Verb("weakseg_ros.fleet.verbs:import_main", "convert a bag or point cloud files to a folder of scans"),
    "check": Verb("weakseg_ros.data.check:main", "check a data set for missing files, damage and its version"),
    "sparse": Verb("weakseg_ros.weak.draw:main", "draw sparse labels from dense ones at random, with a fixed seed"),
    "train": Verb("weakseg_ros.train.commands:train_main", "train a network on dense or sparse labels and export a bundle"),
    "train-referring": Verb(
        "weakseg_ros.train.commands:train_referring_main",
        "train a bundle to find the object that an English expression refers to",
    ),
    "benchmark": Verb("weakseg_ros.benchmark.command:main", "compare methods, networks and label ratios in one table"),
    "export": Verb("weakseg_ros.train.commands:export_main", "export a training run as a bundle (ONNX, label map, statistics)"),
    "build-engine": Verb(
        "weakseg_ros.deploy.engines.command:main", "build a bundle's TensorRT engines for this machine's GPU ahead of time"
    ),
    "wrap": Verb("weakseg_ros.train.commands:wrap_main", "wrap an ONNX model from another project as a bundle"),
    "label": Verb("weakseg_ros.labelling:main", "label uncertain points in the browser"),
    "retrain": Verb(
        "weakseg_ros.improve.retrain.command:main",
        "fine-tune the deployed bundle on new clicks and deploy it if it passes the gate",
    ),
    "adapt": Verb("weakseg_ros.improve.adapt.command:main", "adapt a bundle to your own clouds, without labels"),
    "promote": Verb("weakseg_ros.improve.retrain.versions:promote_main", "deploy a bundle as models/current"),
    "rollback": Verb("weakseg_ros.improve.retrain.versions:rollback_main", "redeploy the previous bundle"),
    "evaluate": Verb("weakseg_ros.evaluating:main", "evaluate a bundle on a bag or scans and write a report"),
    "fleet": Verb("weakseg_ros.fleet.report:main", "write one report over the bags of many robots"),
    "view": Verb("weakseg_ros.viewing:main", "view scans, labels, predictions and errors in 3D in the browser"),
    "compare": Verb("weakseg_ros.measure.compare:main", "compare two evaluations, trainings or benchmarks"),
    "refer": Verb("weakseg_ros.referring:main", "find the object of a scan that an English expression refers to"),
    "predict": Verb("weakseg_ros.fleet.verbs:predict_main", "write a bundle's predictions to files, one per scan"),
    "select": Verb("weakseg_ros.fleet.verbs:select_main", "select the frames and points of a bag or data set to label next"),
    "export-frames": Verb(
        "weakseg_ros.improve.log.export_frames:main", "export the frames of a log as MCAP bags, with their tags"
    ),
    "replay": Verb("weakseg_ros.ros.replay:main", "play a bag to the running node and collect its answers"),
    "node": Verb("weakseg_ros.ros.node:main", "run the ROS 2 node without a launch file"),
}


_EXIT_PIPE = 128 + signal.SIGPIPE
_RUN_UNTIL_CTRL_C = ("node",)
"""verbs that Ctrl+C ends as is meant, whether they run already or still load: launch reports any other code as a crash"""
_FULL = "free some space and run the command again; what was already written is kept"
_RIGHTS = "check its permissions, or choose another folder"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "the file exceeds this system's size limit; raise it ('ulimit -f') or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOENT: "check the path",
    errno.EIO: "the disk reported an error; check it, or choose another folder",
}
_OTHER_ADVICE = "the system refused the operation; check the path and the disk"


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
    """Run one verb; returns its exit code. A fault of the user or the disk is one sentence and exit code 2, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(usage())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        say(__version__)
        return 0
    name, *rest = arguments
    if name not in VERBS:
        complain(f"weakseg: unknown verb '{name}'{did_you_mean(name, VERBS)} ('weakseg --help' lists them)")
        return 2
    _log_to_stderr()
    keep_large_blocks()
    module, _, attribute = VERBS[name].entry.partition(":")
    try:
        with _ended_by_exception():
            return int(getattr(importlib.import_module(module), attribute)(rest))
    except WeaksegError as error:
        return _say(name, str(error), 2)
    except ImportError as error:
        sentence = explain(error)
        if not sentence:
            raise
        return _say(name, sentence, 2)
    except BrokenPipeError:  # who reads our output has ended, as `head` does
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_PIPE
    except OSError as error:
        return _say(name, f"{refusal_of(error)}; {_ADVICE.get(error.errno or 0, _OTHER_ADVICE)}", 2)
    except KeyboardInterrupt:
        return _say(name, "interrupted", 0 if name in _RUN_UNTIL_CTRL_C else 130)
    except Terminated:
        return _say(name, "terminated", 128 + signal.SIGTERM)


class Terminated(BaseException):
    """SIGTERM, so that it clears up on its way out as Ctrl+C does."""


def _say(verb: str, sentence: str, code: int) -> int:
    complain(f"weakseg {verb}: {sentence}")
    return code


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(_PrintableFormatter("%(message)s"))
    logging.getLogger("weakseg_ros").setLevel(logging.INFO)  # the libraries' own progress notes are not for users


@contextlib.contextmanager
def _ended_by_exception() -> Iterator[None]:
    """SIGTERM raises Terminated inside, unless somebody has another use for it."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_terminated(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: clearing up is not to be cut short by a second one
    raise Terminated
