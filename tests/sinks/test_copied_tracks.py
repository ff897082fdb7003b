"""Sound tracks and subtitles of annotated video: which are copied, and when they play."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.flash_and_beep import FRAMES, annotate, beep_time, flash_time, frames_of, make_clip
from tests.sources.test_file import WebServer
from tests.videos import audio_of

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "video"


@pytest.fixture(scope="session")
def case() -> Callable[[str], Path]:
    """Return a function that finds a file among public bug reports, where those are present."""

    def find(pattern: str) -> Path:
        files = sorted(CASES.glob(pattern))
        if not files:
            pytest.skip("the folder ../shared/cases with files of public bug reports is absent")
        return files[0]

    return find


def packets_of(path: Path) -> list[tuple[int, float]]:
    """Return stream and decoding time in seconds of every packet of sound."""
    with av.open(str(path)) as container:
        return [
            (packet.stream_index, float((packet.dts or 0) * (packet.time_base or 0)))
            for packet in container.demux(audio=0)
            if packet.size
        ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("starts", [(0, 0), (90_000, 0), (0, 1_300), (0, 3_600_000)])
def test_sound_of_joined_recordings_stays_with_the_picture(
    tmp_path: Path, starts: tuple[int, int], suffix: str
) -> None:
    parts = [make_clip(tmp_path / f"{n}.ts", start=start) for n, start in enumerate(starts)]
    source = tmp_path / "joined.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    target = tmp_path / f"target{suffix}"
    annotate(source, target)
    times, images = frames_of(target)
    assert len(times) == 2 * FRAMES
    second = [t for t, image in zip(times, images, strict=True) if image.mean() > 220][3]
    beeps = loud_moments(target)
    if suffix == ".avi":
        second -= times[0]
    assert beeps[0] - flash_time(target) == pytest.approx(0, abs=0.03)
    assert beeps[1] - second == pytest.approx(0, abs=0.06)


def loud_moments(path: Path) -> list[float]:
    """Return when each beep begins, in seconds."""
    moments: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.15)
            if len(loud):
                moment = float(frame.time or 0) + float(loud[0]) / frame.sample_rate
                if not moments or moment > moments[-1] + 0.3:
                    moments.append(moment)
    return moments


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_all_tracks_are_copied_with_languages_and_flags(tmp_path: Path, suffix: str) -> None:
    source = make_clip(tmp_path / "a.mkv", sounds=["aac", "aac"])
    target = tmp_path / f"b{suffix}"
    annotate(source, target)
    with av.open(str(target)) as container, av.open(str(source)) as original:
        assert len(container.streams.audio) == 2
        if suffix != ".avi":  # which has neither
            for copied, track in zip(container.streams.audio, original.streams.audio, strict=True):
                assert copied.language == track.language
            assert [track.language for track in container.streams.audio] == ["ger", "fra"]


def add_subtitles(path: Path) -> Path:
    """Write a clip and one subtitle into a file."""
    text = path.with_suffix(".srt")
    text.write_text("1\n00:00:00,500 --> 00:00:01,000\nHello\n")
    clip = make_clip(path.with_name("clip.mkv"))
    with (
        av.open(str(clip)) as video,
        av.open(str(text)) as titles,
        av.open(str(path), "w") as container,
    ):
        streams = {}
        for number, source in enumerate((video, titles)):
            for stream in source.streams:
                copied = container.add_stream_from_template(stream, opaque=True)
                copied.metadata["language"] = "eng"
                streams[number, stream.index] = copied
        for number, source in enumerate((titles, video)):
            for packet in source.demux():
                if packet.size:
                    packet.stream = streams[1 - number, packet.stream_index]
                    container.mux(packet)
    return path


def test_subtitles_are_copied_or_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = add_subtitles(tmp_path / "source.mkv")
    annotate(source, tmp_path / "a.mkv")
    with av.open(str(tmp_path / "a.mkv")) as container:
        (stream,) = container.streams.subtitles
        (packet,) = [p for p in container.demux(stream) if p.size]
        assert (stream.language, bytes(packet)) == ("eng", b"Hello")
        assert float(packet.pts * packet.time_base) == pytest.approx(0.5, abs=0.001)
    assert not caplog.messages
    annotate(source, tmp_path / "b.mp4")
    assert caplog.messages == [
        f"'{tmp_path / 'b.mp4'}' is written without subtitles 2: .mp4 does not support the "
        "source's subrip"
    ]


@pytest.mark.parametrize("codec", ["pcm_mulaw", "pcm_alaw", "adpcm_ima_wav"])
def test_matroska_takes_the_sound_of_telephones(
    tmp_path: Path, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_clip(tmp_path / "a.avi", sounds=[codec])
    annotate(source, tmp_path / "b.mkv")
    assert not caplog.messages
    assert beep_time(tmp_path / "b.mkv") == pytest.approx(0.8, abs=0.03)
    assert len(frames_of(tmp_path / "b.mkv")[0]) == FRAMES


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_sound_that_an_edit_list_hides_stays_hidden(tmp_path: Path, suffix: str) -> None:
    """As in a file that was trimmed without encoding it again; all sound plays 0.5 s earlier."""
    source = make_clip(tmp_path / "a.mp4", sounds=["aac"])
    data = bytearray(source.read_bytes())
    entry = data.index(b"elst", data.index(b"elst") + 4) + 12
    duration, start = struct.unpack(">2i", data[entry : entry + 8])
    data[entry : entry + 8] = struct.pack(">2i", duration - 500, start + 24000)
    source.write_bytes(data)
    target = tmp_path / f"b{suffix}"
    annotate(source, target)
    assert min(time for _, time in packets_of(target)) > -0.05
    assert beep_time(target) - flash_time(target) == pytest.approx(-0.5, abs=0.025)


def test_sound_of_a_file_on_a_web_server_is_copied(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv")
    with WebServer(tmp_path) as server:
        annotate(f"{server.url}/a.mkv", tmp_path / "b.mkv")
    assert audio_of(tmp_path / "b.mkv") == audio_of(source)


@pytest.mark.parametrize(
    ("pattern", "suffix", "frames", "tracks"),
    [
        ("01-*/dup.flv", ".mp4", 75, 1),
        ("01-*/back5.flv", ".mp4", 75, 1),
        ("02-*/joined.ts", ".mp4", 100, 1),
        ("03-*/joined.ts", ".mp4", 100, 1),
        ("03-*/nosound.ts", ".mp4", 125, 0),
        ("04-*/bf.avi", ".mkv", 50, 1),
        ("11-*/apac1.mp4", ".mp4", 25, 1),
        ("11-*/unkaud.avi", ".mp4", 25, 0),
        ("11-*/unkaud.mkv", ".mkv", 25, 0),
        ("15-*/d20h.ts", ".avi", 50, 1),
        ("22-*/fwd1h.ts", ".mp4", 100, 1),
        ("24-*/ima.avi", ".mkv", 50, 1),
        ("24-*/mulaw.mov", ".mkv", 50, 1),
    ],
)
def test_files_of_bug_reports_are_written_completely(
    tmp_path: Path,
    case: Callable[[str], Path],
    pattern: str,
    suffix: str,
    frames: int,
    tracks: int,
) -> None:
    target = tmp_path / f"target{suffix}"
    annotate(case(pattern), target)
    assert len(frames_of(target)[0]) == frames
    with av.open(str(target)) as container:
        assert len(container.streams.audio) == tracks
