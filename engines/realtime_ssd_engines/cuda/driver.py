"""Access to the GPU driver; the only module that imports PyCUDA and cuda-bindings.

PyCUDA provides the primary context, streams, events, memory, modules and launches. cuda-bindings
provides NVRTC and CUDA graphs, which PyCUDA lacks, and everything else if PyCUDA is not installed.
Both are imported on first use: PyCUDA requires a driver, and the program must start without either.

Every object belongs to a `Device` and is used with the device's context current on the calling
thread: `with device: ...`.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import Gpu, cuda_version, driver_library, find_gpus
from realtime_ssd_engines.requirements import install_command

__all__ = [
    "Buffer",
    "Device",
    "Graph",
    "PinnedBuffer",
    "graphs_available",
    "nvrtc_architectures",
    "nvrtc_compile",
    "nvrtc_version",
]

MEBIBYTE = 1 << 20
_BLANK = " \r\n\t\0"  # NVRTC's log ends with a null character
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC
_primary_contexts: dict[int, Any] = {}
_contexts_lock = threading.Lock()


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


def _bindings(name: str) -> Any:
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
        with self.translate_errors("create a context"), _contexts_lock:
            if ordinal not in _primary_contexts:
                _set_primary_context_flags(ordinal)
                _primary_contexts[ordinal] = self._cuda.Device(ordinal).retain_primary_context()
            self._context = _primary_contexts[ordinal]

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
            free, total = (value // MEBIBYTE for value in self._cuda.mem_get_info())
            need = f"{-(-size // MEBIBYTE)} MiB are required to" if size else "it could not"
            return (
                f"GPU '{self.gpu.name}' is out of memory: {need} {operation}, {free} of {total} "
                "MiB are free; close other programs, or reduce `batch`"
            )
        return (
            f"GPU '{self.gpu.name}' could not {operation} ({str(error).strip()}); if this "
            "happens again, check the driver's log"
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

    def buffer(self, size: int) -> Buffer:
        """Allocate device memory.

        Raises:
            ModelError: If the GPU is out of memory; the message states both sizes.
        """
        with self.translate_errors("allocate memory", size):
            return Buffer(self._cuda.mem_alloc(max(size, 1)), size)

    def pinned(self, size: int) -> PinnedBuffer:
        """Allocate page-locked host memory, which the GPU copies from asynchronously."""
        with self.translate_errors("allocate pinned host memory", size):
            return PinnedBuffer(self._cuda.pagelocked_empty(max(size, 1), np.uint8))

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
        return None if _bindings("driver") is None else Graph(self, stream, work)


class Buffer:
    """Device memory.

    Attributes:
        address: Device address.
        size: In bytes.
    """

    def __init__(self, allocation: Any, size: int) -> None:
        self._allocation, self.size, self.address = allocation, size, int(allocation)

    def close(self) -> None:
        """Free the memory, with the context current; may be called repeatedly."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            allocation.free()


class PinnedBuffer:
    """Page-locked host memory.

    Attributes:
        bytes: uint8 array over it; invalid after `close`.
    """

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.bytes = array
        self._allocation: Any = array.base

    def view(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the start of the memory as an array."""
        size = int(np.prod(shape)) * dtype.itemsize
        return self.bytes[:size].view(dtype).reshape(shape)

    def close(self) -> None:
        """Free the memory, with the context current; may be called repeatedly."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            allocation.free()


class Graph:
    """Stream work, captured once and launched with one call."""

    def __init__(self, device: Device, stream: Any, work: Callable[[], None]) -> None:
        self._api, self._device = _bindings("driver"), device
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


def _set_primary_context_flags(ordinal: int) -> None:
    """Make waits block instead of spin: FFmpeg rejects a primary context with other flags."""
    library, device = driver_library(), ctypes.c_int()
    if library is not None and not library.cuDeviceGet(ctypes.byref(device), ordinal):
        library.cuDevicePrimaryCtxSetFlags_v2(device, _BLOCKING_SYNC)


def graphs_available() -> bool:
    """Return whether CUDA graphs can be captured, which requires cuda-bindings."""
    return _bindings("driver") is not None


def nvrtc_version() -> tuple[int, int] | None:
    """Return the version of NVRTC, or None if it is not available."""
    api = _bindings("nvrtc")
    if api is None:
        return None
    try:
        error, major, minor = api.nvrtcVersion()
    except (RuntimeError, OSError):
        return None
    return None if int(error) else (major, minor)


def nvrtc_architectures() -> tuple[int, ...]:
    """Return the compute capabilities that NVRTC compiles for, such as 90, in ascending order."""
    error, count = _bindings("nvrtc").nvrtcGetNumSupportedArchs()
    if int(error):
        return ()
    _, architectures = _bindings("nvrtc").nvrtcGetSupportedArchs()
    return tuple(sorted(int(number) for number in architectures[:count]))


def nvrtc_compile(
    name: str,
    source: str,
    headers: Mapping[str, str],
    options: Sequence[str],
    *,
    ptx: bool = False,
) -> bytes:
    """Compile one source with NVRTC, to a cubin or to PTX.

    Args:
        name: File name for compiler messages.
        source: CUDA C++.
        headers: Header texts by include name.
        options: Such as "-arch=sm_90".
        ptx: Whether to return PTX, which the driver compiles when it is loaded.

    Raises:
        ModelError: If the compilation fails; the message contains the compiler's log.
    """
    api = _bindings("nvrtc")
    texts, names = ([value.encode() for value in part] for part in (headers.values(), headers))
    _, program = api.nvrtcCreateProgram(source.encode(), name.encode(), len(texts), texts, names)
    encoded = [option.encode() for option in options]
    (error,) = api.nvrtcCompileProgram(program, len(encoded), encoded)
    if int(error):
        _, size = api.nvrtcGetProgramLogSize(program)
        log = b" " * size
        api.nvrtcGetProgramLog(program, log)
        raise ModelError(
            f"NVRTC cannot compile {name}: {log.decode(errors='replace').strip(_BLANK)}"
        )
    kind = "PTX" if ptx else "CUBIN"
    _, size = getattr(api, f"nvrtcGet{kind}Size")(program)
    code: bytes = b" " * size
    getattr(api, f"nvrtcGet{kind}")(program, code)
    api.nvrtcDestroyProgram(program)
    return code
