"""Every picture passes several times, each time in memory of its own."""

from __future__ import annotations

import numpy as np

from benchmarks.cpu.memory import Again, measure
from realtime_ssd import open_source
from realtime_ssd.zoo import find_model


def test_pictures_pass_several_times() -> None:
    with Again(open_source("demo:64x48,frames=2"), 3) as source:
        frames = []
        while (frame := source.read()) is not None:
            frames.append(frame)
    assert [frame.index for frame in frames] == list(range(6))
    assert len({frame.image.__array_interface__["data"][0] for frame in frames}) == 6
    for first, other in ((0, 2), (3, 5)):
        np.testing.assert_array_equal(frames[first].image, frames[other].image)
    assert not np.array_equal(frames[2].image, frames[3].image)


def test_a_goal_is_met_by_what_the_table_shows() -> None:
    model, _ = find_model("street")
    found = measure(model, 60)
    assert found["frames"] == 60
    assert found["pictures_drawn"] == 6
    assert found["met"] is (found["growth_mb_per_100000_frames"] <= found["goal_growth_mb"])
