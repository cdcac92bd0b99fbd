# SPDX-License-Identifier: Apache-2.0
"""Evaluation through the running node: start its process, send it every scan over DDS, hand back what it answers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from weakseg_ros.data.bags import RawMessage
from weakseg_ros.data.scan_files import format_stamp
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import CloudError, ConfigError, ReplayError
from weakseg_ros.measure.evaluate import EvaluateConfig, OnAnswer
from weakseg_ros.measure.inputs import Item
from weakseg_ros.measure.summary import replay_figures
from weakseg_ros.points.encode import fill_message, pack_cloud
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.labelled import unpack_labelled
from weakseg_ros.processes import attended
from weakseg_ros.ros.replay_player import LOOK_AT_DROPS, Answer, Player, ReplaySettings

STOP_TIMEOUT_S = 10.0
LOG_LINES = 15
START_TIMEOUT_S = 60.0


class NodeProcess:
    """The node as a process of its own, as a context manager; it is ended by SIGINT, and by force where that fails.

    `exit_code` is set when the block ends. In the main thread SIGTERM ends the block, too, and where this process is killed the
    node ends by itself, so that none is left over.
    """

    def __init__(self, bundle: Path, arguments: Sequence[str] = ()) -> None:
        self._command = attended("node", "--bundle", str(bundle), *arguments)
        self.exit_code: int | None = None
        self._former: Any = None

    def __enter__(self) -> NodeProcess:
        self._log = tempfile.TemporaryFile()
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # else the program ends the block already
            self._former = signal.signal(signal.SIGTERM, _end_by_exception)
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        return self

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def check(self) -> None:
        """ReplayError, with the end of its log, where the node has ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise ReplayError(f"node: ended with exit code {code}; its last output:\n{self.log()}")

    def log(self) -> str:
        """The last lines that the node printed."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 8192))
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-LOG_LINES:])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.send_signal(stop)
                self.exit_code = self._process.wait(STOP_TIMEOUT_S)
                break
        self._log.close()
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)


def _end_by_exception(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def live_answers(items: Iterable[Item], bundle: Bundle, config: EvaluateConfig, on_answer: OnAnswer) -> dict[str, Any]:
    """Send every item to the node, one at a time, and call back with its answer; returns counts and latency figures.

    Starts a node of its own in replay mode, or with `config.attach` uses the one named `config.node`. Raises ReplayError
    where the node ends, an answer is missing, or does not fit.
    """
    with contextlib.ExitStack() as stack:
        name, check, process = config.node, None, None
        if not config.attach:
            name = f"weakseg_evaluate_{os.getpid()}"
            options = ["--mode", "replay", "--engine", config.engine, "--lift", config.lift, "--input-topic", f"/{name}/points"]
            options += _input_options(config)
            if config.log is not None:
                options += ["--log-folder", str(config.log)]
            process = stack.enter_context(NodeProcess(bundle.folder, [*options, "--ros-args", "-r", f"__node:={name}"]))
            check = process.check
        settings = ReplaySettings(
            node=name, lossless=True, rate=config.rate, clock=config.attach, start_timeout_s=START_TIMEOUT_S
        )
        exchange = _Exchange(items, on_answer)
        with _explained(process), Player(settings, exchange.take, check) as player:
            player.connect("")
            if config.attach:
                _check_same_input(
                    config, player.parameters([f"input.{field.name}" for field in dataclasses.fields(InputSettings)])
                )
            player.play(exchange.messages())
            result = player.result()
    latency_ms = replay_figures(result.latency_samples_ms)
    return {**result.summary(), "histogram": latency_ms.pop("histogram"), "latency_ms": latency_ms}


@contextlib.contextmanager
def _explained(process: NodeProcess | None) -> Iterator[None]:
    """Adds to a ReplayError why the node that was started for it dropped clouds: nobody can look at its diagnostics later."""
    try:
        yield
    except ReplayError as error:
        said = re.findall(r"cloud dropped: (.*)", process.log() if process else "")
        if not said:
            raise
        raise ReplayError(f"{str(error).removesuffix(LOOK_AT_DROPS)}; the node dropped clouds: {said[-1]}") from None


def _input_options(config: InputSettings) -> list[str]:
    """The command line of a node that takes clouds in as the direct answer does."""
    options = []
    for field in dataclasses.fields(InputSettings):
        value = getattr(config, field.name)
        numbers = [f"{part:g}" for part in value] if isinstance(value, tuple) else [str(value)]
        name = "--" + field.name.replace("_", "-")
        options += [f"{name}={numbers[0]}"] if len(numbers) == 1 else [name, *numbers]
    return options


def _check_same_input(config: InputSettings, of_node: Mapping[str, Any]) -> None:
    """ConfigError where the attached node takes clouds in otherwise than the direct answer would."""
    for field in dataclasses.fields(InputSettings):
        theirs, ours = of_node.get(f"input.{field.name}"), getattr(config, field.name)
        plain = tuple(theirs) if isinstance(ours, tuple) and theirs is not None else theirs
        if plain is not None and plain != ours:
            option = field.name.replace("_", "-")
            raise ConfigError(
                f"{field.name}: the node has {plain!r}, this evaluation {ours!r}, so their answers would differ; "
                f"give --{option} {plain!r}, or set input.{field.name} of the node"
            )


class _Exchange:
    """Items out as messages, answers back as segmentations; an item is kept until its answer is there."""

    def __init__(self, items: Iterable[Item], on_answer: OnAnswer) -> None:
        self._items = items
        self._on_answer = on_answer
        self._sent: dict[int, deque[tuple[bytes, Item]]] = {}
        """by stamp, which drivers repeat, in the order they went out"""

    def messages(self) -> Iterator[RawMessage]:
        """Each item as it goes out."""
        for item in self._items:
            data = item.serialized or _serialized(item)
            self._sent.setdefault(item.cloud.stamp_ns, deque()).append((data, item))
            yield RawMessage(item.cloud.stamp_ns, data, "sensor_msgs/msg/PointCloud2")

    def take(self, answer: Answer) -> None:
        """Hand an answer to the evaluation."""
        try:
            columns = unpack_labelled(answer.message)
        except CloudError as error:
            raise ReplayError(f"the answer to stamp {format_stamp(answer.stamp_ns)} cannot be read: {error}") from None
        self._on_answer(self._item_of(answer), segmentation_of(columns))

    def _item_of(self, answer: Answer) -> Item:
        """The item that was sent as the cloud of this answer; those of its stamp before it were never answered."""
        waiting = self._sent[answer.stamp_ns]
        data, item = waiting.popleft()
        while data != answer.sent:
            data, item = waiting.popleft()
        if not waiting:
            del self._sent[answer.stamp_ns]
        return item


def segmentation_of(columns: Mapping[str, Any]) -> Segmentation:
    """The labels of an answer; range images do not travel with it."""
    names = ("class_id", "instance_id", "confidence", "uncertainty", "flags")
    return Segmentation(
        **{name: columns[name] for name in names},
        class_image=np.zeros((0, 0), np.uint8),
        instance_image=np.zeros((0, 0), np.uint16),
    )


def _serialized(item: Item) -> bytes:
    """A scan from a folder as a serialized PointCloud2, in the layout of this package."""
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import PointCloud2, PointField

    message = PointCloud2()
    fill_message(message, pack_cloud(item.cloud), item.cloud, PointField)
    return bytes(serialize_message(message))
