"""Builds and loads engines with TensorRT, behind an interface that tests can replace.

The workflow in `realtime_ssd_engines.tensorrt.engine_builder` needs no GPU; only this module does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.gpu import cuda_version, driver_release, find_gpus
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.onnx.verify import Floats, Heads
from realtime_ssd_engines.requirements import require_gpu
from realtime_ssd_engines.tensorrt import compat, library
from realtime_ssd_engines.tensorrt.network import EngineRunner

__all__ = [
    "BuildRequest",
    "BuildResult",
    "LoadedEngine",
    "ProgressCallback",
    "Target",
    "TensorRTToolchain",
    "Toolchain",
]

ProgressCallback = Callable[[str], None]
"""Called with a line of text when a long step starts or advances."""


@dataclass(frozen=True, slots=True)
class Target:
    """The hardware and software that an engine is built for.

    Attributes:
        gpu: Name of the GPU.
        capability: Compute capability, such as "9.0".
        tensorrt: Version of TensorRT.
        driver: Release of the driver, or the CUDA version it supports if the release is unknown.
    """

    gpu: str
    capability: str
    tensorrt: str
    driver: str


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Inputs of an engine build.

    Attributes:
        model: ONNX file in the requested precision.
        spec: Specification of the model.
        precision: "fp32", "fp16" or "int8".
        batches: Minimum, optimum and maximum batch; None if the file has a fixed batch.
        workspace: Maximum bytes of scratch memory per layer.
        timing_cache: Serialised timing cache of earlier builds; may be empty.
    """

    model: Path
    spec: ModelSpec
    precision: str
    batches: tuple[int, int, int] | None
    workspace: int
    timing_cache: bytes


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Outputs of an engine build.

    Attributes:
        plan: Serialised engine.
        timing_cache: Serialised timing cache that includes this build.
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
    """NVIDIA TensorRT on the first GPU."""

    def target(self) -> Target:
        """See `Toolchain.target`."""
        require_gpu("build or run TensorRT engines")
        gpu = find_gpus()[0]
        capability = "{}.{}".format(*gpu.capability)
        driver = driver_release() or "CUDA {}.{}".format(*(cuda_version() or (0, 0)))
        return Target(gpu.name, capability, library.version(), driver)

    def build(self, request: BuildRequest, progress: ProgressCallback) -> BuildResult:
        """See `Toolchain.build`."""
        with Device():
            return _build(request, progress)

    def load(self, plan: bytes, spec: ModelSpec) -> LoadedEngine:
        """See `Toolchain.load`."""
        return _TensorRTEngine(plan, spec)


def _build(request: BuildRequest, progress: ProgressCallback) -> BuildResult:
    builder, network, config, messages = compat.create_builder(request.workspace)
    compat.parse_onnx(network, messages, str(request.model))
    compat.set_precision(
        network, config, fp16=request.precision != "fp32", int8=request.precision == "int8"
    )
    if request.batches is not None:
        image = (3, request.spec.input.height, request.spec.input.width)
        shapes = [(batch, *image) for batch in request.batches]
        compat.add_profile(builder, config, request.spec.input.name, shapes)
    compat.load_timing_cache(config, request.timing_cache)
    library.monitor_progress(config, _PercentReporter(progress))
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
    """An engine loaded on the first GPU."""

    def __init__(self, plan: bytes, spec: ModelSpec) -> None:
        self._runner = EngineRunner(Device(), plan, spec)

    def __call__(self, tensor: Floats) -> Heads:
        return self._runner(tensor)

    def layers(self) -> str:
        return compat.inspect_engine(self._runner.network.engine)

    def layer_times(self, tensor: Floats, rounds: int) -> dict[str, float]:
        return self._runner.layer_times(tensor, rounds)

    def close(self) -> None:
        self._runner.close()
