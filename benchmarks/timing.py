"""Timing of contenders in turn, so that load from other programs affects all of them equally."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["frames_per_second", "median_ratio", "seconds_per_call", "summary", "time_in_turn"]


def seconds_per_call(action: Callable[[], object], min_seconds: float = 0.0) -> float:
    """Return the mean duration in seconds of as many calls as fill `min_seconds`."""
    start, calls = time.perf_counter(), 0
    while True:
        action()
        calls += 1
        elapsed = time.perf_counter() - start
        if elapsed >= min_seconds:
            return elapsed / calls


def frames_per_second(frames: Iterable[object]) -> float:
    """Return the rate at which an iterable yields, from the first request to the end."""
    start, count = time.perf_counter(), 0
    for _ in frames:
        count += 1
    return count / (time.perf_counter() - start)


def time_in_turn(
    contenders: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Run every contender once per round: A B C, A B C, ...

    Args:
        contenders: Functions that measure themselves and return one value.
        rounds: Number of rounds to keep.
        warm_up: Number of rounds to discard first.

    Returns:
        The values of each contender, one per round.
    """
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, measure in contenders.items():
            value = measure()
            if number >= warm_up:
                values[name].append(value)
    return values


def median_ratio(numerators: list[float], denominators: list[float]) -> dict[str, float]:
    """Return median and range of the ratios of each round."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
    }


def summary(values: list[float], digits: int = 3) -> dict[str, Any]:
    """Return the median and the value of each round."""
    return {
        "median": round(statistics.median(values), digits),
        "rounds": [round(value, digits) for value in values],
    }
