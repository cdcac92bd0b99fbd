# SPDX-License-Identifier: Apache-2.0
"""`weakseg view`: scans with labels, predictions, uncertainty, objects and errors, in the browser or as a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from weakseg_ros.config import check_ranges, parse, setting
from weakseg_ros.errors import ConfigError, DataError, complain, counted, say
from weakseg_ros.extras import need
from weakseg_ros.files import check_can_write
from weakseg_ros.improve.label.serve import INTERRUPTED, run_until_ended, start_server, stop_server
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.registry import DEFAULT_BUNDLE
from weakseg_ros.view.frames import Frames, Recording, open_recording

MOST_PROBLEMS = 5


@dataclass(frozen=True)
class ViewConfig(InputSettings):
    """Show scans in 3D in the browser, with labels, predictions, uncertainty, objects and errors."""

    data: Annotated[Path, tyro.conf.Positional] = Path()
    """Names a bag (folder, .mcap, .db3, .bag), a folder of bags, a quoted glob such as 'drives/*', or a folder of scans."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Lists further bags, which are shown one after the other."""
    bundle: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Names a model whose predictions are shown: the path of its folder, or the name of an installed one. Give the option twice
    to compare two models side by side; without it, only the scans and their labels are shown."""
    topic: str = ""
    """Names the topic of the clouds in a bag; it may be empty if there is only one."""
    split: str = ""
    """Selects the split of the data set to show, for example val; an empty string uses all of it."""
    truth: Path | None = None
    """Names a folder with one .label file per scan, as ground truth for a bag or instead of the scans' own labels."""
    label_map: str = ""
    """Selects the label map whose classes and colours are shown, by name or as a YAML file; an empty string uses that of the
    first bundle, or that of the data if there is no bundle."""
    engine: str = "auto"
    """Selects the inference engine by name, for example onnxruntime; 'auto' uses the fastest on this machine."""
    rate: float = setting(5.0, 0.5, 20.0)
    """Sets the number of scans per second during playback (0.5 to 20); a slow model lowers it."""
    port: int = setting(8081, 1, 65535)
    """Sets the TCP port of the page (1 to 65535), which is reachable from this machine only; from another one, run 'ssh -L
    8081:localhost:8081 HOST' first."""
    live: bool = False
    """Shows the answers of a running node instead of data from disk; a --bundle is run on the same clouds for comparison."""
    node: str = "weakseg"
    """Names the running node, with --live only."""
    rrd: Path | None = None
    """Writes a recording for the Rerun viewer to this .rrd file instead of serving the page."""
    mcap: Path | None = None
    """Writes a bag (MCAP) for Foxglove to this new folder instead of serving the page."""
    every: int = setting(1, 1)
    """Writes only every n-th scan, with --rrd or --mcap (1 or more)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self)
        if self.live and self.data != Path():
            raise ConfigError("live: the view shows the node's answers; leave the data out, or leave --live out")
        if self.live and (self.rrd or self.mcap):
            raise ConfigError(
                "live: cannot be written to a file; record ~/labels with 'ros2 bag record' instead, or leave --live out"
            )


OpenLive = Callable[[ViewConfig], AbstractContextManager[Frames]]
"""The answers of a running node as frames: `ros.live_view.node_frames`, which a verb above both chapters hands in."""


def run(argv: Sequence[str], open_live: OpenLive) -> int:
    """The verb, where `open_live` is what --live goes through."""
    config = parse(ViewConfig, argv, "view")
    if config.live:
        need("viser")
        with open_live(config) as frames:
            return _serve(config, frames, f"node {config.node}")
    if config.data == Path():
        raise DataError(f"no data is given; name a bag or a folder of scans ('weakseg view drive --bundle {DEFAULT_BUNDLE}')")
    if config.rrd is None and config.mcap is None:
        need("viser")
    for option, path in (("--rrd", config.rrd and config.rrd.parent), ("--mcap", config.mcap and config.mcap.parent)):
        if path is not None:
            check_can_write(path, option)
    recording = open_recording(
        config.data, config.bundle, config.topic, config.split, config.truth, config.label_map, config.engine, config, config.more
    )
    try:
        if config.rrd is None and config.mcap is None:
            return _serve(config, recording, str(config.data))
        return _write(config, recording)
    finally:
        recording.close()


def _write(config: ViewConfig, frames: Recording) -> int:
    """Exit code 1 where scans were left out, or not answered by a model."""
    problems: list[str] = []
    for note in frames.notes:
        say(note)
    if config.rrd is not None:
        from weakseg_ros.view.rerun_file import write_rrd

        say(write_rrd(frames, config.rrd, problems, config.every))
    if config.mcap is not None:
        from weakseg_ros.view.foxglove_bag import write_bag

        say(write_bag(frames, config.mcap, problems, config.every))
    for problem in list(dict.fromkeys(problems))[:MOST_PROBLEMS]:
        complain(f"weakseg view: {problem}")
    if len(set(problems)) > MOST_PROBLEMS:
        complain(f"weakseg view: {counted(len(set(problems)) - MOST_PROBLEMS, 'more scan')} of this kind")
    return 1 if problems else 0


def _serve(config: ViewConfig, frames: Frames, name: str) -> int:
    from weakseg_ros.view.page import ViewPage

    server = start_server(config.port, "view")
    try:
        page = ViewPage(server, frames, f"View {name}", config.rate)
        seen = "clouds as the node answers them" if frames.live else f"{counted(len(frames), 'scan')} of {name}"
        say(f"{seen}; models: {', '.join(frames.models) or 'none, only the scans and their labels'}")
        say(f"open http://localhost:{config.port} in a browser; Ctrl+C ends")
        run_until_ended(page)
    finally:
        stop_server(server)
    return INTERRUPTED
