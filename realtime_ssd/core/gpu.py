"""NVIDIA driver and GPUs of this machine, queried from the driver library without other packages.

TensorRT 8.6 ends the process when a runtime is created without a GPU, and PyCUDA cannot be imported
without a driver, so these functions run before either.
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
    "driver_library",
    "driver_release",
    "find_gpus",
]

_DRIVER_LIBRARIES = {
    "win32": ("nvcuda.dll",),
    "linux": ("libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1"),
}
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU.

    Attributes:
        ordinal: Number of the device, from 0.
        name: Name reported by the driver.
        capability: Compute capability, such as (9, 0).
        memory: Bytes of device memory.
    """

    ordinal: int
    name: str
    capability: tuple[int, int]
    memory: int

    @property
    def architecture(self) -> str:
        """Name of its instruction set for compilers, such as "sm_90"."""
        return "sm_{}{}".format(*self.capability)


@cache
def driver_library() -> ctypes.CDLL | None:
    """Return the driver library, or None without a driver."""
    for name in _DRIVER_LIBRARIES.get(sys.platform, ()):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def cuda_version() -> tuple[int, int] | None:
    """Return the newest CUDA version that the driver supports, or None without a driver."""
    library, version = driver_library(), ctypes.c_int()
    if library is None or library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000, version.value % 1000 // 10


def driver_release() -> str:
    """Return the release of the kernel driver, such as "580.95.05", or "" if it is unknown."""
    try:
        text = _KERNEL_MODULE.read_text()
    except OSError:
        return ""
    match = re.search(r"\b\d{3,}\.\d+(?:\.\d+)?\b", text)
    return match[0] if match else ""


@cache
def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA programs may use; empty without a driver or without a GPU."""
    library, count = driver_library(), ctypes.c_int()
    if library is None or library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_describe(library, ordinal) for ordinal in range(count.value))


def _describe(library: ctypes.CDLL, ordinal: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), ordinal)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = (
        _attribute(library, device, _COMPUTE_CAPABILITY_MAJOR),
        _attribute(library, device, _COMPUTE_CAPABILITY_MINOR),
    )
    return Gpu(ordinal, name.value.decode(errors="replace"), capability, memory.value)


def _attribute(library: ctypes.CDLL, device: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
