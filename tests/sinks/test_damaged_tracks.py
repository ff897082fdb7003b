"""Sound with wrong time stamps, and sound that FFmpeg cannot decode."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from tests.flash_and_beep import FRAMES, annotate, beep_time, flash_time, frames_of, make_clip
from tests.videos import readable


def shift_sound(path: Path, number: int, milliseconds: int) -> Path:
    """Change the time stamp of a sound packet of an FLV file, relative to the packet before it."""
    data = bytearray(path.read_bytes())
    position, stamps = 9 + 4, []
    while position + 11 < len(data):
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        if data[position] == 8:
            stamps.append(int.from_bytes(data[position + 4 : position + 7], "big"))
            if len(stamps) == number + 1:
                changed = stamps[-2] + milliseconds
                data[position + 4 : position + 7] = changed.to_bytes(3, "big")
                path.write_bytes(data)
                return path
        position += 11 + size + 4
    raise AssertionError("too few packets")


@pytest.mark.parametrize("milliseconds", [0, -5, -400])
@pytest.mark.parametrize("target", ["o.mp4", "o.mkv", "o.avi"])
def test_wrong_time_stamp_of_one_packet_of_sound_ends_nothing(
    tmp_path: Path, milliseconds: int, target: str
) -> None:
    path = shift_sound(make_clip(tmp_path / "clip.flv"), 30, milliseconds)
    annotate(path, tmp_path / target)
    times = frames_of(tmp_path / target)[0]
    assert len(times) == FRAMES
    offset = beep_time(tmp_path / target) - flash_time(tmp_path / target)
    assert offset == pytest.approx(0, abs=0.06)


def make_unknown(path: Path, tracks: int, old: bytes, new: bytes, codec: str = "aac") -> Path:
    """Write a clip and replace what names the codec of its first sound track."""
    data = make_clip(path, sounds=[codec] * tracks).read_bytes()
    assert data.count(old) >= tracks
    # MP4 describes the codec a second time.
    path.write_bytes(data.replace(old, new, 1).replace(b"esds", b"free", 1))
    return path


@pytest.mark.parametrize("target", ["o.mp4", "o.mkv"])
@pytest.mark.parametrize(
    ("name", "old", "new", "codec", "tag"),
    [
        ("a.mp4", b"mp4a", b"apac", "aac", "codec 'apac'"),
        ("a.mov", b"mp4a", b"qqqq", "aac", "codec 'qqqq'"),
        (
            "a.avi",
            b"\x01\0\x01\0\x80\xbb\0\0",
            b"\x99\x99\x01\0\x80\xbb\0\0",
            "pcm_s16le",
            "0x9999",
        ),
        ("a.mkv", b"A_AAC", b"A_QQQ", "aac", "unknown codec"),
    ],
)
def test_sound_without_decoder_is_left_out_with_its_tag(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    target: str,
    name: str,
    old: bytes,
    new: bytes,
    codec: str,
    tag: str,
) -> None:
    tracks = 1 if name == "a.avi" else 2
    path = make_unknown(tmp_path / name, tracks, old, new, codec)
    assert len(readable(path)[0]) == FRAMES
    annotate(path, tmp_path / target)
    assert len(frames_of(tmp_path / target)[0]) == FRAMES
    with av.open(str(tmp_path / target)) as container:
        kept = len(container.streams.audio)
    assert kept == tracks - 1
    assert tag in caplog.text
