"""What `realtime-ssd benchmark` measures, in which order, and what follows from it in words."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realtime_ssd.backends import Backend, BackendOptions, best_backend, open_backend
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.files import sha256_of
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.registry import load_plugin
from realtime_ssd.core.results import FrameResult
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd.profiling.machine import describe
from realtime_ssd.profiling.measure import (
    NAMES,
    Loop,
    Subject,
    alone,
    from_file,
    from_memory,
    paced,
)
from realtime_ssd.profiling.rows import Row
from realtime_ssd.sources import Source, open_source

__all__ = ["Plan", "run", "verdict"]

IN_MEMORY = 32
LARGEST_BATCH = 1024
DEVICE_BOUND = 0.75
BUSY = 0.5  # load a core above which other work spoils the figures
PRECISIONS = ("fp32", "fp16", "int8")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        model: ONNX file.
        source: Video file or demo.
        backend: Name of the backend.
        precision: "fp32", "fp16" or "int8"; None for the backend's own: fp16 on TensorRT, the
            model as it is on ONNX Runtime.
        batches: Batch sizes.
        streams: Sources at once.
        rate: Frames a second of the paced run.
        seconds: Time each measurement may take.
    """

    model: Path
    source: str = "demo:1280x720"
    backend: str = "auto"
    precision: str | None = None
    batches: tuple[int, ...] = (1,)
    streams: int = 1
    rate: float = 30.0
    seconds: float = 3.0


def run(plan: Plan, tell: Tell = lambda line: None) -> dict[str, Any]:
    """Measure everything.

    Args:
        plan: What to measure.
        tell: Called with a line before each measurement.

    Returns:
        Plain values ready for JSON: machine, model, settings, rows and a verdict.

    Raises:
        UsageError: If an option does not fit.
        RealtimeSSDError: If model or source cannot be used.
    """
    _check(plan)
    machine = describe()
    _warn_if_busy(machine, tell)
    images, readable = _pictures(plan.source)
    with tempfile.TemporaryDirectory() as place:
        model, options = _prepare(plan, images, Path(place))
        subject = Subject(model, plan.backend, images, plan.seconds, options)
        file = plan.source if readable else _film(images, Path(place))
        rows, loops, backend, spec = _measure(plan, subject, file, tell)
    return {
        "benchmark": "realtime-ssd",
        "machine": machine,
        "model": {
            "name": spec.name,
            "sha256": sha256_of(plan.model),
            "input": [spec.input.width, spec.input.height],
            "boxes": spec.num_boxes,
            "classes": spec.num_classes,
        },
        "backend": backend,
        "precision": plan.precision or ("fp16" if backend == "tensorrt" else "as exported"),
        "source": plan.source,
        "picture": [images[0].shape[1], images[0].shape[0]],
        "streams": plan.streams,
        "seconds": plan.seconds,
        "clocks": {"back to back": loops["memory"].clocks, "paced": loops["paced"].clocks},
        "rows": [row.to_dict() for row in rows],
        "dropped": loops["paced"].dropped,
        "verdict": verdict(backend, rows, loops),
    }


def _measure(
    plan: Plan, subject: Subject, file: str, tell: Tell
) -> tuple[list[Row], dict[str, Loop], str, ModelSpec]:
    """Go through all measurements; the loops of the first batch size by name."""
    rows: list[Row] = []
    loops: dict[str, Loop] = {}
    _open(subject, max(plan.batches)).close()  # a batch that cannot be is told at once
    for batch in plan.batches:
        tell(f"batch {batch}: one after the other")
        with _open(subject, batch) as backend:
            name, spec = backend.name, backend.spec
            rows += alone(backend, subject)
            tell(f"batch {batch}: whole loop from memory")
            loop = from_memory(backend, subject, plan.streams)
            rows.append(loop.row)
            loops.setdefault("memory", loop)
            if batch == plan.batches[0]:
                tell("whole loop from file")
                loops["file"] = from_file(backend, subject, file, plan.streams)
                rows.append(loops["file"].row)
    tell(f"paced at {plan.rate:g} FPS")
    loops["paced"] = paced(subject, plan.rate, plan.streams)
    return [*rows, loops["paced"].row], loops, name, spec


def _open(subject: Subject, batch: int) -> Backend:
    return open_backend(subject.model, subject.backend, replace(subject.options, batch=batch))


def _warn_if_busy(machine: dict[str, Any], tell: Tell) -> None:
    load, cores = machine["load"], machine["cores"]
    if load is not None and load > BUSY * cores:
        tell(
            f"other work keeps this machine busy (load {load:g} on {cores} cores), so the figures "
            "will be too low; measure again when it is quiet"
        )


def _check(plan: Plan) -> None:
    if not plan.batches or min(plan.batches) < 1:
        raise UsageError("--batch needs sizes of at least 1, such as 1,8,32")
    if max(plan.batches) > LARGEST_BATCH:
        raise UsageError(
            f"--batch takes at most {LARGEST_BATCH} frames at once, not {max(plan.batches)}"
        )
    if plan.streams < 1:
        raise UsageError(f"--streams must be at least 1, not {plan.streams}")
    if not 0 < plan.rate <= 1000:
        raise UsageError(f"--paced must lie between 0 and 1000, not {plan.rate:g}")
    if not 0 < plan.seconds <= 3600:
        raise UsageError(f"--duration must lie between 0 and 3600 seconds, not {plan.seconds:g}")
    if plan.precision not in (None, *PRECISIONS):
        choices = ", ".join(PRECISIONS)
        raise UsageError(f"precision '{plan.precision}' is unknown; choose one of {choices}")


def _pictures(source: str) -> tuple[list[Image], bool]:
    """Read the first pictures of a source into memory, and tell whether it is a video to read.

    Photos, the demo and what lasts less than a second are written as a video first.
    """
    with open_source(source) as opened:
        if opened.info.live:
            raise UsageError(f"'{source}' is live; a benchmark needs a file or demo")
        images = _read(opened)
        video = opened.info.path is not None or "://" in source
    if not images:
        raise SourceError(f"'{source}' gave no picture")
    return images, video and len(images) == IN_MEMORY


def _read(source: Source) -> list[Image]:
    images: list[Image] = []
    while len(images) < IN_MEMORY and (frame := source.read()) is not None:
        images.append(frame.image)
    return images


def _film(images: Sequence[Image], place: Path, frames: int = 300) -> str:
    """Write the pictures of the first one's size, forth and back, as a video; give its name."""
    from realtime_ssd.core.detections import Detections
    from realtime_ssd.sinks.video import VideoSink
    from realtime_ssd.sources.base import SourceInfo

    path = place / "pictures.mp4"
    height, width = images[0].shape[:2]
    same = [image for image in images if image.shape == images[0].shape]
    turn = [*same, *reversed(same)]
    with VideoSink(path, SourceInfo("pictures", width, height)) as sink:
        for number in range(frames):
            frame = Frame(turn[number % len(turn)], number, pts=number * 33)
            sink.write(FrameResult(frame, Detections.empty()))
    return str(path)


def _prepare(plan: Plan, images: Sequence[Image], place: Path) -> tuple[Path, BackendOptions]:
    """Convert the model to the precision wanted; TensorRT does it itself."""
    photos = place / "photos"
    if plan.precision == "int8":
        _keep(images, photos)
    if "tensorrt" in (plan.backend, best_backend() if plan.backend == "auto" else ""):
        calibration = photos if plan.precision == "int8" else None
        precision = plan.precision or "fp16"
        return plan.model, BackendOptions(precision=precision, calibration=calibration)
    if plan.precision in (None, "fp32"):
        return plan.model, BackendOptions()
    converted = place / plan.model.name
    load_plugin("precisions", plan.precision)(plan.model, converted, photos)
    return converted, BackendOptions()


def _keep(images: Sequence[Image], place: Path) -> None:
    import cv2

    place.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(place / f"{number:03}.png"), image)


def verdict(backend: str, rows: Sequence[Row], loops: dict[str, Loop]) -> str:
    """Say in words what limits the whole loop from file.

    The network counts with what it takes alone: beside other work on the same cores it takes
    longer without doing more.

    Args:
        backend: Name of the backend.
        rows: All measurements, those of the loops' batch size first.
        loops: The loops "file" and "memory".
    """
    loop, memory = loops["file"], loops["memory"]
    work, device = ("gpu", "GPU") if backend == "tensorrt" else ("network", "processor")
    alone = next(row for row in rows if row.what == NAMES[work])
    places = 1 if backend == "tensorrt" else cpu_count()
    share = min(1.0, alone.value / 1000 / alone.batch * loop.row.value / places)
    lost = max(0.0, 1 - loop.row.value / memory.row.value) if memory.row.value else 0.0
    if share >= DEVICE_BOUND:
        return (
            f"device-bound: the network keeps the {device} busy for {share:.0%} of the time; "
            f"a file costs {lost:.0%} of the rate from memory"
        )
    stages = {name: spent for name, spent in loop.stages.items() if name not in ("network", "gpu")}
    slowest = max(stages, key=lambda name: stages[name])
    return (
        f"host-bound: the network keeps the {device} busy for only {share:.0%} of the time; the "
        f"longest other stage is {slowest} with {stages[slowest] * 1000:.2f} ms a frame, and "
        f"a file costs {lost:.0%} of the rate from memory"
    )
