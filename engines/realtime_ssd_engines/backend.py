"""Inference on an NVIDIA GPU: TensorRT runs the network, CUDA kernels everything else.

The backend rotates through a few frame slots. `submit` copies pixels into a free slot and launches
its graph; `collect` waits for the event of that slot only.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from realtime_ssd.backends import BackendOptions, class_ids
from realtime_ssd.backends.base import PendingBatch
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.postprocess import RawDetections, to_frame_detections
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.cuda.driver import Device, graphs_available
from realtime_ssd_engines.cuda.frame_input import MAX_PIXEL_BYTES
from realtime_ssd_engines.cuda.kernel_params import ImageHeader
from realtime_ssd_engines.cuda.kernel_set import KernelSet
from realtime_ssd_engines.cuda.slots import FrameSlot, Network
from realtime_ssd_engines.cuda.staging import HostCopier
from realtime_ssd_engines.requirements import install_command

__all__ = ["GpuBackend"]

SLOTS = 3
_log = logging.getLogger(__name__)


class GpuBackend(Closeable):
    """Runs a network on the GPU with pre-processing, decoding and NMS kernels.

    Owns the network and closes it.

    Args:
        device: The GPU; its context must be current during construction.
        network: Has attributes `boxes` and `types` and methods `bind` and `close`.
        spec: Specification of the model with the thresholds in use.
        options: Options of the user.
        slots: Maximum number of batches in flight.
        graphs: Whether to capture CUDA graphs.
        cache: Folder of compiled kernels; the user's cache by default.
    """

    name = "tensorrt"
    converts_frames = False

    def __init__(
        self,
        device: Device,
        network: Any,
        spec: ModelSpec,
        options: BackendOptions,
        slots: int = SLOTS,
        graphs: bool = True,
        cache: Path | None = None,
    ) -> None:
        self.spec, self.max_in_flight = spec, slots
        self.max_batch = self.max_submit = options.batch
        self._device = device
        self._close_lock, self._closed = threading.Lock(), False
        self._overflow_reported = self._split_reported = False
        self._copier = HostCopier()
        self._owned: list[Any] = [self._copier, network]
        self._slots: list[FrameSlot] = []
        self._free_slots: queue.SimpleQueue[FrameSlot] = queue.SimpleQueue()
        try:
            classes = class_ids(spec, options.classes)
            self._kernels = KernelSet(device, spec, network.boxes, network.types, classes, cache)
            self._owned.append(self._kernels)
            self._add_slots(network, slots, graphs)
        except BaseException:
            self._release()
            raise

    def _add_slots(self, network: Network, count: int, graphs: bool) -> None:
        for _ in range(count):
            capture = graphs and not (self._slots and self._slots[0].capture_error)
            slot = FrameSlot(
                self._device, self._kernels, network, self.max_batch, capture, self._copier
            )
            self._owned.append(slot)
            self._slots.append(slot)
            self._free_slots.put(slot)
            if slot.capture_error:
                _log.warning(
                    "the model cannot be captured as a CUDA graph, so each batch takes several "
                    "launches instead of one: %s",
                    slot.capture_error,
                )
        if graphs and not graphs_available():
            _log.warning(
                "cuda-bindings is not installed, so each batch takes several launches instead of "
                "one; install it with: %s",
                install_command(),
            )

    @property
    def slots(self) -> tuple[FrameSlot, ...]:
        """The frame slots, for benchmarks."""
        return tuple(self._slots)

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """Start work on 1 to `max_batch` frames, of any sizes."""
        batch = PendingBatch(tuple(frames))
        slot = batch.payload = self._free_slots.get()
        try:
            with self._device, self._device.translate_errors("start a batch"):
                slot.submit(batch.frames)
        except BaseException:
            self._free_slots.put(slot)
            raise
        if slot.images_at_once < len(batch.frames) and not self._split_reported:
            self._split_reported = True
            _log.warning(
                "frames of %d x %d pixels are processed %d at a time instead of %d, because the "
                "pixels of a batch are limited to %d MiB",
                *(batch.frames[0].width, batch.frames[0].height, slot.images_at_once),
                *(len(batch.frames), MAX_PIXEL_BYTES >> 20),
            )
        return batch

    def collect(self, batch: PendingBatch) -> list[Detections]:
        """Wait for a batch and return the detections of its frames in order, in frame pixels.

        Raises:
            ModelError: If the GPU failed or the network's outputs contain NaN.
        """
        slot: FrameSlot = batch.payload
        try:
            with self._device, self._device.translate_errors("finish a batch"):
                outputs = slot.collect()
                batch.timings["gpu"] = slot.seconds()
        finally:
            self._free_slots.put(slot)
        return [
            self._to_detections(frame, *output)
            for frame, output in zip(batch.frames, outputs, strict=True)
        ]

    def stage_seconds(self, frames: Sequence[Frame]) -> dict[str, float]:
        """Time the GPU stages of a batch separately: "preprocess", "network", "detect" etc.

        Args:
            frames: 1 to `max_batch` frames.

        Raises:
            ModelError: If the GPU failed.
        """
        slot = self._free_slots.get()
        try:
            with self._device, self._device.translate_errors("time a batch"):
                return slot.stage_seconds(frames)
        finally:
            self._free_slots.put(slot)

    def _to_detections(self, frame: Frame, header: ImageHeader, raw: RawDetections) -> Detections:
        if header.nan_boxes:
            raise ModelError(
                f"model '{self.spec.name}' computed NaN for {header.nan_boxes} default boxes of "
                f"frame {frame.index}; build its engine in fp32 with 'realtime-ssd build'"
            )
        if header.overflow and not self._overflow_reported:
            self._overflow_reported = True
            _log.warning(
                "frame %d has %d more candidates than the GPU's lists hold; they were dropped. "
                "Increase `score_threshold` to avoid this",
                frame.index,
                header.overflow,
            )
        return to_frame_detections(raw, self.spec, frame.width, frame.height)

    def close(self) -> None:
        """Release everything; may be called repeatedly, from any thread."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self._release()

    def _release(self) -> None:
        """Release graphs and contexts before memory, and memory before the engine.

        Every call fails once the GPU is lost, and the driver has freed its resources by then.
        """
        for owner in reversed(self._owned):
            with suppress(self._device.error_type), self._device:
                owner.close()
