"""A TensorRT engine bound to device memory: the network of a frame slot, or run on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.cuda.driver import Buffer, Device, Pinned
from realtime_ssd_engines.tensorrt import compat as trt_compat
from realtime_ssd_engines.tensorrt.compat import Precision
from realtime_ssd_engines.tensorrt.library import layer_times, messages

__all__ = ["EngineNetwork", "EngineRunner"]

_TYPES: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}


class EngineNetwork:
    """A TensorRT engine as the frame slots use it.

    Args:
        device: The GPU, its context current.
        plan: The serialised engine.
        spec: Contract of the model.

    Attributes:
        boxes: Number of default boxes, from the engine's outputs.
        types: Precision of "input", "scores" and "offsets".
        engine: TensorRT's own object.

    Raises:
        ModelError: If the engine belongs to another TensorRT or GPU, or not to this contract.
    """

    def __init__(self, device: Device, plan: bytes, spec: ModelSpec) -> None:
        self._device = device
        self.engine: Any = trt_compat.deserialize(plan)
        self._names = {
            "input": spec.input.name,
            "scores": spec.scores_output,
            "offsets": spec.offsets_output,
        }
        tensors = trt_compat.tensors(self.engine)
        for name in self._names.values():
            if name not in tensors:
                raise ModelError(
                    f"the engine has no tensor '{name}' (it has {', '.join(tensors)}); "
                    "remove it with: realtime-ssd engines remove, and build it again"
                )
        self.types: dict[str, Precision] = {
            key: tensors[name].precision for key, name in self._names.items()
        }
        self.boxes = tensors[spec.scores_output].shape[1]
        self._input = (3, spec.input.height, spec.input.width)
        self._memory: dict[int, Buffer] = {}

    def context(self, stream: Any, images: int) -> Any:
        """Make an execution context for one batch size on a stream.

        The contexts of a stream never run at once, so they share one piece of activation memory.
        """
        if stream.handle not in self._memory:
            size = trt_compat.memory_size(self.engine)
            self._memory[stream.handle] = self._device.buffer(size)
        memory = self._memory[stream.handle]
        context = trt_compat.new_context(self.engine, memory.address, memory.size, stream.handle)
        if not context.set_input_shape(self._names["input"], (images, *self._input)):
            raise ModelError(f"the engine does not take a batch of {images}; build it again")
        return context

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Prepare one batch size of one slot (see `realtime_ssd_engines.cuda.slots.Network`)."""
        bound = _Bound(self.context(stream, images), images, stream.handle)
        for name, address in self.by_name(addresses).items():
            bound.context.set_tensor_address(name, address)
        return bound.enqueue, bound.release

    def by_name(self, addresses: dict[str, int]) -> dict[str, int]:
        """Give the addresses of "input", "scores" and "offsets" by the engine's own names."""
        return {name: addresses[key] for key, name in self._names.items()}

    def close(self) -> None:
        """Give the activation memory and the engine back, after all contexts."""
        for memory in self._memory.values():
            memory.close()
        self._memory.clear()
        self.engine = None


class _Bound:
    """An execution context with its batch size and addresses set."""

    def __init__(self, context: Any, images: int, stream: int) -> None:
        self.context, self._images, self._stream = context, images, stream

    def enqueue(self) -> None:
        if not self.context.execute_async_v3(self._stream):
            raise ModelError(
                f"TensorRT refused to run a batch of {self._images}: {messages().last()}"
            )

    def release(self) -> None:
        self.context = None


class EngineRunner:
    """Runs an engine on ready-made inputs, for checks and profiles rather than for speed.

    Args:
        device: The GPU; its context is made current as needed.
        plan: The serialised engine.
        spec: Contract of the model.
    """

    def __init__(self, device: Device, plan: bytes, spec: ModelSpec) -> None:
        self._device, self.spec = device, spec
        with device:
            self.network = EngineNetwork(device, plan, spec)
            self.stream = device.stream()
            self._host: dict[str, Pinned] = {}
            self._gpu: dict[str, Buffer] = {}
            for key, shape in self._shapes().items():
                size = int(np.prod(shape)) * _TYPES[self.network.types[key]].itemsize
                self._host[key], self._gpu[key] = device.pinned(size), device.buffer(size)
            self.addresses = {key: buffer.address for key, buffer in self._gpu.items()}
            self.enqueue, self._unbind = self.network.bind(self.addresses, 1, self.stream)
            self._profiled: Any = None

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        picture, boxes = self.spec.input, self.network.boxes
        return {
            "input": (1, 3, picture.height, picture.width),
            "scores": (1, boxes, self.spec.num_classes),
            "offsets": (1, boxes, 4),
        }

    def __call__(
        self, tensor: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run one input.

        Args:
            tensor: 3 × H × W float32, normalised.

        Returns:
            P × C scores and P × 4 offsets, float32.
        """
        with self._device, self._device.errors("run the engine"):
            self._view("input")[0] = tensor
            self._device.copy_in(self._gpu["input"], self._host["input"].bytes, self.stream)
            self.enqueue()
            for key in ("scores", "offsets"):
                self._device.copy_out(self._host[key].bytes, self._gpu[key], self.stream)
            self.stream.synchronize()
        scores, offsets = (self._view(key)[0].astype(np.float32) for key in ("scores", "offsets"))
        return scores, offsets

    def layer_times(self, tensor: NDArray[np.float32], rounds: int) -> dict[str, float]:
        """Measure every layer on one input.

        Args:
            tensor: 3 × H × W float32, normalised.
            rounds: How often to run it.

        Returns:
            Mean milliseconds by layer, in the order of execution.
        """
        self(tensor)
        with self._device, self._device.errors("measure the engine"):
            if self._profiled is None:
                self._profiled = self.network.context(self.stream, 1)
                for name, address in self.network.by_name(self.addresses).items():
                    self._profiled.set_tensor_address(name, address)
            bound = _Bound(self._profiled, 1, self.stream.handle)

            def run() -> None:
                bound.enqueue()
                self.stream.synchronize()

            return layer_times(self._profiled, run, rounds)

    def _view(self, key: str) -> NDArray[Any]:
        return self._host[key].view(_TYPES[self.network.types[key]], self._shapes()[key])

    def close(self) -> None:
        """Give everything back; may be called any number of times."""
        with self._device:
            self._unbind()
            for pinned in self._host.values():
                pinned.close()
            for buffer in self._gpu.values():
                buffer.close()
            self.network.close()
