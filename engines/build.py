"""ONNX file in, verified engine out: from the cache where it is there, else built once."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from engines import trt_compat
from engines.cache import EngineCache, EngineKey, sha256_of
from engines.network import EngineRunner
from engines.precision import to_fp16
from engines.verify import Agreement, compare, onnx_runner, require, sample_frames
from realtime_ssd.cuda.driver import Device
from realtime_ssd.cuda.probe import Gpu, driver_release, find_gpus
from realtime_ssd.errors import ModelError, UsageError
from realtime_ssd.frames import Image
from realtime_ssd.spec import ModelSpec

__all__ = ["PRECISIONS", "EngineOptions", "build_plan", "ensure_engine", "key_of", "prepared"]

PRECISIONS = ("fp16", "fp32", "int8")
WORKSPACE = 2 << 30
Progress = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine is built.

    Attributes:
        precision: "fp16", "fp32" or "int8".
        max_batch: Largest batch.
        opt_batch: Batch it is tuned for; the largest if None.
        workspace: Most bytes of scratch memory a layer may use.
        cache: Folder of engines; the user's own cache if None.
        timing_cache: File with timings of earlier builds; beside the engines if None.
        calibration: Folder of images for INT8.
        verify: Whether it is compared with ONNX Runtime before it is kept.
    """

    precision: str = "fp16"
    max_batch: int = 1
    opt_batch: int | None = None
    workspace: int = WORKSPACE
    cache: Path | None = None
    timing_cache: Path | None = None
    calibration: Path | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"precision '{self.precision}' does not exist; choose {', '.join(PRECISIONS)}"
            )
        if self.max_batch < 1 or not 1 <= (self.opt_batch or 1) <= self.max_batch:
            raise UsageError(
                f"batches must be 1 ≤ opt-batch ≤ max-batch, not {self.opt_batch} and "
                f"{self.max_batch}"
            )
        if self.precision == "int8" and self.calibration is None:
            raise UsageError(
                "precision int8 needs photos like those it will see; give --calibration FOLDER"
            )


def ensure_engine(
    model: Path, spec: ModelSpec, options: EngineOptions, progress: Progress | None = None
) -> bytes:
    """Give the engine of a model, from the cache or built now.

    Args:
        model: ONNX file.
        spec: Its contract.
        options: How to build it.
        progress: Called with a line whenever something long begins.

    Returns:
        The serialised engine.

    Raises:
        ModelError: If there is no GPU, TensorRT fails, the engine does not agree with the ONNX
            file, or the cache cannot be written.
    """
    say = progress or _log.info
    gpu = _first_gpu()
    cache = EngineCache(options.cache)
    key = key_of(model, spec, options, gpu)
    with cache.locked(key):
        if (plan := cache.read(key)) is not None:
            return plan
        say(f"building the {options.precision} engine of '{spec.name}' for {gpu.name}, once")
        begun = time.monotonic()
        plan, timings = build_plan(prepared(model, spec, options), spec, options, cache)
        facts: dict[str, object] = {"build_seconds": round(time.monotonic() - begun, 1)}
        if options.verify:
            say("comparing it with ONNX Runtime")
            found = verify_plan(plan, model, spec, sample_frames())
            require(found, spec.name, options.precision)
            facts["agreement"] = found.to_dict()
        cache.write(key, plan, facts)
        if options.timing_cache is None:
            cache.write_timing(timings)
        return plan


def _first_gpu() -> Gpu:
    gpus = find_gpus()
    if not gpus:
        raise ModelError(
            "building an engine needs an NVIDIA GPU and its driver, and none is found here; use "
            "--backend onnxruntime on this machine"
        )
    return gpus[0]


def key_of(model: Path, spec: ModelSpec, options: EngineOptions, gpu: Gpu) -> EngineKey:
    """Name everything that an engine depends on."""
    return EngineKey(
        model=spec.name,
        model_sha256=sha256_of(model),
        precision=options.precision,
        max_batch=options.max_batch,
        opt_batch=options.opt_batch or options.max_batch,
        gpu=gpu.name,
        capability="{}.{}".format(*gpu.capability),
        tensorrt=trt_compat.version(),
        driver=driver_release(),
        calibration=_fingerprint(options.calibration) if options.precision == "int8" else "",
    )


def _fingerprint(folder: Path | None) -> str:
    """Stand for the images of a folder: names and sizes."""
    files = sorted(folder.iterdir()) if folder is not None and folder.is_dir() else []
    text = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prepared(model: Path, spec: ModelSpec, options: EngineOptions) -> bytes:
    """Give the ONNX model in the precision wanted, serialised.

    Raises:
        ModelError: If the model cannot be converted.
        UsageError: If the calibration folder has no images.
    """
    if options.precision == "fp32":
        return model.read_bytes()
    if options.precision == "int8":
        from engines.quantize import quantize

        with tempfile.TemporaryDirectory() as place:
            made = Path(place) / "int8.onnx"
            quantize(model, made, options.calibration or Path())
            return made.read_bytes()
    return bytes(to_fp16(onnx.load(str(model)), keep_io=False).SerializeToString())


def build_plan(
    model: bytes, spec: ModelSpec, options: EngineOptions, cache: EngineCache
) -> tuple[bytes, bytes]:
    """Let TensorRT build an engine.

    Args:
        model: Serialised ONNX model in the precision wanted.
        spec: Its contract.
        options: Batches and memory.
        cache: Where timings of earlier builds lie.

    Returns:
        The engine, and the timings of this build.

    Raises:
        ModelError: If TensorRT fails.
    """
    builder, network, config, messages = trt_compat.builder_parts(options.workspace)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / f"{spec.name.replace('/', '-')}.onnx"
        file.write_bytes(model)
        trt_compat.parse(network, messages, str(file))
    trt_compat.set_precision(
        config, fp16=options.precision != "fp32", int8=options.precision == "int8"
    )
    profile = builder.create_optimization_profile()
    picture, most = (3, spec.input.height, spec.input.width), options.max_batch
    sizes = [(batch, *picture) for batch in (1, options.opt_batch or most, most)]
    profile.set_shape(spec.input.name, *sizes)
    config.add_optimization_profile(profile)
    own = options.timing_cache
    known = own.read_bytes() if own and own.is_file() else cache.read_timing()
    trt_compat.timing_cache(config, known)
    plan = trt_compat.serialize(builder, network, config, messages)
    timings = trt_compat.timing_cache_bytes(config)
    if own is not None:
        own.write_bytes(timings)
    return plan, timings


def verify_plan(plan: bytes, model: Path, spec: ModelSpec, frames: list[Image]) -> Agreement:
    """Compare an engine with its ONNX file on the GPU of this machine."""
    device = Device()
    try:
        runner = EngineRunner(device, plan, spec)
        try:
            return compare(onnx_runner(model, spec), runner, spec, frames)
        finally:
            runner.close()
    finally:
        device.close()
