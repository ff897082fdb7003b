"""Inference on an NVIDIA GPU: TensorRT for the network, our own kernels for all the rest.

A few frame slots take turns. `submit` copies pixels into the next free one and launches its graph;
`collect` waits for that slot's event alone. The engine is built, verified and cached by `engines`
when a model is used for the first time.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realtime_ssd.backends import BackendOptions, class_ids
from realtime_ssd.backends.base import PendingBatch
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.postprocess import RawDetections, to_frame_detections
from realtime_ssd.core.spec import ModelSpec, read_spec, spec_from_json
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.cuda.kernel_params import Header
from realtime_ssd_engines.cuda.kernel_set import KernelSet
from realtime_ssd_engines.cuda.slots import FrameSlot, Network
from realtime_ssd_engines.requirements import require_gpu

if TYPE_CHECKING:
    from realtime_ssd_engines.tensorrt.build import EngineOptions
    from realtime_ssd_engines.tensorrt.cache import Entry

__all__ = ["GpuBackend", "open_backend", "open_engine"]

SLOTS = 3
_log = logging.getLogger(__name__)


def open_backend(path: Path, spec: ModelSpec, options: BackendOptions) -> GpuBackend:
    """Build or load the engine of an ONNX file and prepare the GPU for it.

    Raises:
        ModelError: If there is no usable GPU, or the engine cannot be built or run.
    """
    require_gpu("run TensorRT engines")
    device = Device()
    try:
        from realtime_ssd_engines.tensorrt.build import EngineOptions
        from realtime_ssd_engines.tensorrt.compat import EngineRefusedError

        wanted = EngineOptions(
            options.precision, max_batch=options.batch, calibration=options.calibration
        )
        try:
            return _open_engine(device, path, spec, options, wanted)
        except EngineRefusedError as error:
            _log.warning("%s", error)
            return _open_engine(device, path, spec, options, replace(wanted, rebuild=True))
    except BaseException:
        device.close()
        raise


def _open_engine(
    device: Device, path: Path, spec: ModelSpec, options: BackendOptions, wanted: EngineOptions
) -> GpuBackend:
    from realtime_ssd_engines.tensorrt.build import ensure_engine
    from realtime_ssd_engines.tensorrt.network import EngineNetwork

    plan = ensure_engine(path, spec, wanted, _log.warning)
    with device:
        return GpuBackend(device, EngineNetwork(device, plan, spec), spec, options)


def open_engine(path: Path, options: BackendOptions) -> GpuBackend:
    """Run an engine file as it is, by the note beside it that `realtime-ssd build` wrote.

    Raises:
        UsageError: If it was built for smaller batches, or the thresholds do not fit.
        ModelError: If the file or its note is damaged, or it does not run on this machine.
    """
    from realtime_ssd_engines.tensorrt.cache import examine

    entry = examine(path)
    if entry.problem or entry.key is None:
        raise ModelError(
            f"the engine '{path}' cannot be used: {entry.problem}; give the file that "
            "'realtime-ssd build --output' wrote, with the .json file beside it"
        )
    if options.batch > entry.key.max_batch:
        raise UsageError(
            f"the engine '{path}' takes {entry.key.max_batch} images at once, so --batch "
            f"{options.batch} is not possible; build it with --max-batch {options.batch}"
        )
    spec = _spec_of(entry).with_thresholds(
        score_threshold=options.score_threshold,
        iou_threshold=options.iou_threshold,
        pre_nms_top_k=options.pre_nms_top_k,
    )
    require_gpu("run TensorRT engines")
    device = Device()
    try:
        from realtime_ssd_engines.tensorrt.network import EngineNetwork

        with device:
            network = EngineNetwork(device, path.read_bytes(), spec)
            return GpuBackend(device, network, spec, options)
    except BaseException:
        device.close()
        raise


def _spec_of(entry: Entry) -> ModelSpec:
    """Read the contract from an engine's note; notes of older builds name the ONNX file."""
    if "spec" in entry.facts:
        return spec_from_json(json.dumps(entry.facts["spec"]))
    source = Path(str(entry.facts.get("source", "")))
    if not source.is_file():
        raise ModelError(
            f"the note beside '{entry.path}' has no model specification; build the engine again"
        )
    return read_spec(source)


class GpuBackend(Closeable):
    """Runs a network on the GPU with our kernels before and after it.

    Owns the device and the network, and closes both.

    Args:
        device: The GPU, its context current during construction.
        network: With the attributes `boxes` and `types` and a method `close` besides `bind`.
        spec: Contract of the model with the thresholds in force.
        options: What the user chose.
        slots: Batches under way at once.
        graphs: Whether to record graphs.
        cache: Folder that keeps compiled kernels; the user's own if None.
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
        self._closing, self._closed, self._warned = threading.Lock(), False, False
        self._owned: list[Any] = [network]
        self._slots: list[FrameSlot] = []
        self._free: queue.SimpleQueue[FrameSlot] = queue.SimpleQueue()
        try:
            wanted = class_ids(spec, options.classes)
            self._kernels = KernelSet(device, spec, network.boxes, network.types, wanted, cache)
            self._owned.append(self._kernels)
            self._add_slots(network, slots, graphs)
        except BaseException:
            self._release()
            raise

    def _add_slots(self, network: Network, count: int, graphs: bool) -> None:
        for _ in range(count):
            slot = FrameSlot(self._device, self._kernels, network, self.max_batch, graphs)
            self._owned.append(slot)
            self._slots.append(slot)
            self._free.put(slot)
        if graphs and not self._slots[0].uses_graphs:
            _log.warning(
                "cuda-bindings is not installed, so every frame takes several launches instead "
                "of one; install it with: pip install cuda-bindings"
            )

    @property
    def slots(self) -> tuple[FrameSlot, ...]:
        """The slots, for those who measure them."""
        return tuple(self._slots)

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """Start work on 1 to `max_batch` frames, of any sizes."""
        ticket = PendingBatch(tuple(frames))
        slot = ticket.payload = self._free.get()
        try:
            with self._device, self._device.errors("start a batch"):
                slot.submit(ticket.frames)
        except BaseException:
            self._free.put(slot)
            raise
        return ticket

    def collect(self, ticket: PendingBatch) -> list[Detections]:
        """Wait for a ticket and give the detections of its frames, in order, in frame pixels.

        Raises:
            ModelError: If the GPU failed or the network gave NaN.
        """
        slot: FrameSlot = ticket.payload
        try:
            with self._device, self._device.errors("finish a batch"):
                answers = slot.collect()
                ticket.timings["gpu"] = slot.seconds()
        finally:
            self._free.put(slot)
        return [
            self._located(frame, *answer)
            for frame, answer in zip(ticket.frames, answers, strict=True)
        ]

    def stage_seconds(self, frames: Sequence[Frame]) -> dict[str, float]:
        """Time the steps of a batch on the GPU, each alone: "preprocess", "network", "detect".

        Args:
            frames: 1 to `max_batch` frames.

        Raises:
            ModelError: If the GPU failed.
        """
        slot = self._free.get()
        try:
            with self._device, self._device.errors("time a batch"):
                return slot.stage_seconds(frames)
        finally:
            self._free.put(slot)

    def _located(self, frame: Frame, header: Header, found: RawDetections) -> Detections:
        if header.broken:
            raise ModelError(
                f"model '{self.spec.name}' gave NaN for {header.broken} default boxes of frame "
                f"{frame.index}; build its engine with --precision fp32"
            )
        if header.overflow and not self._warned:
            self._warned = True
            _log.warning(
                "frame %d had %d candidates more than the GPU's lists hold, they were left out; "
                "raise --score-threshold",
                frame.index,
                header.overflow,
            )
        return to_frame_detections(found, self.spec, frame.width, frame.height)

    def close(self) -> None:
        """Give everything back; may be called from any thread, any number of times."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._release()
        with suppress(self._device.error_type):
            self._device.close()

    def _release(self) -> None:
        """Graphs and contexts before memory, memory before the engine.

        A GPU that was lost refuses every call; what it held is gone anyway.
        """
        for owner in reversed(self._owned):
            with suppress(self._device.error_type), self._device:
                owner.close()
