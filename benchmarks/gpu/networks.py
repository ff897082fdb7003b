"""Networks for the frame slots that need no TensorRT: recorded heads, and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from realtime_ssd_engines.cuda.driver import Buffer, Device
from realtime_ssd_engines.cuda.kernel_params import Precision

from benchmarks.gpu.context import import_torch

__all__ = ["RecordedHeads", "TorchNetwork"]

_TYPES: dict[Precision, Any] = {"fp32": np.float32, "fp16": np.float16}


class RecordedHeads:
    """Gives the same heads whatever the picture.

    Args:
        device: The GPU, its context current.
        scores: N × P × C.
        offsets: N × P × 4.
        precision: Of the heads on the GPU.
    """

    def __init__(
        self,
        device: Device,
        scores: NDArray[Any],
        offsets: NDArray[Any],
        precision: Precision = "fp32",
    ) -> None:
        self.boxes = scores.shape[1]
        self.types: dict[str, Precision] = {
            "input": "fp32",
            "scores": precision,
            "offsets": precision,
        }
        self._device, self._parts = device, dict[str, tuple[Buffer, int]]()
        for name, values in (("scores", scores), ("offsets", offsets)):
            given = np.ascontiguousarray(values, _TYPES[precision])
            self._parts[name] = (device.buffer(given.nbytes), given[0].nbytes)
        self.show(scores, offsets)

    def show(self, scores: NDArray[Any], offsets: NDArray[Any]) -> None:
        """Put other heads of the same shape in their place."""
        device, stream = self._device, self._device.stream()
        for name, values in (("scores", scores), ("offsets", offsets)):
            given = np.ascontiguousarray(values, _TYPES[self.types[name]])
            staging = device.pinned(given.nbytes)
            staging.view(given.dtype, given.shape)[...] = given
            device.copy_in(self._parts[name][0], staging.bytes[: given.nbytes], stream)
            stream.synchronize()
            staging.close()

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Prepare the copies of one batch size (see `realtime_ssd_engines.cuda.slots.Network`)."""

        def enqueue() -> None:
            for name, (buffer, size) in self._parts.items():
                self._device.copy_inside(addresses[name], buffer, size * images, stream)

        return enqueue, lambda: None

    def close(self) -> None:
        """Give the device memory back."""
        for buffer, _ in self._parts.values():
            buffer.close()


class _Memory:
    """Device memory as PyTorch takes it from other libraries."""

    def __init__(self, address: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": kind,
            "data": (address, False),
            "version": 3,
            "strides": None,
        }


class TorchNetwork:
    """A PyTorch model in FP16, channels last, as the network of a frame slot.

    Args:
        model: Gives scores and offsets for N × 3 × H × W images; it is on the GPU in FP16.
        spec: Contract of the model.
    """

    def __init__(self, model: Any, spec: Any) -> None:
        self._model, self._spec, self.boxes = model, spec, spec.num_boxes
        self.types: dict[str, Precision] = dict.fromkeys(("input", "scores", "offsets"), "fp16")

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Prepare one batch size (see `realtime_ssd_engines.cuda.slots.Network`)."""
        torch, size = import_torch(), self._spec.input
        shapes = {
            "input": (images, 3, size.height, size.width),
            "scores": (images, self.boxes, self._spec.num_classes),
            "offsets": (images, self.boxes, 4),
        }
        views = {
            name: torch.as_tensor(_Memory(addresses[name], shape, "<f2"), device="cuda")
            for name, shape in shapes.items()
        }
        outside = torch.cuda.ExternalStream(stream.handle)

        def enqueue() -> None:
            with torch.no_grad(), torch.cuda.stream(outside):
                picture = views["input"].contiguous(memory_format=torch.channels_last)
                scores, offsets = self._model(picture)
                views["scores"].copy_(scores)
                views["offsets"].copy_(offsets)

        with torch.cuda.stream(outside):
            enqueue()  # libraries set themselves up before anything is recorded
        outside.synchronize()
        return enqueue, views.clear

    def close(self) -> None:
        """Let the model go."""
        self._model = None
