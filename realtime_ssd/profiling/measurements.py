"""`Measurement`: one row of a benchmark, with the spread of its repeats."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["REPEATS", "Measurement", "from_latencies", "from_rates", "percentiles_ms"]

REPEATS = 5


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement.

    Attributes:
        what: What was measured, such as "network".
        batch: Frames that pass through the network together.
        value: Median over the repeats: milliseconds per batch, or frames per second.
        unit: "ms" or "fps".
        noise: Half the interquartile range of the repeats, as a fraction of the value.
        repeats: The value of each repeat.
        fps: Frames per second that were completed.
        percentiles: Milliseconds at p50, p90, p99 and max over all frames; empty for rates
            without latencies.
    """

    what: str
    batch: int
    value: float
    unit: str
    noise: float
    repeats: tuple[float, ...]
    fps: float
    percentiles: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "repeats": list(self.repeats)}


def from_latencies(
    what: str, batch: int, seconds: list[float], fps: float | None = None
) -> Measurement:
    """Return a measurement of durations; its repeats are equal parts of the list in time order.

    Args:
        what: What was measured.
        batch: Frames in each.
        seconds: At least one duration.
        fps: Frames per second that were completed; what the median allows if None.
    """
    parts = np.array_split(np.array(seconds) * 1000, min(REPEATS, len(seconds)))
    medians = [float(np.median(part)) for part in parts]
    median = statistics.median(medians)
    rate = fps if fps is not None else batch * 1000 / median if median else 0.0
    return _measurement(what, batch, "ms", medians, rate, percentiles_ms(seconds))


def from_rates(what: str, batch: int, rates: list[float], seconds: list[float]) -> Measurement:
    """Return a measurement of rates.

    Args:
        what: What was measured.
        batch: Frames that pass through the network together.
        rates: Frames per second of each repeat.
        seconds: End-to-end durations of the frames; may be empty.
    """
    rate = statistics.median(rates)
    return _measurement(what, batch, "fps", rates, rate, percentiles_ms(seconds))


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    """Return p50, p90, p99 and max in milliseconds; empty if there are no durations."""
    if not seconds:
        return {}
    percents = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    values = np.percentile(np.array(seconds) * 1000, list(percents.values()))
    return {name: round(float(value), 3) for name, value in zip(percents, values, strict=True)}


def _measurement(
    what: str,
    batch: int,
    unit: str,
    values: list[float],
    fps: float,
    percentiles: dict[str, float],
) -> Measurement:
    median = statistics.median(values)
    low, high = np.percentile(values, [25, 75])
    noise = float(high - low) / 2 / median if median else 0.0
    return Measurement(
        what,
        batch,
        round(median, 3),
        unit,
        round(noise, 4),
        tuple(round(value, 3) for value in values),
        round(fps, 3),
        percentiles,
    )
