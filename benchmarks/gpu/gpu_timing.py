"""Times stream work with CUDA events, in a CUDA graph if possible."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from realtime_ssd_engines.cuda.driver import Device

__all__ = ["median_us", "time_ms"]


def time_ms(
    device: Device,
    stream: Any,
    work: Callable[[], None],
    repeats: int = 20,
    rounds: int = 31,
    *,
    graph: bool = True,
) -> list[float]:
    """Time work on a stream.

    Args:
        device: The GPU; its context must be current.
        stream: Stream of the work.
        work: Enqueues the work.
        repeats: Executions per graph, which amortize the cost of the launch.
        rounds: Number of timed graph launches, after three for warm-up.
        graph: Whether to use a graph; otherwise the CPU's launch overhead is included.

    Returns:
        Milliseconds per execution, one value per round.
    """
    work()
    stream.synchronize()

    def repeat() -> None:
        for _ in range(repeats):
            work()

    captured = device.capture(stream, repeat) if graph else None
    begin, end, times = device.event(), device.event(), []
    for _ in range(rounds + 3):
        begin.record(stream)
        if captured is None:
            repeat()
        else:
            captured.launch()
        end.record(stream)
        end.synchronize()
        times.append(float(begin.time_till(end)) / repeats)
    if captured is not None:
        captured.close()
    return times[3:]


def median_us(times: list[float]) -> float:
    """Return the median of milliseconds in microseconds."""
    return 1000 * statistics.median(times)
