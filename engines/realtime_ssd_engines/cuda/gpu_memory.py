"""Device memory and page-locked host memory; created by `realtime_ssd_engines.cuda.driver`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Buffer", "PinnedBuffer"]


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
        address: Address at which the GPU accesses it.
    """

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.bytes = array
        allocation: Any = array.base
        self._allocation = allocation
        self.address = int(allocation.get_device_pointer())

    def view(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the start of the memory as an array."""
        size = int(np.prod(shape)) * dtype.itemsize
        return self.bytes[:size].view(dtype).reshape(shape)

    def close(self) -> None:
        """Free the memory, with the context current; may be called repeatedly."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            allocation.free()
