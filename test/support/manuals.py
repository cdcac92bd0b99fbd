# SPDX-License-Identifier: Apache-2.0
"""The manuals of all verbs, opened one after the other in one process that lacks some libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

EACH_VERB = """
import contextlib, io, json, sys
from weakseg_ros.cli import VERBS, main
for verb in VERBS:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([verb, "--help"])
        except SystemExit as end:
            code = end.code
    print(json.dumps([verb, code or 0, out.getvalue(), err.getvalue()]))
"""


class Manual(NamedTuple):
    """How `weakseg VERB --help` ended, and what it printed."""

    code: int
    out: str
    err: str


def manuals(prelude: str) -> dict[str, Manual]:
    """Each verb's manual, after lines of Python that take libraries away."""
    done = subprocess.run([sys.executable, "-c", prelude + EACH_VERB], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {verb: Manual(*rest) for verb, *rest in map(json.loads, done.stdout.splitlines())}
