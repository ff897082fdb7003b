"""How many frames go at once: more while they are soon done, few when anything is slow."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from realtime_ssd.core.frames import Frame
from realtime_ssd.pipeline.batch_sizer import AHEAD_PIXELS, AHEAD_SECONDS, BatchSizer


def share(batch: int = 1, max_submit: int = 8, max_in_flight: int = 3) -> BatchSizer:
    backend = SimpleNamespace(max_batch=batch, max_submit=max_submit, max_in_flight=max_in_flight)
    return BatchSizer(backend)  # type: ignore[arg-type]


def learned(one: BatchSizer, seconds: float, tickets: int) -> list[int]:
    """Finish tickets of the size that is asked for; give the sizes."""
    sizes = []
    for _ in range(tickets):
        sizes.append(one.now())
        one.learn(sizes[-1], seconds)
    return sizes


def test_it_doubles_after_each_round_that_was_in_time() -> None:
    assert learned(share(), 0.01, 12) == [1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8]
    assert learned(share(batch=3, max_submit=6), 0.01, 6) == [3, 3, 3, 6, 6, 6]
    assert learned(share(batch=4, max_submit=4), 0.01, 6) == [4] * 6


def test_it_never_asks_for_more_than_can_be_done_in_time() -> None:
    one = share()
    sizes = []
    for _ in range(40):  # 20 frames a second, three tickets under way
        sizes.append(one.now())
        one.learn(sizes[-1], 3 * sizes[-1] / 20)
    assert max(sizes) * 3 / 20 <= AHEAD_SECONDS
    assert set(learned(share(), 1.5, 10)) == {1}


def test_it_falls_at_once_when_something_gets_slow_and_comes_back() -> None:
    one = share()
    learned(one, 0.01, 12)
    one.learn(8, 1.2)
    assert one.now() == 2
    one.learn(2, 3.0)
    assert one.now() == 1
    assert learned(one, 0.01, 10)[-1] == 8


@pytest.mark.parametrize(("height", "width", "most"), [(36, 64, 8), (2160, 3840, 1)])
def test_large_frames_go_in_fewer(height: int, width: int, most: int) -> None:
    one = share()
    learned(one, 0.01, 12)
    one.see([Frame(np.zeros((height, width, 3), np.uint8))])
    assert one.now() == most
    assert most * 3 * height * width <= AHEAD_PIXELS
    one.see([Frame(np.zeros((4, 4, 3), np.uint8))])
    assert one.now() == most  # others of that size may follow
