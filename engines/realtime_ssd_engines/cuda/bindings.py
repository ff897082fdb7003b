"""The part of PyCUDA's driver API that `driver` uses, implemented with cuda-bindings.

PyCUDA must be compiled against one CUDA release, whereas cuda-bindings is distributed as wheels.
Names and semantics are PyCUDA's, so that `driver` works with either. Imported by `driver` only.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from cuda.bindings import driver as api
from numpy.typing import NDArray

from realtime_ssd.core.gpu import driver_library

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

_DEPENDENT_LAUNCH = api.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
_END, _BUFFER, _SIZE = 0, 1, 2  # CU_LAUNCH_PARAM_...: arguments packed into one buffer


class Error(Exception):
    """A driver call failed."""


class MemoryError(Error):  # noqa: A001 - PyCUDA's name
    """The device is out of memory."""


def _call(name: str, *arguments: Any) -> Any:
    """Call a driver function.

    Returns:
        Its result: None, one value or a tuple.

    Raises:
        Error: If the call fails, or the driver is too old for the function.
    """
    try:
        code, *result = getattr(api, name)(*arguments)
    except RuntimeError as error:
        raise Error(f"{name} failed: {error}") from error
    if int(code):
        failed, text = api.cuGetErrorString(code)
        reason = code.name if int(failed) else text.decode(errors="replace")
        out_of_memory = int(code) == int(api.CUresult.CUDA_ERROR_OUT_OF_MEMORY)
        raise (MemoryError if out_of_memory else Error)(f"{name} failed: {reason}")
    return result[0] if len(result) == 1 else tuple(result) or None


def init() -> None:
    """Initialize the driver."""
    _call("cuInit", 0)


class Device:
    """A GPU, identified by its ordinal."""

    def __init__(self, ordinal: int) -> None:
        self._device = _call("cuDeviceGet", ordinal)

    def retain_primary_context(self) -> Context:
        """Retain the primary context, which all libraries of the process share."""
        return Context(self._device)


class Context:
    """The primary context of a GPU."""

    def __init__(self, device: Any) -> None:
        self.handle = _call("cuDevicePrimaryCtxRetain", device)

    def push(self) -> None:
        """Make the context current on the calling thread."""
        _call("cuCtxPushCurrent", self.handle)

    @staticmethod
    def pop() -> None:
        """Restore the context that was current before."""
        _call("cuCtxPopCurrent")


class _Owned:
    """Base of objects that belong to the current context and are destroyed when collected."""

    _destroy = ""

    def __init__(self, handle: Any) -> None:
        self._handle, self._context = handle, _call("cuCtxGetCurrent")

    def __del__(self) -> None:
        destroy = getattr(api, self._destroy, None)  # `api` is None during interpreter shutdown
        if destroy is not None and hasattr(self, "_handle"):
            api.cuCtxPushCurrent(self._context)
            destroy(self._handle)
            api.cuCtxPopCurrent()


class Stream(_Owned):
    """A queue of asynchronous work."""

    _destroy = "cuStreamDestroy"

    def __init__(self, flags: int = 0) -> None:
        super().__init__(_call("cuStreamCreate", flags))

    @property
    def handle(self) -> int:
        """The driver's handle."""
        return int(self._handle)

    def synchronize(self) -> None:
        """Wait until all work on the stream is done."""
        _call("cuStreamSynchronize", self._handle)

    def wait_for_event(self, event: Event) -> None:
        """Delay further work on the stream until an event is reached."""
        _call("cuStreamWaitEvent", self._handle, event._handle, 0)


class Event(_Owned):
    """A marker in a stream that records when it was reached."""

    _destroy = "cuEventDestroy"

    def __init__(self) -> None:
        super().__init__(_call("cuEventCreate", 0))

    def record(self, stream: Stream | None = None) -> None:
        """Place the event behind all work currently on a stream; by default the default stream."""
        _call("cuEventRecord", self._handle, 0 if stream is None else stream.handle)

    def synchronize(self) -> None:
        """Wait until the event is reached."""
        _call("cuEventSynchronize", self._handle)

    def time_till(self, end: Event) -> float:
        """Return the milliseconds between this event and a later one.

        cuda-bindings 13 requires the second version of this function, which drivers before CUDA
        12.8 do not have; all drivers export the first.
        """
        library, milliseconds = driver_library(), ctypes.c_float()
        events = (ctypes.c_void_p(int(event._handle)) for event in (self, end))
        if library is None or library.cuEventElapsedTime(ctypes.byref(milliseconds), *events):
            raise Error("cuEventElapsedTime failed")
        return milliseconds.value


class DeviceAllocation:
    """Device memory; `int()` returns its address."""

    def __init__(self, address: Any) -> None:
        self._address = address

    def __int__(self) -> int:
        return int(self._address)

    def free(self) -> None:
        """Free the memory."""
        _call("cuMemFree", self._address)


def mem_alloc(size: int) -> DeviceAllocation:
    """Allocate device memory."""
    return DeviceAllocation(_call("cuMemAlloc", size))


def mem_get_info() -> tuple[int, int]:
    """Return the free and the total bytes of device memory."""
    free, total = _call("cuMemGetInfo")
    return int(free), int(total)


class HostAllocation:
    """Page-locked host memory, exposed to numpy as an array of bytes."""

    def __init__(self, size: int, flags: int) -> None:
        self._address = int(_call("cuMemHostAlloc", size, flags))
        self.__array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (self._address, False),
            "version": 3,
        }

    def get_device_pointer(self) -> int:
        """Return the address at which the GPU accesses the memory."""
        return int(_call("cuMemHostGetDevicePointer", self._address, 0))

    def free(self) -> None:
        """Free the memory; arrays that view it become invalid."""
        _call("cuMemFreeHost", self._address)


def pagelocked_empty(size: int, dtype: type[np.uint8], *, mem_flags: int = 0) -> NDArray[np.uint8]:
    """Allocate page-locked memory as an array of bytes whose `base` is the allocation."""
    return np.asarray(HostAllocation(size, mem_flags), dtype)


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
    """Loaded machine code; must outlive its kernels."""

    _destroy = "cuModuleUnload"

    def __init__(self, image: bytes) -> None:
        super().__init__(_call("cuModuleLoadData", image))

    def get_function(self, name: str) -> Function:
        """Return a kernel of the module."""
        return Function(_call("cuModuleGetFunction", self._handle, name.encode()))


class Function:
    """A kernel.

    Attributes:
        module: The module that contains it.
    """

    def __init__(self, handle: Any) -> None:
        self._handle, self._layout = handle, struct.Struct("")
        self.module: Any = None

    def prepare(self, arguments: Sequence[np.dtype[Any] | str]) -> None:
        """Declare the parameters: "P" for an address, a structured dtype for a struct by value."""
        parts = ("P" if kind == "P" else f"{np.dtype(kind).itemsize}s" for kind in arguments)
        self._layout = struct.Struct("@" + "".join(parts))

    def prepared_async_call(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        stream: Stream,
        *arguments: int | bytes,
    ) -> None:
        """Launch the kernel on a stream. The driver copies the arguments before it returns."""
        with self._packed(arguments) as extra:
            _call("cuLaunchKernel", self._handle, *grid, *block, 0, stream.handle, 0, extra)

    def launch_dependent(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        stream: Stream,
        *arguments: int | bytes,
    ) -> None:
        """Launch the kernel on a stream while the kernel before it still runs.

        The kernel waits for it itself; compute capability 9.0 or later (programmatic dependent
        launch).
        """
        attribute = api.CUlaunchAttribute()
        attribute.id = _DEPENDENT_LAUNCH
        attribute.value.programmaticStreamSerializationAllowed = 1
        config = api.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = block
        config.hStream = stream.handle
        config.attrs, config.numAttrs = [attribute], 1
        with self._packed(arguments) as extra:
            _call("cuLaunchKernelEx", config, self._handle, 0, extra)

    @contextmanager
    def _packed(self, arguments: Sequence[int | bytes]) -> Iterator[int]:
        """Return the address of the driver's description of the packed arguments."""
        packed = self._layout.pack(*arguments)
        size = ctypes.c_size_t(len(packed))
        values = ctypes.create_string_buffer(packed, max(len(packed), 1))
        buffer, count = ctypes.addressof(values), ctypes.addressof(size)
        extra = (ctypes.c_void_p * 5)(_BUFFER, buffer, _SIZE, count, _END)
        yield ctypes.addressof(extra)
