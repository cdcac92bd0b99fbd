# SPDX-License-Identifier: Apache-2.0
"""A node of a Ray cluster is lost while it works on a bag: the bag is tried again elsewhere, and the loss is named."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import PATIENCE_S, optional
from weakseg_ros.data.many_bags import Job, Row
from weakseg_ros.data.ray_settings import RaySettings

pytestmark = pytest.mark.slow
BAGS = 4


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes of one CPU each, and the second of them."""
    from weakseg_ros.fleet.cluster import OWN_CLUSTER, STORE_BYTES

    for name, value in OWN_CLUSTER.items():
        if "health_check" not in name:  # a node that is lost is to be missed soon
            monkeypatch.setenv(name, value)
    ray = optional("ray")
    from ray.cluster_utils import Cluster

    cluster, of_node = None, {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    try:
        try:
            cluster = Cluster(initialize_head=True, head_node_args={**of_node, "include_dashboard": False})
            second = cluster.add_node(**of_node)
            ray.init(address=cluster.address, log_to_driver=False)
        except Exception as error:  # Ray waits for its own daemons for fifteen seconds, whatever else the machine does
            pytest.skip(f"Ray does not start on this machine: {error}")
        yield cluster, second
    finally:
        ray.shutdown()
        if cluster is not None:
            cluster.shutdown()


def test_the_bag_of_a_lost_node_is_tried_again(nodes: Any, tmp_path: Path) -> None:
    from weakseg_ros.fleet.cluster import runner_of

    cluster, second = nodes
    marks, doomed = tmp_path / "marks", second.node_id
    marks.mkdir()

    def work(bag: Path, name: str) -> Row:
        import ray

        if ray.get_runtime_context().get_node_id() == doomed:
            (marks / name).touch()
            time.sleep(PATIENCE_S)  # it never ends this
        while not any(marks.iterdir()):  # the first node does not do all of them alone
            time.sleep(0.05)
        return {"complete": True}

    def lose_it() -> None:
        while not any(marks.iterdir()):
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    loser = threading.Thread(target=lose_it, daemon=True)
    loser.start()
    jobs = [Job(Path(f"bag_{number}"), f"bag_{number}") for number in range(BAGS)]
    rows = dict(runner_of(RaySettings(ray=cluster.address), tmp_path / "out")(work, jobs))
    loser.join()
    (lost,) = (mark.name for mark in marks.iterdir())
    assert {job.name for job in rows} == {job.name for job in jobs}
    assert all(row["complete"] for row in rows.values())
    tried_again = {job.name: row for job, row in rows.items() if row["attempts"] > 1}
    assert list(tried_again) == [lost]
    assert "was lost" in tried_again[lost]["failures"][0]
