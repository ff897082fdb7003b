"""What `driver` asks of PyCUDA, given by cuda-bindings where PyCUDA is not installed.

PyCUDA has to be compiled against one release of CUDA; cuda-bindings comes as a wheel. The names
and the meaning here are PyCUDA's, so that `driver` need not know which of the two it has. Only
`driver` imports this module.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda.bindings import driver as api
from numpy.typing import NDArray

__all__ = [
    "Context",
    "Device",
    "DeviceAllocation",
    "Error",
    "Event",
    "Function",
    "HostAllocation",
    "MemoryError",
    "Module",
    "Stream",
    "init",
    "mem_alloc",
    "mem_get_info",
    "memcpy_dtod_async",
    "memcpy_dtoh_async",
    "memcpy_htod_async",
    "memset_d8_async",
    "module_from_buffer",
    "pagelocked_empty",
]

_current = threading.local()
_END, _BUFFER, _SIZE = 0, 1, 2  # CU_LAUNCH_PARAM_...: arguments as one piece of memory


class Error(Exception):
    """A call that the driver refused."""


class MemoryError(Error):  # noqa: A001 - PyCUDA's name
    """There is not that much memory left."""


def _call(name: str, *arguments: Any) -> Any:
    """Call a function of the driver.

    Returns:
        Its answer: None, one value or a tuple.

    Raises:
        Error: If it reports an error.
    """
    code, *answer = getattr(api, name)(*arguments)
    if int(code):
        failed, text = api.cuGetErrorString(code)
        reason = code.name if int(failed) else text.decode(errors="replace")
        full = int(code) == int(api.CUresult.CUDA_ERROR_OUT_OF_MEMORY)
        raise (MemoryError if full else Error)(f"{name} failed: {reason}")
    return answer[0] if len(answer) == 1 else tuple(answer) or None


def init() -> None:
    """Start the driver."""
    _call("cuInit", 0)


class Device:
    """A GPU by its number."""

    def __init__(self, ordinal: int) -> None:
        self._device = _call("cuDeviceGet", ordinal)

    def retain_primary_context(self) -> Context:
        """Hold on to the context that all libraries of the process share."""
        return Context(self._device)


class Context:
    """The primary context of a GPU."""

    def __init__(self, device: Any) -> None:
        self.handle = _call("cuDevicePrimaryCtxRetain", device)

    def push(self) -> None:
        """Make it current on this thread."""
        _call("cuCtxPushCurrent", self.handle)
        _stack().append(self)

    @staticmethod
    def pop() -> None:
        """Make the one before it current again."""
        _stack().pop()
        _call("cuCtxPopCurrent")


def _stack() -> list[Context]:
    """List the contexts that this thread has pushed."""
    if not hasattr(_current, "stack"):
        _current.stack = []
    stack: list[Context] = _current.stack
    return stack


class _Owned:
    """Something of the current context that goes when nobody uses it any more."""

    _destroy = ""

    def __init__(self, handle: Any) -> None:
        self._handle, self._context = handle, _stack()[-1]

    def __del__(self) -> None:
        destroy = getattr(api, self._destroy, None)  # `api` is gone when the process ends
        if destroy is not None and hasattr(self, "_handle"):
            api.cuCtxPushCurrent(self._context.handle)
            destroy(self._handle)
            api.cuCtxPopCurrent()


class Stream(_Owned):
    """A queue of work."""

    _destroy = "cuStreamDestroy"

    def __init__(self) -> None:
        super().__init__(_call("cuStreamCreate", 0))

    @property
    def handle(self) -> int:
        """The driver's own handle."""
        return int(self._handle)

    def synchronize(self) -> None:
        """Wait until its work is done."""
        _call("cuStreamSynchronize", self._handle)


class Event(_Owned):
    """A mark in a stream, with the time it was passed."""

    _destroy = "cuEventDestroy"

    def __init__(self) -> None:
        super().__init__(_call("cuEventCreate", 0))

    def record(self, stream: Stream) -> None:
        """Put it behind the work that is on a stream now."""
        _call("cuEventRecord", self._handle, stream.handle)

    def synchronize(self) -> None:
        """Wait until it is passed."""
        _call("cuEventSynchronize", self._handle)

    def time_till(self, end: Event) -> float:
        """Give the milliseconds from this mark to another."""
        return float(_call("cuEventElapsedTime", self._handle, end._handle))


class DeviceAllocation:
    """Device memory; `int()` gives its address."""

    def __init__(self, address: Any) -> None:
        self._address = address

    def __int__(self) -> int:
        return int(self._address)

    def free(self) -> None:
        """Give it back."""
        _call("cuMemFree", self._address)


def mem_alloc(size: int) -> DeviceAllocation:
    """Take device memory."""
    return DeviceAllocation(_call("cuMemAlloc", size))


def mem_get_info() -> tuple[int, int]:
    """Give free and all bytes of device memory."""
    free, total = _call("cuMemGetInfo")
    return int(free), int(total)


class HostAllocation:
    """Page-locked host memory, seen by numpy as bytes."""

    def __init__(self, size: int) -> None:
        self._address = int(_call("cuMemHostAlloc", size, 0))
        self.__array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (self._address, False),
            "version": 3,
        }

    def free(self) -> None:
        """Give it back; arrays over it must not be used any more."""
        _call("cuMemFreeHost", self._address)


def pagelocked_empty(size: int, dtype: type[np.uint8]) -> NDArray[np.uint8]:
    """Take page-locked memory as an array of bytes, whose `base` is the allocation."""
    return np.asarray(HostAllocation(size), dtype)


def memset_d8_async(address: int, value: int, size: int, stream: Stream) -> None:
    """Set bytes of device memory."""
    _call("cuMemsetD8Async", address, value, size, stream.handle)


def memcpy_htod_async(target: int, source: NDArray[Any], stream: Stream) -> None:
    """Copy an array to the device."""
    _call("cuMemcpyHtoDAsync", target, source.ctypes.data, source.nbytes, stream.handle)


def memcpy_dtoh_async(target: NDArray[Any], source: int, stream: Stream) -> None:
    """Copy device memory into an array."""
    _call("cuMemcpyDtoHAsync", target.ctypes.data, source, target.nbytes, stream.handle)


def memcpy_dtod_async(target: int, source: int, size: int, stream: Stream) -> None:
    """Copy within device memory."""
    _call("cuMemcpyDtoDAsync", target, source, size, stream.handle)


def module_from_buffer(image: bytes) -> Module:
    """Load machine code."""
    return Module(image)


class Module(_Owned):
    """Loaded machine code; its kernels must not outlive it."""

    _destroy = "cuModuleUnload"

    def __init__(self, image: bytes) -> None:
        super().__init__(_call("cuModuleLoadData", image))

    def get_function(self, name: str) -> Function:
        """Find a kernel."""
        return Function(_call("cuModuleGetFunction", self._handle, name.encode()))


class Function:
    """A kernel.

    Attributes:
        module: What it was loaded with.
    """

    def __init__(self, handle: Any) -> None:
        self._handle, self._layout = handle, struct.Struct("")
        self.module: Any = None

    def prepare(self, arguments: Sequence[np.dtype[Any] | str]) -> None:
        """Tell what it takes: "P" for an address, a structured dtype for a struct by value."""
        parts = ("P" if kind == "P" else f"{np.dtype(kind).itemsize}s" for kind in arguments)
        self._layout = struct.Struct("@" + "".join(parts))

    def prepared_async_call(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        stream: Stream,
        *arguments: int | bytes,
    ) -> None:
        """Put it on a stream. The driver copies the arguments before it returns."""
        packed = self._layout.pack(*arguments)
        size = ctypes.c_size_t(len(packed))
        values = ctypes.create_string_buffer(packed, max(len(packed), 1))
        buffer, count = ctypes.addressof(values), ctypes.addressof(size)
        extra = (ctypes.c_void_p * 5)(_BUFFER, buffer, _SIZE, count, _END)
        place = ctypes.addressof(extra)
        _call("cuLaunchKernel", self._handle, *grid, *block, 0, stream.handle, 0, place)
