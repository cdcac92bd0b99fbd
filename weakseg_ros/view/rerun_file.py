# SPDX-License-Identifier: Apache-2.0
"""Scans as a recording for the Rerun viewer: one view for each pane, along one timeline."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from weakseg_ros.errors import ConfigError, counted
from weakseg_ros.extras import need
from weakseg_ros.files import staged, sweep
from weakseg_ros.view.frames import Recording, Shown
from weakseg_ros.view.panes import CLASSES, ERRORS, boxes_of, colors_of, share_wrong, sides_of

POINT_RADIUS_M = 0.03


def write_rrd(frames: Recording, path: Path, problems: list[str], every: int = 1) -> str:
    """Write every n-th scan; returns a sentence on what was written. MissingLibraryError where rerun-sdk is not installed.

    Scans that cannot be read are left out and told in `problems`.
    """
    need("rerun")
    import rerun

    sweep(path)
    if path.exists():
        raise ConfigError(f"rrd: {path} exists already; choose another name, or remove it")
    written = 0
    with staged(path) as fresh, open(fresh / path.name, "wb") as file:
        recording = rerun.RecordingStream("weakseg")
        stream = recording.binary_stream()  # its own writer of files waits for ever where the disk is full
        rows = [(row.id, row.name, row.color) for row in frames.labels.classes]
        recording.log("/", rerun.AnnotationContext(rows), static=True)
        for index, shown in frames.readable(every, problems):
            written += 1
            recording.set_time("scan", sequence=index)
            _log_scan(recording, frames, shown)
            file.write(stream.read() or b"")
        recording.disconnect()
        file.flush()
        os.fsync(file.fileno())
        os.replace(fresh / path.name, path)
    return f"{path}: {counted(written, 'scan')}; open it with 'rerun {path}'"


def _log_scan(recording: object, frames: Recording, shown: Shown) -> None:
    import rerun

    log = recording.log  # type: ignore[attr-defined]
    if shown.cloud.stamp_ns:
        recording.set_time("recorded", timestamp=shown.cloud.stamp_ns * 1e-9)  # type: ignore[attr-defined]
    for side in sides_of(shown, frames.models):
        usable = side.cloud.valid
        points, name = side.cloud.xyz[usable], side.title.replace("/", "_")
        class_id = None if side.prediction is None else side.prediction[usable].astype(np.uint16)
        colors = colors_of(side, CLASSES, frames.labels)[usable]
        log(f"{name}/points", rerun.Points3D(points, colors=colors, radii=POINT_RADIUS_M, class_ids=class_id))
        wrong = share_wrong(side)
        if wrong is not None:
            colors = colors_of(side, ERRORS, frames.labels)[usable]
            log(f"{name}/errors", rerun.Points3D(points, colors=colors, radii=POINT_RADIUS_M))
            log(f"{name}/wrong", rerun.Scalars(wrong))
        found = boxes_of(side, frames.labels)
        angles = [rerun.RotationAxisAngle((0, 0, 1), radians=float(yaw)) for yaw in found["yaw_rad"]]
        boxes = rerun.Boxes3D(
            centers=found["centre_m"], sizes=found["size_m"], rotation_axis_angles=angles, class_ids=found["class_id"]
        )
        log(f"{name}/boxes", boxes)
