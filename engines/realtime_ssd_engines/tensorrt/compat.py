"""All that differs between TensorRT 8.6, 10 and 11, in one place.

Features are asked for, versions never compared, and no enum number is ever stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import cuda_version
from realtime_ssd_engines.tensorrt.library import Messages, library, messages, version

__all__ = [
    "EngineRefusedError",
    "Precision",
    "Tensor",
    "add_profile",
    "builder_parts",
    "deserialize",
    "inspect",
    "memory_size",
    "new_context",
    "parse",
    "serialize",
    "set_precision",
    "strongly_typed",
    "tensors",
    "timing_cache",
    "timing_cache_bytes",
]

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        is_input: Whether the engine reads it.
        precision: Type of its values.
        shape: -1 where it depends on the batch.
    """

    is_input: bool
    precision: Precision
    shape: tuple[int, ...]


class EngineRefusedError(ModelError):
    """TensorRT does not take an engine file; another one has to be built."""


def strongly_typed() -> bool:
    """Tell whether the types in the ONNX file alone decide the precision (TensorRT 9 and later)."""
    return hasattr(library().NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def builder_parts(workspace: int) -> tuple[Any, Any, Any, Messages]:
    """Make a builder, an empty network and a configuration.

    Args:
        workspace: Most bytes of scratch memory a layer may use.

    Returns:
        Builder, network, configuration, messages.

    Raises:
        ModelError: If TensorRT does not come up, for instance with too old a driver.
    """
    trt, heard = library(), messages()
    with _explained(heard):
        builder = trt.Builder(heard.logger)
    network = builder.create_network(_network_flags(trt))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _own_kernels_only(trt, config)
    return builder, network, config, heard


def _network_flags(trt: Any) -> int:
    names = trt.NetworkDefinitionCreationFlag
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if hasattr(names, name):
            flags |= 1 << int(getattr(names, name))
    return flags


def _own_kernels_only(trt: Any, config: Any) -> None:
    """Do without cuBLAS and cuDNN, and let several contexts share one optimisation profile."""
    sources = 0
    for name in ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"):
        if hasattr(trt.TacticSource, name):
            sources |= 1 << int(getattr(trt.TacticSource, name))
    config.set_tactic_sources(sources)
    for name in ("DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805", "PROFILE_SHARING_0806"):
        if hasattr(trt.PreviewFeature, name):
            config.set_preview_feature(getattr(trt.PreviewFeature, name), True)


def set_precision(network: Any, config: Any, *, fp16: bool, int8: bool) -> None:
    """Allow lower precisions where the network's own types do not decide (TensorRT 8.6)."""
    flags = library().BuilderFlag
    if not fp16 and not int8:
        config.clear_flag(flags.TF32)
    if strongly_typed():
        return
    for name, wanted in (("FP16", fp16), ("INT8", int8)):
        if wanted and hasattr(flags, name):
            config.set_flag(getattr(flags, name))
    if fp16:
        _hold_islands(network, config)


def _hold_islands(network: Any, config: Any) -> None:
    """Ask for FP32 where an FP16 model computes in FP32 (softmax, L2Norm)."""
    trt = library()
    tender = [
        getattr(trt.LayerType, name) for name in ("SOFTMAX", "REDUCE", "UNARY", "ELEMENTWISE")
    ]
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    kinds = [{layer.get_output(i).dtype for i in range(layer.num_outputs)} for layer in layers]
    if not any(trt.float16 in kind for kind in kinds):
        return  # an FP32 model: every layer may become FP16
    if hasattr(trt.BuilderFlag, "PREFER_PRECISION_CONSTRAINTS"):
        config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    for layer, kind in zip(layers, kinds, strict=True):
        if layer.type in tender and kind == {trt.float32}:
            layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)


def add_profile(builder: Any, config: Any, name: str, shapes: Sequence[tuple[int, ...]]) -> None:
    """Tell which batches an engine is for.

    Args:
        builder: From `builder_parts`.
        config: From `builder_parts`.
        name: Name of the input tensor.
        shapes: Smallest, usual and largest shape of it.

    Raises:
        ModelError: If TensorRT does not take them.
    """
    profile = builder.create_optimization_profile()
    profile.set_shape(name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise ModelError(f"TensorRT {version()} does not take the batches {list(shapes)}")


def parse(network: Any, heard: Messages, path: str) -> None:
    """Read an ONNX file into a network.

    Raises:
        ModelError: If TensorRT cannot read it; tells the operator and its node.
    """
    parser = library().OnnxParser(network, heard.logger)
    if parser.parse_from_file(path):
        return
    reasons = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
    raise ModelError(
        f"TensorRT {version()} cannot read '{path}': {'; '.join(reasons) or heard.last()}"
    )


def timing_cache(config: Any, content: bytes) -> None:
    """Give a builder the timings of earlier builds; damaged or foreign ones are left aside."""
    for given, any_device in ((content, False), (b"", True)):
        made = config.create_timing_cache(given)
        if made is not None and config.set_timing_cache(made, ignore_mismatch=any_device):
            return


def timing_cache_bytes(config: Any) -> bytes:
    """Give the timings a build has made."""
    made = config.get_timing_cache()
    return bytes(made.serialize()) if made is not None else b""


def serialize(builder: Any, network: Any, config: Any, heard: Messages) -> bytes:
    """Build an engine.

    Raises:
        ModelError: If TensorRT fails.
    """
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(f"TensorRT {version()} could not build the engine: {heard.last()}")
    return bytes(plan)


@cache
def _runtime() -> Any:
    """The one runtime of the process; it must outlive its engines."""
    heard = messages()
    with _explained(heard):
        return library().Runtime(heard.logger)


@contextmanager
def _explained(heard: Messages) -> Iterator[None]:
    """Turn the binding's "factory function returned nullptr" into a sentence."""
    try:
        yield
    except TypeError as error:
        newest = cuda_version() or (0, 0)
        raise ModelError(
            f"TensorRT {version()} cannot use this GPU ({heard.last()}); the driver, which "
            "supports CUDA {}.{}, may be too old for it".format(*newest)
        ) from error


def deserialize(plan: bytes) -> Any:
    """Load an engine.

    Args:
        plan: What `serialize` gave.

    Raises:
        EngineRefusedError: If it is damaged or was made by another TensorRT or for another GPU.
        ModelError: If it finds no memory, or TensorRT cannot use the GPU.
    """
    engine = _runtime().deserialize_cuda_engine(plan)
    if engine is not None:
        return engine
    reason = messages().last()
    if "memory" in reason.lower():
        raise ModelError(
            f"TensorRT {version()} found no memory for the engine of {len(plan) / 2**20:.0f} MiB "
            f"({reason}); close other programs, or use a smaller --batch"
        )
    raise EngineRefusedError(
        f"TensorRT {version()} refuses the engine ({reason}): it is damaged, or "
        "was built by another TensorRT or for another GPU; build it again"
    )


def tensors(engine: Any) -> dict[str, Tensor]:
    """Describe the inputs and outputs of an engine, by name.

    Raises:
        ModelError: If one is neither FP32 nor FP16.
    """
    trt = library()
    types: dict[Any, Precision] = {trt.float32: "fp32", trt.float16: "fp16"}
    found = {}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        kind = engine.get_tensor_dtype(name)
        if kind not in types:
            raise ModelError(f"tensor '{name}' of the engine is {kind}, not FP32 or FP16")
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        found[name] = Tensor(is_input, types[kind], shape)
    return found


def memory_size(engine: Any) -> int:
    """Give the bytes of activation memory a context of the engine needs."""
    newer = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if newer is None else newer)


def new_context(engine: Any, address: int, size: int, stream: int) -> Any:
    """Make an execution context on activation memory of our own.

    Args:
        engine: The engine.
        address: Device address of at least `memory_size(engine)` bytes.
        size: Bytes there.
        stream: Handle of the stream it will run on.

    Raises:
        ModelError: If TensorRT refuses.
    """
    strategies = getattr(library(), "ExecutionContextAllocationStrategy", None)
    if strategies is not None:
        context = engine.create_execution_context(strategies.USER_MANAGED)
    else:
        context = engine.create_execution_context_without_device_memory()
    if context is None:
        raise ModelError(f"TensorRT could not prepare the engine: {messages().last()}")
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, size)
    else:
        context.device_memory = address
    if context.active_optimization_profile != 0:
        # Only the first context of an engine has its profile chosen by itself.
        context.set_optimization_profile_async(0, stream)
    return context


def inspect(engine: Any) -> str:
    """Describe the layers of an engine as a JSON text."""
    formats = library().LayerInformationFormat
    return str(engine.create_engine_inspector().get_engine_information(formats.JSON))
