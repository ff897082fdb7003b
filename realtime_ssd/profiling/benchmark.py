"""What `realtime-ssd benchmark` measures, in which order, and what limits the speed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realtime_ssd.backends import Backend, BackendOptions, default_precision, open_backend
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import SourceError, UsageError, redact
from realtime_ssd.core.files import sha256_of
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.registry import load_plugin, plugins
from realtime_ssd.core.results import FrameResult
from realtime_ssd.core.spec import ModelSpec, read_spec
from realtime_ssd.profiling.machine import describe_machine
from realtime_ssd.profiling.measurements import Measurement
from realtime_ssd.profiling.runs import (
    STAGE_NAMES,
    Case,
    PipelineRun,
    run_from_file,
    run_from_memory,
    run_paced,
    time_batches,
)
from realtime_ssd.sources import Source, SourceInfo, open_source

__all__ = ["BenchmarkOptions", "bottleneck", "run"]

IMAGES_IN_MEMORY = 32
MAX_BATCH = 1024
DEVICE_BOUND = 0.75
"""Utilization of the device from which on the pipeline counts as limited by it."""

BUSY_LOAD = 0.5
"""Load per core above which other work distorts the figures."""

PRECISIONS = ("fp32", "fp16", "int8")

Report = Callable[[str], None]


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure.

    Attributes:
        model: ONNX file.
        source: Video file, photos or demo.
        backend: Name of the backend.
        precision: "fp32", "fp16" or "int8"; None for the backend's own: fp16 on TensorRT, the
            model as it is on ONNX Runtime.
        batch: Batch sizes.
        streams: Number of sources.
        paced: Frames per second of the paced run.
        duration: Seconds each measurement may take.
        trust_model: Whether to run a graph with operators or sizes that SSDs do not need.
        device: Number of the GPU, from 0; the first one by default.
    """

    model: Path
    source: str = "demo:1280x720"
    backend: str = "auto"
    precision: str | None = None
    batch: tuple[int, ...] = (1,)
    streams: int = 1
    paced: float = 30.0
    duration: float = 3.0
    trust_model: bool = False
    device: int | None = None


def run(options: BenchmarkOptions, report: Report = lambda line: None) -> dict[str, Any]:
    """Run all measurements.

    Args:
        options: What to measure.
        report: Called with a line before each measurement.

    Returns:
        Plain values for JSON: machine, model, settings, rows and a verdict.

    Raises:
        UsageError: If an option does not fit.
        RealtimeSSDError: If model or source cannot be used.
    """
    _check(options)
    machine = describe_machine()
    _warn_if_busy(machine, report)
    images, is_video = _read_images(options.source)
    with tempfile.TemporaryDirectory() as folder:
        model, backend_options = _prepare_model(options, images, Path(folder))
        case = Case(model, options.backend, images, options.duration, backend_options)
        file = options.source if is_video else _write_video(images, Path(folder))
        rows, runs, backend, spec = _measure(options, case, file, report)
    return {
        "benchmark": "realtime-ssd",
        "machine": machine,
        "model": {
            "name": spec.name,
            "sha256": sha256_of(options.model),
            "input": [spec.input.width, spec.input.height],
            "boxes": spec.num_boxes,
            "classes": spec.num_classes,
        },
        "backend": backend,
        "precision": options.precision or default_precision(backend) or "as exported",
        "source": redact(options.source),
        "picture": [images[0].shape[1], images[0].shape[0]],
        "streams": options.streams,
        "seconds": options.duration,
        "clocks": {"back to back": runs["memory"].clocks, "paced": runs["paced"].clocks},
        "rows": [row.to_dict() for row in rows],
        "dropped": runs["paced"].dropped,
        "verdict": bottleneck(rows, runs),
    }


def _measure(
    options: BenchmarkOptions, case: Case, file: str, report: Report
) -> tuple[list[Measurement], dict[str, PipelineRun], str, ModelSpec]:
    """Return all measurements, and the pipeline runs of the first batch size by name."""
    rows: list[Measurement] = []
    runs: dict[str, PipelineRun] = {}
    _open(case, max(options.batch)).close()  # an impossible batch size fails before any work
    for batch in options.batch:
        report(f"batch {batch}: one batch at a time")
        with _open(case, batch) as backend:
            name, spec = backend.name, backend.spec
            rows += time_batches(backend, case)
            report(f"batch {batch}: whole pipeline from memory")
            from_memory = run_from_memory(backend, case, options.streams)
            rows.append(from_memory.measurement)
            runs.setdefault("memory", from_memory)
            if batch == options.batch[0]:
                report("whole pipeline from file")
                runs["file"] = run_from_file(backend, case, file, options.streams)
                rows.append(runs["file"].measurement)
    report(f"paced at {options.paced:g} FPS")
    runs["paced"] = run_paced(case, options.paced, options.streams)
    return [*rows, runs["paced"].measurement], runs, name, spec


def _open(case: Case, batch: int) -> Backend:
    return open_backend(case.model, case.backend, replace(case.options, batch=batch))


def _warn_if_busy(machine: Mapping[str, Any], report: Report) -> None:
    load, cores = machine["load"], machine["cores"]
    if load is not None and load > BUSY_LOAD * cores:
        report(
            f"other programs keep this machine busy (load {load:g} on {cores} cores), so the "
            "figures will be too low; measure again when it is idle"
        )


def _check(options: BenchmarkOptions) -> None:
    if not options.batch or min(options.batch) < 1:
        raise UsageError("`batch` must be sizes of at least 1, such as 1,8,32")
    if max(options.batch) > MAX_BATCH:
        raise UsageError(f"`batch` must be at most {MAX_BATCH}, not {max(options.batch)}")
    if options.streams < 1:
        raise UsageError(f"`streams` must be at least 1, not {options.streams}")
    if not 0 < options.paced <= 1000:
        raise UsageError(f"`paced` must be above 0 and at most 1000, not {options.paced:g}")
    if not 0 < options.duration <= 3600:
        raise UsageError(
            f"`duration` must be above 0 and at most 3600 seconds, not {options.duration:g}"
        )
    if options.precision not in (None, *PRECISIONS):
        choices = ", ".join(PRECISIONS)
        raise UsageError(f"precision '{options.precision}' is unknown; choose one of {choices}")


def _read_images(source: str) -> tuple[list[Image], bool]:
    """Read the first images of a source into memory.

    Returns:
        The images, and whether the source is a video long enough to be read again from its file;
        photos, the demo and shorter videos are written as a video first.
    """
    with open_source(source) as opened:
        if opened.info.live:
            raise UsageError(f"'{source}' is live; a benchmark needs a file or demo")
        images = _first_images(opened)
        is_video = opened.info.path is not None or "://" in source
    if not images:
        raise SourceError(f"'{source}' contains no image")
    return images, is_video and len(images) == IMAGES_IN_MEMORY


def _first_images(source: Source) -> list[Image]:
    images: list[Image] = []
    while len(images) < IMAGES_IN_MEMORY and (frame := source.read()) is not None:
        images.append(frame.image)
    return images


def _write_video(images: Sequence[Image], folder: Path, frames: int = 300) -> str:
    """Write the images that have the first one's size, forwards and backwards, as a video."""
    from realtime_ssd.sinks.video import VideoSink

    path = folder / "images.mp4"
    height, width = images[0].shape[:2]
    same_size = [image for image in images if image.shape == images[0].shape]
    cycle = [*same_size, *reversed(same_size)]
    with VideoSink(path, SourceInfo("images", width, height)) as sink:
        for number in range(frames):
            frame = Frame(cycle[number % len(cycle)], number, pts=number * 33)
            sink.write(FrameResult(frame, Detections.empty()))
    return str(path)


def _prepare_model(
    options: BenchmarkOptions, images: Sequence[Image], folder: Path
) -> tuple[Path, BackendOptions]:
    """Convert the model to the requested precision, unless the backend does."""
    photos = folder / "photos"
    plain = BackendOptions(trust_model=options.trust_model, device=options.device)
    if options.precision == "int8":
        _write_photos(images, photos)
    if built := default_precision(options.backend):
        calibration = photos if options.precision == "int8" else None
        precision = options.precision or built
        return options.model, replace(plain, precision=precision, calibration=calibration)
    if options.precision in (None, "fp32"):
        return options.model, plain
    if options.precision not in plugins("precisions"):
        raise UsageError(f"no installed package converts models to '{options.precision}'")
    read_spec(options.model, trust_model=options.trust_model)  # before the conversion reads it
    converted = folder / options.model.name
    load_plugin("precisions", options.precision)(options.model, converted, photos)
    return converted, plain


def _write_photos(images: Sequence[Image], folder: Path) -> None:
    import cv2

    folder.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number:03}.png"), image)


def bottleneck(rows: Sequence[Measurement], runs: Mapping[str, PipelineRun]) -> str:
    """Return one sentence on what limits the whole pipeline from a file.

    The network counts with the time it takes alone: while other work runs on the same cores, it
    takes longer without doing more.

    Args:
        rows: All measurements, those of the pipeline runs' batch size first.
        runs: The runs "file" and "memory".
    """
    from_file, from_memory = runs["file"].measurement, runs["memory"].measurement
    alone = {row.what: row for row in reversed(rows)}
    on_gpu = STAGE_NAMES["gpu"] in alone
    device, parallel = ("GPU", 1) if on_gpu else ("processor", cpu_count())
    network = alone[STAGE_NAMES["gpu" if on_gpu else "network"]]
    utilization = min(1.0, network.value / 1000 / network.batch * from_file.value / parallel)
    cost = max(0.0, 1 - from_file.value / from_memory.value) if from_memory.value else 0.0
    file_cost = f"reading a file costs {cost:.0%} of the rate from memory"
    if utilization >= DEVICE_BOUND:
        return (
            f"device-bound: the network keeps the {device} busy for {utilization:.0%} of the "
            f"time; {file_cost}"
        )
    others = {k: v for k, v in runs["file"].stages.items() if k not in ("network", "gpu")}
    slowest = max(others, key=lambda name: others[name])
    return (
        f"host-bound: the network keeps the {device} busy for only {utilization:.0%} of the time; "
        f"the longest other stage is {slowest} with {others[slowest] * 1000:.2f} ms per frame, "
        f"and {file_cost}"
    )
