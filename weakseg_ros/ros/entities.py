# SPDX-License-Identifier: Apache-2.0
"""Publishers, subscriptions and services that are made together, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.node import Node


@contextmanager
def all_or_none(node: Node) -> Iterator[None]:
    """Where the block fails, destroy what it made: a second try would offer and hear everything twice."""
    before = [set(entities) for entities in _entities(node)]
    try:
        yield
    except BaseException:
        destroy: tuple[Any, ...] = (node.destroy_publisher, node.destroy_subscription, node.destroy_service)
        for former, entities, end in zip(before, _entities(node), destroy, strict=True):
            for entity in set(entities) - former:
                end(entity)
        raise


def _entities(node: Node) -> tuple[list[Any], ...]:
    return list(node.publishers), list(node.subscriptions), list(node.services)
