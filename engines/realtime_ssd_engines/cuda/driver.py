"""Access to the GPU driver; only this package imports PyCUDA and cuda-bindings.

PyCUDA provides the primary context, streams, events, memory, modules and launches. cuda-bindings
provides NVRTC and CUDA graphs, which PyCUDA lacks, and everything else if PyCUDA is not installed.
Both are imported on first use: PyCUDA requires a driver, and the program must start without either.

Every object belongs to a `Device` and is used with the device's context current on the calling
thread: `with device: ...`.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import Gpu, cuda_version, driver_library, find_gpus
from realtime_ssd_engines.cuda.gpu_memory import Buffer, PinnedBuffer
from realtime_ssd_engines.requirements import install_command

__all__ = [
    "Buffer",
    "Device",
    "Graph",
    "PinnedBuffer",
    "graphs_available",
    "import_bindings",
]

MEBIBYTE = 1 << 20
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC
_MAPPED = 2  # CU_MEMHOSTALLOC_DEVICEMAP
_INTEGRATED = 18  # CU_DEVICE_ATTRIBUTE_INTEGRATED
_DEPENDENT_LAUNCH_CAPABILITY, _DEPENDENT_LAUNCH_DRIVER = (9, 0), (12, 3)


def _pycuda() -> ModuleType:
    """Return PyCUDA's driver module, or its replacement based on cuda-bindings."""
    for name in ("pycuda.driver", "realtime_ssd_engines.cuda.bindings"):
        try:
            return import_module(name)
        except (ImportError, RuntimeError) as error:
            reason = error
    raise ModelError(
        f"PyCUDA and cuda-bindings cannot be loaded ({reason}); run {install_command()}"
    ) from reason


def import_bindings(name: str) -> Any:
    """Import a module of cuda-bindings; return None if it is absent or fails to load."""
    try:
        return import_module(f"cuda.bindings.{name}")
    except (ImportError, RuntimeError):
        return None


class Device:
    """A GPU and its primary context, which TensorRT, PyTorch and FFmpeg share.

    Enter it as a context manager around GPU work, on any thread; it may be nested.

    The process retains the primary context until it ends, as TensorRT and PyTorch do: creating it
    takes a large part of a second, and PyCUDA can release it only on the thread that retained it.

    Args:
        ordinal: Index of the GPU.

    Attributes:
        gpu: Description of the GPU.
        integrated: Whether it shares the memory of the processor.

    Raises:
        ModelError: If there is no driver, GPU or Python package to access it.
    """

    def __init__(self, ordinal: int = 0) -> None:
        gpus = find_gpus()
        if cuda_version() is None:
            raise ModelError(
                "no NVIDIA driver was found; install one, or set `backend` to onnxruntime"
            )
        if ordinal >= len(gpus):
            raise ModelError(
                f"GPU {ordinal} does not exist: the driver reports {len(gpus)} GPUs; "
                "set `backend` to onnxruntime to run on the CPU"
            )
        self.gpu: Gpu = gpus[ordinal]
        self._cuda = _pycuda()
        self._cuda.init()
        self.integrated = bool(_attribute(ordinal, _INTEGRATED))
        with self.translate_errors("create a context"):
            self._context = _primary_context(ordinal)

    def __enter__(self) -> Device:
        self._context.push()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cuda.Context.pop()

    @contextmanager
    def translate_errors(self, operation: str, size: int = 0) -> Iterator[None]:
        """Turn driver errors into a `ModelError`.

        Args:
            operation: Verb phrase that completes "GPU 'NAME' could not ...".
            size: Requested bytes, for out-of-memory messages.
        """
        try:
            yield
        except self._cuda.Error as error:
            raise ModelError(self._error_message(error, operation, size)) from error

    def _error_message(self, error: Exception, operation: str, size: int) -> str:
        if isinstance(error, self._cuda.MemoryError):
            free, total = self._memory()
            need = f"{-(-size // MEBIBYTE)} MiB are required to" if size else "it could not"
            return (
                f"GPU '{self.gpu.name}' is out of memory: {need} {operation}, {free} of {total} "
                "MiB are free; close other programs, or reduce `batch`"
            )
        return (
            f"GPU '{self.gpu.name}' could not {operation} ({str(error).strip()}); if this "
            "happens again, check the driver's log"
        )

    def _memory(self) -> tuple[int, int]:
        """Return the free and the total MiB; zeros if the GPU was lost."""
        try:
            free, total = self._cuda.mem_get_info()
        except self._cuda.Error:
            return 0, 0
        return free // MEBIBYTE, total // MEBIBYTE

    @property
    def launches_dependents(self) -> bool:
        """Whether a kernel can be launched while the one before it runs, if it waits itself."""
        return (
            self.gpu.capability >= _DEPENDENT_LAUNCH_CAPABILITY
            and (cuda_version() or (0, 0)) >= _DEPENDENT_LAUNCH_DRIVER
        )

    @property
    def error_type(self) -> type[Exception]:
        """Exception type of failed driver calls."""
        kind: type[Exception] = self._cuda.Error
        return kind

    def free_memory(self) -> int:
        """Return the free bytes of device memory."""
        with self:
            return int(self._cuda.mem_get_info()[0])

    def stream(self) -> Any:
        """Create a stream; its `handle` is an int.

        The stream does not synchronize with the default stream.
        """
        return self._cuda.Stream(_NON_BLOCKING)

    def wait_for_default_stream(self, stream: Any, event: Any) -> None:
        """Delay further work on a stream until the current work on the default stream is done.

        Args:
            stream: The stream that waits.
            event: Event to use.
        """
        event.record()
        stream.wait_for_event(event)

    def event(self) -> Any:
        """Create an event with timing."""
        return self._cuda.Event()

    def buffer(self, size: int, purpose: str = "allocate memory", total: int = 0) -> Buffer:
        """Allocate device memory.

        Args:
            size: In bytes.
            purpose: Verb phrase for the error message.
            total: Bytes that the purpose requires altogether, if this is one of several buffers.

        Raises:
            ModelError: If the GPU is out of memory; the message states required and free memory.
        """
        with self.translate_errors(purpose, total or size):
            return Buffer(self._cuda.mem_alloc(max(size, 1)), size)

    def pinned(self, size: int) -> PinnedBuffer:
        """Allocate page-locked host memory, which the GPU can access.

        Raises:
            ModelError: If there is not enough memory.
        """
        try:
            return PinnedBuffer(
                self._cuda.pagelocked_empty(max(size, 1), np.uint8, mem_flags=_MAPPED)
            )
        except self._cuda.MemoryError as error:
            raise ModelError(
                f"the computer is out of memory for GPU '{self.gpu.name}': "
                f"{-(-size // MEBIBYTE)} MiB of page-locked memory are required; close other "
                "programs, or reduce `batch`"
            ) from error

    def load(self, cubin: bytes, function: str, arguments: Sequence[np.dtype[Any] | str]) -> Any:
        """Load one kernel.

        Args:
            cubin: Machine code for this GPU.
            function: Name of the kernel.
            arguments: Its parameters: "P" for an address, a structured dtype for a struct by value.

        Returns:
            The kernel: call `prepared_async_call(grid, block, stream, *arguments)`.
        """
        with self.translate_errors(f"load kernel {function}"):
            module = self._cuda.module_from_buffer(cubin)
            kernel = module.get_function(function)
        kernel.prepare(list(arguments))
        kernel.module = module
        return kernel

    def fill_zero(self, buffer: Buffer, stream: Any) -> None:
        """Set every byte of a buffer to zero."""
        self._cuda.memset_d8_async(buffer.address, 0, max(buffer.size, 1), stream)

    def copy_in(self, buffer: Buffer, source: NDArray[Any], stream: Any, offset: int = 0) -> None:
        """Copy pinned host memory to the GPU, `offset` bytes into the buffer."""
        self._cuda.memcpy_htod_async(buffer.address + offset, source, stream)

    def copy_out(self, target: NDArray[Any], buffer: Buffer, stream: Any) -> None:
        """Copy the start of a buffer to pinned host memory."""
        self._cuda.memcpy_dtoh_async(target, buffer.address, stream)

    def copy_inside(self, target: int, source: Buffer, size: int, stream: Any) -> None:
        """Copy the first `size` bytes of a buffer to another device address."""
        self._cuda.memcpy_dtod_async(target, source.address, size, stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Graph | None:
        """Capture the work that a function submits to a stream as a graph.

        The function must have run on this stream before. Other threads may use the GPU during the
        capture (thread-local capture mode).

        Returns:
            The graph, or None if cuda-bindings is not installed.

        Raises:
            ModelError: If the work cannot be captured; the stream remains usable.
        """
        return None if import_bindings("driver") is None else Graph(self, stream, work)


class Graph:
    """Stream work, captured once and launched with one call."""

    def __init__(self, device: Device, stream: Any, work: Callable[[], None]) -> None:
        self._api, self._device = import_bindings("driver"), device
        self._stream = self._api.CUstream(stream.handle)
        mode = self._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._check(self._api.cuStreamBeginCapture(self._stream, mode))
        graph = None
        try:
            with _no_garbage_collection():
                try:
                    work()
                finally:
                    error, graph = self._api.cuStreamEndCapture(self._stream)
            self._check((error,))
            self._executable: Any = self._check(self._api.cuGraphInstantiate(graph, 0))
        finally:
            if graph is not None and int(graph):
                self._api.cuGraphDestroy(graph)
        self._check(self._api.cuGraphUpload(self._executable, self._stream))

    def launch(self) -> None:
        """Launch the captured work on its stream."""
        self._check(self._api.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Destroy the graph, with the context current; may be called repeatedly."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._api.cuGraphExecDestroy(executable)

    def _check(self, result: tuple[Any, ...]) -> Any:
        if int(result[0]):
            raise ModelError(
                f"GPU '{self._device.gpu.name}': a CUDA graph call failed ({result[0].name}); if "
                "this happens again, check the driver's log"
            )
        return result[1] if len(result) > 1 else None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection: destructors of GPU objects would invalidate a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@cache
def _primary_context(ordinal: int) -> Any:
    """Retain the primary context of a GPU, once per process."""
    _set_primary_context_flags(ordinal)
    return _pycuda().Device(ordinal).retain_primary_context()


def _attribute(ordinal: int, attribute: int) -> int:
    library, device, value = driver_library(), ctypes.c_int(), ctypes.c_int()
    if library is None or library.cuDeviceGet(ctypes.byref(device), ordinal):
        return 0
    library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value


def _set_primary_context_flags(ordinal: int) -> None:
    """Make waits block instead of spin: FFmpeg rejects a primary context with other flags."""
    library, device = driver_library(), ctypes.c_int()
    if library is not None and not library.cuDeviceGet(ctypes.byref(device), ordinal):
        library.cuDevicePrimaryCtxSetFlags_v2(device, _BLOCKING_SYNC)


def graphs_available() -> bool:
    """Return whether CUDA graphs can be captured, which requires cuda-bindings."""
    return import_bindings("driver") is not None
