"""What turns ONNX files into engines and runs them: TensorRT, behind four questions.

The order of work in `realtime_ssd_engines.tensorrt.build` needs no GPU; only this does. Another maker of the same shape
can be handed to `ensure_engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from realtime_ssd.core.gpu import cuda_version, driver_release, find_gpus
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.onnx.verify import Floats, Heads
from realtime_ssd_engines.requirements import require_gpu
from realtime_ssd_engines.tensorrt import compat as trt_compat
from realtime_ssd_engines.tensorrt import library as trt_library
from realtime_ssd_engines.tensorrt.network import EngineRunner

__all__ = ["Built", "Job", "Machine", "OpenEngine", "Progress", "TensorRT", "Toolchain"]

Progress = Callable[[str], None]
"""Called with a line whenever something long begins or has got further."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine is bound to.

    Attributes:
        gpu: Name of the GPU.
        capability: Compute capability, such as "9.0".
        tensorrt: Version of TensorRT.
        driver: Release of the driver, or the CUDA release it supports where it does not tell.
    """

    gpu: str
    capability: str
    tensorrt: str
    driver: str


@dataclass(frozen=True, slots=True)
class Job:
    """One engine to build.

    Attributes:
        model: ONNX file in the precision wanted.
        spec: Its contract.
        precision: "fp32", "fp16" or "int8".
        batches: Smallest, usual and largest batch; None if the file has a fixed one.
        workspace: Most bytes of scratch memory a layer may use.
        timings: Timing cache of earlier builds; may be empty.
    """

    model: Path
    spec: ModelSpec
    precision: str
    batches: tuple[int, int, int] | None
    workspace: int
    timings: bytes


@dataclass(frozen=True, slots=True)
class Built:
    """A finished engine.

    Attributes:
        plan: The serialised engine.
        timings: Timing cache with those of this build.
    """

    plan: bytes
    timings: bytes


class OpenEngine(Protocol):
    """An engine that can be asked."""

    def __call__(self, tensor: Floats) -> Heads:
        """Run one input: 3 × H × W float32 → P × C scores and P × 4 offsets."""
        ...

    def layers(self) -> str:
        """Describe the layers as the inspector's JSON text."""
        ...

    def times(self, tensor: Floats, rounds: int) -> dict[str, float]:
        """Measure layers by name: mean milliseconds of one image over `rounds` runs."""
        ...

    def __enter__(self) -> OpenEngine: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Toolchain(Protocol):
    """Builds and opens engines."""

    def machine(self) -> Machine:
        """Tell what engines made here are bound to.

        Raises:
            ModelError: If this machine cannot build any; the sentence names what is missing.
        """
        ...

    def build(self, job: Job, say: Progress) -> Built:
        """Build an engine.

        Raises:
            ModelError: If that fails.
        """
        ...

    def open(self, plan: bytes, spec: ModelSpec) -> OpenEngine:
        """Load an engine; use it as a context manager.

        Raises:
            ModelError: If it does not fit this machine or the contract.
        """
        ...


class TensorRT:
    """NVIDIA's TensorRT on the first GPU."""

    def machine(self) -> Machine:
        """See `Toolchain.machine`."""
        require_gpu("build or run TensorRT engines")
        gpu = find_gpus()[0]
        capability = "{}.{}".format(*gpu.capability)
        driver = driver_release() or "CUDA {}.{}".format(*(cuda_version() or (0, 0)))
        return Machine(gpu.name, capability, trt_library.version(), driver)

    def build(self, job: Job, say: Progress) -> Built:
        """See `Toolchain.build`."""
        device = Device()
        try:
            with device:
                return _build(job, say)
        finally:
            device.close()

    def open(self, plan: bytes, spec: ModelSpec) -> OpenEngine:
        """See `Toolchain.open`."""
        return _Opened(plan, spec)


def _build(job: Job, say: Progress) -> Built:
    builder, network, config, messages = trt_compat.builder_parts(job.workspace)
    trt_compat.parse(network, messages, str(job.model))
    trt_compat.set_precision(
        network, config, fp16=job.precision != "fp32", int8=job.precision == "int8"
    )
    if job.batches is not None:
        picture = (3, job.spec.input.height, job.spec.input.width)
        shapes = [(batch, *picture) for batch in job.batches]
        trt_compat.add_profile(builder, config, job.spec.input.name, shapes)
    trt_compat.timing_cache(config, job.timings)
    trt_library.watch(config, _Percent(say))
    plan = trt_compat.serialize(builder, network, config, messages)
    return Built(plan, trt_compat.timing_cache_bytes(config))


class _Percent:
    """Tells how far a build is, every ten per cent."""

    def __init__(self, say: Progress) -> None:
        self._say, self._told = say, 0

    def __call__(self, done: float) -> None:
        tenths = int(done * 10)
        if tenths > self._told:
            self._told = tenths
            self._say(f"  {tenths * 10} % built")


class _Opened:
    """An engine on the GPU with the device it needs."""

    def __init__(self, plan: bytes, spec: ModelSpec) -> None:
        with ExitStack() as stack:
            device = Device()
            stack.callback(device.close)
            self._runner = EngineRunner(device, plan, spec)
            stack.callback(self._runner.close)
            self._stack = stack.pop_all()

    def __call__(self, tensor: Floats) -> Heads:
        return self._runner(tensor)

    def layers(self) -> str:
        return trt_compat.inspect(self._runner.network.engine)

    def times(self, tensor: Floats, rounds: int) -> dict[str, float]:
        return self._runner.layer_times(tensor, rounds)

    def __enter__(self) -> OpenEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
