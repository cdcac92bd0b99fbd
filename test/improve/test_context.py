# SPDX-License-Identifier: Apache-2.0
"""The seconds around a kept frame: no more memory than allowed, and what lies on disk is what came."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.errors import DataError
from weakseg_ros.improve.log.context import NANOSECONDS, Context, TimedMessage, context_path, read_context, write_context


def message(at_s: float, size: int = 10, topic: str = "/camera") -> TimedMessage:
    return TimedMessage(topic, "sensor_msgs/msg/Image", int(at_s * NANOSECONDS), bytes(size))


def test_the_seconds_before_and_after_a_frame_are_given_out_once_they_are_over() -> None:
    context = Context(before_s=2.0, after_s=1.0, max_bytes=10_000)
    for tenth in range(31):
        context.add(message(tenth / 10))
    context.want("a", 3 * NANOSECONDS)
    for tenth in range(31, 100):
        context.add(message(tenth / 10))
    assert context.due(int(3.9 * NANOSECONDS)) == []
    ((key, messages),) = context.due(4 * NANOSECONDS)
    assert key == "a"
    assert [m.stamp_ns / NANOSECONDS for m in (messages[0], messages[-1])] == [pytest.approx(1.0), pytest.approx(4.0)]
    assert context.due(10 * NANOSECONDS) == []


def test_a_window_that_waits_keeps_its_messages() -> None:
    context = Context(before_s=1.0, after_s=2.0, max_bytes=10_000)
    for tenth in range(20):
        context.add(message(tenth / 10))
    context.want("a", 2 * NANOSECONDS)
    for tenth in range(20, 45):
        context.add(message(tenth / 10))
    ((_, messages),) = context.due(5 * NANOSECONDS)
    assert (messages[0].stamp_ns, messages[-1].stamp_ns) == (NANOSECONDS, 4 * NANOSECONDS)
    assert context.cut == 0


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(0, 500), max_size=60), limit=st.integers(1, 2000))
def test_memory_stays_within_its_bound(sizes: list[int], limit: int) -> None:
    context = Context(before_s=60.0, after_s=60.0, max_bytes=limit)
    context.want("a", 0)
    for number, size in enumerate(sizes):
        context.add(message(number / 100, size))
        assert context.bytes <= limit
    ((_, messages),) = context.due(1 << 63)
    assert sum(len(m.data) for m in messages) == context.bytes
    assert len(messages) + context.cut == len(sizes)


def test_messages_on_disk_are_what_came(tmp_path: Path) -> None:
    messages = [message(1.5, 7), TimedMessage("/odometry", "nav_msgs/msg/Odometry", 3, b"\x00\xff\n")]
    size = write_context(tmp_path, "0000_000001", messages)
    assert context_path(tmp_path, "0000_000001").stat().st_size == size
    assert list(read_context(tmp_path, "0000_000001")) == messages
    assert list(read_context(tmp_path, "0000_000002")) == []


@pytest.mark.parametrize("cut", [1, 6, 40, -1])
def test_a_damaged_file_is_named(tmp_path: Path, cut: int) -> None:
    write_context(tmp_path, "k", [message(1.0)])
    path = context_path(tmp_path, "k")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"k\.msgs"):
        list(read_context(tmp_path, "k"))
