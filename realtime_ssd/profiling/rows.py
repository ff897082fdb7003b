"""One line of a benchmark: what was measured, and how much the repeats differ."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["REPEATS", "Row", "of_latencies", "of_rates"]

REPEATS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Attributes:
        what: What was measured, such as "network".
        batch: Frames that went through the network together.
        value: Median over the repeats: milliseconds a batch, or frames a second.
        unit: "ms" or "fps".
        noise: Half the range of the middle repeats, as a share of the value.
        repeats: The value of each repeat.
        fps: Frames a second that came through.
        percentiles: Milliseconds at p50, p90, p99 and max over all frames; empty for rates that
            have none.
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
        """Give plain values ready for JSON."""
        return {**asdict(self), "repeats": list(self.repeats)}


def of_latencies(what: str, batch: int, seconds: list[float], fps: float | None = None) -> Row:
    """Make a row of durations: the repeats are equal parts of the list, in order of time.

    Args:
        what: What was measured.
        batch: Frames in each.
        seconds: At least one duration.
        fps: Frames a second that came through; what the median allows if None.
    """
    parts = np.array_split(np.array(seconds) * 1000, min(REPEATS, len(seconds)))
    medians = [float(np.median(part)) for part in parts]
    middle = statistics.median(medians)
    rate = fps if fps is not None else batch * 1000 / middle if middle else 0.0
    return _row(what, batch, "ms", medians, rate, percentiles(seconds))


def of_rates(what: str, batch: int, rates: list[float], seconds: list[float]) -> Row:
    """Make a row of rates.

    Args:
        what: What was measured.
        batch: Frames that go through the network together.
        rates: Frames a second of each repeat.
        seconds: End-to-end durations of the frames; may be empty.
    """
    return _row(what, batch, "fps", rates, statistics.median(rates), percentiles(seconds))


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Give p50, p90, p99 and max in milliseconds; empty for no durations."""
    if not seconds:
        return {}
    shares = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    values = np.percentile(np.array(seconds) * 1000, list(shares.values()))
    return {name: round(float(value), 3) for name, value in zip(shares, values, strict=True)}


def _row(
    what: str, batch: int, unit: str, values: list[float], fps: float, shares: dict[str, float]
) -> Row:
    middle = statistics.median(values)
    low, high = np.percentile(values, [25, 75])
    noise = float(high - low) / 2 / middle if middle else 0.0
    repeats = tuple(round(value, 3) for value in values)
    value, rate = round(middle, 3), round(fps, 3)
    return Row(what, batch, value, unit, round(noise, 4), repeats, rate, shares)
