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
        assert not info.live
        assert info.pixel_aspect == 1
        frames = list(source)
    assert len(frames) == 2
    scene = StreetScene(320, 180, seed=3, fps=25)
    for number, frame in enumerate(frames):
        assert frame.index == number
        assert Fraction(frame.pts or 0) * frame.time_base == Fraction(number, 25)
        np.testing.assert_array_equal(frame.image, scene.render(number))


@pytest.mark.parametrize(
    ("text", "width", "height", "rate", "frames"),
    [
        ("demo", 640, 360, 30, 300),
        ("demo:", 640, 360, 30, 300),
        ("demo:frames=1", 640, 360, 30, 1),
        ("demo:160x90", 160, 90, 30, 300),
        ("demo:@15,frames=0", 640, 360, 15, None),
        ("demo:16x16@1000", 16, 16, 1000, 300),
        ("demo:160x90@29.97,seed=5", 160, 90, Fraction("29.97"), 300),
    ],
)
def test_omitted_parts_have_defaults(
    text: str, width: int, height: int, rate: Fraction, frames: int | None
) -> None:
    with open_source(text) as source:
        info = source.info
        assert (info.width, info.height, info.rate) == (width, height, rate)
        assert info.frame_count == frames
        assert info.time_base == 1 / Fraction(rate)
        assert source.read() is not None


def test_default_seed_is_0() -> None:
    with open_source("demo:160x96") as source:
        frame = source.read()
    assert frame is not None
    np.testing.assert_array_equal(frame.image, StreetScene(160, 96, seed=0, fps=30).render(0))


@pytest.mark.parametrize(
    "text",
    ["demo:big", "demo:320x180,speed=2", "demo:,seed=x", "demo:320x180,seed"],
)
def test_malformed_text_is_rejected_with_the_syntax(text: str) -> None:
    with pytest.raises(UsageError, match=r"not a valid demo; use demo\[:WxH"):
        open_source(text)


@pytest.mark.parametrize(
    "text",
    ["demo:15x16", "demo:16x15", "demo:16385x16", "demo:16x16385", "demo:@0", "demo:@1001"],
)
def test_values_out_of_range_are_rejected_with_the_range(text: str) -> None:
    with pytest.raises(UsageError, match="between 16x16 and 16384x16384, and the rate at most"):
        open_source(text)
