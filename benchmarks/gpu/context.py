"""State shared by all sections: options, data folder, report, and access to the GPU."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from realtime_ssd_engines.requirements import has_bindings

from benchmarks.gpu.report_rows import Report, SkippedError
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import cuda_version, find_gpus

if TYPE_CHECKING:
    from realtime_ssd_engines.cuda.driver import Device

__all__ = ["GpuContext", "fetch", "import_torch"]


@dataclass
class GpuContext:
    """Options and resources of a run.

    Attributes:
        report: Receives the rows.
        data: Data folder; it may not exist.
        quick: Whether to run with few repetitions.
        batches: Batch sizes to time.
        models: Folder of networks without weights (see `benchmarks.gpu.models`), or None.
        workdir: Folder for models, engines and kernels of this run.
    """

    report: Report
    data: Path
    quick: bool = False
    batches: tuple[int, ...] = (1, 8, 32)
    models: Path | None = None
    workdir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="gpu-benchmark-")))

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
    def tensorrt_problem(self) -> str:
        """Why TensorRT cannot be used, or ""."""
        if self.gpu_problem:
            return self.gpu_problem
        if find_spec("tensorrt") is None:
            return "TensorRT is not installed"
        from realtime_ssd_engines.tensorrt.library import library

        try:
            library()
        except ModelError as error:
            return str(error)
        return ""

    def require_gpu(self) -> None:
        """Raise `SkippedError` if no GPU can be used."""
        if self.gpu_problem:
            raise SkippedError(self.gpu_problem)

    def require_tensorrt(self) -> None:
        """Raise `SkippedError` if TensorRT cannot be used."""
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
