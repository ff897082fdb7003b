"""Frame slots: the memory, stream and CUDA graphs with which one batch passes through the GPU.

Pixels are copied in, then a single graph launch does the rest: frame parameters, pre-processing,
network, decoding, NMS and copy-out of the detections. With several slots, each on its own stream,
the copies of one batch overlap with the computation of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.frames import Frame, Surface
from realtime_ssd.core.postprocess import RawDetections
from realtime_ssd_engines.cuda import kernel_params
from realtime_ssd_engines.cuda.driver import Buffer, Device, Graph, PinnedBuffer
from realtime_ssd_engines.cuda.kernel_params import Color, DetectBuffers, ImageHeader
from realtime_ssd_engines.cuda.kernel_set import KernelSet

__all__ = ["FrameSlot", "Network", "batch_sizes"]

_ITEM_SIZES = {"fp32": 4, "fp16": 2}


class Network(Protocol):
    """The network between pre-processing and decoding, such as a TensorRT engine."""

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Prepare the network for one batch size of one slot.

        Args:
            addresses: Device addresses of "input", "scores" and "offsets".
            images: Batch size.
            stream: Stream of the slot.

        Returns:
            A function that enqueues the network on the stream, and one that releases its resources.
        """
        ...


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Return the batch sizes to prepare: the powers of two below `largest`, and `largest`."""
    sizes = {1 << power for power in range(largest.bit_length()) if 1 << power <= largest}
    return tuple(sorted(sizes | {largest}))


class FrameSlot:
    """Memory, stream and graphs of one batch.

    All methods except `close` must be called with the device's context current.

    Args:
        device: The GPU.
        kernels: Kernels of the model.
        network: Network of the model.
        max_batch: Largest number of frames.
        graphs: Whether to capture graphs; otherwise the same work is launched step by step.

    Attributes:
        stream: Stream of all work of the slot.
        capture_error: Why the work could not be captured as a graph, or "".
    """

    def __init__(
        self,
        device: Device,
        kernels: KernelSet,
        network: Network,
        max_batch: int,
        graphs: bool = True,
    ) -> None:
        self._device, self._kernels, self.max_batch = device, kernels, max_batch
        self.stream: Any = device.stream()
        self._begin, self._end = device.event(), device.event()
        self._decoded = device.event()
        self.capture_error = ""
        self._owned: list[Buffer | PinnedBuffer] = []
        self._staging: list[PinnedBuffer | Buffer] = []
        self._frame_capacity = 0
        self._written_rows: list[tuple[object, ...] | None] = [None] * max_batch
        self._frames: tuple[Frame, ...] = ()
        self._count = 0
        self._graphs: dict[int, Graph] = {}
        self._networks: dict[int, tuple[Callable[[], None], Callable[[], None]]] = {}
        try:
            self._allocate()
            self._prepare(network, graphs)
        except BaseException:
            self.close()
            raise

    @property
    def uses_graphs(self) -> bool:
        """Whether a batch takes one graph launch."""
        return bool(self._graphs)

    def submit(self, frames: Sequence[Frame]) -> None:
        """Copy pixels in and start the work; the slot holds the frames until `collect`."""
        self._frames, self._count = tuple(frames), len(frames)
        self._begin.record(self.stream)
        size = next(size for size in self._networks if size >= len(frames))
        self._stage(frames)
        self._clear_rows(len(frames), size)
        graph = self._graphs.get(size)
        if graph is None:
            self.enqueue(size)
        else:
            graph.launch()
        self._end.record(self.stream)

    def collect(self) -> list[tuple[ImageHeader, RawDetections]]:
        """Wait for the work and return the detections of each frame.

        Raises:
            ModelError: If the GPU failed.
        """
        with self._device.translate_errors("finish a batch"):
            self._end.synchronize()
        self._frames = ()
        return [kernel_params.read_output(words) for words in self._output[: self._count]]

    def seconds(self) -> float:
        """Return the time from the first copy to the end of the last collected batch."""
        return float(self._begin.time_till(self._end)) / 1000

    def stages(self, images: int) -> dict[str, Callable[[], None]]:
        """Return the stages of a batch in order; each function enqueues its work on the stream."""
        device, kernels, stream = self._device, self._kernels, self.stream
        rows, network_input = self._rows_device, self.addresses["input"]
        return {
            "describe": lambda: device.copy_in(rows, self._rows[:images], stream),
            "preprocess": lambda: kernels.preprocess(rows.address, network_input, images, stream),
            "network": self._networks[images][0],
            "detect": lambda: kernels.detect(self._parameters, images, stream),
            "copy-out": lambda: device.copy_out(self._output[:images], self._output_device, stream),
        }

    def stage_seconds(self, frames: Sequence[Frame], repeats: int = 10) -> dict[str, float]:
        """Time each stage of a batch separately.

        Args:
            frames: 1 to `max_batch` frames.
            repeats: Executions per launch, which amortize the cost of the launch.

        Returns:
            Seconds by stage name.
        """
        self.submit(frames)
        self.collect()
        size = next(size for size in self._networks if size >= len(frames))
        return {name: self._time(enqueue, repeats) for name, enqueue in self.stages(size).items()}

    def _time(self, enqueue: Callable[[], None], repeats: int) -> float:
        def repeat() -> None:
            for _ in range(repeats):
                enqueue()

        graph = self._device.capture(self.stream, repeat) if self._graphs else None
        self._begin.record(self.stream)
        if graph is None:
            repeat()
        else:
            graph.launch()
        self._end.record(self.stream)
        self._end.synchronize()
        if graph is not None:
            graph.close()
        return self.seconds() / repeats

    def enqueue(self, images: int) -> None:
        """Enqueue the work of a batch stage by stage."""
        for enqueue in self.stages(images).values():
            enqueue()

    def close(self) -> None:
        """Wait for pending work and release everything; may be called repeatedly."""
        with self._device:
            with suppress(self._device.error_type):
                self.stream.synchronize()
            for graph in self._graphs.values():
                graph.close()
            for _, release in self._networks.values():
                release()
            self._graphs.clear()
            self._networks.clear()
            for memory in (*self._owned, *self._staging):
                memory.close()

    def _allocate(self) -> None:
        kernels, images = self._kernels, self.max_batch
        spec, boxes, types = kernels.spec, kernels.boxes, kernels.types
        sizes = DetectBuffers.for_batch(spec, boxes, images)
        pixels = 3 * spec.input.width * spec.input.height
        tensor_sizes = {
            "input": images * pixels * _ITEM_SIZES[types["input"]],
            "scores": images * boxes * spec.num_classes * _ITEM_SIZES[types["scores"]],
            "offsets": images * boxes * 4 * _ITEM_SIZES[types["offsets"]],
        }
        tensors = {name: self._buffer(size) for name, size in tensor_sizes.items()}
        self.addresses = {name: buffer.address for name, buffer in tensors.items()}
        work = {
            name: self._buffer(getattr(sizes, name))
            for name in ("candidates", "counters", "survivors", "output")
        }
        for name in ("counters", "output"):  # the kernels do not write unused output rows
            self._device.fill_zero(work[name], self.stream)
        self._output_device = work["output"]
        pointers = {name: buffer.address for name, buffer in work.items()}
        heads = {name: self.addresses[name] for name in ("scores", "offsets")}
        self._parameters = kernels.parameters(sizes, {**heads, **pointers})
        self._rows_device = self._buffer(images * kernel_params.FRAME_PARAMS.itemsize)
        self._rows = self._pinned(kernel_params.FRAME_PARAMS, (images,))
        output_shape = (images, spec.thresholds.max_detections + 1, kernel_params.ROW_WORDS)
        self._output = self._pinned(np.dtype(np.uint32), output_shape)

    def _buffer(self, size: int) -> Buffer:
        buffer = self._device.buffer(size)
        self._owned.append(buffer)
        return buffer

    def _pinned(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        memory = self._device.pinned(int(np.prod(shape)) * dtype.itemsize)
        self._owned.append(memory)
        memory.bytes[...] = 0
        return memory.view(dtype, shape)

    def _prepare(self, network: Network, graphs: bool) -> None:
        """Run each batch size once on an empty image, then capture its graph."""
        for images in batch_sizes(self.max_batch):
            self._networks[images] = network.bind(self.addresses, images, self.stream)
            with self._device.translate_errors(f"run the model on a batch of {images}"):
                self.enqueue(images)
                self.stream.synchronize()
            if graphs and not self.capture_error:
                self._capture(images)

    def _capture(self, images: int) -> None:
        """Capture the graph of a batch size; without it, batches of all sizes run step by step."""
        try:
            graph = self._device.capture(self.stream, self._enqueuer(images))
        except (ModelError, self._device.error_type) as error:
            self.capture_error = str(error)
            for graph in self._graphs.values():
                graph.close()
            self._graphs.clear()
            return
        if graph is not None:
            self._graphs[images] = graph

    def _enqueuer(self, images: int) -> Callable[[], None]:
        return lambda: self.enqueue(images)

    def _stage(self, frames: Sequence[Frame]) -> None:
        """Copy the pixels to the GPU, except those that the decoder left in GPU memory."""
        size = max((f.image.nbytes for f in frames if f.surface is None), default=0)
        if size > self._frame_capacity:
            self._grow_staging(size)
        if any(frame.surface is not None for frame in frames):
            # The decoder converts frames to NV12 on the default stream.
            self._device.wait_for_default_stream(self.stream, self._decoded)
        for index, frame in enumerate(frames):
            if frame.surface is not None:
                self._stage_surface(index, frame.surface)
            else:
                self._stage_image(index, frame)

    def _grow_staging(self, size: int) -> None:
        """Allocate staging memory for larger frames; not needed once all sources have started."""
        for memory in self._staging:
            memory.close()
        self._staging.clear()
        self._clear_rows(0, self.max_batch)
        self._frame_capacity = 0
        self._pixels = self._device.pinned(size * self.max_batch)
        self._staging.append(self._pixels)
        self._pixels_device = self._device.buffer(size * self.max_batch)
        self._staging.append(self._pixels_device)
        self._frame_capacity = size

    def _stage_image(self, index: int, frame: Frame) -> None:
        host, device = self._pixels, self._pixels_device
        height, width = frame.image.shape[:2]
        begin, size = index * self._frame_capacity, 3 * width * height
        pinned = host.bytes[begin : begin + size]
        np.copyto(pinned.reshape(height, width, 3), frame.image)
        self._device.copy_in(device, pinned, self.stream, begin)
        planes = (device.address + begin, 0)
        self._write_row(index, (width, height), planes, (3 * width, 0), None)

    def _stage_surface(self, index: int, surface: Surface) -> None:
        color = Color.of(surface.standard, surface.full_range)
        size = (surface.width, surface.height)
        self._write_row(index, size, surface.planes, surface.pitches, color)

    def _clear_rows(self, begin: int, end: int) -> None:
        """Clear rows that are not used by this batch: their pixels may have been freed."""
        for index in range(begin, end):
            if self._written_rows[index] is not None:
                self._rows[index] = 0
                self._written_rows[index] = None

    def _write_row(
        self,
        index: int,
        size: tuple[int, int],
        planes: tuple[int, int],
        pitches: tuple[int, int],
        color: Color | None,
    ) -> None:
        """Write the frame parameters of one image, unless they are unchanged."""
        key = (size, planes, pitches, color)
        if self._written_rows[index] != key:
            row, spec = self._rows[index], self._kernels.spec.input
            kernel_params.write_frame_params(row, spec, size, planes, pitches, color)
            self._written_rows[index] = key
