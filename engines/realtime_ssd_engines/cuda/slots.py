"""A frame slot: all memory one batch needs on its way through the GPU, and its recorded graphs.

One slot holds one batch: pixels are copied in, then a single launch does everything else —
picture parameters, pre-processing, network, decoding and NMS, copy-out of the detections. Several
slots with a stream each let the copies of one batch run beside the work of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from realtime_ssd.core.frames import Frame, Surface
from realtime_ssd.core.postprocess import RawDetections
from realtime_ssd_engines.cuda import kernel_params as layout
from realtime_ssd_engines.cuda.driver import Buffer, Device, Graph, Pinned
from realtime_ssd_engines.cuda.kernel_params import DetectBuffers, Header
from realtime_ssd_engines.cuda.kernel_set import KernelSet

__all__ = ["FrameSlot", "Network", "batch_sizes"]

_BYTES = {"fp32": 4, "fp16": 2}


class Network(Protocol):
    """The network between pre-processing and decoding, such as a TensorRT engine."""

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Prepare the network for one batch size on one slot.

        Args:
            addresses: Device addresses of "input", "scores" and "offsets".
            images: Batch size.
            stream: The slot's stream.

        Returns:
            A function that puts the network on the stream, and one that gives everything back.
        """
        ...


def batch_sizes(largest: int) -> tuple[int, ...]:
    """List the batch sizes that are prepared: powers of two, and the largest itself."""
    sizes = {1 << power for power in range(largest.bit_length()) if 1 << power <= largest}
    return tuple(sorted(sizes | {largest}))


class FrameSlot:
    """Memory, stream and graphs of one batch.

    Every method but `close` is called with the device's context current.

    Args:
        device: The GPU.
        kernels: The model's kernels.
        network: The model's network.
        max_batch: Largest number of frames.
        graphs: Whether to record graphs; without, the same work is launched piece by piece.
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
        self._owned: list[Buffer | Pinned] = []
        self._staging: list[Pinned | Buffer] = []
        self._frame_bytes = 0
        self._shown: list[tuple[object, ...] | None] = [None] * max_batch
        self._count = 0
        self._held: tuple[Frame, ...] = ()
        self._graphs: dict[int, Graph] = {}
        self._networks: dict[int, tuple[Callable[[], None], Callable[[], None]]] = {}
        try:
            self._make_buffers()
            self._warm(network, graphs)
        except BaseException:
            self.close()
            raise

    @property
    def uses_graphs(self) -> bool:
        """Whether one launch does the work of a batch."""
        return bool(self._graphs)

    def submit(self, frames: Sequence[Frame]) -> None:
        """Copy pixels in and start the work; the frames are kept until `collect`."""
        self._held, self._count = tuple(frames), len(frames)
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

    def collect(self) -> list[tuple[Header, RawDetections]]:
        """Wait for the work and give what every frame holds.

        Raises:
            ModelError: If the GPU failed meanwhile.
        """
        with self._device.errors("finish a batch"):
            self._end.synchronize()
        self._held = ()
        return [layout.read_output(words) for words in self._output[: self._count]]

    def seconds(self) -> float:
        """Give the time between the first copy and the end of the last collected batch."""
        return float(self._begin.time_till(self._end)) / 1000

    def stages(self, images: int) -> dict[str, Callable[[], None]]:
        """Give the steps of one batch in order; each puts its work on the stream."""
        device, kernels, stream = self._device, self._kernels, self.stream
        rows, picture = self._rows_device, self.addresses["input"]
        return {
            "describe": lambda: device.copy_in(rows, self._rows[:images], stream),
            "preprocess": lambda: kernels.preprocess(rows.address, picture, images, stream),
            "network": self._networks[images][0],
            "detect": lambda: kernels.detect(self._parameters, images, stream),
            "copy-out": lambda: device.copy_out(self._output[:images], self._output_device, stream),
        }

    def stage_seconds(self, frames: Sequence[Frame], repeats: int = 10) -> dict[str, float]:
        """Time the steps of one batch, each alone.

        Args:
            frames: 1 to `max_batch` frames.
            repeats: How often a step is recorded into one launch, so that the launch costs little.

        Returns:
            Seconds of each step, by its name in `stages`.
        """
        self.submit(frames)
        self.collect()
        size = next(size for size in self._networks if size >= len(frames))
        return {name: self._alone(put, repeats) for name, put in self.stages(size).items()}

    def _alone(self, put: Callable[[], None], repeats: int) -> float:
        def many() -> None:
            for _ in range(repeats):
                put()

        graph = self._device.capture(self.stream, many) if self._graphs else None
        self._begin.record(self.stream)
        if graph is None:
            many()
        else:
            graph.launch()
        self._end.record(self.stream)
        self._end.synchronize()
        if graph is not None:
            graph.close()
        return self.seconds() / repeats

    def enqueue(self, images: int) -> None:
        """Put the work of one batch on the stream, piece by piece."""
        for put in self.stages(images).values():
            put()

    def close(self) -> None:
        """Give everything back in order; waits for work under way; any number of times."""
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

    def _make_buffers(self) -> None:
        kernels, images = self._kernels, self.max_batch
        spec, boxes, types = kernels.spec, kernels.boxes, kernels.types
        sizes = DetectBuffers.of(spec, boxes, images)
        pixels = 3 * spec.input.width * spec.input.height
        network = {
            "input": images * pixels * _BYTES[types["input"]],
            "scores": images * boxes * spec.num_classes * _BYTES[types["scores"]],
            "offsets": images * boxes * 4 * _BYTES[types["offsets"]],
        }
        made = {name: self._buffer(size) for name, size in network.items()}
        self.addresses = {name: buffer.address for name, buffer in made.items()}
        work = {
            name: self._buffer(getattr(sizes, name))
            for name in ("candidates", "counters", "survivors", "output")
        }
        self._device.fill_zero(work["counters"], self.stream)
        self._output_device = work["output"]
        pointers = {name: buffer.address for name, buffer in work.items()}
        heads = {name: self.addresses[name] for name in ("scores", "offsets")}
        self._parameters = kernels.parameters(sizes, {**heads, **pointers})
        self._rows_device = self._buffer(images * layout.FRAME_PARAMS.itemsize)
        self._rows = self._pinned(layout.FRAME_PARAMS, (images,))
        rows = (images, spec.thresholds.max_detections + 1, layout.ROW_WORDS)
        self._output = self._pinned(np.dtype(np.uint32), rows)

    def _buffer(self, size: int) -> Buffer:
        buffer = self._device.buffer(size)
        self._owned.append(buffer)
        return buffer

    def _pinned(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        memory = self._device.pinned(int(np.prod(shape)) * dtype.itemsize)
        self._owned.append(memory)
        memory.bytes[...] = 0
        return memory.view(dtype, shape)

    def _warm(self, network: Network, graphs: bool) -> None:
        """Run every batch size once on an empty picture, then record it."""
        for images in batch_sizes(self.max_batch):
            self._networks[images] = network.bind(self.addresses, images, self.stream)
            with self._device.errors(f"run the model on a batch of {images}"):
                self.enqueue(images)
                self.stream.synchronize()
            graph = self._device.capture(self.stream, self._recorder(images)) if graphs else None
            if graph is not None:
                self._graphs[images] = graph

    def _recorder(self, images: int) -> Callable[[], None]:
        return lambda: self.enqueue(images)

    def _stage(self, frames: Sequence[Frame]) -> None:
        """Bring the pixels to the GPU, unless the decoder left them there."""
        needed = max((f.image.nbytes for f in frames if f.surface is None), default=0)
        if needed > self._frame_bytes:
            self._grow(needed)
        for place, frame in enumerate(frames):
            if frame.surface is not None:
                self._show_surface(place, frame.surface)
            else:
                self._show_image(place, frame)

    def _grow(self, size: int) -> None:
        """Make room for larger frames; happens when a source is new, never in the steady loop."""
        for memory in self._staging:
            memory.close()
        self._staging.clear()
        self._clear_rows(0, self.max_batch)
        self._frame_bytes = 0
        self._pixels = self._device.pinned(size * self.max_batch)
        self._staging.append(self._pixels)
        self._pixels_device = self._device.buffer(size * self.max_batch)
        self._staging.append(self._pixels_device)
        self._frame_bytes = size

    def _show_image(self, place: int, frame: Frame) -> None:
        host, device = self._pixels, self._pixels_device
        height, width = frame.image.shape[:2]
        begin, size = place * self._frame_bytes, 3 * width * height
        pinned = host.bytes[begin : begin + size]
        np.copyto(pinned.reshape(height, width, 3), frame.image)
        self._device.copy_in(device, pinned, self.stream, begin)
        planes = (device.address + begin, 0)
        self._describe(place, (width, height), planes, (3 * width, 0), None)

    def _show_surface(self, place: int, surface: Surface) -> None:
        colour = layout.Colour.of(surface.standard, surface.full_range)
        size = (surface.width, surface.height)
        self._describe(place, size, surface.planes, surface.pitches, colour)

    def _clear_rows(self, begin: int, end: int) -> None:
        """Leave places of the batch empty: what they showed before may be gone from memory."""
        for place in range(begin, end):
            if self._shown[place] is not None:
                self._rows[place] = 0
                self._shown[place] = None

    def _describe(
        self,
        place: int,
        size: tuple[int, int],
        planes: tuple[int, int],
        pitches: tuple[int, int],
        colour: layout.Colour | None,
    ) -> None:
        """Tell the pre-processing kernel about a picture, unless it knows."""
        told = (size, planes, pitches, colour)
        if self._shown[place] != told:
            row, spec = self._rows[place], self._kernels.spec.input
            layout.fill_frame(row, spec, size, planes, pitches, colour)
            self._shown[place] = told
