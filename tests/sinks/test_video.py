from __future__ import annotations

import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from realtime_ssd import Detections, open_source
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd.sources import SourceInfo
from tests.videos import audio_of, make_video, stamps_of


def copy(source_path: Path, target: Path, frames: int = 10**9) -> None:
    with open_source(source_path) as source, VideoSink(target, source.info) as sink:
        while (frame := source.read()) is not None and frame.index < frames:
            sink.write(FrameResult(frame, Detections.empty()))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_time_stamps_and_audio_are_the_source_s(tmp_path: Path, suffix: str) -> None:
    stamps = [0, 1001, 2002, 5005, 6006, 9009, 30030]
    source = make_video(tmp_path / f"a{suffix}", stamps, audio=True)
    copy(source, tmp_path / f"b{suffix}")
    assert stamps_of(tmp_path / f"b{suffix}") == stamps_of(source)
    assert audio_of(tmp_path / f"b{suffix}") == audio_of(source)


def make_sound(path: Path, codec: str, seconds: float = 3.0) -> Path:
    """Write one second of video with so much sound; the sound goes on after the video."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", 25, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, 16000, layout="mono")
        for number in range(25):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        wave = np.sin(np.arange(int(16000 * seconds)) * 0.17) * 9000
        tone = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
        tone.sample_rate, tone.pts = 16000, 0
        for piece in av.AudioResampler(sound.format, "mono", 16000, 1024).resample(tone):
            container.mux(sound.encode(piece))
        container.mux(sound.encode())
    return path


def test_sound_of_a_broadcast_is_copied(tmp_path: Path) -> None:
    """MPEG-TS carries AAC in a form that MP4 does not take as it is."""
    source = make_sound(tmp_path / "a.ts", "aac", 1.0)
    copy(source, tmp_path / "b.mp4")
    assert stamps_of(tmp_path / "b.mp4") == stamps_of(source)
    assert len(audio_of(tmp_path / "b.mp4")) == len(audio_of(source))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 16000


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".webm"), ("flac", ".mov")])
def test_sound_that_does_not_fit_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codec: str, suffix: str
) -> None:
    source = make_sound(tmp_path / "a.mkv", codec, 1.0)
    copy(source, tmp_path / f"b{suffix}")
    assert f"without sound: {suffix} does not take the source's {codec}" in caplog.text
    assert len(stamps_of(tmp_path / f"b{suffix}")) == 25
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_longer_than_the_video_is_whole(tmp_path: Path, suffix: str) -> None:
    source = make_sound(tmp_path / f"a{suffix}", "aac")
    copy(source, tmp_path / f"b{suffix}")
    assert audio_of(tmp_path / f"b{suffix}") == audio_of(source)
    copy(source, tmp_path / f"c{suffix}", frames=10)
    assert len(audio_of(tmp_path / f"c{suffix}")) * 1024 / 16000 == pytest.approx(0.4, abs=0.15)


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_sound_before_the_video_does_not_move_it(tmp_path: Path, suffix: str) -> None:
    """MP4 keeps the encoder's first 1024 samples before the beginning."""
    copy(make_sound(tmp_path / "a.mp4", "aac"), tmp_path / f"b{suffix}")
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        stamps = [
            packet.dts * packet.time_base for packet in container.demux(video=0) if packet.size
        ]
    assert stamps == [Fraction(number, 25) for number in range(25)]


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    copy(source, tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 15)


def test_a_recording_begins_at_0_and_goes_on_when_the_clock_is_set_back(tmp_path: Path) -> None:
    info = SourceInfo("x", live=True, rate=Fraction(10))
    image = np.zeros((48, 64, 3), np.uint8)
    with VideoSink(tmp_path / "o.mp4", info) as sink:
        for number, stamp in enumerate([5000, 5100, 5200, 0, 100, 90, 200]):
            sink.write(FrameResult(Frame(image, number, "x", stamp), Detections.empty()))
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.401, 0.5]
    assert stamps_of(tmp_path / "o.mp4") == [Fraction(str(time)) for time in times]


def test_real_clip_with_audio(shared_data: Path, tmp_path: Path) -> None:
    clip = shared_data / "clips/nasa_13013.mp4"
    copy(clip, tmp_path / "out.mp4")
    assert stamps_of(tmp_path / "out.mp4") == stamps_of(clip)
    assert audio_of(tmp_path / "out.mp4") == audio_of(clip)
    with av.open(str(tmp_path / "out.mp4")) as out, av.open(str(clip)) as source:
        assert out.streams.video[0].average_rate == source.streams.video[0].average_rate
        assert out.streams.video[0].frames == 325


def test_odd_and_changing_sizes(tmp_path: Path) -> None:
    info = SourceInfo("x", rate=Fraction(10), time_base=Fraction(1, 10))
    with VideoSink(tmp_path / "o.mp4", info) as sink:
        for number, size in enumerate([(33, 51), (33, 51), (60, 80)]):
            image = np.full((*size, 3), 90, np.uint8)
            sink.write(
                FrameResult(Frame(image, number, "x", number, info.time_base), Detections.empty())
            )
    with av.open(str(tmp_path / "o.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [(f.width, f.height) for f in frames] == [(52, 34)] * 3


def test_a_picture_of_another_shape_keeps_its_proportions(tmp_path: Path) -> None:
    info = SourceInfo("x", rate=Fraction(10), time_base=Fraction(1, 10))
    with VideoSink(tmp_path / "o.mp4", info) as sink:
        for number, size in enumerate([(60, 80), (120, 80)]):
            image = np.full((*size, 3), 200, np.uint8)
            sink.write(
                FrameResult(Frame(image, number, "x", number, info.time_base), Detections.empty())
            )
    with av.open(str(tmp_path / "o.mp4")) as container:
        last = list(container.decode(video=0))[-1].to_ndarray(format="gray")
    bright = (last > 100).mean(axis=0) > 0.5
    assert int(bright.sum()) == pytest.approx(40, abs=2)  # of 80 columns, in the middle
    assert bright[22:58].all()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    path.write_text("precious")
    with pytest.raises(UsageError, match="add --overwrite"):
        VideoSink(path, SourceInfo("x"))
    assert path.read_text() == "precious"
    with pytest.raises(UsageError, match="no video format"):
        VideoSink(tmp_path / "o.xyz", SourceInfo("x"))
    with pytest.raises(UsageError, match="cannot be written"):
        VideoSink(tmp_path / "missing" / "o.mp4", SourceInfo("x"))


_WRITER = """
import sys
from pathlib import Path
from realtime_ssd import Detections, open_source
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd import Frame
source = open_source("demo:160x96@30,frames=8")
images = [frame.image for frame in iter(source.read, None)]
sink = VideoSink(Path(sys.argv[1]), source.info)
for number in range(10**9):
    frame = Frame(images[number % 8], number, "x", number, source.info.time_base)
    sink.write(FrameResult(frame, Detections.empty()))
    if number == 150:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_killed_writer_leaves_a_video(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"o{suffix}"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    stamps = stamps_of(path)
    assert len(stamps) >= 60  # all but the fragment that was under way and what the encoder held
    exact = [Fraction(number, 30) for number in range(len(stamps))]
    most = 0 if suffix == ".mp4" else Fraction(1, 1000)  # Matroska counts milliseconds
    assert all(abs(one - other) <= most for one, other in zip(stamps, exact, strict=True))


_FULL = """
import resource, sys
from pathlib import Path
from realtime_ssd import Detections, open_source
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.video import VideoSink
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
source = open_source("demo:320x180@30,frames=0")
with VideoSink(Path(sys.argv[1]), source.info) as sink:
    try:
        while True:
            sink.write(FrameResult(source.read(), Detections.empty()))
    except RealtimeSSDError as error:
        print(error)
"""


def test_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(path)], capture_output=True, text=True, check=True
    )
    assert "cannot be written any further" in done.stdout
    assert len(stamps_of(path)) > 10
