"""Which NVIDIA driver and GPUs are there, asked of the driver itself; needs no package.

TensorRT ends the process when it is asked for a runtime on a machine without a GPU, and PyCUDA
cannot be imported without a driver, so this question comes before both.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from realtime_ssd.errors import ModelError

__all__ = [
    "Gpu",
    "cuda_version",
    "driver_release",
    "find_gpus",
    "has_bindings",
    "missing_parts",
    "require_gpu",
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


def has_bindings() -> bool:
    """Tell whether Python can reach the driver: by PyCUDA, or else by cuda-bindings."""
    if find_spec("pycuda") is not None:
        return True
    try:
        return find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:
        return False


def missing_parts() -> list[str]:
    """Name what this machine lacks to run TensorRT; empty if nothing."""
    missing = []
    if cuda_version() is None:
        missing.append("an NVIDIA driver")
    elif not find_gpus():
        missing.append("an NVIDIA GPU that the driver can use")
    packages = ["tensorrt"] if find_spec("tensorrt") is None else []
    packages += [] if has_bindings() else ["pycuda"]
    if packages:
        missing.append(f"the Python package{'s'[: len(packages) - 1]} {' and '.join(packages)}")
    return missing


def require_gpu(purpose: str) -> None:
    """Make sure that TensorRT can run here.

    Args:
        purpose: What is wanted, as in "this machine cannot ...".

    Raises:
        ModelError: If not; the sentence names all that is missing.
    """
    missing = missing_parts()
    if missing:
        raise ModelError(
            f"this machine cannot {purpose}: it lacks {', and '.join(missing)}; install what is "
            "missing (pip install 'realtime-ssd[gpu]' brings the packages) or use --backend "
            "onnxruntime"
        )
