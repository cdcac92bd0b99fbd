# SPDX-License-Identifier: Apache-2.0
"""SegmentNode: the lifecycle node that labels clouds. The ROS thread receives and reports, the worker's thread infers."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.task import Future
from rclpy.timer import Timer
from std_srvs.srv import Trigger

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import BundleError, ConfigError, WeaksegError, printable, refusal_of
from weakseg_ros.ros import diagnostics
from weakseg_ros.ros.bonding import ManagerBond
from weakseg_ros.ros.cloud_source import CloudSource
from weakseg_ros.ros.diagnostics import FrameStatistics, Status, Throttle
from weakseg_ros.ros.entities import all_or_none
from weakseg_ros.ros.following import Following
from weakseg_ros.ros.frame_recording import FrameRecording
from weakseg_ros.ros.loading import Loading
from weakseg_ros.ros.model import Model, open_segmenter
from weakseg_ros.ros.params import AT_THE_START, NodeConfig, Parameters
from weakseg_ros.ros.pipeline import Arrival, Pipeline
from weakseg_ros.ros.prompting import Prompting
from weakseg_ros.ros.publish import Outputs
from weakseg_ros.ros.qos_overrides import check_overrides, overridable, unheard_overrides
from weakseg_ros.ros.starting import said_by_ros
from weakseg_ros.ros.transforms import Transforms
from weakseg_ros.ros.watch import BundleWatch
from weakseg_ros.ros.worker import Mailbox, Worker

CHECK_PEERS_PERIOD_S = 0.5
LOOK_S = 0.05
SLOW_S = 10.0
"""a model that takes longer to load is told about"""
DOMAIN_WARNING_PERIOD_S = 600.0


class SegmentNode(LifecycleNode):
    """Labels every point of every cloud on `points` and publishes the result on `~/labels`.

    unconfigured: settings and diagnostics only; inactive: the model is loaded; active: clouds are taken. `fatal` is a
    sentence once only a new process helps; the node then ends the spinning by shutting its context down.
    """

    def __init__(self, overrides: Sequence[Parameter[Any]] = (), log_level: str = "info") -> None:
        super().__init__("weakseg", parameter_overrides=list(overrides), automatically_declare_parameters_from_overrides=True)
        self.get_logger().set_level(LoggingSeverity[log_level.upper()])
        self.fatal = ""
        self._fault = ""
        self._settings = Parameters(self, lambda: self._pipeline is not None)
        for note in self._settings.notes:
            self.get_logger().warning(note)
        self._statistics = FrameStatistics()
        self._domain_throttle = Throttle(DOMAIN_WARNING_PERIOD_S)
        self._faults = Throttle()
        self._pipeline: Pipeline | None = None
        self._worker: Worker[Arrival] | None = None
        self._source: CloudSource | None = None
        self._loading: Loading[bool] | None = None
        self.ending = threading.Event()
        """set by whoever wants the process to end: nothing waits any longer then"""
        self.left_behind = False
        """whether a thread goes on that cannot be stopped, so that the process has to end without it"""
        self._bond: ManagerBond | None = None
        options = overridable(self, "/diagnostics", "publisher")
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", QoSProfile(depth=10), qos_overriding_options=options
        )
        # while one of these waits for the new model, everything else goes on, and a newer one may overtake it
        self._reloading = ReentrantCallbackGroup()
        self.create_service(Trigger, "~/reload", self._on_reload, callback_group=self._reloading)
        self.create_service(Trigger, "~/log_frame", self._on_log_frame)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still; reports must not
        self.create_timer(CHECK_PEERS_PERIOD_S, self._check_peers, clock=self._steady)
        self._watch = BundleWatch()
        self._paced: list[Timer] = []
        self._set_pace()

    @property
    def autostart(self) -> bool:
        """Whether this process configures and activates the node itself."""
        return self._settings.config.autostart

    def start(self) -> None:
        """Configure and activate; a node that cannot be configured stays alive and says why."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def survive(self, error: Exception) -> None:
        """Say what a callback of the ROS thread raised, and go on; raises it where ROS itself has ended."""
        if not self.context.ok():
            raise error
        sentence = f"a message or request is not answered: {_sentence(error)}; please report this"
        if self._faults.passes(sentence):
            self.get_logger().error(sentence)
        self.ending.wait(LOOK_S)  # a fault that does not go away shall not take a whole core

    def _set_pace(self) -> None:
        """Start the timers whose periods are settings, in place of those of an earlier configuration."""
        for timer in self._paced:
            self.destroy_timer(timer)
        config = self._settings.config
        self._paced = [self.create_timer(config.diagnostics_period_s, self._report, clock=self._steady)]
        if config.watch_bundle:
            group, on_watch = self._reloading, cast(Any, self._on_watch)  # rclpy awaits it, which its types leave out
            self._paced.append(self.create_timer(config.watch_bundle, on_watch, callback_group=group, clock=self._steady))

    def set_parameters_atomically(self, parameter_list: list[Parameter[Any]]) -> SetParametersResult:
        """See rclpy.node.Node; all or none, with a sentence where none."""
        reason = self._settings.refusal(parameter_list)
        if reason:
            return SetParametersResult(successful=False, reason=reason)
        news = [one for one in parameter_list if one.name not in AT_THE_START or self._settings.is_news(one)]
        return super().set_parameters_atomically(news)

    # transitions: rclpy swallows what they raise, so each says its fault itself

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and offer the topics."""
        return self._transition("configure", self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take clouds."""
        return self._transition("activate", self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take no more clouds; the one at hand is finished first."""
        return self._transition("deactivate", self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model and the topics."""
        return self._transition("clean up", self.release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from any state."""
        return self._transition("shut down", self.release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything and be unconfigured again."""
        return self._transition("recover", self.release)

    def _transition(self, what: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
        except Exception as error:
            self._fault = _sentence(error)
            self.get_logger().error(f"cannot {what}: {self._fault}")
            return TransitionCallbackReturn.FAILURE
        self._fault = ""
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        if self._settings.faults:
            raise ConfigError("; ".join(self._settings.faults.values()))
        check_overrides(self)
        self._set_pace()
        config = self._settings.config
        model = Model(self._opened(config))
        try:
            with all_or_none(self):
                following = Following(self, config)
                reliable = config.labels_reliability == "reliable"
                outputs = Outputs(self, config.mode == "replay", reliable, config.target_frame)
                frame_recording, prompting = FrameRecording(self, model, self._settings), Prompting(self, model)
                transforms = Transforms(self, "input.target_frame") if config.input.target_frame else None
        except Exception:
            model.close()
            raise
        self._pipeline = Pipeline(
            *(self, model, outputs, following, frame_recording, self._settings, self._statistics, self._on_device_lost),
            *(prompting, transforms),
        )
        self.get_logger().info(f"loaded the model {model}")

    def _opened(self, config: NodeConfig) -> Segmenter:
        """The segmenter that the parameters name; a wish to end does not wait for it, and neither do the diagnostics."""
        loading = Loading(lambda _: open_segmenter(config, Bundle.load(config.bundle))).start()
        begin_s, pace = time.monotonic(), Throttle(config.diagnostics_period_s)
        while not loading.over.wait(LOOK_S):
            lasts_s = time.monotonic() - begin_s
            if pace.passes("report"):
                self._report(f"{config.bundle}: has been loading for {lasts_s:.0f} s")
            if lasts_s > SLOW_S and pace.first("slow"):
                self.get_logger().info(
                    f"{config.bundle}: still loading; an engine that is built or timed here first takes minutes"
                )
            if self.ending.is_set():
                loading.give_up("the node ends")
                self.left_behind |= not loading.join()
        return loading.result()

    def _activate(self) -> None:
        config, pipeline = self._settings.config, self._configured()
        pipeline.outputs.announce(pipeline.model.bundle)
        pipeline.frame_recording.follow(config.log, pipeline.model.bundle)
        self._worker = Worker(pipeline.answer, Mailbox(config.replay_queue if config.mode == "replay" else 0, self.ending))
        try:
            self._source = CloudSource(self, config, self._on_cloud, self._on_lost)
        except Exception:
            self._deactivate()
            raise
        pipeline.frame_recording.is_active = True
        if not self.autostart:
            self._bond = ManagerBond(self)
        for sentence in unheard_overrides(self):
            self.get_logger().warning(sentence)
        self.get_logger().info(f"active: labelling the clouds of {self._source.topic}")

    def _deactivate(self) -> None:
        bond, self._bond = self._bond, None
        if bond is not None:
            bond.close()
        source, self._source = self._source, None
        if source is not None:
            source.close()
        if self._pipeline is not None:
            self._pipeline.frame_recording.is_active = False
        worker, self._worker = self._worker, None
        if worker is not None:
            self.left_behind |= not worker.stop()

    def release(self) -> None:
        """End the threads, release the model and the topics; harmless where there are none."""
        self._deactivate()
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.give_up("the node unloads its model")
            self.left_behind |= not loading.join()
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close(model_too=not self.left_behind)

    def _configured(self) -> Pipeline:
        if self._pipeline is None:
            raise ConfigError("no model is loaded; configure the node, which loads the one that the parameter 'bundle' names")
        return self._pipeline

    # callbacks of the ROS thread

    def _on_cloud(self, serialized: bytes) -> None:
        self._statistics.arrived()
        if self._worker is not None and self._worker.mailbox.put(Arrival(serialized, time.perf_counter())):
            self._statistics.dropped("superseded")

    def _on_lost(self, count: int) -> None:
        self._statistics.dropped("lost_in_transport", count)

    def _check_peers(self) -> None:
        if self._source is not None:
            self._source.check_publishers()
        if self._pipeline is not None:
            self._pipeline.outputs.check_peers()

    def _report(self, loading: str = "") -> None:
        """Say on /diagnostics how things are; `loading` says that the first model is under way."""
        summary, config = self._statistics.snapshot(), self._settings.config
        model, outputs = (self._pipeline.model, self._pipeline.outputs) if self._pipeline else (None, None)
        sentences = model.domain_report() if model else []
        for sentence in sentences:
            if self._domain_throttle.passes(re.sub(r"[\d.]+", "", sentence)):
                self.get_logger().warning(printable(sentence))  # it may name the frame that a publisher chose
        statuses = (
            diagnostics.input_status(summary, config, self._source),
            diagnostics.inference_status(summary, model),
            diagnostics.model_status(model, config, self._fault, loading),
            diagnostics.device_status(model),
            diagnostics.output_status(outputs),
            diagnostics.domain_status(sentences, *((model.wrong_geometry(), model.fit()) if model else ())),
            self._pipeline.frame_recording.status() if self._pipeline else Status("frame_log", "the node is not configured"),
            self._pipeline.following_status() if self._pipeline else None,
        )
        name, now = self.get_fully_qualified_name(), self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.to_message(filter(None, statuses), name, now))

    async def _on_reload(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = await self._swap()
        return response

    async def _on_watch(self) -> None:
        if self._pipeline is not None and self._watch.changed(self._settings.config.bundle):
            await self._swap(unlike=self._pipeline.model.bundle.content_hash)

    async def _swap(self, unlike: str = "") -> tuple[bool, str]:
        """Take what the parameters name, except the bundle of the hash `unlike`; (whether that went well, a sentence)."""
        try:
            pipeline = self._configured()
            over: Future[None] = Future(executor=self.executor)

            def tell() -> None:
                over.set_result(None)
                if self.executor is not None:
                    self.executor.wake()

            loading = Loading(lambda mine: self._load(pipeline, unlike, mine), self._loading, tell)
            self._loading = loading.start()
            await over
            swapped = _kept(loading, pipeline.model)
        except Exception as error:
            self._fault = _sentence(error)
            self.get_logger().error(f"cannot reload: {self._fault}")
            return False, self._fault
        self._fault = ""
        if swapped:
            self.get_logger().info(f"loaded the model {pipeline.model}")
        return True, str(pipeline.model)

    def _on_log_frame(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = self._configured().frame_recording.ask()
        except ConfigError as error:
            response.message = str(error)
            return response
        response.success = True
        return response

    # callbacks of other threads

    def _load(self, pipeline: Pipeline, unlike: str, loading: Loading[bool]) -> bool:
        """Open what the parameters name beside the model at work, then swap, unless it was given up; whether it was done."""
        config = self._settings.config
        bundle = Bundle.load(config.bundle)
        if bundle.content_hash == unlike:
            return False
        segmenter = open_segmenter(config, bundle)
        if not loading.unless_given_up(lambda: pipeline.model.replace(segmenter, announce=self._announce)):
            segmenter.close()
        return True

    def _announce(self, bundle: Bundle) -> None:
        if self._worker is not None:
            self._configured().outputs.announce(bundle)

    def _on_device_lost(self, text: str) -> None:
        self.fatal = text
        self.context.try_shutdown()


def _kept(loading: Loading[bool], model: Model) -> bool:
    """What came of a reload; where nothing did, with the name of the model that stays."""
    try:
        return loading.result()
    except Exception as error:
        raise BundleError(f"{_sentence(error)}; {model.bundle.name} stays") from None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return printable(refusal_of(error))
    kind = "" if isinstance(error, WeaksegError) else f"{type(error).__name__}: "
    return printable(f"{kind}{said_by_ros(error)}".removesuffix(": "))
