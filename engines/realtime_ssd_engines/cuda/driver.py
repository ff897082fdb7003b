"""The GPU as this project uses it: the only module that imports PyCUDA and cuda-bindings.

PyCUDA gives the primary context, streams, events, memory, modules and launches; cuda-bindings the
two things that PyCUDA lacks, NVRTC and graphs, and all the rest too where PyCUDA is not installed.
Both are imported when first needed, because PyCUDA cannot be imported without a driver and the
program must start without either.

Every object belongs to a `Device` and is used with the device's context current on the calling
thread: `with device: ...`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import Gpu, cuda_version, find_gpus

__all__ = [
    "Buffer",
    "Device",
    "Graph",
    "Pinned",
    "graphs_available",
    "nvrtc_compile",
    "nvrtc_version",
]

MEBIBYTE = 1 << 20
_contexts: dict[int, Any] = {}
_opening = threading.Lock()


def _pycuda() -> ModuleType:
    """Give PyCUDA's driver module, or what stands in for it over cuda-bindings."""
    for name in ("pycuda.driver", "realtime_ssd_engines.cuda.bindings"):
        try:
            return import_module(name)
        except (ImportError, RuntimeError) as error:
            reason = error
    raise ModelError(
        f"neither PyCUDA nor cuda-bindings can be loaded ({reason}); install them with: "
        "pip install 'realtime-ssd[gpu]'"
    ) from reason


def _bindings(name: str) -> Any:
    """Import a module of cuda-bindings; None where it is absent or does not load."""
    try:
        return import_module(f"cuda.bindings.{name}")
    except (ImportError, RuntimeError):
        return None


class Device:
    """A GPU and its primary context, which TensorRT, PyTorch and FFmpeg share.

    Use it as a context manager around every piece of work, from any thread, nested or not.

    The process keeps the primary context once it has it, as TensorRT and PyTorch do: taking it
    anew costs a good part of a second, PyCUDA gives it back only on the thread that took it, and
    leaves it current there.

    Args:
        ordinal: Number of the GPU, from 0.

    Raises:
        ModelError: If there is no driver or no such GPU, or PyCUDA is missing.
    """

    def __init__(self, ordinal: int = 0) -> None:
        gpus = find_gpus()
        if cuda_version() is None:
            raise ModelError(
                "no NVIDIA driver was found; install one, or use --backend onnxruntime"
            )
        if ordinal >= len(gpus):
            raise ModelError(
                f"GPU {ordinal} does not exist: the driver shows {len(gpus)} GPUs; "
                "use --backend onnxruntime to run on the CPU"
            )
        self.gpu: Gpu = gpus[ordinal]
        self._cuda = _pycuda()
        self._cuda.init()
        with self.errors("be opened"), _opening:
            if ordinal not in _contexts:
                _contexts[ordinal] = self._cuda.Device(ordinal).retain_primary_context()
            self._context = _contexts[ordinal]

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

    def errors(self, purpose: str, size: int = 0) -> _Errors:
        """Give a context manager that turns driver errors into one sentence.

        Args:
            purpose: What the GPU was to do, as in "GPU 'NAME' could not ...".
            size: Bytes that were asked for, 0 if that is not the point.
        """
        return _Errors(self, purpose, size)

    @property
    def error_type(self) -> type[Exception]:
        """What the driver's calls raise."""
        kind: type[Exception] = self._cuda.Error
        return kind

    def free_memory(self) -> int:
        """Give the bytes of device memory that are free."""
        with self:
            return int(self._cuda.mem_get_info()[0])

    def stream(self) -> Any:
        """Make a stream; its `handle` is an int."""
        return self._cuda.Stream()

    def event(self) -> Any:
        """Make an event with timing."""
        return self._cuda.Event()

    def buffer(self, size: int) -> Buffer:
        """Take device memory.

        Raises:
            ModelError: If the GPU has not that much left; the sentence tells both sizes.
        """
        with self.errors("take memory", size):
            return Buffer(self._cuda.mem_alloc(max(size, 1)), size)

    def pinned(self, size: int) -> Pinned:
        """Take page-locked host memory, from which copies run beside other work."""
        with self.errors("pin host memory", size):
            return Pinned(self._cuda.pagelocked_empty(max(size, 1), np.uint8))

    def load(self, cubin: bytes, function: str, arguments: Sequence[np.dtype[Any] | str]) -> Any:
        """Load one kernel.

        Args:
            cubin: Machine code for this GPU.
            function: Name of the kernel.
            arguments: What it takes: "P" for an address, a structured dtype for a struct by value.

        Returns:
            The kernel: call `prepared_async_call(grid, block, stream, *arguments)`.
        """
        with self.errors(f"load kernel {function}"):
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
        """Copy a buffer, or its beginning, to pinned host memory."""
        self._cuda.memcpy_dtoh_async(target, buffer.address, stream)

    def copy_inside(self, target: int, source: Buffer, size: int, stream: Any) -> None:
        """Copy the beginning of a buffer to another place in device memory."""
        self._cuda.memcpy_dtod_async(target, source.address, size, stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Graph | None:
        """Record the work that a function puts on a stream.

        The function must have run once on this stream before. Other threads may go on using the
        GPU meanwhile (thread-local capture).

        Returns:
            The graph, or None where cuda-bindings is absent.

        Raises:
            ModelError: If the driver refuses.
        """
        return None if _bindings("driver") is None else Graph(self, stream, work)

    def close(self) -> None:
        """Be done with the GPU; may be called any number of times, from any thread.

        What was made with it is closed by those who made it; the primary context stays.
        """


class _Errors:
    def __init__(self, device: Device, purpose: str, size: int) -> None:
        self._device, self._purpose, self._size = device, purpose, size

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, self._device._cuda.Error):
            raise ModelError(self._sentence(error)) from error

    def _sentence(self, error: BaseException) -> str:
        device, cuda = self._device, self._device._cuda
        if isinstance(error, cuda.MemoryError):
            free = cuda.mem_get_info()[0] // MEBIBYTE
            wanted = -(-self._size // MEBIBYTE)
            return (
                f"GPU '{device.gpu.name}' is out of memory: {wanted} MiB were wanted to "
                f"{self._purpose}, {free} MiB are free; close other programs, "
                "or use a smaller --batch"
            )
        return (
            f"GPU '{device.gpu.name}' could not {self._purpose} ({str(error).strip()}); "
            "if it goes on, the driver's log tells more"
        )


class Buffer:
    """Device memory.

    Attributes:
        address: Where it begins.
        size: In bytes.
    """

    def __init__(self, allocation: Any, size: int) -> None:
        self._allocation, self.size, self.address = allocation, size, int(allocation)

    def close(self) -> None:
        """Give the memory back; may be called any number of times, with the context current."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            allocation.free()


class Pinned:
    """Page-locked host memory.

    Attributes:
        bytes: uint8 array over it; not to be used after `close`.
    """

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.bytes = array
        self._allocation: Any = array.base

    def view(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """See the beginning of the memory as an array."""
        size = int(np.prod(shape)) * dtype.itemsize
        return self.bytes[:size].view(dtype).reshape(shape)

    def close(self) -> None:
        """Give the memory back; may be called any number of times, with the context current."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            allocation.free()


class Graph:
    """Work on a stream, recorded once and launched in one call."""

    def __init__(self, device: Device, stream: Any, work: Callable[[], None]) -> None:
        self._api, self._device = _bindings("driver"), device
        self._stream = self._api.CUstream(stream.handle)
        mode = self._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._check(self._api.cuStreamBeginCapture(self._stream, mode))
        try:
            work()
        finally:
            error, graph = self._api.cuStreamEndCapture(self._stream)
        self._check((error,))
        self._executable: Any = self._check(self._api.cuGraphInstantiate(graph, 0))
        self._check(self._api.cuGraphDestroy(graph))
        self._check(self._api.cuGraphUpload(self._executable, self._stream))

    def launch(self) -> None:
        """Start the recorded work on its stream."""
        self._check(self._api.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Give the graph back; may be called any number of times, with the context current."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._api.cuGraphExecDestroy(executable)

    def _check(self, answer: tuple[Any, ...]) -> Any:
        if int(answer[0]):
            raise ModelError(
                f"GPU '{self._device.gpu.name}' refused a graph call ({answer[0].name}); "
                "if it goes on, the driver's log tells more"
            )
        return answer[1] if len(answer) > 1 else None


def graphs_available() -> bool:
    """Tell whether work can be recorded into graphs (needs cuda-bindings)."""
    return _bindings("driver") is not None


def nvrtc_version() -> tuple[int, int] | None:
    """Give the version of NVRTC, or None where it cannot be used."""
    api = _bindings("nvrtc")
    if api is None:
        return None
    try:
        error, major, minor = api.nvrtcVersion()
    except (RuntimeError, OSError):
        return None
    return None if int(error) else (major, minor)


def nvrtc_compile(
    name: str, source: str, headers: Mapping[str, str], options: Sequence[str]
) -> bytes:
    """Compile one source to a cubin with NVRTC.

    Args:
        name: File name for messages.
        source: CUDA C++.
        headers: Text by the name it is included under.
        options: Such as "-arch=sm_90".

    Raises:
        ModelError: If NVRTC refuses; the message holds its log.
    """
    api = _bindings("nvrtc")
    texts, names = ([value.encode() for value in part] for part in (headers.values(), headers))
    _, program = api.nvrtcCreateProgram(source.encode(), name.encode(), len(texts), texts, names)
    given = [option.encode() for option in options]
    (error,) = api.nvrtcCompileProgram(program, len(given), given)
    if int(error):
        _, size = api.nvrtcGetProgramLogSize(program)
        log = b" " * size
        api.nvrtcGetProgramLog(program, log)
        raise ModelError(f"NVRTC refused {name}: {log.decode(errors='replace').strip()}")
    _, size = api.nvrtcGetCUBINSize(program)
    cubin: bytes = b" " * size
    api.nvrtcGetCUBIN(program, cubin)
    api.nvrtcDestroyProgram(program)
    return cubin
