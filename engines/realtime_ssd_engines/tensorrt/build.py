"""ONNX file in, verified engine out: from the cache where it is there, else built once."""

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
from realtime_ssd.core.spec import ModelSpec, read_spec, spec_to_json
from realtime_ssd_engines.onnx.precision import to_fp16
from realtime_ssd_engines.onnx.verify import Agreement, Gate, compare, onnx_runner, sample_frames
from realtime_ssd_engines.tensorrt.cache import EngineCache, EngineKey
from realtime_ssd_engines.tensorrt.layers import read_layers
from realtime_ssd_engines.tensorrt.toolchain import (
    Job,
    Machine,
    OpenEngine,
    Progress,
    TensorRT,
    Toolchain,
)

__all__ = ["PRECISIONS", "Engine", "EngineOptions", "ensure_engine", "key_of", "obtain"]

PRECISIONS = ("fp16", "fp32", "int8")
WORKSPACE = 2 << 30
GATES = {"fp32": Gate(), "fp16": Gate(), "int8": Gate(share=0.95, iou=0.9, score=0.05)}
"""INT8 is held to its own Q/DQ file: where one value rounds the other way, the step is larger."""

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
        rebuild: Whether it is built even if it is in the cache.
    """

    precision: str = "fp16"
    max_batch: int = 1
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
                f"precision '{self.precision}' does not exist; choose {', '.join(PRECISIONS)}"
            )
        usual = self.max_batch if self.opt_batch is None else self.opt_batch
        if not 1 <= usual <= self.max_batch:
            raise UsageError(
                f"batches must be 1 ≤ opt-batch ≤ max-batch, not {usual} and {self.max_batch}"
            )
        if self.precision == "int8" and self.calibration is None:
            raise UsageError(
                "precision int8 needs photos like those it will see; give --calibration FOLDER"
            )
        if self.calibration is not None and not self.calibration.is_dir():
            raise UsageError(f"'{self.calibration}' is no folder of photos to calibrate INT8 on")


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is ready.

    Attributes:
        plan: The serialised engine.
        key: What it is for.
        path: Where it is kept.
        facts: Build time, agreement with ONNX Runtime, file it was made from; empty if it came
            from the cache.
    """

    plan: bytes
    key: EngineKey
    path: Path
    facts: dict[str, Any] = field(default_factory=dict)


def ensure_engine(
    model: Path, spec: ModelSpec, options: EngineOptions, progress: Progress | None = None
) -> bytes:
    """Give the engine of a model as bytes; see `obtain`."""
    return obtain(model, spec, options, progress).plan


def obtain(
    model: Path,
    spec: ModelSpec,
    options: EngineOptions,
    progress: Progress | None = None,
    frames: Sequence[Image] | None = None,
    toolchain: Toolchain | None = None,
) -> Engine:
    """Give the engine of a model, from the cache or built now.

    Args:
        model: ONNX file.
        spec: Its contract.
        options: How to build it.
        progress: Called with a line whenever something long begins.
        frames: BGR images on which it is verified; the built-in street if None.
        toolchain: What builds it; TensorRT if None.

    Raises:
        UsageError: If the model's batch is fixed and a larger one is asked for.
        ModelError: If there is no GPU, TensorRT fails, the engine does not agree with the ONNX
            file, or the cache cannot be written.
    """
    tools = toolchain or TensorRT()
    cache = EngineCache(options.cache)
    fixed = _fixed_batch(model, spec, options)
    key = key_of(model, spec, options, tools.machine())
    path = cache.path(key)
    if not options.rebuild and (plan := cache.read(key)) is not None:
        return Engine(plan, key, path)
    with cache.locked(key):
        if not options.rebuild and (plan := cache.read(key, warn=False)) is not None:
            return Engine(plan, key, path)
        work = _Work(model, spec, options, tools, progress or _log.info)
        plan, facts = work.run(cache, key, frames, fixed=fixed)
        return Engine(plan, key, cache.write(key, plan, facts), facts)


def _fixed_batch(model: Path, spec: ModelSpec, options: EngineOptions) -> bool:
    """Tell whether the file allows one image at a time only.

    Raises:
        ModelError: If the file is damaged or has no such input.
        UsageError: If more than it allows is asked for.
    """
    try:
        inputs = onnx.load(str(model), load_external_data=False).graph.input
        value = next(item for item in inputs if item.name == spec.input.name)
    except StopIteration:
        raise ModelError(
            f"'{model}' has no input '{spec.input.name}', which its specification names; "
            "import it again"
        ) from None
    except Exception as error:
        raise ModelError(f"'{model}' is not a readable ONNX file: it may be damaged") from error
    size = [
        item.dim_value if item.HasField("dim_value") else None
        for item in value.type.tensor_type.shape.dim
    ]
    check_batch(size, model, options.max_batch, "max_batch")
    return bool(size and size[0])


def key_of(model: Path, spec: ModelSpec, options: EngineOptions, machine: Machine) -> EngineKey:
    """Name everything that an engine depends on."""
    return EngineKey(
        model=spec.name,
        model_sha256=sha256_of(model),
        precision=options.precision,
        max_batch=options.max_batch,
        opt_batch=options.opt_batch or options.max_batch,
        calibration=_fingerprint(options.calibration) if options.precision == "int8" else "",
        **asdict(machine),
    )


def _fingerprint(folder: Path | None) -> str:
    """Stand for the images of a folder: names and sizes."""
    files = sorted(filter(Path.is_file, folder.iterdir())) if folder is not None else []
    text = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Work:
    """Convert, build, verify: what one engine takes."""

    model: Path
    spec: ModelSpec
    options: EngineOptions
    tools: Toolchain
    say: Progress

    def run(
        self, cache: EngineCache, key: EngineKey, frames: Sequence[Image] | None, *, fixed: bool
    ) -> tuple[bytes, dict[str, Any]]:
        """Give the engine, and what is worth knowing about it."""
        own = self.options.timing_cache
        timing = own or cache.timing_cache(key)
        with tempfile.TemporaryDirectory() as place:
            converted = self._convert(Path(place))
            self.say(
                f"building the {key.precision} engine of '{key.model}' for {key.gpu}, once; "
                "this can take minutes"
            )
            most = self.options.max_batch
            batches = None if fixed else (1, self.options.opt_batch or most, most)
            known = timing.read_bytes() if timing.is_file() else b""
            workspace = self.options.workspace
            job = Job(converted, self.spec, key.precision, batches, workspace, known)
            begun = time.monotonic()
            built = self.tools.build(job, self.say)
            facts: dict[str, Any] = {
                "source": str(self.model.resolve()),
                "spec": json.loads(spec_to_json(read_spec(self.model))),
                "build_seconds": round(time.monotonic() - begun, 1),
                "dynamic_batch": not fixed,
            }
            cache.write_file(timing, built.timings)
            if self.options.verify:
                self.say("comparing it with ONNX Runtime")
                reference = converted if key.precision == "int8" else self.model
                found = self._verify(built.plan, reference, frames, cache.path(key))
                facts["agreement"] = found.to_dict()
        return built.plan, facts

    def _convert(self, folder: Path) -> Path:
        """Write the model in the precision wanted; the file keeps the model's name for messages."""
        made = folder / self.model.name
        if self.options.precision == "fp32":
            return self.model
        if self.options.precision == "int8":
            from realtime_ssd_engines.onnx.quantize import quantize

            quantize(self.model, made, self.options.calibration or Path())
        else:
            onnx.save(to_fp16(onnx.load(str(self.model)), keep_io=False), str(made))
        return made

    def _verify(
        self, plan: bytes, reference: Path, frames: Sequence[Image] | None, path: Path
    ) -> Agreement:
        """Compare the engine with ONNX Runtime.

        Raises:
            ModelError: If they do not agree; a report of the layers is left beside the cache.
        """
        images = sample_frames() if frames is None else frames
        with self.tools.open(plan, self.spec) as engine:
            run = onnx_runner(reference, self.spec)
            found = compare(run, engine, self.spec, images, GATES[self.options.precision])
            if found.passed:
                return found
            report = _write_report(path, found, engine)
        raise ModelError(
            f"the {self.options.precision} engine of '{self.spec.name}' does not give what its "
            f"ONNX file gives: {found.sentence()}; it is not used, its layers are listed in "
            f"'{report}'; build it with --precision fp32"
        )


def _write_report(path: Path, found: Agreement, engine: OpenEngine) -> Path:
    report = path.with_suffix(".refused.json")
    layers = [asdict(layer) for layer in read_layers(engine.layers())]
    report.write_text(json.dumps({"agreement": found.to_dict(), "layers": layers}, indent=1))
    return report
