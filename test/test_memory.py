# SPDX-License-Identifier: Apache-2.0
"""What a process that lives long asks of the system's memory."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

THREADS_THAT_TAKE_BLOCKS = """
import ctypes, sys, threading
from weakseg_ros.memory import share_free_blocks

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
if sys.argv[2] == "shared":
    assert share_free_blocks()
together = threading.Barrier(8)

def take():
    together.wait()
    for _ in range(100):
        assert libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="this system's C library is not glibc")
def test_the_threads_of_a_node_share_two_pools_of_memory(tmp_path):
    pools = {}
    for kind in ("apart", "shared"):
        file = tmp_path / kind
        subprocess.run([sys.executable, "-c", THREADS_THAT_TAKE_BLOCKS, file, kind], check=True)
        pools[kind] = file.read_text().count("<heap nr=")
    assert pools["shared"] <= 2 < pools["apart"], pools
