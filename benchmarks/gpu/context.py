"""What the sections share: the GPU, the data folder, the options, and what is missing here."""

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

from benchmarks.gpu.rows import Report, SkippedError
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import cuda_version, find_gpus

if TYPE_CHECKING:
    from realtime_ssd_engines.cuda.driver import Device

__all__ = ["Room", "fetch", "import_torch"]


@dataclass
class Room:
    """Everything a section may use.

    Attributes:
        report: Where its rows go.
        data: Folder of real data; it may be absent.
        quick: Whether everything is cut short.
        batches: Batch sizes to time.
        models: Folder of networks without weights (see `subjects`); None if there is none.
        place: Folder for models, engines and kernels of this run.
    """

    report: Report
    data: Path
    quick: bool = False
    batches: tuple[int, ...] = (1, 8, 32)
    models: Path | None = None
    place: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="gpu-proof-")))

    @cached_property
    def no_gpu(self) -> str:
        """Say why no GPU can be used here; "" if one can."""
        if cuda_version() is None:
            return "there is no NVIDIA driver"
        if not find_gpus():
            return "the driver shows no GPU"
        if not has_bindings():
            return "neither PyCUDA nor cuda-bindings is installed"
        return ""

    @cached_property
    def no_tensorrt(self) -> str:
        """Say why TensorRT cannot be used here; "" if it can."""
        if self.no_gpu:
            return self.no_gpu
        if find_spec("tensorrt") is None:
            return "TensorRT is not installed"
        from realtime_ssd_engines.tensorrt.library import library

        try:
            library()
        except ModelError as error:
            return str(error)
        return ""

    def need_gpu(self) -> None:
        """Leave a section where there is no GPU.

        Raises:
            SkippedError: If there is none.
        """
        if self.no_gpu:
            raise SkippedError(self.no_gpu)

    def need_tensorrt(self) -> None:
        """Leave a section where there is no TensorRT.

        Raises:
            SkippedError: If there is none.
        """
        if self.no_tensorrt:
            raise SkippedError(self.no_tensorrt)

    def real(self, name: str) -> Path:
        """Give a file or folder of the real data.

        Raises:
            SkippedError: If it is not there.
        """
        path = self.data / name
        if not path.exists():
            raise SkippedError(f"'{name}' is not in the data folder (--data)")
        return path

    def device(self) -> Device:
        """Open the GPU; the caller closes it."""
        self.need_gpu()
        from realtime_ssd_engines.cuda.driver import Device

        return Device()


def import_torch(*, gpu: bool = True) -> ModuleType:
    """Import PyTorch.

    Raises:
        SkippedError: If it is not there, or does not see the GPU.
    """
    try:
        import torch
    except ImportError as error:
        raise SkippedError("PyTorch is not installed") from error
    if gpu and not torch.cuda.is_available():
        raise SkippedError("PyTorch does not see the GPU")
    return torch


@dataclass(frozen=True)
class _Address:
    address: int


def fetch(device: Device, address: int, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Copy device memory to an array; waits for it."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    with device:
        staging, stream = device.pinned(size), device.stream()
        try:
            device.copy_out(staging.bytes, _Address(address), stream)  # type: ignore[arg-type]
            stream.synchronize()
            return np.array(staging.view(kind, shape))
        finally:
            staging.close()
