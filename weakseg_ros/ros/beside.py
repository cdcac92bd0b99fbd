# SPDX-License-Identifier: Apache-2.0
"""Programs that run beside the node and have to wait for it: `python -m weakseg_ros.ros.beside active|frame NODE COMMAND...`.

`active` waits until the node is active, `frame` until its first labelled cloud, whose frame takes the place of `{frame}` in
the command. Then this process becomes the command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from weakseg_ros.errors import WeaksegError, complain, say
from weakseg_ros.ros.starting import start_ros

FRAME_PATIENCE_S = 15.0
NO_FRAME = "map"
POLL_S = 0.2


def main(arguments: Sequence[str]) -> int:
    """Wait, then become the command; exit code 2 where it cannot be started, 0 where a signal ends the waiting."""
    until, node, *command = arguments
    try:
        found = _await(until, node)
    except KeyboardInterrupt:
        return 0
    except WeaksegError as error:
        complain(f"beside: {error}")
        return 2
    command = [part.replace("{frame}", found) for part in command]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        complain(f"{command[0]}: cannot be started ({error.strerror}); install it, or check PATH")
        return 2


def _await(until: str, name: str) -> str:
    start_ros()
    import rclpy

    node = rclpy.create_node(f"weakseg_waits_{os.getpid()}", start_parameter_services=False)
    try:
        return _await_frame(node, name) if until == "frame" else _await_active(node, name)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _await_active(node: Any, name: str) -> str:
    import rclpy
    from lifecycle_msgs.srv import GetState

    client = node.create_client(GetState, f"{name}/get_state")
    while True:
        if client.wait_for_service(POLL_S):
            answer = client.call_async(GetState.Request())
            rclpy.spin_until_future_complete(node, answer, timeout_sec=1.0)
            if answer.done() and answer.result().current_state.label == "active":
                return ""
        time.sleep(POLL_S)


def _await_frame(node: Any, name: str) -> str:
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import PointCloud2

    frames: list[str] = []
    quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(PointCloud2, f"{name}/labels", lambda cloud: frames.append(cloud.header.frame_id), quality)
    deadline_s = time.monotonic() + FRAME_PATIENCE_S
    while not frames and time.monotonic() < deadline_s:
        rclpy.spin_once(node, timeout_sec=POLL_S)
    if frames:
        return frames[0]
    say(
        f"{name}: no labelled cloud within {FRAME_PATIENCE_S:.0f} s, so the fixed frame is '{NO_FRAME}'; set the right one under "
        "Global Options, or with fixed_frame:=FRAME"
    )
    return NO_FRAME


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
