"""Building of engines: differences between TensorRT 8.6, 10, 11 and TensorRT-RTX.

`compat_runtime` holds those of loading and running; there are none elsewhere. Features are
detected with `hasattr`; version numbers are not compared and enum values not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.gpu import cuda_version
from realtime_ssd_engines.requirements import Flavor
from realtime_ssd_engines.tensorrt.library import MessageLog, library, message_log, version

__all__ = [
    "Precision",
    "add_profile",
    "build_plan",
    "check_capabilities",
    "create_builder",
    "is_strongly_typed",
    "load_timing_cache",
    "parse_onnx",
    "serialize_timing_cache",
    "set_precision",
    "supported_capabilities",
    "translate_init_error",
]

Precision = Literal["fp32", "fp16"]


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
    with translate_init_error(messages, flavor):
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


def check_capabilities(capabilities: Sequence[str]) -> None:
    """Check that TensorRT-RTX builds for some compute capabilities.

    Raises:
        UsageError: If it does not support one.
        ModelError: If it is not installed or fails to load.
    """
    known = supported_capabilities("rtx")
    for capability in capabilities:
        if capability not in known:
            raise UsageError(
                f"`compute_capability` {capability} is not supported by TensorRT-{version('rtx')}; "
                f"choose from {', '.join(known)}"
            )


def _set_capabilities(trt: Any, config: Any, capabilities: Sequence[str]) -> None:
    check_capabilities(capabilities)
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


@contextmanager
def translate_init_error(messages: MessageLog, flavor: Flavor) -> Iterator[None]:
    """Turn the bindings' "factory function returned nullptr" into a `ModelError`."""
    try:
        yield
    except TypeError as error:
        supported = "{}.{}".format(*(cuda_version() or (0, 0)))
        raise ModelError(
            f"TensorRT {version(flavor)} cannot use this GPU ({messages.last_error()}); the driver "
            f"supports CUDA {supported}, which may be too old"
        ) from error
