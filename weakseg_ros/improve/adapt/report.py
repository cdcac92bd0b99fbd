# SPDX-License-Identifier: Apache-2.0
"""What an adaptation changed, as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weakseg_ros.measure.report import templates

SHOWN_SHARE = 1e-3


def render(summary: Mapping[str, Any]) -> str:
    """The page from the summary that `weakseg adapt` writes as JSON."""
    shown = [row for row in summary["classes"] if max(row["before"], row["after"]) >= SHOWN_SHARE]
    return str(templates().get_template("adapt.html.j2").render(s=summary, shown=shown))
