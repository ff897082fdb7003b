"""The measured runs: batches one at a time, and the whole pipeline from memory, file and paced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.profiling.machine import current_clocks
from realtime_ssd.profiling.measurements import REPEATS, Measurement, from_latencies, from_rates
from realtime_ssd.profiling.memory_sources import MemorySource, RenamedSource
from realtime_ssd.sources import Source, open_source

__all__ = [
    "STAGE_NAMES",
    "Case",
    "PipelineRun",
    "run_from_file",
    "run_from_memory",
    "run_paced",
    "time_batches",
]

WARM_UP = 5
MIN_SAMPLES = 2 * REPEATS
STAGE_NAMES = {
    "preprocess": "pre-processing",
    "network": "network",
    "postprocess": "decode + NMS",
    "detect": "decode + NMS",
    "gpu": "whole batch on the GPU",
}


@runtime_checkable
class _TimesStages(Protocol):
    """A backend that runs all stages in one launch and can time them separately."""

    def stage_seconds(self, frames: Sequence[Frame]) -> dict[str, float]: ...


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        model: ONNX file.
        backend: Name of the backend.
        images: Images to feed.
        seconds: Time each measurement may take.
        options: Further options of the backend.
    """

    model: Path
    backend: str
    images: Sequence[Image]
    seconds: float
    options: BackendOptions = field(default_factory=BackendOptions)


@dataclass(frozen=True)
class PipelineRun:
    """Runs of the whole pipeline.

    Attributes:
        measurement: Rate and latencies.
        dropped: Frames replaced by newer ones.
        stages: Mean seconds per frame of each stage.
        clocks: Clocks of processor and GPUs at the end.
    """

    measurement: Measurement
    dropped: int
    stages: dict[str, float]
    clocks: dict[str, Any]


def time_batches(backend: Backend, case: Case) -> list[Measurement]:
    """Time batches one at a time, each collected before the next, by stage and as a whole."""
    size = backend.max_batch
    stages: dict[str, list[float]] = {}
    latencies: list[float] = []
    for count, frames in enumerate(_endless_batches(case.images, size)):
        started = time.perf_counter()
        batch = backend.submit(frames)
        backend.collect(batch)
        seconds = time.perf_counter() - started
        if count < WARM_UP:
            deadline = time.perf_counter() + case.seconds
            continue
        latencies.append(seconds)
        separate = backend.stage_seconds(frames) if isinstance(backend, _TimesStages) else {}
        for stage, spent in {**separate, **batch.timings}.items():
            stages.setdefault(stage, []).append(spent)
        if time.perf_counter() > deadline and len(latencies) >= MIN_SAMPLES:
            break
    rows = [
        from_latencies(name, size, stages[stage])
        for stage, name in STAGE_NAMES.items()
        if stage in stages
    ]
    return [*rows, from_latencies("one batch at a time", size, latencies)]


def run_from_memory(backend: Backend, case: Case, streams: int) -> PipelineRun:
    """Run the whole pipeline on images in memory, at full speed."""

    def sources() -> list[Source]:
        return [MemorySource(case.images, f"memory {n}") for n in range(streams)]

    return _repeat("whole pipeline from memory", backend, sources, case.seconds)


def run_from_file(backend: Backend, case: Case, file: str, streams: int) -> PipelineRun:
    """Run the whole pipeline on a video file that every stream reads from the start."""

    def sources() -> list[Source]:
        return [RenamedSource(open_source(file), f"file {n}") for n in range(streams)]

    return _repeat("whole pipeline from file", backend, sources, case.seconds)


def run_paced(case: Case, rate: float, streams: int) -> PipelineRun:
    """Run the whole pipeline on live sources of a fixed rate, so that the machine may idle."""
    frames = max(MIN_SAMPLES + WARM_UP, round(case.seconds * rate))
    options = replace(case.options, live=True)
    sources: list[Source] = [
        MemorySource(case.images, f"camera {n}", rate=rate, frames=frames) for n in range(streams)
    ]
    with open_backend(case.model, case.backend, options) as backend:
        pipeline = Pipeline(sources, backend)
        times, latencies = [], []
        for result in pipeline:
            times.append(time.monotonic())
            if result.frame.index >= WARM_UP:
                latencies.append(times[-1] - result.frame.captured_at)
        clocks = current_clocks()
    measurement = from_latencies(f"paced at {rate:g} FPS", 1, latencies or [0.0], _rate(times))
    dropped = pipeline.statistics.total.dropped["replaced"]
    return PipelineRun(measurement, dropped, _mean_stages([pipeline]), clocks)


def _repeat(
    what: str, backend: Backend, sources: Callable[[], list[Source]], seconds: float
) -> PipelineRun:
    """Run the pipeline once to warm up, then once for each repeat."""
    rates: list[float] = []
    latencies: list[float] = []
    pipelines: list[Pipeline] = []
    for number in range(1 + REPEATS):
        pipeline, rate, durations = _run_once(backend, sources(), seconds / REPEATS)
        if number:
            rates.append(rate)
            latencies += durations
            pipelines.append(pipeline)
    clocks = current_clocks()
    measurement = from_rates(what, backend.max_batch, rates, latencies)
    return PipelineRun(measurement, 0, _mean_stages(pipelines), clocks)


def _run_once(
    backend: Backend, sources: Sequence[Source], seconds: float
) -> tuple[Pipeline, float, list[float]]:
    """Run the pipeline for a time.

    Returns:
        The pipeline, frames per second between the first and the last result, and the latency of
        every frame in seconds.
    """
    pipeline = Pipeline(sources, backend)
    times: list[float] = []
    latencies: list[float] = []
    for result in pipeline:
        times.append(time.monotonic())
        latencies.append(times[-1] - result.frame.captured_at)
        if times[-1] - times[0] > seconds and len(times) > MIN_SAMPLES:
            break
    pipeline.close()
    return pipeline, _rate(times), latencies


def _rate(times: Sequence[float]) -> float:
    """Return the results per second between the first and the last."""
    seconds = times[-1] - times[0] if times else 0.0
    return (len(times) - 1) / seconds if seconds > 0 else 0.0


def _mean_stages(pipelines: Sequence[Pipeline]) -> dict[str, float]:
    """Return the mean seconds per frame of each stage that ran."""
    frames = sum(pipeline.statistics.total.processed for pipeline in pipelines)
    totals = {
        stage: sum(pipeline.statistics.total_seconds(stage) for pipeline in pipelines)
        for stage in ("capture", *STAGE_NAMES)
    }
    return {stage: seconds / max(1, frames) for stage, seconds in totals.items() if seconds}


def _endless_batches(images: Sequence[Image], size: int) -> Iterator[list[Frame]]:
    """Yield batches without end, cycling through the images."""
    number = 0
    while True:
        yield [Frame(images[(number + k) % len(images)], number + k) for k in range(size)]
        number += size
