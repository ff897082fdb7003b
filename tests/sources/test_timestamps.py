"""Time stamps as files have them, and the times that frames get."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from realtime_ssd import open_source
from realtime_ssd.sources.timestamps import FrameClock
from tests.flash_and_beep import FRAMES, make_clip
from tests.sources.test_stream import HttpServer, read

STEP = 0.04


def times_of(path: Path) -> tuple[list[float], list[int]]:
    """Return the time of every frame, and the numbers of those that are discontinuities."""
    with open_source(path) as source:
        frames = list(source)
    return [f.time for f in frames], [f.index for f in frames if f.discontinuity]


def join(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (90_000, 0), (0, 1_300), (3_600_000, 0), (80_000_000, 0)]
)
def test_time_continues_by_one_frame_where_recordings_were_joined(
    tmp_path: Path, first: int, second: int, b_frames: int
) -> None:
    """FFmpeg takes a clock set back by more than a minute for one that wrapped after 26.5 hours."""
    parts = [
        make_clip(tmp_path / f"{number}.ts", start=start, b_frames=b_frames)
        for number, start in enumerate((first, second))
    ]
    times, discontinuities = times_of(join(tmp_path / "joined.ts", *parts))
    assert len(times) == 2 * FRAMES
    assert np.diff(times) == pytest.approx(np.full(2 * FRAMES - 1, STEP), abs=1e-3)
    assert discontinuities == [FRAMES]


def test_gap_of_an_hour_is_kept_and_marked(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{n}.ts", start=3_600_000 * n, sounds=[]) for n in range(2)]
    times, discontinuities = times_of(join(tmp_path / "joined.ts", *parts))
    assert times[FRAMES] - times[0] == pytest.approx(3600, abs=1e-3)
    assert discontinuities == [FRAMES]


@pytest.mark.parametrize("suffix", [".avi", ".wmv"])
def test_frames_in_decoding_order_have_times_of_presentation(tmp_path: Path, suffix: str) -> None:
    path = make_clip(tmp_path / f"clip{suffix}", sounds=[], b_frames=2)
    times, discontinuities = times_of(path)
    assert times == pytest.approx([STEP * number for number in range(FRAMES)], abs=1e-3)
    assert not discontinuities


def test_raw_video_has_the_times_of_its_rate(tmp_path: Path) -> None:
    with av.open(str(make_clip(tmp_path / "clip.ts", sounds=[], b_frames=2))) as container:
        data = b"".join(bytes(packet) for packet in container.demux(video=0))
    (tmp_path / "raw.h264").write_bytes(data)
    times, _ = times_of(tmp_path / "raw.h264")
    assert times == pytest.approx([STEP * number for number in range(FRAMES)], abs=1e-6)


@pytest.mark.parametrize("start", [2**33 - 180_000, 2**33 - 160_000, 2**33 - 450_000])
def test_clock_of_33_bits_may_wrap_or_begin_below_zero(tmp_path: Path, start: int) -> None:
    """The clip begins at 1.4 s, so it wraps after 0.6 s, after 0.4 s, or not at all."""
    path = make_clip(tmp_path / "clip.ts", sounds=[])
    data = bytearray(path.read_bytes())
    shift_clock(data, start)
    path.write_bytes(data)
    times, discontinuities = times_of(path)
    assert np.diff(times) == pytest.approx(np.full(FRAMES - 1, STEP), abs=1e-3)
    assert not discontinuities
    assert times[0] >= 0


def shift_clock(data: bytearray, ticks: int) -> None:
    """Add ticks of 90 kHz to all time stamps of a transport stream, modulo 2^33."""
    for start in range(0, len(data), 188):
        pes = data.find(b"\0\0\1\xe0", start, start + 188)
        if not data[start + 1] & 0x40 or pes < 0:
            continue
        flags = data[pes + 7] >> 6
        for number in range({2: 1, 3: 2}.get(flags, 0)):
            at = pes + 9 + 5 * number
            a, b, c, d, e = data[at : at + 5]
            value = (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
            value = (value + ticks) % 2**33
            data[at] = a & 0xF0 | value >> 29 & 0xE | 1
            data[at + 1] = value >> 22 & 0xFF
            data[at + 2] = value >> 14 & 0xFE | 1
            data[at + 3] = value >> 7 & 0xFF
            data[at + 4] = value << 1 & 0xFE | 1


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([None, None, None], [7, 47, 87]),
        ([0, 40, 40, 120], [0, 40, 80, 120]),
        ([0, 40, 40, 60, 100], [0, 40, 50, 60, 100]),
        ([0, 40, 20, 120], [0, 40, 80, 120]),
        ([0, 40, None, None, 160], [0, 40, 80, 120, 160]),
        ([0, 1, 1, 2], [0, 1, 2, 3]),
    ],
)
def test_times_are_complete_and_increase(stamps: list[int | None], times: list[int]) -> None:
    clock = FrameClock(Fraction(40), start=7)
    following = [*stamps[1:], None]
    repaired = [clock.next(*pair) for pair in zip(stamps, following, strict=True)]
    assert repaired[: len(times) - 1] == times[:-1]
    assert all(b > a for a, b in pairwise(repaired))


def test_live_stream_goes_on_where_its_clock_is_set_back(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{n}.ts", start=90_000 * (1 - n), sounds=[]) for n in range(2)]
    joined = join(tmp_path / "joined.ts", *parts)
    with HttpServer(joined.read_bytes(), clients=1) as server, open_source(server.url) as source:
        source.open()
        frames = read(source, 2 * FRAMES - 4)
    times = [frame.time for frame in frames]
    assert all(b > a for a, b in pairwise(times))
    assert times[-1] - times[0] < 60
    assert [frame.index for frame in frames if frame.discontinuity] == [FRAMES]


def test_live_stream_keeps_the_shape_of_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "clip.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        for _ in range(50):
            container.mux(stream.encode(av.VideoFrame(96, 64, "yuv420p")))
        container.mux(stream.encode())
    with HttpServer(path.read_bytes(), clients=1) as server, open_source(server.url) as source:
        source.open()
        (frame,) = read(source, 1)
    assert frame.pixel_aspect == Fraction(16, 11)
