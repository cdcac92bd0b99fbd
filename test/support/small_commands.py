# SPDX-License-Identifier: Apache-2.0
"""Commands of README and docs as they are printed, with settings that make them small; run as a program, it runs one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

TRAIN = "--steps 3 --warmup-steps 1 --width 64 --batch-size 2 --validate-every 3 --workers 1"
ROOMS = "--scans 2 --columns 256 --workers 1 --buildings 1 --points 1000 --camera.width 32 --camera.height 24"
ROW = "steps=3 warmup_steps=1 width=64 batch_size=2 validate_every=3 workers=1 net_width=16"
GATE = "--gate.miou-drop 1 --gate.class-drop 1 --gate.pq-drop 1 --gate.latency-ratio 100 --gate.new-gain -1"


def small(words: Sequence[str]) -> list[str]:
    """The verb and its arguments, followed by settings that make it small; the last one of two counts."""
    drive = f"--scans 3 --columns 256 --workers 1 {'--streets 2' if '--streets' in words else ''}"
    more = {
        "simulate": ROOMS if "--rooms" in words else drive,
        "train": TRAIN if "from_street" in words else f"{TRAIN} --net-width 16",  # whose weights have a width of their own
        "benchmark": f"--methods supervised --nets light --ratios 0.01 --seeds 1 --override {ROW}",
        "retrain": f"--steps 2 --batch-size 2 --regression-scans 1 {GATE}",
        **dict.fromkeys(("label", "view"), f"--port {os.environ.get('WEAKSEG_TEST_PORT', 8081)}"),
    }
    return [*words, *more.get(words[0], "").split()]


if __name__ == "__main__":
    from weakseg_ros.cli import main

    sys.exit(main(small(sys.argv[1:])))
