# SPDX-License-Identifier: Apache-2.0
"""Names of topics, nodes and namespaces: refused with words where ROS refuses them with a number, and nowhere else."""

from __future__ import annotations

import pytest

from support import optional
from weakseg_ros.errors import ConfigError
from weakseg_ros.ros.names import check_namespace, check_node, check_remappings, check_topic
from weakseg_ros.ros.starting import HIGHEST_DOMAIN, check_domain

TOPICS = {
    **dict.fromkeys(("points", "/ouster/points", "~/points", "a_1/B2", "/a__b"), ""),
    "/ouster points": "contains ' '",
    "/livox-points": "contains '-'",
    "/a//b": "contains '//'",
    "/ouster/": "ends with '/'",
    "1points": "begins with a digit",
    "/lidar/2/points": "begins with a digit",
    "": "is empty",
    "/": "is empty",
}


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_refused_where_ros_refuses_it(name: str) -> None:
    optional("rclpy")
    from rclpy.exceptions import InvalidTopicNameException
    from rclpy.expand_topic_name import expand_topic_name
    from rclpy.validate_full_topic_name import validate_full_topic_name

    try:
        validate_full_topic_name(expand_topic_name(name, "weakseg", "/"))
        refused = False
    except (InvalidTopicNameException, ValueError, RuntimeError):
        refused = True
    assert refused == bool(TOPICS[name])
    if not refused:
        check_topic("odometry_topic", name)
        return
    with pytest.raises(ConfigError, match=f"^odometry_topic: '{name}' .*{TOPICS[name]}"):
        check_topic("odometry_topic", name)


@pytest.mark.parametrize("name", ["", "/", "front", "/front", "/robot/front"])
def test_a_namespace_may_be_relative_or_the_root(name: str) -> None:
    check_namespace("namespace", name)


@pytest.mark.parametrize("name", ["/front/", "front/", "//", "/2", "my robot"])
def test_a_wrong_namespace_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^namespace: '{name}' "):
        check_namespace("namespace", name)


def test_the_name_of_a_node_has_no_namespace() -> None:
    check_node("name", "weakseg_front")
    for name in ("weak-seg", "front/weakseg", "2nd", ""):
        with pytest.raises(ConfigError, match=f"^name: '{name}' "):
            check_node("name", name)


def test_remappings_are_checked_before_ros_is_asked() -> None:
    check_remappings(
        ["--ros-args", "-r", "points:=/ouster/points", "-r", "__ns:=/front", "-r", "weakseg:__node:=seg", "-p", "a:=1 2"]
    )
    for rule, fault in (
        ("points:=/livox-points", "contains '-'"),
        ("__node:=weak-seg", "contains '-'"),
        ("__ns:=front", "does not begin with '/'"),
        ("__ns:=/front/", "ends with '/'"),
    ):
        with pytest.raises(ConfigError, match=f"^{rule}: .*{fault}"):
            check_remappings(["--ros-args", "--remap", rule])


def test_a_domain_without_ports_is_refused() -> None:
    for text in ("", "0", "7", str(HIGHEST_DOMAIN)):
        check_domain(text)
    for text in ("233", "abc", "-1", "1.0"):
        with pytest.raises(ConfigError, match=f"^ROS_DOMAIN_ID: '{text}' is no whole number from 0 to 232"):
            check_domain(text)
