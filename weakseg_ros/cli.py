# SPDX-License-Identifier: Apache-2.0
"""`weakseg VERB`: the one program. A verb is a row of VERBS; its module is imported when it is called, not before."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from weakseg_ros import __version__
from weakseg_ros.errors import (
    WeaksegError,
    complain,
    did_you_mean,
    forget,
    is_text,
    open_missing_streams,
    printable,
    refusal_of,
    refuse_bytes,
    say,
)
from weakseg_ros.extras import explain
from weakseg_ros.memory import keep_large_blocks, lack_told_by
from weakseg_ros.processes import CLEAR_UP_S, ENDS


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
    errno.ENOTDIR: "check the path",
    errno.ELOOP: "check the path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files ('ulimit -n')",
    errno.ENFILE: "end other programs that hold files open",
    errno.EAGAIN: "raise the limit of processes ('ulimit -u')",
    errno.ENOMEM: "end other programs, or raise the limit ('ulimit -v')",
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
    open_missing_streams()
    return _outcome(list(sys.argv[1:] if argv is None else argv), is_program=argv is None)


def _outcome(arguments: Sequence[str], is_program: bool) -> int:
    """The exit code of what was asked for."""
    name = arguments[0] if arguments and arguments[0] in VERBS else ""
    try:
        with _ended_by_exception(is_program):
            return _answer(arguments)
    except WeaksegError as error:
        return _say(name, str(error), 2)
    except ImportError as error:
        sentence = explain(error)
        if not sentence:
            raise
        return _say(name, sentence, 2)
    except BrokenPipeError:  # who reads our output has ended, as `head` does
        forget(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _say(name, f"{refusal_of(error)}; {_ADVICE.get(error.errno or 0, _OTHER_ADVICE)}", 2)
    except UnicodeEncodeError as error:
        if "surrogates" not in error.reason:
            raise
        bad = next(word for word in re.split(r"[\s\"'<>,]+", error.object) if not is_text(word))
        return _say(name, f"'{bad}': contains bytes that are not UTF-8; rename it, or set LC_ALL=C.UTF-8", 2)
    except Exception as error:
        sentence = lack_told_by(error)
        if not sentence:
            raise
        return _say(name, sentence, 2)
    except KeyboardInterrupt:
        return _say(name, "interrupted", 0 if name in _RUN_UNTIL_CTRL_C else 130)
    except Terminated as ended:
        return _say(name, "terminated", 128 + ended.number)


def _answer(arguments: Sequence[str]) -> int:
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
    refuse_bytes(rest)
    os.environ["MPLBACKEND"] = "agg"  # pictures go into files, whatever is set for plots of other programs
    _log_to_stderr()
    keep_large_blocks()
    module, _, attribute = VERBS[name].entry.partition(":")
    return int(getattr(importlib.import_module(module), attribute)(rest))


class Terminated(BaseException):
    """SIGTERM, or SIGHUP of a terminal that was closed, so that it clears up on its way out as Ctrl+C does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _say(verb: str, sentence: str, code: int) -> int:
    with contextlib.suppress(OSError):  # nobody may be there to read it
        complain(f"weakseg {verb}: {sentence}" if verb else f"weakseg: {sentence}")
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
def _ended_by_exception(is_program: bool) -> Iterator[None]:
    """The first signal that asks for the end raises inside, unless somebody has another use for it.

    Clearing up is not cut short by those that follow: launch and many shells send Ctrl+C twice. After CLEAR_UP_S they end the
    process at once. Where the process `is_program`, it ends after the block, and no signal becomes a traceback there.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    former = {number: signal.getsignal(number) for number in ENDS}
    ours = [number for number in ENDS if in_main_thread and former[number] in (signal.SIG_DFL, signal.default_int_handler)]
    began: list[float] = []

    def end(number: int, frame: object) -> None:
        began.append(time.monotonic())
        if len(began) > 1:
            if began[-1] - began[0] > CLEAR_UP_S:
                os._exit(128 + number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise Terminated(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is not signal.SIG_IGN and not (is_program and began):
                signal.signal(number, signal.SIG_DFL if is_program else former[number])
