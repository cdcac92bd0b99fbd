# SPDX-License-Identifier: Apache-2.0
"""The verbs that go through many bags, each with the cluster at hand that --ray asks for."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.fleet.cluster import runner_of


def predict_main(argv: Sequence[str]) -> int:
    """`weakseg predict`."""
    from weakseg_ros.measure.predict import main

    return main(argv, runner_of)


def import_main(argv: Sequence[str]) -> int:
    """`weakseg import`."""
    from weakseg_ros.data.importer import main

    return main(argv, runner_of)


def select_main(argv: Sequence[str]) -> int:
    """`weakseg select`."""
    from weakseg_ros.improve.log.command import main

    return main(argv, runner_of)
