# SPDX-License-Identifier: Apache-2.0
"""Play a bag into the running node, collect what it answers, and say how long that took and what is missing.

A cloud and its answer belong together by their header's stamp, which the node never changes. In lossless mode at most
`window` clouds are under way, so that the node's one-slot mailbox drops none; a missing answer is then an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from weakseg_ros.config import parse
from weakseg_ros.data.bags import find_cloud_topic, read_raw
from weakseg_ros.data.many_bags import Row, are_whole, bags_of, each_bag
from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError, counted, say
from weakseg_ros.files import check_can_write, sweep, write_json
from weakseg_ros.ros.replay_player import Answer, Player, ReplayResult, ReplaySettings


@dataclass(frozen=True)
class ReplayConfig(ReplaySettings):
    """Play a bag to the running node and collect its answers."""

    bag: tyro.conf.Positional[Path] = Path()
    """Names the bag to play (a rosbag2 folder, .mcap, .db3 or .bag), a folder of bags, or a quoted glob such as 'drives/*'."""
    more: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Lists further bags, which are played one after another."""
    topic: str = ""
    """Names the topic of the clouds in the bag; it may be empty if there is only one."""
    out: Path | None = None
    """Names a JSON file for the counts, the latencies and the stamps of missing answers."""


def replay(
    bag: Path,
    topic: str = "",
    settings: ReplaySettings | None = None,
    on_answer: Callable[[Answer], None] | None = None,
) -> ReplayResult:
    """Publish the clouds of a bag at their own stamps and pace, and collect the node's answers.

    `topic` may be empty where the bag holds one topic of clouds. `on_answer` is called for each answer, in this thread.
    Raises ReplayError where the node is not there, where an answer does not fit its cloud, and in lossless mode where
    one is missing; DataError for a bag that cannot be read, or not to its end (after the answers before that came in).
    """
    name = find_cloud_topic(bag, topic).name
    with Player(settings or ReplaySettings(), on_answer) as player:
        player.connect(name)
        player.play(read_raw(bag, name))
        return player.result()


def main(argv: Sequence[str]) -> int:
    """The verb `weakseg replay`."""
    chosen = parse(ReplayConfig, argv, "replay")
    if chosen.bag == Path():
        raise DataError("no bag is given; name the folder of a rosbag2 ('weakseg replay drive --topic /points')")
    if chosen.out is not None:
        check_can_write(chosen.out.parent, "--out")
    bags = bags_of(chosen.bag, chosen.more)
    rows = each_bag(bags, None, {}, lambda bag, _: _play(bag, chosen), _line) if bags else [_play(chosen.bag, chosen)]
    if not bags:
        say(_line(rows[0]))
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        sweep(chosen.out)
        write_json(chosen.out, rows if bags else rows[0])
    return 0 if are_whole(rows) else 1


def _play(bag: Path, config: ReplayConfig) -> Row:
    result = replay(bag, config.topic, config)
    facts = {"bag": str(bag), "environment": environment(), "line": _sentence(result), "complete": bool(result.answered)}
    return {**result.summary(), **facts}


def _line(row: Row) -> str:
    return str(row["line"])


def _sentence(result: ReplayResult) -> str:
    latency = result.summary()["latency_ms"]
    text = f"{counted(result.sent, 'cloud')} sent, {result.answered} answered, {len(result.missing)} without an answer"
    if result.answered:
        text += f"; publish to answer p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f} ms, p99 {latency['p99']:.1f} ms"
    if result.unasked:
        text += f"; {counted(result.unasked, 'answer')} to clouds that this command did not send"
    return text
