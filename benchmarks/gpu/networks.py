"""Networks for frame slots without TensorRT: recorded heads, and PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from realtime_ssd_engines.cuda.driver import Buffer, Device
from realtime_ssd_engines.cuda.kernel_params import Precision
from realtime_ssd_engines.cuda.kernel_set import KernelSet
from realtime_ssd_engines.cuda.slots import FrameSlot

from benchmarks.gpu.context import GpuContext, import_torch
from benchmarks.gpu.head_cases import HeadCase

__all__ = ["RecordedHeads", "TorchNetwork", "open_slot"]

_DTYPES: dict[Precision, Any] = {"fp32": np.float32, "fp16": np.float16}


class RecordedHeads:
    """Network whose outputs are the same heads for every input.

    Args:
        device: The GPU; its context must be current.
        scores: N × P × C.
        offsets: N × P × 4.
        precision: Precision of the heads on the GPU.
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
        self._device, self._heads = device, dict[str, tuple[Buffer, int]]()
        for name, values in (("scores", scores), ("offsets", offsets)):
            data = np.ascontiguousarray(values, _DTYPES[precision])
            self._heads[name] = (device.buffer(data.nbytes), data[0].nbytes)
        self.set_heads(scores, offsets)

    def set_heads(self, scores: NDArray[Any], offsets: NDArray[Any]) -> None:
        """Replace the heads by others of the same shape."""
        device, stream = self._device, self._device.stream()
        for name, values in (("scores", scores), ("offsets", offsets)):
            data = np.ascontiguousarray(values, _DTYPES[self.types[name]])
            staging = device.pinned(data.nbytes)
            staging.view(data.dtype, data.shape)[...] = data
            device.copy_in(self._heads[name][0], staging.bytes[: data.nbytes], stream)
            stream.synchronize()
            staging.close()

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Prepare one batch size; see `realtime_ssd_engines.cuda.slots.Network`."""

        def enqueue() -> None:
            for name, (buffer, size) in self._heads.items():
                self._device.copy_inside(addresses[name], buffer, size * images, stream)

        return enqueue, lambda: None

    def close(self) -> None:
        """Free the device memory."""
        for buffer, _ in self._heads.values():
            buffer.close()


@contextmanager
def open_slot(
    context: GpuContext, case: HeadCase, precision: Precision = "fp32"
) -> Iterator[tuple[Device, FrameSlot]]:
    """Open a slot with recorded heads as the network, with the device's context current.

    Args:
        context: Options and resources.
        case: The heads.
        precision: Precision of the heads on the GPU.
    """
    device, cache = context.device(), context.workdir / "kernels"
    with device, ExitStack() as stack:
        network = stack.enter_context(
            closing(RecordedHeads(device, case.scores, case.offsets, precision))
        )
        kernels = stack.enter_context(
            closing(KernelSet(device, case.spec, network.boxes, network.types, cache=cache))
        )
        slot = FrameSlot(device, kernels, network, len(case.scores), graphs=False)
        yield device, stack.enter_context(closing(slot))


class _DeviceArray:
    """Device memory with the CUDA array interface."""

    def __init__(self, address: int, shape: tuple[int, ...], typestr: str) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": typestr,
            "data": (address, False),
            "version": 3,
            "strides": None,
        }


class TorchNetwork:
    """A PyTorch model in FP16 and channels-last layout as the network of a frame slot.

    Args:
        model: FP16 model on the GPU: N × 3 × H × W images → scores and offsets.
        spec: Specification of the model.
    """

    def __init__(self, model: Any, spec: Any) -> None:
        import_torch().cuda.synchronize()  # the model is created on PyTorch's default stream
        self._model, self._spec, self.boxes = model, spec, spec.num_boxes
        self.types: dict[str, Precision] = dict.fromkeys(("input", "scores", "offsets"), "fp16")

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Prepare one batch size; see `realtime_ssd_engines.cuda.slots.Network`."""
        torch, size = import_torch(), self._spec.input
        shapes = {
            "input": (images, 3, size.height, size.width),
            "scores": (images, self.boxes, self._spec.num_classes),
            "offsets": (images, self.boxes, 4),
        }
        views = {
            name: torch.as_tensor(_DeviceArray(addresses[name], shape, "<f2"), device="cuda")
            for name, shape in shapes.items()
        }
        external_stream = torch.cuda.ExternalStream(stream.handle)

        def enqueue() -> None:
            with torch.no_grad(), torch.cuda.stream(external_stream):
                batch = views["input"].contiguous(memory_format=torch.channels_last)
                scores, offsets = self._model(batch)
                views["scores"].copy_(scores)
                views["offsets"].copy_(offsets)

        with torch.cuda.stream(external_stream):
            enqueue()  # cuDNN and cuBLAS initialize themselves before the capture
        external_stream.synchronize()
        return enqueue, views.clear

    def close(self) -> None:
        """Release the model."""
        self._model = None
