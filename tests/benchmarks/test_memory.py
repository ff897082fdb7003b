"""Memory growth is measured on frames that are newly allocated."""

from __future__ import annotations

import numpy as np

from benchmarks.cpu.memory import RepeatedFrames, measure
from realtime_ssd import open_source
from realtime_ssd.zoo import find_model


def test_each_frame_is_repeated_in_new_memory() -> None:
    with RepeatedFrames(open_source("demo:64x48,frames=2"), 3) as source:
        frames = []
        while (frame := source.read()) is not None:
            frames.append(frame)
    assert [frame.index for frame in frames] == list(range(6))
    assert len({frame.image.__array_interface__["data"][0] for frame in frames}) == 6
    for first, second in ((0, 2), (3, 5)):
        np.testing.assert_array_equal(frames[first].image, frames[second].image)
    assert not np.array_equal(frames[2].image, frames[3].image)


def test_target_is_judged_by_the_reported_growth() -> None:
    model, _ = find_model("street")
    values = measure(model, 60)
    assert values["frames"] == 60
    assert values["pictures_drawn"] == 6
    assert values["met"] is (values["growth_mb_per_100000_frames"] <= values["goal_growth_mb"])
