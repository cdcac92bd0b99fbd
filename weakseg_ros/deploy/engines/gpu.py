# SPDX-License-Identifier: Apache-2.0
"""Whether an NVIDIA GPU answers, asked of its driver: TensorRT ends the process where it finds none."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from weakseg_ros.errors import EngineError

DRIVER = "libcuda.so.1"
COMPUTE_CAPABILITY = (75, 76)
"""numbers of the driver's attributes for its major and minor part"""


class Gpu(NamedTuple):
    """What an engine that was built for a GPU depends on."""

    name: str
    capability: tuple[int, int]


def first_gpu() -> Gpu:
    """The first GPU that CUDA may use in this process; EngineError with the reason where there is none."""
    try:
        cuda = ctypes.CDLL(DRIVER)
    except OSError:
        raise EngineError("no NVIDIA driver is installed on this machine") from None
    count, device = ctypes.c_int(), ctypes.c_int()
    failed = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if failed or count.value == 0:
        raise EngineError(f"CUDA finds no GPU that this process may use (error {failed}); check nvidia-smi")
    name = ctypes.create_string_buffer(128)
    values = [ctypes.c_int(), ctypes.c_int()]
    failed = cuda.cuDeviceGet(ctypes.byref(device), 0) or cuda.cuDeviceGetName(name, len(name), device)
    for value, attribute in zip(values, COMPUTE_CAPABILITY, strict=True):
        failed = failed or cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    if failed:
        raise EngineError(f"the NVIDIA driver does not describe its GPU (error {failed}); check nvidia-smi")
    return Gpu(name.value.decode(errors="replace"), (values[0].value, values[1].value))
