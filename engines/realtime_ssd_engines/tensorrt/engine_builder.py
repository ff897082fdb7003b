"""Returns the verified engine of an ONNX file: from the cache, or built once."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx

from realtime_ssd.backends import check_batch
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.files import sha256_of
from realtime_ssd.core.frames import Image
from realtime_ssd.core.gpu import driver_release
from realtime_ssd.core.spec import ModelSpec, read_spec, spec_to_json
from realtime_ssd_engines.onnx.integer_graph import check_integers
from realtime_ssd_engines.onnx.precision import to_fp16
from realtime_ssd_engines.onnx.verify import (
    TOLERANCES,
    ComparisonReport,
    compare,
    onnx_runner,
    synthetic_frames,
)
from realtime_ssd_engines.tensorrt.cache import (
    EngineCache,
    EngineKey,
    reference_file,
)
from realtime_ssd_engines.tensorrt.first_load import compare_once
from realtime_ssd_engines.tensorrt.layers import parse_layers
from realtime_ssd_engines.tensorrt.toolchain import (
    BuildRequest,
    LoadedEngine,
    ProgressCallback,
    Target,
    TensorRTToolchain,
    Toolchain,
)

__all__ = ["PRECISIONS", "Engine", "EngineOptions", "engine_key", "get_or_build_engine"]

PRECISIONS = ("fp16", "fp32", "int8")
WORKSPACE = 2 << 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of an engine build.

    Attributes:
        precision: "fp16", "fp32" or "int8".
        batch: Largest number of frames that pass through the network together.
        opt_batch: Batch size to optimize for; the largest by default.
        workspace: Maximum bytes of scratch memory per layer.
        cache: Folder of engines; the user's cache by default.
        timing_cache: Timing cache file; one in the engine folder by default.
        calibration: Folder of images for INT8.
        verify: Whether to compare the engine with ONNX Runtime before it is cached.
        rebuild: Whether to build even if the engine is in the cache.
    """

    precision: str = "fp16"
    batch: int = 1
    opt_batch: int | None = None
    workspace: int = WORKSPACE
    cache: Path | None = None
    timing_cache: Path | None = None
    calibration: Path | None = None
    verify: bool = True
    rebuild: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"`precision` must be one of {', '.join(PRECISIONS)}, not '{self.precision}'"
            )
        opt_batch = self.batch if self.opt_batch is None else self.opt_batch
        if self.batch < 1:
            raise UsageError(f"`batch` must be at least 1, not {self.batch}")
        if not 1 <= opt_batch <= self.batch:
            raise UsageError(
                f"`opt_batch` must be between 1 and {self.batch}, the largest batch, "
                f"not {opt_batch}"
            )
        if self.precision == "int8" and self.calibration is None:
            raise UsageError(
                "precision int8 requires images similar to those seen in production; set "
                "`calibration` to a folder of images"
            )
        if self.calibration is not None and not self.calibration.is_dir():
            raise UsageError(f"'{self.calibration}' is not a folder of calibration images")


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is ready to be loaded.

    Attributes:
        plan: Serialized engine.
        key: What the engine was built for.
        path: Cached file.
        metadata: Source file, specification, build time and comparison report.
        reference: ONNX file to compare the engine with when it is first loaded; None if that was
            done during the build.
    """

    plan: bytes
    key: EngineKey
    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    reference: Path | None = None


def get_or_build_engine(
    model: Path,
    spec: ModelSpec,
    options: EngineOptions,
    progress: ProgressCallback | None = None,
    frames: Sequence[Image] | None = None,
    toolchain: Toolchain | None = None,
) -> Engine:
    """Return the engine of a model, from the cache or newly built.

    Args:
        model: ONNX file.
        spec: Specification of the model.
        options: Build options.
        progress: Called with a line of text when a long step starts.
        frames: BGR images for the comparison; the synthetic street by default.
        toolchain: Builds the engine; TensorRT by default.

    Raises:
        UsageError: If the model has a fixed batch and a larger one is requested.
        ModelError: If there is no GPU, TensorRT fails, the engine disagrees with the ONNX file, or
            the cache is not writable.
    """
    toolchain = toolchain or TensorRTToolchain()
    cache = EngineCache(options.cache)
    graph = _read_graph(model)
    fixed_batch = _has_fixed_batch(graph, model, spec, options)
    check_integers(graph, str(model), options.precision)
    key = engine_key(model, spec, options, toolchain.target())
    report = progress or _log.info

    def from_cache(*, warn: bool) -> Engine | None:
        entry = None if options.rebuild else cache.find(key, warn=warn)
        if entry is None:
            return None
        if options.verify and toolchain.can_run():
            compare_once(entry, spec, toolchain, report, model, frames)
        return _engine(key, entry.path, entry.path.read_bytes(), entry.metadata)

    if engine := from_cache(warn=True):
        return engine
    with cache.locked(key):
        if engine := from_cache(warn=False):
            return engine
        build = _EngineBuild(model, spec, options, toolchain, cache, key, report)
        plan, metadata, reference = build.run(frames, fixed_batch=fixed_batch)
        path = cache.write(key, plan, metadata, reference=reference)
        return _engine(key, path, plan, metadata)


def _engine(key: EngineKey, path: Path, plan: bytes, metadata: dict[str, Any]) -> Engine:
    reference = reference_file(path)
    return Engine(plan, key, path, metadata, reference if reference.is_file() else None)


def _read_graph(model: Path) -> onnx.GraphProto:
    """Read the graph of an ONNX file without its external weights.

    Raises:
        ModelError: If the file is damaged.
    """
    try:
        return onnx.load(str(model), load_external_data=False).graph
    except Exception as error:
        raise ModelError(f"'{model}' is not a readable ONNX file; it may be damaged") from error


def _has_fixed_batch(
    graph: onnx.GraphProto, model: Path, spec: ModelSpec, options: EngineOptions
) -> bool:
    """Return whether the file accepts one image at a time only.

    Raises:
        ModelError: If the file lacks the input.
        UsageError: If a larger batch is requested than the file accepts.
    """
    value = next((item for item in graph.input if item.name == spec.input.name), None)
    if value is None:
        raise ModelError(
            f"'{model}' has no input '{spec.input.name}', which its specification requires; "
            "import it again"
        )
    shape = [
        item.dim_value if item.HasField("dim_value") else None
        for item in value.type.tensor_type.shape.dim
    ]
    check_batch(shape, model, options.batch)
    return bool(shape and shape[0])


def engine_key(model: Path, spec: ModelSpec, options: EngineOptions, target: Target) -> EngineKey:
    """Return the cache key of an engine."""
    return EngineKey(
        model=spec.name,
        model_sha256=sha256_of(model),
        precision=options.precision,
        max_batch=options.batch,
        opt_batch=options.opt_batch or options.batch,
        calibration=_fingerprint(options.calibration) if options.precision == "int8" else "",
        **asdict(target),
    )


def _fingerprint(folder: Path | None) -> str:
    """Return a digest of the names and sizes of the files in a folder."""
    files = sorted(filter(Path.is_file, folder.iterdir())) if folder is not None else []
    text = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _profiles(opt_batch: int, max_batch: int) -> tuple[tuple[int, int, int], ...]:
    """Return optimization profiles for single images and, if needed, for larger batches."""
    single = (1, 1, 1)
    return (single,) if max_batch == 1 else (single, (1, opt_batch, max_batch))


@dataclass(frozen=True, slots=True)
class _EngineBuild:
    """Converts the model, builds the engine and verifies it."""

    model: Path
    spec: ModelSpec
    options: EngineOptions
    toolchain: Toolchain
    cache: EngineCache
    key: EngineKey
    progress: ProgressCallback

    def run(
        self, frames: Sequence[Image] | None, *, fixed_batch: bool
    ) -> tuple[bytes, dict[str, Any], bytes | None]:
        """Return the serialized engine, its metadata, and the ONNX file for a later comparison."""
        options, key = self.options, self.key
        timing_file = options.timing_cache or self.cache.timing_cache(key)
        timing_cache = timing_file.read_bytes() if timing_file.is_file() else b""
        profiles = () if fixed_batch else _profiles(key.opt_batch, key.max_batch)
        with tempfile.TemporaryDirectory() as folder:
            converted = self._convert(Path(folder))
            self.progress(
                f"building the {key.precision} engine of '{key.model}' for {key.gpu}; this is done "
                "once and can take minutes"
            )
            request = BuildRequest(
                converted, self.spec, key.precision, profiles, options.workspace, timing_cache
            )
            begin = time.monotonic()
            result = self.toolchain.build(request, self.progress)
            metadata: dict[str, Any] = {
                "source": str(self.model.resolve()),
                "spec": json.loads(spec_to_json(read_spec(self.model, trust_model=True))),
                "build_seconds": round(time.monotonic() - begin, 1),
                "dynamic_batch": not fixed_batch,
                "driver": driver_release(),
            }
            if result.timing_cache:
                self.cache.write_file(timing_file, result.timing_cache)
            reference = converted if key.precision == "int8" else self.model
            if options.verify and self.toolchain.can_run():
                self.progress("comparing it with ONNX Runtime")
                report = self._verify(result.plan, reference, frames)
                metadata["agreement"] = report.to_dict()
                metadata["compared_on"] = self.toolchain.gpu_name()
                return result.plan, metadata, None
            if options.verify:
                self.progress(
                    "the engine is for another machine and is compared with ONNX Runtime when it "
                    "is first loaded there"
                )
            return result.plan, metadata, reference.read_bytes()

    def _convert(self, folder: Path) -> Path:
        """Write the model in the requested precision, under the same name for error messages."""
        converted = folder / self.model.name
        if self.options.precision == "fp32":
            return self.model
        if self.options.precision == "int8":
            from realtime_ssd_engines.onnx.quantize import quantize

            quantize(self.model, converted, self.options.calibration or Path())
        else:
            onnx.save(to_fp16(onnx.load(str(self.model)), keep_io=False), str(converted))
        return converted

    def _verify(
        self, plan: bytes, reference: Path, frames: Sequence[Image] | None
    ) -> ComparisonReport:
        """Compare the engine with ONNX Runtime.

        Raises:
            ModelError: If they disagree; a report with the engine's layers is written to the cache.
        """
        images = synthetic_frames() if frames is None else frames
        precision = self.options.precision
        with self.toolchain.load(plan, self.spec) as engine:
            run = onnx_runner(reference, self.spec)
            report = compare(run, engine, self.spec, images, TOLERANCES[precision])
            if report.passed:
                return report
            report_file = self._write_report(report, engine)
        raise ModelError(
            f"the {precision} engine of '{self.spec.name}' disagrees with its ONNX file and is not "
            f"used: {report.summary()}; its layers are listed in '{report_file}'; build "
            "it in fp32 with 'realtime-ssd build'"
        )

    def _write_report(self, report: ComparisonReport, engine: LoadedEngine) -> Path:
        path = self.cache.path(self.key).with_suffix(".refused.json")
        layers = [asdict(layer) for layer in parse_layers(engine.layers())]
        path.write_text(json.dumps({"agreement": report.to_dict(), "layers": layers}, indent=1))
        return path
