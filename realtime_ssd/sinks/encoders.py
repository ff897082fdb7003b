"""Video encoders: which one is used, and how much it writes."""

from __future__ import annotations

import logging
import os
import re
import threading
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.codec.codec import UnknownCodecError
from av.container import InputContainer, OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.gpu import cuda_version
from realtime_ssd.sinks.containers import Container
from realtime_ssd.sinks.encoder_options import ENCODERS, AutoEncoder, EncoderOptions
from realtime_ssd.sources.base import SourceInfo
from realtime_ssd.sources.media_input import open_input

__all__ = [
    "RateLimit",
    "add_video",
    "available_encoders",
    "check_encoder",
    "choose_encoder",
    "rate_limit",
]

_log = logging.getLogger(__name__)
_log_level_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Encoder:
    """How an encoder is set up.

    Attributes:
        codec: Name of the format it writes.
        options: Its options for live speed, without B-frames.
        quality_option: Its option for constant quality.
        worst: Value of that option for the worst quality; 0 is the best one.
        default: Value of that option by default.
    """

    codec: str
    options: dict[str, str]
    quality_option: str = "crf"
    worst: int = 51
    default: int = 20


_NVENC = {"preset": "p4", "rc": "vbr", "b": "0", "bf": "0"}
_ENCODERS = {
    "libx264": _Encoder("h264", {"preset": "veryfast", "bf": "0"}),
    "libx265": _Encoder(
        "hevc", {"preset": "ultrafast", "x265-params": "log-level=error:bframes=0"}, default=24
    ),
    "libsvtav1": _Encoder("av1", {"preset": "10"}, worst=63, default=32),
    "libvpx-vp9": _Encoder(
        "vp9",
        {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "b": "0"},
        worst=63,
        default=30,
    ),
    "h264_nvenc": _Encoder("h264", _NVENC, "cq", default=23),
    "hevc_nvenc": _Encoder("hevc", _NVENC, "cq", default=26),
    "av1_nvenc": _Encoder("av1", _NVENC, "cq", worst=63, default=34),
}
_LOW_DELAY = {
    "libx264": {"tune": "zerolatency"},
    "libx265": {"tune": "zerolatency"},
    "h264_nvenc": {"tune": "ll", "delay": "0"},
    "hevc_nvenc": {"tune": "ll", "delay": "0"},
}
_SOFTWARE = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}
# BT.601 in limited range, the result of OpenCV's conversion: SMPTE 170M in AVColorSpace,
# AVColorPrimaries and AVColorTransferCharacteristic, MPEG in AVColorRange.
_SMPTE170M, _LIMITED_RANGE = 6, 1
_KEY_FRAME_INTERVAL = 2  # in seconds
_VP9_KEY_FRAME_INTERVAL = 10  # likewise, where the size is limited: its key frames ignore that
# The limit of the video's bit rate as a multiple of the source's. Twice, less what the encoder's
# buffer and the container add.
_LIMIT, _BUFFER_PART = 1.7, 0.1
_MIN_BUFFER, _MAX_BUFFER = 0.3, 2.0  # in seconds
_SHARE_WITH_SOUND = 0.55  # so that copied sound, however large, fits into the rest
_MEASURED_PACKETS = 300  # of a raw video stream, whose header has neither duration nor bit rate
_MIN_LIMIT = 48_000  # bits per second; a few colored boxes need more than a black video


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Upper limit of a bit rate.

    Attributes:
        bits: Bits per second.
        buffer: Seconds over which it may be exceeded.
    """

    bits: int
    buffer: float


def choose_encoder(
    requested: AutoEncoder, container: Container, size: tuple[int, int], rate: Fraction
) -> str:
    """Return the encoder to use; the reason for another than the requested one is logged.

    Args:
        requested: Name of an encoder, or "auto": NVENC where it opens, else the CPU.
        container: Container format that must store its output.
        size: Width and height in pixels.
        rate: Frames per second.

    Raises:
        UsageError: If the container format cannot store its output, or FFmpeg does not have it.
    """
    if requested != "auto":
        check_encoder(requested, container)
    preferred = container.codec if requested == "auto" else requested
    if preferred == "libx264" and requested == "auto" and cuda_version() is not None:
        preferred = "h264_nvenc"
    if not preferred.endswith("_nvenc"):
        return preferred
    reason = _failure(preferred, size, rate)
    if not reason:
        return preferred
    fallback = _SOFTWARE[_ENCODERS[preferred].codec]
    _log.warning("%s cannot be used (%s); %s encodes instead", preferred, reason, fallback)
    return fallback


def check_encoder(name: str, container: Container) -> None:
    """Raise a `UsageError` unless a container format stores what an encoder writes."""
    if _ENCODERS[name].codec in container.stored:
        return
    usable = [key for key in ENCODERS if key in _ENCODERS and _ENCODERS[key].codec in
              container.stored]  # fmt: skip
    raise UsageError(
        f"{name} cannot be used for {container.name}; set `encoder` to auto or one of "
        f"{', '.join(usable)}"
    )


def _failure(name: str, size: tuple[int, int], rate: Fraction) -> str:
    """Return why an encoder cannot be opened; an empty string if it can."""
    with _log_level_lock:  # FFmpeg writes the reason as a log message
        level = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        skips_repeated = av.logging.get_skip_repeated()
        av.logging.set_skip_repeated(False)  # the reason may be the same as in an earlier attempt
        try:
            with av.logging.Capture() as messages:
                return _open_failure(name, size, rate) and _first_reason(messages)
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skips_repeated)


def _open_failure(name: str, size: tuple[int, int], rate: Fraction) -> str:
    try:
        context = av.CodecContext.create(name, "w")
    except UnknownCodecError:
        return "missing"
    if not isinstance(context, VideoCodecContext):
        raise TypeError(name)
    context.width, context.height = size
    context.pix_fmt, context.framerate, context.time_base = "yuv420p", rate, 1 / rate
    context.options = _ENCODERS[name].options
    try:
        context.open()
    except (av.error.FFmpegError, OSError):
        return "failed"
    return ""


def _first_reason(messages: list[tuple[int, str, str]]) -> str:
    for _, _, text in messages:
        if text.strip():
            return re.sub(r"\s+", " ", text).strip().rstrip(".")
    return "this FFmpeg cannot open it"


def rate_limit(info: SourceInfo) -> RateLimit | None:
    """Return the limit that keeps annotated video below twice the source's bit rate.

    Args:
        info: The source.

    Returns:
        None for cameras, streams and images, whose bit rate is not known.
    """
    if info.live or info.still or not info.media:
        return None
    try:
        with open_input(info.media, timeout=5) as source:
            video = source.streams.video[0]
            bits = _LIMIT * (video.bit_rate or _measured_bit_rate(source, info))
            seconds = (source.duration or 0) / av.time_base
    except (av.error.FFmpegError, OSError, IndexError):
        return None
    if not bits:
        return None
    buffer = min(max(_BUFFER_PART * seconds, _MIN_BUFFER), _MAX_BUFFER)
    return RateLimit(max(round(bits), _MIN_LIMIT), buffer)


def _measured_bit_rate(source: InputContainer, info: SourceInfo) -> float:
    """Return the bit rate of a video that is not stored with it, or 0.

    That of the container includes the sound, which is copied.
    """
    if source.bit_rate:
        return source.bit_rate * (_SHARE_WITH_SOUND if len(source.streams) > 1 else 1)
    packets = source.demux(source.streams.video[0])
    sizes = [packet.size for packet in islice(packets, _MEASURED_PACKETS) if packet.size]
    return 8 * sum(sizes) * float(info.rate or 25) / len(sizes) if sizes else 0


def add_video(
    container: OutputContainer,
    encoder: str,
    rate: Fraction,
    size: tuple[int, int],
    options: EncoderOptions | None = None,
    limit: RateLimit | None = None,
    *,
    low_delay: bool = False,
) -> VideoStream:
    """Add a video stream with the encoder settings of annotated video.

    Args:
        container: Output file.
        encoder: Name of the encoder, as `choose_encoder` returns it.
        rate: Frames per second.
        size: Width and height in pixels, both even.
        options: Quality or bit rate; the encoder's default quality by default.
        limit: Upper limit of the bit rate at the default quality.
        low_delay: Whether each frame must be written at once.
    """
    settings = _settings(encoder, options or EncoderOptions(), limit)
    if low_delay:
        settings |= _LOW_DELAY.get(encoder, {})
    if encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only; it has no option for this
    stream = container.add_stream(encoder, rate, options=settings)
    if not isinstance(stream, VideoStream):
        raise TypeError(encoder)
    context = stream.codec_context
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    interval = _KEY_FRAME_INTERVAL
    if encoder == "libvpx-vp9" and limit is not None:
        interval = _VP9_KEY_FRAME_INTERVAL
    context.gop_size = max(1, round(rate * interval))
    context.colorspace, context.color_range = _SMPTE170M, _LIMITED_RANGE
    context.color_primaries = context.color_trc = _SMPTE170M
    if _ENCODERS[encoder].codec == "hevc" and container.format.name in ("mp4", "mov", "ipod"):
        context.codec_tag = "hvc1"  # the only one that Apple's players take
    return stream


def _settings(name: str, options: EncoderOptions, limit: RateLimit | None) -> dict[str, str]:
    """Return the options of an encoder for a quality, a bit rate or a limit."""
    encoder = _ENCODERS[name]
    if options.bitrate is not None:
        bits = options.bitrate
        settings = {**encoder.options, "b": str(bits)}
        if name == "libvpx-vp9":  # it exceeds an average that is not also the maximum
            settings |= {"minrate": str(bits), "maxrate": str(bits), "bufsize": str(bits // 2)}
        elif name != "libsvtav1":  # it takes no maximum beside an average
            settings |= {"maxrate": str(bits * 3 // 2), "bufsize": str(bits * 2)}
        return settings
    value = encoder.default
    if options.quality is not None:
        value = round(encoder.worst * (100 - options.quality) / 100)
    settings = {**encoder.options, encoder.quality_option: str(value)}
    if limit is None or options.quality is not None:
        return settings
    if name == "libvpx-vp9":  # here an average, which is exceeded, limits the quality
        settings |= {"b": str(round(0.5 * limit.bits))}
    buffer = str(round(limit.bits * limit.buffer))
    return {**settings, "maxrate": str(limit.bits), "bufsize": buffer}


def available_encoders() -> list[str]:
    """Return the names of the encoders of annotated video that can be opened here."""
    size, rate = (640, 360), Fraction(30)
    names = [name for name in _ENCODERS if name in av.codecs_available]
    return [n for n in names if not n.endswith("_nvenc") or not _failure(n, size, rate)]
