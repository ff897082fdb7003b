"""Timing contenders in turn, so that a busy moment of the machine hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["in_turn", "ratio", "seconds_of", "summary"]


def seconds_of(action: Callable[[], object], least: float = 0.0) -> float:
    """Give the seconds of one call: the mean of as many calls as fill `least` seconds."""
    begun, calls = time.perf_counter(), 0
    while True:
        action()
        calls += 1
        spent = time.perf_counter() - begun
        if spent >= least:
            return spent / calls


def in_turn(
    contenders: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Let every contender measure itself once a round: A B C, A B C, ...

    Args:
        contenders: Each returns the value of one measurement.
        rounds: Measurements that count.
        warm_up: Rounds before, which do not.
    """
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, measure in contenders.items():
            value = measure()
            if number >= warm_up:
                values[name].append(value)
    return values


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Give the median of the rounds' ratios with their range."""
    shares = [a / b for a, b in zip(slow, fast, strict=True)]
    return {
        "ratio": round(statistics.median(shares), 3),
        "low": round(min(shares), 3),
        "high": round(max(shares), 3),
    }


def summary(values: list[float], digits: int = 3) -> dict[str, Any]:
    """Give the median and all rounds."""
    return {
        "median": round(statistics.median(values), digits),
        "rounds": [round(value, digits) for value in values],
    }
