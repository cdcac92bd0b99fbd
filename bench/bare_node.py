# SPDX-License-Identifier: Apache-2.0
"""A node that returns every cloud as it came, without a look at it: what the transport takes of a latency.

python bench/bare_node.py NAME        (bench/end_to_end.py starts and ends it)
"""

from __future__ import annotations

import contextlib
import sys

from weakseg_ros.ros.transport import apply_transport


def main(name: str) -> None:
    """Run until the process is ended."""
    apply_transport()
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import PointCloud2
    from std_msgs.msg import String

    rclpy.init(args=[])
    node = rclpy.create_node(name)
    unreliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    back = node.create_publisher(PointCloud2, f"/{name}/labels", unreliable)
    node.create_subscription(PointCloud2, f"/{name}/points", back.publish, unreliable, raw=True)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    announced = node.create_publisher(String, f"/{name}/classes", latched)
    announced.publish(String())  # the player waits for it, as for the node's label map
    with contextlib.suppress(ExternalShutdownException, KeyboardInterrupt):
        rclpy.spin(node)


if __name__ == "__main__":
    main(sys.argv[1])
