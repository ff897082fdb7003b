"""Encoders: choice, fallback, quality and size."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from realtime_ssd import Frame
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.containers import container_of
from realtime_ssd.sinks.encoder_options import AutoEncoder, EncoderOptions, parse_bitrate
from realtime_ssd.sinks.encoders import choose_encoder, rate_limit
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd.sources import SourceInfo, open_source
from tests.videos import make_video, stamps_of

RATE = Fraction(25)
INFO = SourceInfo("camera", 320, 192, live=True, rate=RATE, time_base=1 / RATE)


def street(index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return an image with detail that moves."""
    noise = np.random.default_rng(1).integers(0, 256, (24, 400), np.uint8)
    part = np.ascontiguousarray(noise[:, index : index + 320])
    image = np.asarray(cv2.resize(part, (320, 192), interpolation=cv2.INTER_CUBIC), np.uint8)
    return np.repeat(image[:, :, None], 3, axis=2)


def record(path: Path, options: EncoderOptions, frames: int = 50) -> Path:
    with VideoSink(path, INFO, encoding=options) as sink:
        for index in range(frames):
            frame = Frame(street(index), index, "camera", index, 1 / RATE)
            sink.write(FrameResult(frame, Detections.empty()))
    return path


def bits_per_second(path: Path) -> float:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        sizes = [packet.size for packet in container.demux(video) if packet.size]
        return float(8 * sum(sizes) * RATE / len(sizes))


@pytest.mark.parametrize(
    ("suffix", "encoder", "codec"),
    [
        (".mp4", "libx265", "hevc"),
        (".mov", "libx265", "hevc"),
        (".mkv", "libvpx-vp9", "vp9"),
        (".webm", "libsvtav1", "av1"),
        (".mp4", "libsvtav1", "av1"),
        (".avi", "libx264", "h264"),
    ],
)
def test_encoders_write_their_codec(
    tmp_path: Path, suffix: str, encoder: AutoEncoder, codec: str
) -> None:
    path = record(tmp_path / f"o{suffix}", EncoderOptions(encoder), frames=10)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        name = {"libdav1d": "av1"}.get(stream.codec_context.name, stream.codec_context.name)
        assert name == codec
        assert stream.codec_context.codec_tag == "hvc1" or codec != "hevc"
        decoded = [frame.to_ndarray(format="bgr24") for frame in container.decode(stream)]
    assert len(decoded) == 10
    assert np.abs(decoded[5].astype(int) - street(5)).mean() < 6


@pytest.mark.parametrize(
    ("suffix", "encoder"), [(".mp4", "libx265"), (".mp4", "libsvtav1"), (".m4v", "auto")]
)
def test_encoders_keep_time_stamps(tmp_path: Path, suffix: str, encoder: AutoEncoder) -> None:
    source_path = make_video(tmp_path / "v.mp4", [0, 1001, 2002, 5005, 6006, 9009, 30030])
    path, options = tmp_path / f"o{suffix}", EncoderOptions(encoder)
    with open_source(source_path) as source, VideoSink(path, source.info, encoding=options) as sink:
        for frame in source:
            sink.write(FrameResult(frame, Detections.empty()))
    assert stamps_of(path) == stamps_of(source_path)


def test_an_encoder_of_another_format_is_refused(tmp_path: Path) -> None:
    for name, encoder in (
        ("o.webm", "libx264"),
        ("o.avi", "libx265"),
        ("o.mov", "av1_nvenc"),
        ("o.m4v", "libx265"),
    ):
        with pytest.raises(UsageError, match=r"cannot be used for \.\w+; set `encoder` to auto or"):
            VideoSink(tmp_path / name, INFO, encoding=EncoderOptions(encoder))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_nvenc_falls_back_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    chosen = choose_encoder("h264_nvenc", container_of(Path("o.mp4")), (320, 192), RATE)
    if chosen == "h264_nvenc":
        pytest.skip("this machine has NVENC")
    assert chosen == "libx264"
    (message,) = caplog.messages
    assert message.startswith("h264_nvenc cannot be used (")
    assert message.endswith("); libx264 encodes instead")
    assert "()" not in message


def test_auto_is_silent_without_a_gpu(caplog: pytest.LogCaptureFixture) -> None:
    chosen = choose_encoder("auto", container_of(Path("o.mkv")), (320, 192), RATE)
    assert chosen in ("libx264", "h264_nvenc")
    assert not [text for text in caplog.messages if "libcuda" in text]
    assert choose_encoder("auto", container_of(Path("o.webm")), (320, 192), RATE) == "libvpx-vp9"


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libvpx-vp9", "libsvtav1"])
def test_bitrate_is_kept(tmp_path: Path, encoder: AutoEncoder) -> None:
    path = record(tmp_path / "o.mkv", EncoderOptions(encoder, bitrate=200_000), frames=75)
    assert bits_per_second(path) == pytest.approx(200_000, rel=0.35)


def test_quality_decides_the_size(tmp_path: Path) -> None:
    sizes = [
        bits_per_second(record(tmp_path / f"{quality}.mp4", EncoderOptions(quality=quality)))
        for quality in (20, 60, 95)
    ]
    assert sizes[0] * 2 < sizes[1]
    assert sizes[1] * 2 < sizes[2]


@pytest.mark.parametrize("source_suffix", [".mkv", ".mp4", ".264"])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_video_is_at_most_twice_as_large_as_the_source(
    tmp_path: Path, suffix: str, source_suffix: str
) -> None:
    options = EncoderOptions("libx264", quality=30)
    source_path = record(tmp_path / "source.mkv", options, frames=75)
    if source_suffix != ".mkv":
        source_path = remux(source_path, source_path.with_suffix(source_suffix))
    path = tmp_path / f"o{suffix}"
    with open_source(str(source_path)) as source, VideoSink(path, source.info) as sink:
        assert rate_limit(source.info) is not None
        for frame in source:
            sink.write(FrameResult(frame, Detections.empty()))
    assert path.stat().st_size < 2 * source_path.stat().st_size


def remux(source_path: Path, path: Path) -> Path:
    form = "h264" if path.suffix == ".264" else None
    with av.open(str(source_path)) as source, av.open(str(path), "w", form) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["carnd_vehicle_test_video.mp4", "nasa_13013.mp4"])
def test_real_clips_at_most_double(shared_data: Path, tmp_path: Path, name: str) -> None:
    clip, path = shared_data / "clips" / name, tmp_path / "o.mp4"
    with open_source(str(clip)) as source, VideoSink(path, source.info) as sink:
        for frame in source:
            sink.write(FrameResult(frame, Detections.empty()))
    assert path.stat().st_size < 2 * clip.stat().st_size
    assert bits_per_second(path) < 2 * bits_per_second(clip)


def test_options_are_checked() -> None:
    for text, bits in (("800k", 800_000), ("2.5M", 2_500_000), ("1000000", 1_000_000)):
        assert parse_bitrate(text) == bits
    for text in ("fast", "-1M", "1 M 2", "", "nan"):
        with pytest.raises(UsageError, match="`bitrate` must be a number"):
            parse_bitrate(text)
    with pytest.raises(UsageError, match="`quality` must be from 1 to 100, not 0"):
        EncoderOptions(quality=0)
    with pytest.raises(UsageError, match=r"`bitrate` must be from 10k"):
        EncoderOptions(bitrate=1)
    with pytest.raises(UsageError, match="exclude each other"):
        EncoderOptions(quality=50, bitrate=100_000)
    with pytest.raises(UsageError, match="there is no `encoder` 'x264'; use one of auto, libx264"):
        EncoderOptions("x264")  # type: ignore[arg-type]
