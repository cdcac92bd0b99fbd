# SPDX-License-Identifier: Apache-2.0
"""The frame log inside the node: opened as the parameters say, `~/uncertain` for each frame it keeps, its diagnostics."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header, String

from weakseg_ros.data.frame_log import FrameRecord
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import ConfigError, printable, shortened
from weakseg_ros.improve.log.admission import LogSettings
from weakseg_ros.improve.log.recorder import MIB, FrameLog, LogStatus
from weakseg_ros.improve.log.store import Origin
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.encode import fill_message
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.labelled import pack_labelled
from weakseg_ros.points.reading import as_sent
from weakseg_ros.ros.companions import Companions
from weakseg_ros.ros.diagnostics import Status
from weakseg_ros.ros.model import Model
from weakseg_ros.ros.params import TOPIC, NodeConfig, Parameters
from weakseg_ros.ros.qos_overrides import overridable

NANOSECONDS = 1_000_000_000
CLOUD_TYPE = "sensor_msgs/msg/PointCloud2"
LONGEST_TAG, LONGEST_NOTE = 100, 1000
"""characters of an event that go into log and record"""


class FrameRecording:
    """Holds the node's frame log, or none where `log.folder` is empty. Any thread may call; `offer` is the worker's."""

    def __init__(self, node: Node, model: Model, parameters: Parameters) -> None:
        self._node, self._model, self._parameters = node, model, parameters
        self.is_active = False
        """whether the node takes clouds; set by it"""
        self._lock = threading.Lock()
        self._log: FrameLog | None = None
        self._settings = LogSettings()
        self._reading = InputSettings()
        profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._uncertain = node.create_publisher(
            PointCloud2, "~/uncertain", profile, qos_overriding_options=overridable(node, "~/uncertain", "publisher")
        )
        options = overridable(node, "~/log_event", "subscription")
        self._events = node.create_subscription(
            String, "~/log_event", self._on_event, QoSProfile(depth=20), qos_overriding_options=options
        )
        self._companions = Companions(node)

    def follow(self, settings: LogSettings, bundle: Bundle) -> FrameLog | None:
        """The log for these settings and this bundle's classes, opened anew where they changed; the old one ends by itself."""
        with self._lock:
            log = self._log
            if settings == self._settings and (log is None or log.labels.classes == bundle.labels.classes):
                if log is not None or not settings.folder:
                    return log
            if log is not None:
                log.close(patience_s=0.0)
            self._settings, self._log = settings, None
            if settings.folder:
                source = f"{self._node.get_fully_qualified_name()} on {self._node.resolve_topic_name(TOPIC)}"
                self._log = FrameLog(
                    settings, bundle.labels, bundle.info.input.geometry, source=source, say=self._say, on_kept=self._on_kept
                )
            return self._log

    def offer(self, cloud: Cloud, answer: Segmentation, config: NodeConfig, bundle: Bundle, data: bytes) -> None:
        """Let the log decide on a frame that was answered with `config`; about a millisecond, nothing where there is no log.

        `cloud` is as the model saw it, which is what a training reads; `data` is the cloud as it came, and ~/uncertain has
        its points where they were sent.
        """
        log = self.follow(config.log, bundle)
        if log is not None:
            self._reading = config.input
            topic = self._node.resolve_topic_name(TOPIC)
            log.remember(topic, CLOUD_TYPE, data)
            origin = Origin(bundle.name, bundle.content_hash, topic, intensity_scale=config.input.intensity_scale)
            log.offer(cloud, answer, origin)

    def ask(self, tag: str = "", note: str = "") -> str:
        """Keep the next frame whatever its score, under a tag and with a note; a sentence on what was done.

        Raises ConfigError where nothing is kept now.
        """
        log = self._open()
        if log is None:
            raise ConfigError("no frame log; set the parameter log.folder to a folder")
        figures = log.status()
        if figures.fault:
            raise ConfigError(f"frame log paused: {figures.fault}")
        log.ask(tag, note)
        if figures.full:
            return f"{log.folder} is full; the next frame is kept as soon as frames are moved or log.max_frames is raised"
        when = "" if self.is_active else ", once the node is active"
        return f"the next frame is kept in {log.folder}{when}"

    def status(self) -> Status:
        """The log's line of /diagnostics."""
        with self._lock:
            log = self._log
        folder = self._parameters.config.log.folder
        if self.is_active:
            log = self._open()
        self._companions.follow(log)
        if log is None:
            none = "as the parameter log.folder is empty" if not folder else f"until the node is active; then in {folder}"
            return Status("frame_log", f"no frames are kept, {none}")
        return _status(log, log.status(), self._companions.missing)

    def close(self) -> None:
        """Write what waits, remove the topic."""
        with self._lock:
            log, self._log = self._log, None
        if log is not None:
            log.close()
        self._companions.follow(None)
        self._node.destroy_subscription(self._events)
        self._node.destroy_publisher(self._uncertain)

    def _open(self) -> FrameLog | None:
        """The log at work, or the one that the settings of this moment want and no cloud has opened yet."""
        settings = self._parameters.config.log
        with self._lock:
            log, is_wanted = self._log, settings == self._settings and bool(self._log) == bool(settings.folder)
        return log if is_wanted else self.follow(settings, self._model.bundle)

    def _on_event(self, message: String) -> None:
        """Somebody outside saw something: 'tag: reason'."""
        tag, _, note = printable(message.data).partition(":")
        tag, note = shortened(tag, LONGEST_TAG), shortened(note, LONGEST_NOTE)
        logger = self._node.get_logger()
        if not tag:
            logger.warning("log_event: an event without a tag is not kept; send 'tag: reason'")
            return
        try:
            logger.info(f"event '{tag}': {self.ask(tag, note)}")
        except ConfigError as error:
            logger.warning(f"event '{tag}' is not kept: {error}")

    # callbacks of the writer's thread

    def _say(self, text: str, is_fault: bool) -> None:
        logger = self._node.get_logger()
        if is_fault:
            logger.error(text)
        else:
            logger.info(text)

    def _on_kept(self, record: FrameRecord, cloud: Cloud, answer: Segmentation) -> None:
        if not self._uncertain.get_subscription_count():
            return
        index = np.array([suggestion.point for suggestion in record.suggestions], np.intp)
        chosen = as_sent(_part(cloud, index), self._reading)
        labelled = pack_labelled(
            chosen,
            answer.class_id[index],
            answer.instance_id[index],
            answer.confidence[index],
            answer.uncertainty[index],
            answer.flags[index],
        )
        message = PointCloud2(header=Header(frame_id=cloud.frame_id))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(cloud.stamp_ns, NANOSECONDS)
        fill_message(message, labelled, chosen, PointField)
        self._uncertain.publish(message)


def _part(cloud: Cloud, index: np.ndarray) -> Cloud:
    """Some points of a cloud, unordered."""
    return dataclasses.replace(
        cloud,
        xyz=cloud.xyz[index],
        intensity=cloud.intensity[index],
        flags=cloud.flags[index],
        ring=None,
        height=1,
        width=len(index),
    )


def _status(log: FrameLog, figures: LogStatus, missing: Sequence[str]) -> Status:
    free = "unknown" if figures.free_bytes is None else figures.free_bytes // MIB
    status = Status("frame_log", values={"folder": log.folder, "frames": figures.frames, "mib": figures.bytes // MIB})
    if log.settings.before_s or log.settings.after_s:
        status.values |= {"context_memory_mib": figures.context_bytes // MIB, "context_cut": figures.context_cut}
        status.values |= {"context_missing": ", ".join(missing)} if missing else {}
    status.values |= {"free_mib": free, "kept": sum(figures.kept.values())}
    status.values |= {f"kept {reason}": count for reason, count in sorted(figures.kept.items())}
    status.values |= {f"dropped {obstacle}": count for obstacle, count in sorted(figures.dropped.items())}
    if figures.fault:
        status.worsen(DiagnosticStatus.ERROR, figures.fault)
    elif figures.full:
        text = f"{log.folder}: the log is full; label and move frames, or raise log.max_frames or log.max_mib"
        status.worsen(DiagnosticStatus.WARN, text)
    elif log.settings.context_names and not (log.settings.before_s or log.settings.after_s):
        text = "log.context_topics: nothing of them is kept, as log.before_s and log.after_s are 0; set one of them"
        status.worsen(DiagnosticStatus.WARN, text)
    return status
