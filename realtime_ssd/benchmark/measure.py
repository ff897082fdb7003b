"""The measurements: single batches one after the other, and the whole loop in several ways."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.benchmark.rows import REPEATS, Row, of_latencies, of_rates
from realtime_ssd.benchmark.sources import Memory
from realtime_ssd.frames import Frame, Image
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.sources import Source, open_source

__all__ = ["Loop", "Subject", "alone", "from_file", "from_memory", "paced"]

WARM_UP = 5
LEAST = 2 * REPEATS
_NAMES = {
    "preprocess": "pre-processing",
    "network": "network",
    "postprocess": "decode + NMS",
    "gpu": "whole frame on the GPU",
}


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        model: ONNX file.
        backend: Name of the backend.
        images: Pictures to feed.
        seconds: Time each measurement may take.
        options: What else the backend is told.
    """

    model: Path
    backend: str
    images: Sequence[Image]
    seconds: float
    options: BackendOptions = field(default_factory=BackendOptions)


@dataclass(frozen=True)
class Loop:
    """What a run of the whole loop gave.

    Attributes:
        row: Its rate and latencies.
        dropped: Frames left out because a newer one was there.
        stages: Seconds of each stage a frame, medians.
    """

    row: Row
    dropped: int
    stages: dict[str, float]


def alone(backend: Backend, subject: Subject) -> list[Row]:
    """Time one batch after the other, each collected before the next: stage by stage and whole."""
    size = backend.max_batch
    stages: dict[str, list[float]] = {}
    whole: list[float] = []
    for count, frames in enumerate(_batches(subject.images, size)):
        begun = time.perf_counter()
        ticket = backend.submit(frames)
        backend.collect(ticket)
        seconds = time.perf_counter() - begun
        if count < WARM_UP:
            until = time.perf_counter() + subject.seconds
            continue
        whole.append(seconds)
        for name, spent in ticket.timings.items():
            stages.setdefault(name, []).append(spent)
        if time.perf_counter() > until and len(whole) >= LEAST:
            break
    rows = [of_latencies(_NAMES.get(name, name), size, spent) for name, spent in stages.items()]
    return [*rows, of_latencies("one after the other", size, whole)]


def from_memory(backend: Backend, subject: Subject, streams: int) -> Loop:
    """Run the whole loop on pictures from memory as fast as it goes."""
    rates, ends, stages = [], [], {}
    for _ in range(REPEATS):
        sources = [Memory(subject.images, f"memory {n}") for n in range(streams)]
        loop, rate, seconds = _run(backend, sources, subject.seconds / REPEATS)
        rates.append(rate)
        ends += seconds
        stages = _stages(loop)
    return Loop(of_rates("whole loop from memory", backend.max_batch, rates, ends), 0, stages)


def from_file(backend: Backend, subject: Subject, file: str) -> Loop:
    """Run the whole loop on a video file; each repeat reads it once, or for the given time."""
    rates, ends, stages = [], [], {}
    for _ in range(REPEATS):
        loop, rate, seconds = _run(backend, [open_source(file)], subject.seconds)
        rates.append(rate)
        ends += seconds
        stages = _stages(loop)
    return Loop(of_rates("whole loop from file", backend.max_batch, rates, ends), 0, stages)


def paced(subject: Subject, rate: float, streams: int) -> Loop:
    """Run the whole loop on live sources with a fixed rate: latency while the machine may rest."""
    frames = max(LEAST + WARM_UP, round(subject.seconds * rate))
    options = BackendOptions(
        live=True,
        score=subject.options.score,
        precision=subject.options.precision,
        calibration=subject.options.calibration,
    )
    sources: list[Source] = [
        Memory(subject.images, f"camera {n}", rate=rate, frames=frames) for n in range(streams)
    ]
    with open_backend(subject.model, subject.backend, options) as backend:
        loop = Pipeline(sources, backend)
        ends = [
            time.monotonic() - result.frame.captured_at
            for result in loop
            if result.frame.index >= WARM_UP
        ]
    row = of_latencies(f"paced at {rate:g} FPS", 1, ends or [0.0])
    return Loop(row, loop.statistics.total.dropped["replaced"], _stages(loop))


def _run(
    backend: Backend, sources: Sequence[Source], seconds: float
) -> tuple[Pipeline, float, list[float]]:
    """Run the loop for a time; frames a second, counted between the first result and the last."""
    loop = Pipeline(sources, backend, PipelineOptions())
    ends: list[float] = []
    times: list[float] = []
    for result in loop:
        times.append(time.monotonic())
        ends.append(times[-1] - result.frame.captured_at)
        if times[-1] - times[0] > seconds and len(times) > LEAST:
            break
    loop.close()
    span = times[-1] - times[0] if times else 0.0
    return loop, (len(times) - 1) / span if span > 0 else 0.0, ends


def _stages(loop: Pipeline) -> dict[str, float]:
    return {name: loop.statistics.latency(name) for name in ("capture", *_NAMES)}


def _batches(images: Sequence[Image], size: int) -> Iterator[list[Frame]]:
    """Make batches without end, round and round the pictures."""
    number = 0
    while True:
        yield [Frame(images[(number + k) % len(images)], number + k) for k in range(size)]
        number += size
