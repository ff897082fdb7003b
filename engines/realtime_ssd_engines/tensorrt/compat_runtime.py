"""Loading and running of engines: differences between TensorRT 8.6, 10, 11 and TensorRT-RTX."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from realtime_ssd.core.errors import ModelError
from realtime_ssd_engines.requirements import Flavor
from realtime_ssd_engines.tensorrt.compat import Precision, translate_init_error
from realtime_ssd_engines.tensorrt.library import library, message_log, version

__all__ = [
    "IncompatibleEngineError",
    "TensorInfo",
    "activation_memory_size",
    "create_context",
    "create_runtime_config",
    "inspect_engine",
    "io_tensors",
    "load_engine",
    "serialize_runtime_cache",
]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Input or output of an engine.

    Attributes:
        is_input: Whether it is an input.
        precision: Type of its values.
        shape: Sizes; -1 for dimensions that depend on the batch.
    """

    is_input: bool
    precision: Precision
    shape: tuple[int, ...]


class IncompatibleEngineError(ModelError):
    """TensorRT cannot load an engine; it must be built again."""


@cache
def _runtime(flavor: Flavor) -> Any:
    """Return the runtime of the process; it must outlive its engines."""
    messages = message_log(flavor)
    with translate_init_error(messages, flavor):
        return library(flavor).Runtime(messages.logger)


def load_engine(plan: bytes, flavor: Flavor = "tensorrt", free: int = 0) -> Any:
    """Deserialize an engine.

    Args:
        plan: From `build_plan`.
        flavor: Flavor of TensorRT that built it.
        free: Free bytes of device memory, for error messages.

    Raises:
        IncompatibleEngineError: If it is damaged, or was built by another TensorRT version or for
            another GPU.
        ModelError: If the GPU is out of memory, or TensorRT cannot use it.
    """
    engine = _runtime(flavor).deserialize_cuda_engine(plan)
    if engine is not None:
        return engine
    reason = message_log(flavor).last_error()
    if "memory" in reason.lower():
        raise ModelError(
            f"TensorRT {version(flavor)} has not enough memory for the engine of "
            f"{len(plan) / 2**20:.0f} MiB, {free / 2**20:.0f} MiB of the GPU are free ({reason}); "
            "close other programs, or reduce `batch`"
        )
    raise IncompatibleEngineError(
        f"TensorRT {version(flavor)} cannot load the engine ({reason}): it is damaged, or was "
        "built by another TensorRT version or for another GPU; build it again"
    )


def io_tensors(engine: Any, flavor: Flavor = "tensorrt") -> dict[str, TensorInfo]:
    """Return the inputs and outputs of an engine by name.

    Raises:
        ModelError: If one is neither FP32 nor FP16.
    """
    trt = library(flavor)
    precisions: dict[Any, Precision] = {trt.float32: "fp32", trt.float16: "fp16"}
    tensors = {}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        dtype = engine.get_tensor_dtype(name)
        if dtype not in precisions:
            raise ModelError(f"tensor '{name}' of the engine is {dtype}, not FP32 or FP16")
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        tensors[name] = TensorInfo(is_input, precisions[dtype], shape)
    return tensors


def activation_memory_size(engine: Any) -> int:
    """Return the bytes of activation memory that a context of the engine needs."""
    size = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if size is None else size)


def create_runtime_config(engine: Any, saved: bytes, flavor: Flavor) -> Any:
    """Return the runtime configuration of an engine; None for TensorRT, which needs none.

    TensorRT-RTX compiles kernels for the GPU when an engine first runs. They are kept in a runtime
    cache. All shapes are compiled in advance, so that the engine can be captured in a CUDA graph.

    Args:
        engine: The engine.
        saved: Contents of an earlier runtime cache; ignored if another GPU or driver wrote it.
        flavor: Flavor of TensorRT.
    """
    if flavor != "rtx":
        return None
    trt, runtime_config = library(flavor), engine.create_runtime_config()
    strategies = trt.ExecutionContextAllocationStrategy
    runtime_config.set_execution_context_allocation_strategy(strategies.USER_MANAGED)
    specializations = trt.DynamicShapesKernelSpecializationStrategy
    runtime_config.dynamic_shapes_kernel_specialization_strategy = specializations.EAGER
    # The frame slots capture graphs themselves.
    runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
    runtime_cache = runtime_config.create_runtime_cache()
    if saved:
        runtime_cache.deserialize(saved)
    runtime_config.set_runtime_cache(runtime_cache)
    return runtime_config


def serialize_runtime_cache(runtime_config: Any) -> bytes:
    """Return the contents of the runtime cache; empty for TensorRT, which has none."""
    if runtime_config is None:
        return b""
    runtime_cache = runtime_config.get_runtime_cache()
    return b"" if runtime_cache is None else bytes(runtime_cache.serialize())


def create_context(
    engine: Any,
    memory: tuple[int, int],
    stream: int,
    profile: int = 0,
    runtime_config: Any = None,
    flavor: Flavor = "tensorrt",
) -> Any:
    """Create an execution context that uses the caller's activation memory.

    Args:
        engine: The engine.
        memory: Device address and size of at least `activation_memory_size(engine)` bytes.
        stream: Handle of the stream on which the context will run.
        profile: Number of the optimization profile.
        runtime_config: From `create_runtime_config`.
        flavor: Flavor of TensorRT.

    Raises:
        ModelError: If TensorRT cannot create it.
    """
    strategies = getattr(library(flavor), "ExecutionContextAllocationStrategy", None)
    if runtime_config is not None:
        context = engine.create_execution_context(runtime_config)
    elif strategies is not None:
        context = engine.create_execution_context(strategies.USER_MANAGED)
    else:
        context = engine.create_execution_context_without_device_memory()
    # TensorRT selects a profile only for the first context of an engine, and then the first one.
    if context is None or not (
        context.active_optimization_profile == profile
        or context.set_optimization_profile_async(profile, stream)
    ):
        raise ModelError(
            f"TensorRT cannot create an execution context: {message_log(flavor).last_error()}"
        )
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(*memory)
    else:
        context.device_memory = memory[0]
    return context


def inspect_engine(engine: Any, flavor: Flavor = "tensorrt") -> str:
    """Return the engine inspector's description of the layers, as JSON."""
    formats = library(flavor).LayerInformationFormat
    return str(engine.create_engine_inspector().get_engine_information(formats.JSON))
