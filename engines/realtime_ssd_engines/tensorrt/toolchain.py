"""Builds and loads engines with TensorRT, behind an interface that tests can replace.

The workflow in `realtime_ssd_engines.tensorrt.engine_builder` needs no GPU; only this module does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.onnx.verify import Floats, Heads
from realtime_ssd_engines.requirements import Flavor, missing_parts, require_gpu
from realtime_ssd_engines.tensorrt import compat, compat_runtime, library
from realtime_ssd_engines.tensorrt.network import EngineRunner

__all__ = [
    "BuildRequest",
    "BuildResult",
    "LoadedEngine",
    "ProgressCallback",
    "RtxToolchain",
    "Target",
    "TensorRTToolchain",
    "Toolchain",
    "make_toolchain",
]

_ALTERNATIVE = "set `flavor` to rtx and `compute_capability` to build for another machine"
ProgressCallback = Callable[[str], None]
"""Called with a line of text when a long step starts or advances."""


@dataclass(frozen=True, slots=True)
class Target:
    """The hardware and software that an engine is built for.

    Attributes:
        gpu: Name of the GPU.
        capability: Compute capability, such as "9.0".
        tensorrt: Version of TensorRT.
    """

    gpu: str
    capability: str
    tensorrt: str


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Inputs of an engine build.

    Attributes:
        model: ONNX file in the requested precision.
        spec: Specification of the model.
        precision: "fp32", "fp16" or "int8".
        profiles: Minimum, optimum and maximum batch of each optimization profile; empty if the file
            has a fixed batch.
        workspace: Maximum bytes of scratch memory per layer.
        timing_cache: Serialized timing cache of earlier builds; may be empty.
    """

    model: Path
    spec: ModelSpec
    precision: str
    profiles: tuple[tuple[int, int, int], ...]
    workspace: int
    timing_cache: bytes


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Outputs of an engine build.

    Attributes:
        plan: Serialized engine.
        timing_cache: Serialized timing cache that includes this build.
    """

    plan: bytes
    timing_cache: bytes


class LoadedEngine(AbstractContextManager[Any], Protocol):
    """An engine that is ready to run; closed at the end of a `with` block."""

    def __call__(self, tensor: Floats) -> Heads:
        """Run one input: 3 × H × W float32 → P × C scores and P × 4 offsets."""
        ...

    def layers(self) -> str:
        """Return the engine inspector's description of the layers, as JSON."""
        ...

    def layer_times(self, tensor: Floats, rounds: int) -> dict[str, float]:
        """Return the mean milliseconds per layer over `rounds` runs of one image."""
        ...

    def close(self) -> None:
        """Release the engine; may be called repeatedly."""
        ...


class Toolchain(Protocol):
    """Builds and loads engines."""

    def target(self) -> Target:
        """Return what engines built on this machine are for.

        Raises:
            ModelError: If this machine cannot build engines; the message lists what is missing.
        """
        ...

    def can_run(self) -> bool:
        """Return whether engines built here can also run here."""
        ...

    def gpu_name(self) -> str:
        """Return the name of the GPU that runs engines here; "" without one."""
        ...

    def build(self, request: BuildRequest, progress: ProgressCallback) -> BuildResult:
        """Build an engine.

        Raises:
            ModelError: If the build fails.
        """
        ...

    def load(self, plan: bytes, spec: ModelSpec) -> LoadedEngine:
        """Load an engine.

        Raises:
            ModelError: If it does not fit this machine or the specification.
        """
        ...


class TensorRTToolchain:
    """NVIDIA TensorRT on one GPU.

    Args:
        device: Index of the GPU.
    """

    def __init__(self, device: int = 0) -> None:
        self._device = device

    def target(self) -> Target:
        """See `Toolchain.target`."""
        require_gpu("build or run TensorRT engines", "tensorrt", _ALTERNATIVE)
        gpu = find_gpus()[self._device]
        return Target(gpu.name, "{}.{}".format(*gpu.capability), library.version())

    def can_run(self) -> bool:
        """See `Toolchain.can_run`."""
        return True

    def gpu_name(self) -> str:
        """See `Toolchain.gpu_name`."""
        return _gpu_name(self._device)

    def build(self, request: BuildRequest, progress: ProgressCallback) -> BuildResult:
        """See `Toolchain.build`."""
        with Device(self._device):
            return _build(request, progress, "tensorrt", ())

    def load(self, plan: bytes, spec: ModelSpec) -> LoadedEngine:
        """See `Toolchain.load`."""
        return _TensorRTEngine(plan, spec, "tensorrt", self._device)


class RtxToolchain:
    """NVIDIA TensorRT-RTX, which builds engines for GeForce and RTX cards without a GPU.

    Args:
        capabilities: Compute capabilities to build for, such as "8.9"; by default that of the GPU.
        device: Index of the GPU.
    """

    def __init__(self, capabilities: Sequence[str] = (), device: int = 0) -> None:
        self._capabilities, self._device = tuple(sorted(set(capabilities), key=_number)), device

    def target(self) -> Target:
        """See `Toolchain.target`; the engine does not depend on the GPU's name.

        Raises:
            UsageError: If TensorRT-RTX does not support a compute capability.
        """
        capabilities = self._effective_capabilities()
        compat.check_capabilities(capabilities)
        return Target("RTX", ",".join(capabilities), library.version("rtx"))

    def can_run(self) -> bool:
        """See `Toolchain.can_run`."""
        gpus = find_gpus()[self._device :]
        capability = "{}.{}".format(*gpus[0].capability) if gpus else ""
        return not missing_parts("rtx") and capability in self._effective_capabilities()

    def gpu_name(self) -> str:
        """See `Toolchain.gpu_name`."""
        return _gpu_name(self._device)

    def build(self, request: BuildRequest, progress: ProgressCallback) -> BuildResult:
        """See `Toolchain.build`."""
        return _build(request, progress, "rtx", self._effective_capabilities())

    def load(self, plan: bytes, spec: ModelSpec) -> LoadedEngine:
        """See `Toolchain.load`."""
        require_gpu("run TensorRT-RTX engines", "rtx")
        return _TensorRTEngine(plan, spec, "rtx", self._device)

    def _effective_capabilities(self) -> tuple[str, ...]:
        if self._capabilities:
            return self._capabilities
        if not find_gpus():
            raise UsageError(
                "this machine has no NVIDIA GPU; set `compute_capability` to those of the cards to "
                "build for, such as 8.9"
            )
        return ("{}.{}".format(*find_gpus()[self._device].capability),)


def _number(capability: str) -> tuple[float, str]:
    """Return a key that sorts compute capabilities by number, others last."""
    try:
        return float(capability), capability
    except ValueError:
        return float("inf"), capability


def _gpu_name(device: int) -> str:
    gpus = find_gpus()
    return gpus[device].name if device < len(gpus) else ""


def make_toolchain(flavor: Flavor, capabilities: Sequence[str] = (), device: int = 0) -> Toolchain:
    """Return the toolchain of a flavor of TensorRT.

    Args:
        flavor: Flavor of TensorRT.
        capabilities: Compute capabilities to build for (TensorRT-RTX only).
        device: Index of the GPU.

    Raises:
        UsageError: If the flavor builds for the installed GPU only.
    """
    if flavor == "rtx":
        return RtxToolchain(capabilities, device)
    if capabilities:
        raise UsageError("`compute_capability` requires `flavor` rtx")
    return TensorRTToolchain(device)


def _build(
    request: BuildRequest,
    progress: ProgressCallback,
    flavor: Flavor,
    capabilities: Sequence[str],
) -> BuildResult:
    builder, network, config, messages = compat.create_builder(
        request.workspace, flavor, capabilities
    )
    compat.parse_onnx(network, messages, str(request.model), flavor)
    fp16, int8 = request.precision != "fp32", request.precision == "int8"
    compat.set_precision(network, config, fp16=fp16, int8=int8, flavor=flavor)
    image = (3, request.spec.input.height, request.spec.input.width)
    for batches in request.profiles:
        shapes = [(batch, *image) for batch in batches]
        compat.add_profile(builder, config, request.spec.input.name, shapes, flavor)
    library.monitor_progress(config, _PercentReporter(progress), flavor)
    if flavor == "rtx":  # it has no tactics to time, and its timing cache requires a GPU
        return BuildResult(compat.build_plan(builder, network, config, messages, flavor), b"")
    compat.load_timing_cache(config, request.timing_cache)
    plan = compat.build_plan(builder, network, config, messages)
    return BuildResult(plan, compat.serialize_timing_cache(config))


class _PercentReporter:
    """Reports the progress of a build in steps of ten per cent."""

    def __init__(self, progress: ProgressCallback) -> None:
        self._progress, self._reported = progress, 0

    def __call__(self, share: float) -> None:
        tenths = int(share * 10)
        if tenths > self._reported:
            self._reported = tenths
            self._progress(f"  {tenths * 10} % built")


class _TensorRTEngine(Closeable):
    """An engine loaded on one GPU."""

    def __init__(self, plan: bytes, spec: ModelSpec, flavor: Flavor, device: int) -> None:
        self._runner, self._flavor = EngineRunner(Device(device), plan, spec, flavor), flavor

    def __call__(self, tensor: Floats) -> Heads:
        return self._runner(tensor)

    def layers(self) -> str:
        return compat_runtime.inspect_engine(self._runner.network.engine, self._flavor)

    def layer_times(self, tensor: Floats, rounds: int) -> dict[str, float]:
        return self._runner.layer_times(tensor, rounds)

    def close(self) -> None:
        self._runner.close()
