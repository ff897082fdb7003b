"""Copies pixels into page-locked memory with several threads.

One thread copies about 10 GB/s, which is less than what the GPU can take.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.frames import Image

__all__ = ["HostCopier", "copy_threads"]

MAX_THREADS = 8
BAND_BYTES = 2 << 20
"""Pixels per task: large enough for its overhead, small enough to share one image."""


def copy_threads(cores: int) -> int:
    """Return the number of threads for a machine; the other cores decode and encode."""
    return max(1, min(MAX_THREADS, cores // 2))


class HostCopier(Closeable):
    """Copies images in parallel.

    Args:
        threads: Number of threads; by default a number for this machine. With one, the caller
            copies.
    """

    def __init__(self, threads: int | None = None) -> None:
        count = copy_threads(cpu_count()) if threads is None else threads
        self._pool = ThreadPoolExecutor(count, "copy") if count > 1 else None

    def copy(self, copies: Sequence[tuple[Image, Image]]) -> Generator[int, None, None]:
        """Copy images and yield the index of each in order, as soon as it is complete.

        Args:
            copies: Target and source of each copy, of the same shape.
        """
        size = sum(source.nbytes for _, source in copies)
        if self._pool is None or size <= BAND_BYTES:
            for index, (target, source) in enumerate(copies):
                np.copyto(target, source)
                yield index
            return
        tasks = [self._submit(self._pool, target, source) for target, source in copies]
        try:
            for index, bands in enumerate(tasks):
                for band in bands:
                    band.result()
                yield index
        finally:
            for band in (band for bands in tasks for band in bands):
                if not band.cancel():
                    band.exception()  # the memory may be freed once this returns

    def _submit(self, pool: ThreadPoolExecutor, target: Image, source: Image) -> list[Future[None]]:
        rows = max(1, BAND_BYTES * len(source) // max(source.nbytes, 1))
        return [
            pool.submit(np.copyto, target[begin : begin + rows], source[begin : begin + rows])
            for begin in range(0, len(source), rows)
        ]

    def close(self) -> None:
        """Stop the threads; may be called repeatedly."""
        if self._pool is not None:
            self._pool.shutdown()
