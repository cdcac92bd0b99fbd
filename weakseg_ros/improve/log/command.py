# SPDX-License-Identifier: Apache-2.0
"""`weakseg select`: out of one bag or data set, or out of many bags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from weakseg_ros.config import parse
from weakseg_ros.data.many_bags import EXIT_PARTIAL, Runner, bags_for, only_here
from weakseg_ros.data.ray_settings import RaySettings
from weakseg_ros.errors import DataError, counted, say
from weakseg_ros.improve.log.select import SelectConfig, say_why_fewer, select
from weakseg_ros.improve.log.select_many import select_many
from weakseg_ros.registry import DEFAULT_BUNDLE


def main(argv: Sequence[str], runner_of: Callable[[RaySettings, Path], Runner] = only_here) -> int:
    """The verb, where `runner_of` tells where many bags are worked on; exit code 1 where scans were left out as unreadable.

    Raises DataError where no data is named, or none of it can be read.
    """
    config = parse(SelectConfig, argv, "select")
    if config.data == Path():
        raise DataError(f"no data is given; name a bag or a folder of scans ('weakseg select drive --bundle {DEFAULT_BUNDLE}')")
    bags = bags_for(config, config.data, config.more)
    if bags:
        new, is_whole = select_many(config, bags, runner_of(config, config.out))
    else:
        selection = select(config)
        say_why_fewer(config, selection)
        new, is_whole = len(selection.keys), not selection.problems
    say(f"{config.out}: {counted(new, 'frame')} with at most {config.points} suggested points each")
    say(f"next: weakseg label {config.out}")
    return 0 if is_whole else EXIT_PARTIAL
