"""NVIDIA driver and GPUs of this machine, queried from the driver itself without any package.

TensorRT ends the process when it is asked for a runtime on a machine without a GPU, and PyCUDA
cannot be imported without a driver, so this question comes before both.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = [
    "Gpu",
    "cuda_version",
    "driver_release",
    "find_gpus",
]

_NAMES = {
    "win32": ("nvcuda.dll",),
    "linux": ("libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1"),
}
_MAJOR, _MINOR = 75, 76
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU.

    Attributes:
        ordinal: Number of the device, from 0.
        name: As the driver calls it.
        capability: Compute capability, such as (9, 0).
        memory: Bytes of device memory.
    """

    ordinal: int
    name: str
    capability: tuple[int, int]
    memory: int

    @property
    def architecture(self) -> str:
        """Name of the machine code it runs, such as "sm_90"."""
        return "sm_{}{}".format(*self.capability)


@cache
def _library() -> ctypes.CDLL | None:
    for name in _NAMES.get(sys.platform, ()):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def cuda_version() -> tuple[int, int] | None:
    """Give the newest CUDA release the installed driver supports, or None without a driver."""
    library, number = _library(), ctypes.c_int()
    if library is None or library.cuDriverGetVersion(ctypes.byref(number)):
        return None
    return number.value // 1000, number.value % 1000 // 10


def driver_release() -> str:
    """Give the release of the kernel driver, such as "580.95.05", or "" where it is not told."""
    try:
        text = _KERNEL_MODULE.read_text()
    except OSError:
        return ""
    found = re.search(r"\b\d{3,}\.\d+(?:\.\d+)?\b", text)
    return found[0] if found else ""


@cache
def find_gpus() -> tuple[Gpu, ...]:
    """List the GPUs that CUDA programs may use; empty without a driver or without a GPU."""
    library, count = _library(), ctypes.c_int()
    if library is None or library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_describe(library, ordinal) for ordinal in range(count.value))


def _describe(library: ctypes.CDLL, ordinal: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), ordinal)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = (_attribute(library, device, number) for number in (_MAJOR, _MINOR))
    return Gpu(ordinal, name.value.decode(errors="replace"), (major, minor), memory.value)


def _attribute(library: ctypes.CDLL, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value
