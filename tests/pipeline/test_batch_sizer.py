"""The size of a call grows while calls return soon and shrinks when they do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from realtime_ssd.core.frames import Frame
from realtime_ssd.pipeline.batch_sizer import (
    MAX_PIXELS_IN_FLIGHT,
    MAX_SECONDS_IN_FLIGHT,
    BatchSizer,
)


def make_sizer(batch: int = 1, max_submit: int = 8, max_in_flight: int = 3) -> BatchSizer:
    backend: Any = SimpleNamespace(
        max_batch=batch, max_submit=max_submit, max_in_flight=max_in_flight
    )
    return BatchSizer(backend)


def run_calls(sizer: BatchSizer, seconds: float, calls: int) -> list[int]:
    """Complete calls of the size the sizer asks for and return the sizes."""
    sizes = []
    for _ in range(calls):
        sizes.append(sizer.next_size())
        sizer.observe_latency(sizes[-1], seconds)
    return sizes


def test_size_doubles_after_each_round_of_fast_calls() -> None:
    assert run_calls(make_sizer(), 0.01, 12) == [1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8]
    assert run_calls(make_sizer(batch=3, max_submit=6), 0.01, 6) == [3, 3, 3, 6, 6, 6]
    assert run_calls(make_sizer(batch=4, max_submit=4), 0.01, 6) == [4] * 6


def test_size_stays_within_the_time_limit() -> None:
    sizer = make_sizer()
    sizes = []
    for _ in range(40):  # 20 frames per second with three calls in flight
        sizes.append(sizer.next_size())
        sizer.observe_latency(sizes[-1], 3 * sizes[-1] / 20)
    assert max(sizes) * 3 / 20 <= MAX_SECONDS_IN_FLIGHT
    assert set(run_calls(make_sizer(), 1.5, 10)) == {1}


def test_size_drops_immediately_after_a_slow_call_and_recovers() -> None:
    sizer = make_sizer()
    run_calls(sizer, 0.01, 12)
    sizer.observe_latency(8, 1.2)
    assert sizer.next_size() == 2
    sizer.observe_latency(2, 3.0)
    assert sizer.next_size() == 1
    assert run_calls(sizer, 0.01, 10)[-1] == 8


def test_growth_needs_consecutive_fast_calls() -> None:
    sizer = make_sizer()
    run_calls(sizer, 0.01, 2)
    sizer.observe_latency(1, 1.0)
    assert run_calls(sizer, 0.01, 4) == [1, 1, 1, 2]


@pytest.mark.parametrize(("height", "width", "size"), [(36, 64, 8), (2160, 3840, 1)])
def test_large_frames_are_submitted_in_smaller_calls(height: int, width: int, size: int) -> None:
    sizer = make_sizer()
    run_calls(sizer, 0.01, 12)
    sizer.observe_frames([Frame(np.zeros((height, width, 3), np.uint8))])
    assert sizer.next_size() == size
    assert size * 3 * height * width <= MAX_PIXELS_IN_FLIGHT
    sizer.observe_frames([Frame(np.zeros((4, 4, 3), np.uint8))])
    assert sizer.next_size() == size  # more frames of the larger size may follow
