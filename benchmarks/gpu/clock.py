"""Times work on a stream with the GPU's own events, out of a graph where one can be recorded."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from realtime_ssd_engines.cuda.driver import Device

__all__ = ["median_us", "milliseconds"]


def milliseconds(
    device: Device,
    stream: Any,
    work: Callable[[], None],
    repeats: int = 20,
    rounds: int = 31,
    *,
    graph: bool = True,
) -> list[float]:
    """Time some work.

    Args:
        device: The GPU, its context current.
        stream: Where the work goes.
        work: Puts itself on the stream.
        repeats: How often it is recorded into one graph, so that the launch costs little.
        rounds: How often the graph is run; three more warm up.
        graph: Whether to use a graph; without one the CPU's launches count too.

    Returns:
        Milliseconds of one run of the work, a value a round.
    """
    work()
    stream.synchronize()

    def many() -> None:
        for _ in range(repeats):
            work()

    recorded = device.capture(stream, many) if graph else None
    begin, end, times = device.event(), device.event(), []
    for _ in range(rounds + 3):
        begin.record(stream)
        if recorded is None:
            many()
        else:
            recorded.launch()
        end.record(stream)
        end.synchronize()
        times.append(float(begin.time_till(end)) / repeats)
    if recorded is not None:
        recorded.close()
    return times[3:]


def median_us(times: list[float]) -> float:
    """Give the median of milliseconds in microseconds."""
    return 1000 * statistics.median(times)
