"""Pixels and parameters of the frames of one slot, in memory that the GPU reads.

Pixels are copied into page-locked memory and from there to the GPU; integrated GPUs read
page-locked memory in place. Frames that a decoder left in GPU memory are not copied. The parameters
of a frame are in page-locked memory too, so that a batch needs no copy for them; the tables of its
size are copied only when it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.frames import Frame, Surface
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_engines.cuda import kernel_params
from realtime_ssd_engines.cuda.driver import Buffer, Device, PinnedBuffer
from realtime_ssd_engines.cuda.kernel_params import Color
from realtime_ssd_engines.cuda.staging import HostCopier

__all__ = ["MAX_PIXEL_BYTES", "FrameInput"]

MAX_PIXEL_BYTES = 256 << 20
"""Limit of the pixels that a slot stores on the GPU, and as many in page-locked memory."""

ALIGNMENT = 256


class FrameInput:
    """Memory for the frames of a batch.

    Create and use it with the device's context current; only one batch may use it at a time.

    Args:
        device: The GPU.
        spec: Input of the model.
        max_batch: Largest number of frames.
        copier: Copies pixels into page-locked memory.

    Attributes:
        sources: Device address of `max_batch` rows of `kernel_params.SOURCE`.
        tables: Device address of `max_batch` tables.
    """

    def __init__(
        self, device: Device, spec: InputSpec, max_batch: int, copier: HostCopier, stream: Any
    ) -> None:
        self._device, self._spec, self._max_batch = device, spec, max_batch
        self._copier, self._decoded = copier, device.event()
        self._owned: list[Buffer | PinnedBuffer] = []
        self._pixels: list[Buffer | PinnedBuffer] = []
        self._pixel_bytes = self._address = 0
        self._keys: list[tuple[object, ...] | None] = [None] * max_batch
        self._planes: list[tuple[object, ...] | None] = [None] * max_batch
        try:
            self._allocate(stream)
        except BaseException:
            self.close()
            raise

    def _allocate(self, stream: Any) -> None:
        count, table_bytes = self._max_batch, kernel_params.table_size(self._spec)
        sources = self._device.pinned(count * kernel_params.SOURCE.itemsize)
        self._owned.append(sources)
        sources.bytes[...] = 0
        self._rows: NDArray[np.void] = sources.view(kernel_params.SOURCE, (count,))
        self._host_tables = self._device.pinned(count * table_bytes)
        self._owned.append(self._host_tables)
        self._device_tables = self._device.buffer(count * table_bytes)
        self._owned.append(self._device_tables)
        self._device.fill_zero(self._device_tables, stream)
        self.sources, self.tables = sources.address, self._device_tables.address

    def images_at_once(self, frames: Sequence[Frame]) -> int:
        """Return how many of these frames fit into the limit of memory, at least one."""
        size = max(map(_image_bytes, frames), default=0)
        return max(1, min(self._max_batch, MAX_PIXEL_BYTES // size if size else self._max_batch))

    def stage(self, frames: Sequence[Frame], stream: Any) -> None:
        """Copy the frames to the GPU, except those that a decoder left in GPU memory.

        The other images of the batch are blank.

        Args:
            frames: At most `images_at_once` frames.
            stream: Stream of the copies.
        """
        sizes = [_image_bytes(frame) for frame in frames]
        if sum(sizes) > self._pixel_bytes:
            # Enough for full batches of such frames, so that memory grows once.
            self._grow(max(sum(sizes), min(MAX_PIXEL_BYTES, max(sizes) * self._max_batch)))
        if any(frame.surface is not None for frame in frames):
            # The decoder converts frames to NV12 on the default stream.
            self._device.wait_for_default_stream(stream, self._decoded)
        for index, frame in enumerate(frames):
            if frame.surface is not None:
                self._set_surface(index, frame.surface, stream)
        self._copy_images(frames, sizes, stream)
        self._clear(len(frames))

    def _grow(self, size: int) -> None:
        """Allocate memory for more pixels; not needed once all sources have started."""
        for memory in self._pixels:
            memory.close()
        self._pixels.clear()
        self._clear(0)
        self._pixel_bytes = 0
        self._host_pixels = self._device.pinned(size)
        self._pixels.append(self._host_pixels)
        self._address = self._host_pixels.address
        if not self._device.integrated:
            self._device_pixels = self._device.buffer(size, "store the pixels of a batch")
            self._pixels.append(self._device_pixels)
            self._address = self._device_pixels.address
        self._pixel_bytes = size

    def _copy_images(self, frames: Sequence[Frame], sizes: Sequence[int], stream: Any) -> None:
        """Copy images into page-locked memory, and each to the GPU as soon as it is complete."""
        indices = [index for index, frame in enumerate(frames) if frame.surface is None]
        begins = [sum(sizes[:index]) for index in indices]
        images = [frames[index].image for index in indices]
        targets = [
            self._host_pixels.bytes[begin : begin + image.nbytes]
            for begin, image in zip(begins, images, strict=True)
        ]
        copies = [(t.reshape(i.shape), i) for t, i in zip(targets, images, strict=True)]
        with closing(self._copier.copy(copies)) as finished:
            for number in finished:
                index, begin, image = indices[number], begins[number], images[number]
                if not self._device.integrated:
                    self._device.copy_in(self._device_pixels, targets[number], stream, begin)
                height, width = image.shape[:2]
                self._set_table(index, (width, height), None, stream)
                planes, pitches = (self._address + begin, 0), (3 * width, 0)
                self._set_source(index, planes, pitches, "bgr")

    def _set_surface(self, index: int, surface: Surface, stream: Any) -> None:
        color = Color.of(surface.standard, surface.full_range)
        self._set_table(index, (surface.width, surface.height), color, stream)
        self._set_source(index, surface.planes, surface.pitches, "nv12")

    def _set_table(
        self, index: int, size: tuple[int, int], color: Color | None, stream: Any
    ) -> None:
        """Copy the table of one image to the GPU, unless it is there already."""
        key = (size, color)
        if self._keys[index] == key:
            return
        content = kernel_params.input_table(self._spec, size, color)
        begin = index * len(content)
        host = self._host_tables.bytes[begin : begin + len(content)]
        host[...] = np.frombuffer(content, np.uint8)
        self._device.copy_in(self._device_tables, host, stream, begin)
        self._keys[index] = key

    def _set_source(
        self,
        index: int,
        planes: tuple[int, int],
        pitches: tuple[int, int],
        image_format: kernel_params.ImageFormat,
    ) -> None:
        """Describe the pixels of one image, unless they are where they were."""
        key = (planes, pitches, image_format)
        if self._planes[index] != key:
            kernel_params.write_source(self._rows[index], planes, pitches, image_format)
            self._planes[index] = key

    def _clear(self, begin: int) -> None:
        """Clear the images from an index on: their pixels may have been freed."""
        for index in range(begin, self._max_batch):
            if self._planes[index] is not None:
                self._rows[index] = 0
                self._planes[index] = None

    def close(self) -> None:
        """Free the memory; may be called repeatedly."""
        for memory in (*self._owned, *self._pixels):
            memory.close()


def _image_bytes(frame: Frame) -> int:
    """Return the memory of an image in host memory, with room for aligned reads, or 0."""
    if frame.surface is not None:
        return 0
    return -(-(frame.image.nbytes + 16) // ALIGNMENT) * ALIGNMENT
