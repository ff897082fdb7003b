"""The measurements: single batches one after the other, and the whole loop in several ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.profiling.machine import clocks
from realtime_ssd.profiling.memory_sources import Memory, Renamed
from realtime_ssd.profiling.rows import REPEATS, Row, of_latencies, of_rates
from realtime_ssd.sources import Source, open_source

__all__ = ["NAMES", "Loop", "Subject", "alone", "from_file", "from_memory", "paced"]

WARM_UP = 5
LEAST = 2 * REPEATS
NAMES = {
    "preprocess": "pre-processing",
    "network": "network",
    "postprocess": "decode + NMS",
    "detect": "decode + NMS",
    "gpu": "whole batch on the GPU",
}


@runtime_checkable
class _Stepwise(Protocol):
    """A backend that does all steps in one go, and can time them one by one."""

    def stage_seconds(self, frames: Sequence[Frame]) -> dict[str, float]: ...


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
    """What runs of the whole loop gave.

    Attributes:
        row: Their rate and latencies.
        dropped: Frames left out because a newer one was there.
        stages: Mean seconds of each stage a frame.
        clocks: Those of processor and GPUs at the end.
    """

    row: Row
    dropped: int
    stages: dict[str, float]
    clocks: dict[str, Any]


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
        steps = backend.stage_seconds(frames) if isinstance(backend, _Stepwise) else {}
        for name, spent in {**steps, **ticket.timings}.items():
            stages.setdefault(name, []).append(spent)
        if time.perf_counter() > until and len(whole) >= LEAST:
            break
    rows = [of_latencies(NAMES[name], size, stages[name]) for name in NAMES if name in stages]
    return [*rows, of_latencies("one after the other", size, whole)]


def from_memory(backend: Backend, subject: Subject, streams: int) -> Loop:
    """Run the whole loop on pictures from memory as fast as it goes."""

    def sources() -> list[Source]:
        return [Memory(subject.images, f"memory {n}") for n in range(streams)]

    return _repeated("whole loop from memory", backend, sources, subject.seconds)


def from_file(backend: Backend, subject: Subject, file: str, streams: int) -> Loop:
    """Run the whole loop on a video file, read by every stream from its beginning."""

    def sources() -> list[Source]:
        return [Renamed(open_source(file), f"file {n}") for n in range(streams)]

    return _repeated("whole loop from file", backend, sources, subject.seconds)


def paced(subject: Subject, rate: float, streams: int) -> Loop:
    """Run the whole loop on live sources with a fixed rate: latency while the machine may rest."""
    frames = max(LEAST + WARM_UP, round(subject.seconds * rate))
    options = replace(subject.options, live=True)
    sources: list[Source] = [
        Memory(subject.images, f"camera {n}", rate=rate, frames=frames) for n in range(streams)
    ]
    with open_backend(subject.model, subject.backend, options) as backend:
        loop = Pipeline(sources, backend)
        times, ends = [], []
        for result in loop:
            times.append(time.monotonic())
            if result.frame.index >= WARM_UP:
                ends.append(times[-1] - result.frame.captured_at)
        found = clocks()
    row = of_latencies(f"paced at {rate:g} FPS", 1, ends or [0.0], _rate(times))
    return Loop(row, loop.statistics.total.dropped["replaced"], _stages([loop]), found)


def _repeated(
    what: str, backend: Backend, sources: Callable[[], list[Source]], seconds: float
) -> Loop:
    """Run the loop once for warming up, then once for each repeat."""
    rates, ends, loops, found = [], [], [], {}
    for number in range(1 + REPEATS):
        loop, rate, latencies = _run(backend, sources(), seconds / REPEATS)
        if number:
            rates.append(rate)
            ends += latencies
            loops.append(loop)
            found = clocks() if number == REPEATS else {}
    return Loop(of_rates(what, backend.max_batch, rates, ends), 0, _stages(loops), found)


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
    return loop, _rate(times), ends


def _rate(times: Sequence[float]) -> float:
    """Give the results a second from the first to the last."""
    span = times[-1] - times[0] if times else 0.0
    return (len(times) - 1) / span if span > 0 else 0.0


def _stages(loops: Sequence[Pipeline]) -> dict[str, float]:
    frames = sum(loop.statistics.total.processed for loop in loops)
    names = ("capture", *NAMES)
    spent = {name: sum(loop.statistics.spent(name) for loop in loops) for name in names}
    return {name: seconds / max(1, frames) for name, seconds in spent.items() if seconds}


def _batches(images: Sequence[Image], size: int) -> Iterator[list[Frame]]:
    """Make batches without end, round and round the pictures."""
    number = 0
    while True:
        yield [Frame(images[(number + k) % len(images)], number + k) for k in range(size)]
        number += size
