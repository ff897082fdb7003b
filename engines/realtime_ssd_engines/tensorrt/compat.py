"""All differences between TensorRT 8.6, 10 and 11, and TensorRT-RTX.

Features are detected with `hasattr`; version numbers are not compared and enum values not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.gpu import cuda_version
from realtime_ssd_engines.requirements import Flavor
from realtime_ssd_engines.tensorrt.library import MessageLog, library, message_log, version

__all__ = [
    "IncompatibleEngineError",
    "Precision",
    "TensorInfo",
    "activation_memory_size",
    "add_profile",
    "build_plan",
    "create_builder",
    "create_context",
    "create_runtime_config",
    "inspect_engine",
    "io_tensors",
    "is_strongly_typed",
    "load_engine",
    "load_timing_cache",
    "parse_onnx",
    "serialize_runtime_cache",
    "serialize_timing_cache",
    "set_precision",
    "supported_capabilities",
]

Precision = Literal["fp32", "fp16"]


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


def is_strongly_typed(flavor: Flavor = "tensorrt") -> bool:
    """Return whether the types in the ONNX file define the precision (TensorRT 9 and later)."""
    return hasattr(library(flavor).NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def create_builder(
    workspace: int, flavor: Flavor = "tensorrt", capabilities: Sequence[str] = ()
) -> tuple[Any, Any, Any, MessageLog]:
    """Create a builder, an empty network and a builder configuration.

    Args:
        workspace: Maximum bytes of scratch memory per layer (TensorRT only).
        flavor: Flavor of TensorRT.
        capabilities: Compute capabilities to build for, such as "8.9" (TensorRT-RTX only).

    Returns:
        Builder, network, configuration and message log.

    Raises:
        UsageError: If TensorRT-RTX does not support a compute capability.
        ModelError: If TensorRT cannot be initialized, for example because the driver is too old.
    """
    trt, messages = library(flavor), message_log(flavor)
    with _translate_init_error(messages, flavor):
        builder = trt.Builder(messages.logger)
    network = builder.create_network(_network_flags(trt))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if flavor == "rtx":  # its limit would also apply to memory that a large network requires
        _set_capabilities(trt, config, capabilities)
    else:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
        _restrict_tactics(trt, config)
    return builder, network, config, messages


def supported_capabilities(flavor: Flavor) -> tuple[str, ...]:
    """Return the compute capabilities that a flavor lists, such as "8.9"; empty if it has no list.

    Raises:
        ModelError: If the flavor is not installed or fails to load.
    """
    members = getattr(library(flavor), "ComputeCapability", None)
    names = () if members is None or flavor != "rtx" else members.__members__
    return tuple(f"{name[2:-1]}.{name[-1]}" for name in names if name.startswith("SM"))


def _set_capabilities(trt: Any, config: Any, capabilities: Sequence[str]) -> None:
    known = supported_capabilities("rtx")
    for capability in capabilities:
        if capability not in known:
            raise UsageError(
                f"`compute_capability` {capability} is not supported by {version('rtx')}; choose "
                f"from {', '.join(known)}"
            )
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        name = f"SM{capability.replace('.', '')}"
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)


def _network_flags(trt: Any) -> int:
    names = trt.NetworkDefinitionCreationFlag
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if hasattr(names, name):
            flags |= 1 << int(getattr(names, name))
    return flags


def _restrict_tactics(trt: Any, config: Any) -> None:
    """Exclude cuBLAS and cuDNN, and allow several contexts to share an optimization profile."""
    sources = 0
    for name in ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"):
        if hasattr(trt.TacticSource, name):
            sources |= 1 << int(getattr(trt.TacticSource, name))
    config.set_tactic_sources(sources)
    for name in ("DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805", "PROFILE_SHARING_0806"):
        if hasattr(trt.PreviewFeature, name):
            config.set_preview_feature(getattr(trt.PreviewFeature, name), True)


def set_precision(
    network: Any, config: Any, *, fp16: bool, int8: bool, flavor: Flavor = "tensorrt"
) -> None:
    """Enable lower precisions in weakly typed networks (TensorRT 8.6); disable TF32 for FP32."""
    flags = library(flavor).BuilderFlag
    if not fp16 and not int8:
        config.clear_flag(flags.TF32)
    if is_strongly_typed(flavor):
        return
    for name, enabled in (("FP16", fp16), ("INT8", int8)):
        if enabled and hasattr(flags, name):
            config.set_flag(getattr(flags, name))
    if fp16:
        _constrain_fp32_layers(network, config)


def _constrain_fp32_layers(network: Any, config: Any) -> None:
    """Constrain the FP32 layers of an FP16 model (softmax, L2Norm) to FP32."""
    trt = library()
    fp32_types = [
        getattr(trt.LayerType, name) for name in ("SOFTMAX", "REDUCE", "UNARY", "ELEMENTWISE")
    ]
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    dtypes = [{layer.get_output(i).dtype for i in range(layer.num_outputs)} for layer in layers]
    if not any(trt.float16 in types for types in dtypes):
        return  # an FP32 model: any layer may run in FP16
    if hasattr(trt.BuilderFlag, "PREFER_PRECISION_CONSTRAINTS"):
        config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    for layer, types in zip(layers, dtypes, strict=True):
        if layer.type in fp32_types and types == {trt.float32}:
            layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)


def add_profile(
    builder: Any,
    config: Any,
    name: str,
    shapes: Sequence[tuple[int, ...]],
    flavor: Flavor = "tensorrt",
) -> None:
    """Add an optimization profile.

    Args:
        builder: From `create_builder`.
        config: From `create_builder`.
        name: Name of the input tensor.
        shapes: Its minimum, optimum and maximum shape.
        flavor: Flavor of TensorRT.

    Raises:
        ModelError: If TensorRT rejects the shapes.
    """
    profile = builder.create_optimization_profile()
    profile.set_shape(name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise ModelError(f"TensorRT {version(flavor)} rejects the input shapes {list(shapes)}")


def parse_onnx(network: Any, messages: MessageLog, path: str, flavor: Flavor = "tensorrt") -> None:
    """Parse an ONNX file into a network.

    Raises:
        ModelError: If TensorRT cannot parse it; the message names the operator and its node.
    """
    parser = library(flavor).OnnxParser(network, messages.logger)
    if parser.parse_from_file(path):
        return
    reasons = [_describe_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
    raise ModelError(
        f"TensorRT {version(flavor)} cannot parse '{path}': "
        f"{'; '.join(reasons) or messages.last_error()}"
    )


def _describe_parser_error(error: Any) -> str:
    """Return the message of a parser error with its operator and node, if TensorRT reports them."""
    text = str(error.desc())
    if hasattr(error, "node_operator") and error.node_operator() not in text:
        text += f" (operator {error.node_operator()} of node '{error.node_name()}')"
    return text


def load_timing_cache(config: Any, content: bytes) -> None:
    """Load a timing cache; use an empty one if it is damaged or from another device."""
    for data, ignore_mismatch in ((content, False), (b"", True)):
        timing_cache = config.create_timing_cache(data)
        if timing_cache is not None and config.set_timing_cache(
            timing_cache, ignore_mismatch=ignore_mismatch
        ):
            return


def serialize_timing_cache(config: Any) -> bytes:
    """Return the timing cache after a build."""
    timing_cache = config.get_timing_cache()
    return bytes(timing_cache.serialize()) if timing_cache is not None else b""


def build_plan(
    builder: Any, network: Any, config: Any, messages: MessageLog, flavor: Flavor = "tensorrt"
) -> bytes:
    """Build and serialize an engine.

    Raises:
        ModelError: If the build fails.
    """
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(
            f"TensorRT {version(flavor)} cannot build the engine: {messages.last_error()}"
        )
    return bytes(plan)


@cache
def _runtime(flavor: Flavor) -> Any:
    """Return the runtime of the process; it must outlive its engines."""
    messages = message_log(flavor)
    with _translate_init_error(messages, flavor):
        return library(flavor).Runtime(messages.logger)


@contextmanager
def _translate_init_error(messages: MessageLog, flavor: Flavor) -> Iterator[None]:
    """Turn the bindings' "factory function returned nullptr" into a `ModelError`."""
    try:
        yield
    except TypeError as error:
        supported = "{}.{}".format(*(cuda_version() or (0, 0)))
        raise ModelError(
            f"TensorRT {version(flavor)} cannot use this GPU ({messages.last_error()}); the driver "
            f"supports CUDA {supported}, which may be too old"
        ) from error


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
