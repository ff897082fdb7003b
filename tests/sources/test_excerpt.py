"""`start`, `end` and `frame_step`: frames, their times, and the sound of the written file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd.sources import open_source
from tests.flash_and_beep import FLASH_FRAME, FRAMES, beep_time, flash_time, frames_of, make_clip
from tests.sources.test_timestamps import join

SUFFIXES = (".mp4", ".mkv", ".ts", ".avi", ".flv", ".mov", ".wmv")
CODECS = {".wmv": "msmpeg4v3"}
SOUNDS = {".avi": ["pcm_s16le"], ".wmv": []}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_part_of_a_file_has_the_same_frames_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = make_clip(
        tmp_path / f"clip{suffix}",
        codec=CODECS.get(suffix, "libx264"),
        sounds=SOUNDS.get(suffix, ["aac"]),
        b_frames=0 if suffix == ".wmv" else 2,
    )
    with open_source(path) as source:
        whole = list(source)
    with open_source(path, start=0.41, end=1.2) as source:
        assert source.info.frame_count in (None, 19, 20)
        part = list(source)
    assert [frame.index for frame in part] == list(range(len(part)))
    first = whole[0].time
    expected = [frame for frame in whole if 0.41 <= frame.time - first + 1e-9 < 1.2]
    assert [frame.time for frame in part] == [frame.time for frame in expected]
    for frame, same in zip(part, expected, strict=True):
        assert np.abs(frame.image.astype(int) - same.image).max() <= 2


@pytest.mark.parametrize("target", ["o.mp4", "o.mkv", "o.avi"])
@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_sound_of_a_part_is_cut_in_the_same_way(tmp_path: Path, suffix: str, target: str) -> None:
    path = make_clip(tmp_path / f"clip{suffix}", sounds=["aac"])
    output = tmp_path / target
    with open_source(path, start=0.5, end=1.3) as source, VideoSink(output, source.info) as sink:
        for frame in source:
            sink.write(FrameResult(frame, Detections.empty()))
    times = frames_of(output)[0]
    assert len(times) == 20
    assert min(times) < 0.05
    assert flash_time(output) == pytest.approx(FLASH_FRAME * 0.04 - 0.5, abs=0.03)
    offset = beep_time(path) - flash_time(path)
    assert beep_time(output) - flash_time(output) == pytest.approx(offset, abs=0.025)


def test_start_is_found_behind_a_jump_of_the_clock(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{n}.ts", start=90_000 * (1 - n), sounds=[]) for n in range(2)]
    joined = join(tmp_path / "joined.ts", *parts)
    with open_source(joined) as source:
        expected = [frame.time for frame in source][FRAMES + 3 :]
    with open_source(joined, start=(FRAMES + 2.5) * 0.04) as source:
        assert [frame.time for frame in source] == pytest.approx(expected, abs=1e-6)


def test_frame_step_keeps_numbers_and_times_and_divides_the_rate(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", sounds=[])
    with open_source(path, frame_step=7) as source:
        info = source.info
        frames = list(source)
    assert (info.rate, info.frame_count) == (Fraction(25, 7), 6)
    assert [frame.index for frame in frames] == [0, 7, 14, 21, 28, 35]
    assert [frame.time for frame in frames] == pytest.approx([0.28 * n for n in range(6)])
    with open_source(path, start=0.2, frame_step=7) as source:
        assert [frame.index for frame in source] == [0, 7, 14, 21, 28]


def test_frame_step_of_photos_and_of_the_demo(tmp_path: Path) -> None:
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((4, 4, 3), np.uint8))
    with open_source(tmp_path, frame_step=2) as source:
        assert [frame.name for frame in source] == ["0.png", "2.png", "4.png"]
    with open_source("demo:64x64@10,frames=40", start=1, end=2, frame_step=4) as source:
        assert [frame.time for frame in source] == pytest.approx([1.0, 1.4, 1.8])


def test_start_after_the_end_is_an_error(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", sounds=[])
    message = r"ends before `start` \(99 seconds\)"
    with open_source(path, start=99) as source, pytest.raises(SourceError, match=message):
        source.read()


@pytest.mark.parametrize(
    ("text", "message"),
    [("0", "'camera 0' is live: `start` and"), ("PHOTO", "is a photo: `start` and `end` are for")],
)
def test_only_files_have_a_start(tmp_path: Path, text: str, message: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UsageError, match=message):
        open_source(text.replace("PHOTO", str(tmp_path / "a.png")), start=1)


@pytest.mark.parametrize(
    "values", [{"start": -1}, {"start": 2, "end": 2}, {"end": float("nan")}, {"interval": -1}]
)
def test_values_out_of_range_are_errors(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be"):
        open_source("demo", **values)  # type: ignore[arg-type]
