"""Times stream work with CUDA events, in a CUDA graph if possible."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from realtime_ssd_engines.cuda.driver import Device

from benchmarks.gpu.clock import multiprocessor_clock

__all__ = ["WARM_UP_SECONDS", "Timing", "time_work", "warm_up"]

WARM_UP_SECONDS = 0.2
"""An idle GPU needs a large part of this time to raise its clock."""


@dataclass(frozen=True)
class Timing:
    """A measured duration.

    Attributes:
        us: Median microseconds per execution.
        clock: Clock of the multiprocessors in MHz right after the measurement, or None.
    """

    us: float
    clock: int | None


def warm_up(launch: Callable[[], object], wait: Callable[[], object]) -> None:
    """Keep the GPU busy until its clock has risen.

    Args:
        launch: Starts work.
        wait: Waits for it.
    """
    end = time.perf_counter() + WARM_UP_SECONDS
    while time.perf_counter() < end:
        launch()
        wait()


def time_work(
    device: Device,
    stream: Any,
    work: Callable[[], None],
    repeats: int = 20,
    rounds: int = 31,
    *,
    graph: bool = True,
) -> Timing:
    """Time work on a stream, after a warm-up.

    Args:
        device: The GPU; its context must be current.
        stream: Stream of the work.
        work: Enqueues the work.
        repeats: Executions per graph, which amortize the cost of the launch.
        rounds: Number of timed graph launches.
        graph: Whether to use a graph; otherwise the CPU's launch overhead is included.
    """
    work()
    stream.synchronize()

    def repeat() -> None:
        for _ in range(repeats):
            work()

    captured = device.capture(stream, repeat) if graph else None
    launch = repeat if captured is None else captured.launch
    warm_up(launch, stream.synchronize)
    begin, end, times = device.event(), device.event(), []
    for _ in range(rounds):
        begin.record(stream)
        launch()
        end.record(stream)
        end.synchronize()
        times.append(float(begin.time_till(end)) / repeats)
    clock = multiprocessor_clock()
    if captured is not None:
        captured.close()
    return Timing(1000 * statistics.median(times), clock)
