# SPDX-License-Identifier: Apache-2.0
"""The bond by which nav2's lifecycle manager notices that a node has died; where bondpy is not installed there is none."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

HEARTBEAT_PERIOD_S = 0.1
HEARTBEAT_TIMEOUT_S = 4.0
"""as nav2's own nodes set them"""


class ManagerBond:
    """Held while the node is active under a lifecycle manager."""

    def __init__(self, node: Node) -> None:
        self._bond: Any = None
        try:
            from bondpy import bondpy
        except ImportError:
            node.get_logger().info(
                "no bond with a lifecycle manager, as bondpy is not installed; nav2's manager needs it "
                "(sudo apt install ros-$ROS_DISTRO-bondpy), or bond_timeout: 0.0 in its parameters"
            )
            return
        self._bond = bondpy.Bond(node, "bond", node.get_name())
        self._bond.heartbeat_period = HEARTBEAT_PERIOD_S
        self._bond.heartbeat_timeout = HEARTBEAT_TIMEOUT_S
        self._bond.start()

    def close(self) -> None:
        """Tell the manager that this is no accident."""
        if self._bond is not None:
            self._bond.shutdown()
