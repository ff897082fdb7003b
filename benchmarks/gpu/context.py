"""State shared by the checks of a section: options, data folder, report, and access to the GPU."""

from __future__ import annotations

import ctypes
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from realtime_ssd_engines.requirements import FLAVOR_NAMES, Flavor, has_bindings, installed_flavors

from benchmarks.gpu.checks import SectionRequest
from benchmarks.gpu.report_rows import Report, SkippedError, one_line
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.gpu import cuda_version, driver_library, find_gpus

if TYPE_CHECKING:
    from realtime_ssd_engines.cuda.driver import Device

__all__ = ["GpuContext", "fetch", "import_torch"]


class GpuContext:
    """Options and resources of a section.

    Args:
        report: Receives the rows.
        request: Options.

    Attributes:
        report: Receives the rows.
        request: Options.
        data: Data folder; it may not exist.
        quick: Whether to run with few repetitions.
        batches: Batch sizes to time.
        names: Models to time and build.
        models: Folder of networks without weights (see `benchmarks.gpu.models`), or None.
        workdir: Folder for models, engines and kernels of this run.
    """

    def __init__(self, report: Report, request: SectionRequest) -> None:
        self.report, self.request = report, request
        self.data, self.workdir = Path(request.data), Path(request.workdir)
        self.models = Path(request.models) if request.models else None
        self.quick, self.batches, self.names = request.quick, request.batches, request.names

    def rng(self, name: str) -> np.random.Generator:
        """Return a generator for one check, which does not depend on the checks before it."""
        return np.random.default_rng([self.request.seed, zlib.crc32(name.encode())])

    @cached_property
    def gpu_problem(self) -> str:
        """Why no GPU can be used, or ""."""
        if cuda_version() is None:
            return "there is no NVIDIA driver"
        if not find_gpus():
            return "the driver reports no GPU"
        if not has_bindings():
            return "neither PyCUDA nor cuda-bindings is installed"
        return ""

    @cached_property
    def flavor(self) -> Flavor:
        """Flavor of TensorRT in use: the preferred one of those that run on this GPU."""
        flavors = installed_flavors()
        running = (flavor for flavor in flavors if not self._flavor_problem(flavor))
        return next(running, next(iter(flavors), "tensorrt"))

    @cached_property
    def tensorrt_problem(self) -> str:
        """Why TensorRT cannot be used, or ""."""
        if self.gpu_problem:
            return self.gpu_problem
        if not installed_flavors():
            return "TensorRT is not installed"
        return self._flavor_problem(self.flavor)

    def _flavor_problem(self, flavor: Flavor) -> str:
        """Return why the smallest engine does not run, or "".

        The answer is stored for the processes of other sections, even if TensorRT ends this one.
        """
        record = self.workdir / f"problem-of-{flavor}.txt"
        if not record.exists():
            record.write_text(f"{FLAVOR_NAMES[flavor]} crashed when it ran its smallest engine")
            record.write_text(self._run_smallest_engine(flavor))
        return record.read_text()

    def _run_smallest_engine(self, flavor: Flavor) -> str:
        from benchmarks.gpu.smallest_engine import run_smallest_engine

        try:
            run_smallest_engine(self.device(), flavor)
        except (RealtimeSSDError, OSError) as error:
            return one_line(error)
        return ""

    def gpu_responds(self) -> bool:
        """Return whether the GPU still accepts work of this process, if there is a GPU."""
        library = driver_library()
        if self.gpu_problem or library is None:
            return True
        device, context = ctypes.c_int(), ctypes.c_void_p()
        library.cuDeviceGet(ctypes.byref(device), 0)
        if library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
            return False
        library.cuCtxPushCurrent_v2(context)
        failed = bool(library.cuCtxSynchronize())
        library.cuCtxPopCurrent_v2(ctypes.byref(context))
        library.cuDevicePrimaryCtxRelease_v2(device)
        return not failed

    def require_gpu(self) -> None:
        """Raise `SkippedError` if no GPU can be used."""
        if self.gpu_problem:
            raise SkippedError(f"no GPU: {self.gpu_problem}")

    def require_tensorrt(self) -> None:
        """Raise `SkippedError` if TensorRT cannot be used."""
        self.require_gpu()
        if self.tensorrt_problem:
            raise SkippedError(self.tensorrt_problem)

    def data_file(self, name: str) -> Path:
        """Return a file or folder in the data folder.

        Raises:
            SkippedError: If it does not exist.
        """
        path = self.data / name
        if not path.exists():
            raise SkippedError(f"'{name}' is not in the data folder (--data)")
        return path

    def device(self) -> Device:
        """Return the GPU."""
        self.require_gpu()
        from realtime_ssd_engines.cuda.driver import Device

        return Device()


def import_torch(*, gpu: bool = True) -> ModuleType:
    """Import PyTorch.

    Raises:
        SkippedError: If it is not installed, or does not support the GPU.
    """
    try:
        import torch
    except ImportError as error:
        raise SkippedError("PyTorch is not installed") from error
    if gpu and not torch.cuda.is_available():
        raise SkippedError("PyTorch does not support the GPU")
    return torch


@dataclass(frozen=True)
class _Address:
    address: int


def fetch(device: Device, address: int, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Copy device memory to a new array, synchronously."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    with device:
        staging, stream = device.pinned(size), device.stream()
        try:
            device.copy_out(staging.bytes, _Address(address), stream)  # type: ignore[arg-type]
            stream.synchronize()
            return np.array(staging.view(dtype, shape))
        finally:
            staging.close()
