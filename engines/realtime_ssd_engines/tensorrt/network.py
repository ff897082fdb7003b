"""TensorRT engines bound to device memory: as the network of frame slots, or standalone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.files import replace_file
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.cuda.driver import Buffer, Device, PinnedBuffer
from realtime_ssd_engines.requirements import Flavor
from realtime_ssd_engines.tensorrt import compat_runtime
from realtime_ssd_engines.tensorrt.compat import Precision
from realtime_ssd_engines.tensorrt.library import message_log, profile_layers

__all__ = ["EngineNetwork", "EngineRunner"]

_log = logging.getLogger(__name__)
_DTYPES: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}


class EngineNetwork:
    """A TensorRT engine as the network of frame slots.

    Args:
        device: The GPU; its context must be current.
        plan: Serialized engine.
        spec: Specification of the model.
        flavor: Flavor of TensorRT that built the engine.
        runtime_cache: File for the kernels that TensorRT-RTX compiles for the GPU; not kept by
            default.

    Attributes:
        boxes: Number of default boxes.
        types: Precision of "input", "scores" and "offsets".
        engine: TensorRT's `ICudaEngine`.

    Raises:
        ModelError: If the engine does not fit this machine or the specification.
    """

    def __init__(
        self,
        device: Device,
        plan: bytes,
        spec: ModelSpec,
        flavor: Flavor = "tensorrt",
        runtime_cache: Path | None = None,
    ) -> None:
        self._device, self.flavor, self._cache_file = device, flavor, runtime_cache
        self.engine: Any = compat_runtime.load_engine(plan, flavor, device.free_memory())
        self._saved = _read_if_present(runtime_cache)
        self._runtime_config = compat_runtime.create_runtime_config(
            self.engine, self._saved, flavor
        )
        self._names = {
            "input": spec.input.name,
            "scores": spec.scores_output,
            "offsets": spec.offsets_output,
        }
        tensors = compat_runtime.io_tensors(self.engine, flavor)
        for name in self._names.values():
            if name not in tensors:
                raise ModelError(
                    f"the engine has no tensor '{name}', only {', '.join(tensors)}; remove it with "
                    "'realtime-ssd engines remove' and build it again"
                )
        self.types: dict[str, Precision] = {
            key: tensors[name].precision for key, name in self._names.items()
        }
        self.boxes = spec.num_boxes
        self._input_shape = (3, spec.input.height, spec.input.width)
        self._output_shapes = {
            spec.scores_output: (spec.num_boxes, spec.num_classes),
            spec.offsets_output: (spec.num_boxes, 4),
        }
        self._activation_memory: dict[int, Buffer] = {}

    def context(self, stream: Any, images: int) -> Any:
        """Create an execution context for one batch size on a stream.

        Contexts on the same stream run one after another, so they share their activation memory.
        """
        if stream.handle not in self._activation_memory:
            size = compat_runtime.activation_memory_size(self.engine)
            self._activation_memory[stream.handle] = self._device.buffer(size)
        memory = self._activation_memory[stream.handle]
        context = compat_runtime.create_context(
            self.engine,
            (memory.address, memory.size),
            stream.handle,
            self._profile(images),
            self._runtime_config,
            self.flavor,
        )
        if not context.set_input_shape(self._names["input"], (images, *self._input_shape)):
            raise ModelError(f"the engine does not support a batch of {images}; build it again")
        self._check_outputs(context, images)
        return context

    def _profile(self, images: int) -> int:
        """Return the number of the profile for a batch size: the first is for single images."""
        return 1 if images > 1 and self.engine.num_optimization_profiles > 1 else 0

    def save_runtime_cache(self) -> None:
        """Write the kernels that TensorRT-RTX has compiled to the file, if there are new ones."""
        content = compat_runtime.serialize_runtime_cache(self._runtime_config)
        if self._cache_file is None or not content or content == self._saved:
            return
        try:
            replace_file(self._cache_file, content)
            self._saved = content
        except OSError as error:
            _log.info("'%s' cannot be written (%s)", self._cache_file, error.strerror)

    def _check_outputs(self, context: Any, images: int) -> None:
        """Check the output shapes, which TensorRT may know only once the input shape is set."""
        for name, shape in self._output_shapes.items():
            actual, expected = tuple(context.get_tensor_shape(name)), (images, *shape)
            if actual != expected:
                raise ModelError(
                    f"output '{name}' of the engine has shape {actual}, but its specification "
                    f"requires {expected}; import the model again"
                )

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Prepare one batch size of one slot; see `realtime_ssd_engines.cuda.slots.Network`."""
        bound = _BoundContext(self.context(stream, images), images, stream.handle, self.flavor)
        for name, address in self.tensor_addresses(addresses).items():
            bound.context.set_tensor_address(name, address)
        return bound.enqueue, bound.release

    def tensor_addresses(self, addresses: dict[str, int]) -> dict[str, int]:
        """Return the addresses of "input", "scores" and "offsets" by the engine's tensor names."""
        return {name: addresses[key] for key, name in self._names.items()}

    def close(self) -> None:
        """Release the activation memory and the engine, after all contexts are released."""
        for memory in self._activation_memory.values():
            memory.close()
        self._activation_memory.clear()
        self._runtime_config = self.engine = None


def _read_if_present(file: Path | None) -> bytes:
    try:
        return b"" if file is None else file.read_bytes()
    except OSError:
        return b""


class _BoundContext:
    """An execution context with its batch size and addresses set."""

    def __init__(self, context: Any, images: int, stream: int, flavor: Flavor) -> None:
        self.context, self._images, self._stream = context, images, stream
        self._flavor = flavor

    def enqueue(self) -> None:
        if not self.context.execute_async_v3(self._stream):
            reason = message_log(self._flavor).last_error()
            raise ModelError(f"TensorRT cannot run a batch of {self._images}: {reason}")

    def release(self) -> None:
        self.context = None


class EngineRunner(Closeable):
    """Runs an engine on prepared inputs, for verification and profiling.

    Args:
        device: The GPU; its context is made current as needed.
        plan: Serialized engine.
        spec: Specification of the model.
        flavor: Flavor of TensorRT that built the engine.
    """

    def __init__(
        self, device: Device, plan: bytes, spec: ModelSpec, flavor: Flavor = "tensorrt"
    ) -> None:
        self._device, self.spec = device, spec
        with device:
            self.network = EngineNetwork(device, plan, spec, flavor)
            self.stream = device.stream()
            self._host: dict[str, PinnedBuffer] = {}
            self._gpu: dict[str, Buffer] = {}
            for key, shape in self._shapes().items():
                size = int(np.prod(shape)) * _DTYPES[self.network.types[key]].itemsize
                self._host[key], self._gpu[key] = device.pinned(size), device.buffer(size)
            self.addresses = {key: buffer.address for key, buffer in self._gpu.items()}
            self.enqueue, self._release = self.network.bind(self.addresses, 1, self.stream)
            self._profiled_context: Any = None

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        size, boxes = self.spec.input, self.network.boxes
        return {
            "input": (1, 3, size.height, size.width),
            "scores": (1, boxes, self.spec.num_classes),
            "offsets": (1, boxes, 4),
        }

    def __call__(
        self, tensor: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run one input.

        Args:
            tensor: 3 × H × W float32, normalized.

        Returns:
            P × C scores and P × 4 offsets, float32.
        """
        with self._device, self._device.translate_errors("run the engine"):
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
            tensor: 3 × H × W float32, normalized.
            rounds: Number of runs.

        Returns:
            Mean milliseconds per layer, in execution order.
        """
        self(tensor)
        with self._device, self._device.translate_errors("profile the engine"):
            if self._profiled_context is None:
                self._profiled_context = self.network.context(self.stream, 1)
                for name, address in self.network.tensor_addresses(self.addresses).items():
                    self._profiled_context.set_tensor_address(name, address)
            bound = _BoundContext(
                self._profiled_context, 1, self.stream.handle, self.network.flavor
            )

            def run() -> None:
                bound.enqueue()
                self.stream.synchronize()

            return profile_layers(self._profiled_context, run, rounds, self.network.flavor)

    def _view(self, key: str) -> NDArray[Any]:
        return self._host[key].view(_DTYPES[self.network.types[key]], self._shapes()[key])

    def close(self) -> None:
        """Release everything; may be called repeatedly."""
        with self._device:
            self._release()
            for pinned in self._host.values():
                pinned.close()
            for buffer in self._gpu.values():
                buffer.close()
            self.network.close()
