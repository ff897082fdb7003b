"""The current clock of the GPU, from NVIDIA's management library, which comes with the driver."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from realtime_ssd.core.gpu import driver_library

__all__ = ["multiprocessor_clock"]

_LIBRARIES = {"win32": "nvml.dll", "linux": "libnvidia-ml.so.1"}
_CLOCK_SM = 1  # nvmlClockType_t


def multiprocessor_clock() -> int | None:
    """Return the clock of the first GPU's multiprocessors in MHz, or None if it is unknown."""
    library, handle = _management_library()
    clock = ctypes.c_uint()
    if library is None or library.nvmlDeviceGetClockInfo(handle, _CLOCK_SM, ctypes.byref(clock)):
        return None
    return clock.value


@cache
def _management_library() -> tuple[ctypes.CDLL | None, ctypes.c_void_p]:
    """Return the library and its handle of the GPU that CUDA numbers 0, found by PCI address."""
    handle, device, address = ctypes.c_void_p(), ctypes.c_int(), ctypes.create_string_buffer(32)
    driver = driver_library()
    try:
        library = ctypes.CDLL(_LIBRARIES.get(sys.platform, ""))
        failed = (
            driver is None
            or driver.cuDeviceGet(ctypes.byref(device), 0)
            or driver.cuDeviceGetPCIBusId(address, len(address), device)
            or library.nvmlInit_v2()
            or library.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle))
        )
    except (OSError, AttributeError):
        return None, handle
    return (None if failed else library), handle
