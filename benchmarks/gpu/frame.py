"""The frame pipeline: graphs against separate launches, memory growth and Python overhead."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda import driver

from benchmarks.gpu.checks import Check
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.head_cases import HeadCase, random_cases, ssd300_case
from benchmarks.gpu.networks import RecordedHeads
from benchmarks.gpu.report_rows import SkippedError
from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame

__all__ = ["checks", "random_frames", "steady_state_seconds"]

SECTION = "frame"
SOAK_FRAMES = 10_000


def random_frames(count: int, size: tuple[int, int], seed: int = 0) -> list[Frame]:
    """Return random frames of one size (width, height)."""
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], 3)
    return [Frame(rng.integers(0, 256, shape, np.uint8), index=i) for i in range(count)]


@contextmanager
def open_recorded(
    context: GpuContext, case: HeadCase, *, graphs: bool = True, slots: int = 3
) -> Iterator[GpuBackend]:
    """Open the backend with recorded heads as the network."""
    device = context.device()
    with device:
        network = RecordedHeads(device, case.scores, case.offsets)
        options = BackendOptions(batch=len(case.scores))
        cache = context.workdir / "kernels"
        backend = GpuBackend(device, network, case.spec, options, slots, graphs, cache)
    with backend:
        yield backend


def checks(context: GpuContext) -> list[Check]:
    """Check graphs, memory and Python overhead with recorded heads."""
    (case, *_) = random_cases(context.rng("frame"), quick=True)
    return [
        Check(name, partial(check, context, case, name))
        for name, check in (
            ("graphs and separate launches are bit identical", _compare_graphs),
            (f"device memory over {_soak_frames(context)} frames", _measure_memory_growth),
            ("Python time per frame", _measure_overhead),
            ("three slots against one", _compare_slots),
        )
    ]


def _soak_frames(context: GpuContext) -> int:
    return 300 if context.quick else SOAK_FRAMES


def _compare_graphs(context: GpuContext, case: HeadCase, name: str) -> None:
    if not driver.graphs_available():
        raise SkippedError("cuda-bindings is not installed, so there are no graphs")
    results: list[list[Detections]] = []
    sizes = [(64, 48), (300, 300), (1920, 1080)]
    for graphs in (False, True):
        with open_recorded(context, case, graphs=graphs) as backend:
            detections = []
            for index, size in enumerate(sizes):
                frames = random_frames(1 + index % backend.max_batch, size, index)
                detections += backend.collect(backend.submit(frames))
            results.append(detections)
    same = all(
        np.array_equal(one.boxes, two.boxes)
        and np.array_equal(one.scores, two.scores)
        and np.array_equal(one.class_ids, two.class_ids)
        for one, two in zip(*results, strict=True)
    )
    count = sum(map(len, results[0]))
    context.report.check(SECTION, name, same, "the results differ", f"{count} detections")


def _measure_memory_growth(context: GpuContext, case: HeadCase, name: str) -> None:
    frames, total = random_frames(len(case.scores), (320, 240)), _soak_frames(context)
    with open_recorded(context, case) as backend:
        for _ in range(20):
            backend.collect(backend.submit(frames))
        device = context.device()
        before, begin = device.free_memory(), time.monotonic()
        for _ in range(total // len(frames)):
            backend.collect(backend.submit(frames))
        seconds, after = time.monotonic() - begin, device.free_memory()
    note = f"{total / seconds:.0f} frames/s"
    context.report.number(SECTION, name, (before - after) / 2**20, "MiB", most=0, note=note)


def _measure_overhead(context: GpuContext, case: HeadCase, name: str) -> None:
    """Time the calls only: the GPU has finished before the results are collected."""
    times = []
    single = HeadCase(case.name, case.spec, case.scores[:1], case.offsets[:1])
    (frame,) = random_frames(1, (64, 48))
    with open_recorded(context, single) as backend:
        for _ in range(100 if context.quick else 1000):
            begin = time.perf_counter()
            batch = backend.submit([frame])
            submitted = time.perf_counter()
            batch.payload.stream.synchronize()
            resumed = time.perf_counter()
            backend.collect(batch)
            times.append(submitted - begin + time.perf_counter() - resumed)
    value = 1e6 * statistics.median(times)
    context.report.number(SECTION, name, value, "µs", most=100, note="submit and collect, batch 1")


def _compare_slots(context: GpuContext, case: HeadCase, name: str) -> None:
    """Run 1080p frames through one slot and through three."""
    frames = random_frames(1, (1920, 1080))
    full_size = ssd300_case(np.random.default_rng(0), 1)
    rounds, rates = 20 if context.quick else 300, {}
    for slots in (1, 3):
        with open_recorded(context, full_size, slots=slots) as backend:
            rates[slots] = steady_state_seconds(backend, frames, rounds)
    context.report.number(SECTION, name, rates[1] / rates[3], "times")


def steady_state_seconds(backend: GpuBackend, frames: list[Frame], rounds: int) -> float:
    """Return the seconds per batch with all slots busy."""
    pending = [backend.submit(frames) for _ in range(backend.max_in_flight)]
    begin = time.perf_counter()
    for _ in range(rounds):
        backend.collect(pending.pop(0))
        pending.append(backend.submit(frames))
    seconds = (time.perf_counter() - begin) / rounds
    for batch in pending:
        backend.collect(batch)
    return seconds
