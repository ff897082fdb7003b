from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import UsageError
from realtime_ssd.synthetic import StreetScene


def test_size_rate_seed_and_length() -> None:
    with open_source("demo:320x180@25,seed=3,frames=2") as source:
        info = source.info
        assert (info.width, info.height, info.rate, info.frame_count) == (320, 180, 25, 2)
        frames = [source.read(), source.read()]
        assert source.read() is None
    scene = StreetScene(320, 180, seed=3, fps=25)
    for number, frame in enumerate(frames):
        assert frame is not None
        assert Fraction(frame.pts or 0) * frame.time_base == Fraction(number, 25)
        np.testing.assert_array_equal(frame.image, scene.render(number))


@pytest.mark.parametrize("text", ["demo:", "demo:frames=1", "demo:160x90", "demo:@15,frames=1"])
def test_short_forms(text: str) -> None:
    with open_source(text) as source:
        assert source.read() is not None


@pytest.mark.parametrize(
    "text", ["demo:big", "demo:320x180,speed=2", "demo:8x8", "demo:320x180@0", "demo:,seed=x"]
)
def test_wrong_forms(text: str) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        open_source(text)
