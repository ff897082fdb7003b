"""Frame slots: the memory, stream and CUDA graphs with which one batch passes through the GPU.

Pixels are copied in, then a single graph launch does the rest: pre-processing, network, decoding
and NMS. The parameters of the frames are read from page-locked memory, and the detections of small
batches are written to it. With several slots, each on its own stream, the copies of one batch
overlap with the computation of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.postprocess import RawDetections
from realtime_ssd_engines.cuda import kernel_params
from realtime_ssd_engines.cuda.driver import Buffer, Device, Graph, PinnedBuffer
from realtime_ssd_engines.cuda.frame_input import FrameInput
from realtime_ssd_engines.cuda.kernel_params import DetectBuffers, ImageHeader
from realtime_ssd_engines.cuda.kernel_set import KernelSet
from realtime_ssd_engines.cuda.staging import HostCopier

__all__ = ["FrameSlot", "Network", "batch_sizes"]

MAPPED_IMAGES = 8
"""Largest batch whose detections the kernels write to host memory; one copy is faster for more."""

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
        copier: Copies pixels into page-locked memory; by default the caller's thread does.

    Attributes:
        stream: Stream of all work of the slot.
        addresses: Device addresses of "input", "scores" and "offsets".
        capture_error: Why the work could not be captured as a graph, or "".
        images_at_once: Number of frames of the last batch that were processed at once.
    """

    def __init__(
        self,
        device: Device,
        kernels: KernelSet,
        network: Network,
        max_batch: int,
        graphs: bool = True,
        copier: HostCopier | None = None,
    ) -> None:
        self._device, self._kernels, self.max_batch = device, kernels, max_batch
        self.stream: Any = device.stream()
        self._begin, self._end = device.event(), device.event()
        self.capture_error, self.images_at_once = "", max_batch
        self._owned: list[Buffer | PinnedBuffer | FrameInput] = []
        self._frames: tuple[Frame, ...] = ()
        self._pending = 0
        self._results: list[tuple[ImageHeader, RawDetections]] = []
        self._seconds = 0.0
        self._graphs: dict[int, Graph] = {}
        self._networks: dict[int, tuple[Callable[[], None], Callable[[], None]]] = {}
        try:
            self._allocate(copier or HostCopier(threads=1))
            self._prepare(network, graphs)
        except BaseException:
            self.close()
            raise

    @property
    def uses_graphs(self) -> bool:
        """Whether a batch takes one graph launch."""
        return bool(self._graphs)

    def submit(self, frames: Sequence[Frame]) -> None:
        """Copy pixels in and start the work; the slot holds the frames until `collect`.

        If the pixels exceed the limit of memory, all parts of the batch but the last are finished
        first.
        """
        self._frames, self._results, self._seconds = tuple(frames), [], 0.0
        count = self.images_at_once = self._input.images_at_once(frames)
        parts = [frames[begin : begin + count] for begin in range(0, len(frames), count)]
        for part in parts[:-1]:
            self._start(part)
            self._finish()
        self._start(parts[-1])

    def _start(self, frames: Sequence[Frame]) -> None:
        self._pending = len(frames)
        self._input.stage(frames, self.stream)
        self._begin.record(self.stream)
        size = next(size for size in self._networks if size >= len(frames))
        graph = self._graphs.get(size)
        if graph is None:
            self.enqueue(size)
        else:
            graph.launch()
        self._end.record(self.stream)

    def _finish(self) -> None:
        with self._device.translate_errors("finish a batch"):
            self._end.synchronize()
        self._seconds += float(self._begin.time_till(self._end)) / 1000
        self._results += map(kernel_params.read_output, self._output[: self._pending])

    def collect(self) -> list[tuple[ImageHeader, RawDetections]]:
        """Wait for the work and return the detections of each frame.

        Raises:
            ModelError: If the GPU failed.
        """
        self._finish()
        self._frames = ()
        return self._results

    def seconds(self) -> float:
        """Return the GPU time of the last collected batch, without the copies of its pixels."""
        return self._seconds

    def stages(self, images: int) -> dict[str, Callable[[], None]]:
        """Return the stages of a batch in order; each function enqueues its work on the stream."""
        device, kernels, stream = self._device, self._kernels, self.stream
        sources, tables, tensor = self._input.sources, self._input.tables, self.addresses["input"]
        mapped = images <= MAPPED_IMAGES
        parameters = self._mapped_parameters if mapped else self._parameters
        stages = {
            "preprocess": lambda: kernels.preprocess(sources, tables, tensor, images, stream),
            "network": self._networks[images][0],
            "detect": lambda: kernels.detect(parameters, images, stream),
        }
        if not mapped:
            output = self._work["output"]
            stages["copy-out"] = lambda: device.copy_out(self._output[:images], output, stream)
        return stages

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
        return float(self._begin.time_till(self._end)) / 1000 / repeats

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
            for memory in self._owned:
                memory.close()

    def _allocate(self, copier: HostCopier) -> None:
        kernels, images = self._kernels, self.max_batch
        spec = kernels.spec
        sizes = DetectBuffers.for_batch(spec, kernels.boxes, images)
        requested = self._tensor_sizes() | {
            name: getattr(sizes, name) for name in ("candidates", "counters", "survivors", "output")
        }
        if images <= MAPPED_IMAGES:
            del requested["output"]
        total, purpose = sum(requested.values()), f"process a batch of {images}"
        self._work = {}
        for name, size in requested.items():
            buffer = self._work[name] = self._device.buffer(size, purpose, total)
            self._owned.append(buffer)
        for name in ("counters", "output"):  # the kernels do not write unused output rows
            if name in self._work:
                self._device.fill_zero(self._work[name], self.stream)
        self.addresses = {name: self._work[name].address for name in self._tensor_sizes()}
        self._allocate_output(sizes)
        self._input = FrameInput(self._device, spec.input, images, copier, self.stream)
        self._owned.append(self._input)

    def _tensor_sizes(self) -> dict[str, int]:
        """Return the bytes of the network's input and outputs."""
        spec, types = self._kernels.spec, self._kernels.types
        values = {
            "input": 3 * spec.input.width * spec.input.height,
            "scores": self._kernels.boxes * spec.num_classes,
            "offsets": self._kernels.boxes * 4,
        }
        return {
            name: self.max_batch * count * _ITEM_SIZES[types[name]]
            for name, count in values.items()
        }

    def _allocate_output(self, sizes: DetectBuffers) -> None:
        """Allocate the detections in host memory, and set the parameters of the kernels."""
        host = self._device.pinned(sizes.output)
        self._owned.append(host)
        host.bytes[...] = 0
        rows = self._kernels.spec.thresholds.max_detections + 1
        shape = (self.max_batch, rows, kernel_params.ROW_WORDS)
        self._output = host.view(np.dtype(np.uint32), shape)
        pointers = {name: buffer.address for name, buffer in self._work.items() if name != "input"}
        self._parameters = self._kernels.parameters(sizes, pointers)
        mapped = {**pointers, "output": host.address}
        self._mapped_parameters = self._kernels.parameters(sizes, mapped)

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
            if self._kernels.disable_early_launches():  # a driver may not capture them
                self._capture(images)
                return
            self.capture_error = str(error)
            for graph in self._graphs.values():
                graph.close()
            self._graphs.clear()
            return
        if graph is not None:
            self._graphs[images] = graph

    def _enqueuer(self, images: int) -> Callable[[], None]:
        return lambda: self.enqueue(images)
