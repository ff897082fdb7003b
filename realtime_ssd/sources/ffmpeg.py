"""Shared by the sources that decode with FFmpeg: conversion of frames, and error messages."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Iterable, Sequence

import cv2  # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
import numpy as np
from av.audio.stream import AudioStream
from av.buffer import Buffer
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from realtime_ssd.core.frames import Image
from realtime_ssd.sources.formats import scheme_of
from realtime_ssd.sources.packet_feed import PacketFeed
from realtime_ssd.sources.tone_mapping import ToneMapper, is_hdr

__all__ = [
    "FrameConverter",
    "codec_name",
    "discard",
    "error_reason",
    "is_remote",
    "is_tile",
    "main_video",
    "media_location",
    "orientation_of",
    "sound_of",
    "undecodable",
    "upright_size",
]
_log_level_lock = threading.Lock()


def orientation_of(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Return how a player turns a decoded frame, from its display matrix.

    Returns:
        Whether rows and columns are exchanged, and whether the result is then mirrored from left
        to right, and from top to bottom.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, Buffer) or data.buffer_size < 36:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Return width and height of a decoded frame in pixels, after rotation."""
    sideways = orientation_of(frame)[0]
    return (frame.height, frame.width) if sideways else (frame.width, frame.height)


def _turn(image: Image, orientation: tuple[bool, bool, bool]) -> Image:
    """Return an image upright; see `orientation_of`."""
    transposed, horizontal, vertical = orientation
    turned = cv2.transpose(image) if transposed else image
    if horizontal or vertical:
        turned = cv2.flip(turned, -1 if horizontal and vertical else int(horizontal))
    return np.asarray(turned, np.uint8)


def is_remote(path: str) -> bool:
    """Return whether the path of a source is a URL."""
    return bool(scheme_of(path))


def media_location(path: str) -> str:
    """Return how FFmpeg is told to open a path, whose name may look like a protocol."""
    return path if is_remote(path) else f"file:{path}"


def main_video(streams: Sequence[VideoStream]) -> VideoStream:
    """Return the video stream to detect in: the first one that is no cover picture.

    Of the variants of an HLS playlist it is the largest; the others are not downloaded.

    Args:
        streams: All video streams of a container, at least one.
    """
    videos = [one for one in streams if Disposition.attached_pic not in one.disposition]
    videos = videos or list(streams)
    if not any(_BIT_RATE in one.metadata for one in videos):
        return videos[0]
    best = max(videos, key=_variant_rank)
    discard([one for one in videos if one is not best])
    return best


def discard(streams: Iterable[Stream]) -> None:
    """Neither read nor download these streams, where PyAV can (since 17)."""
    values = getattr(av.stream, "Discard", None)
    for stream in streams:
        if values is not None:
            stream.discard = values.all


_BIT_RATE = "variant_bitrate"  # metadata of FFmpeg's HLS reader


def _variant_rank(stream: VideoStream) -> tuple[int, int]:
    context: VideoCodecContext | None = stream.codec_context  # None if the codec is unknown
    size = context.width * context.height if context is not None else 0
    return size, int(stream.metadata.get(_BIT_RATE, 0))


def sound_of(streams: Sequence[AudioStream], video: VideoStream) -> list[AudioStream]:
    """Return the sound tracks that belong to a video stream; in HLS, those of its variant.

    Args:
        streams: All sound tracks of the container.
        video: The video stream.
    """
    if _BIT_RATE not in video.metadata:
        return list(streams)
    # The streams of a variant follow each other; sound of its own, such as another language, has
    # the name of its track as a comment.
    others = [one.index for one in video.container.streams.video if one.index > video.index]
    following = [one for one in streams if video.index < one.index < min([*others, 10**6])]
    separate = [one for one in streams if "comment" in one.metadata]
    return following or separate or list(streams)


def codec_name(container: InputContainer | PacketFeed | None, stream: Stream) -> str:
    """Return the name of a stream's codec; of an unknown one its tag, such as "codec 'apac'"."""
    context: object | None = stream.codec_context  # None, whatever its annotation says
    if isinstance(context, av.CodecContext):
        return str(context.codec.canonical_name)
    if container is None:
        return ""
    with _log_level_lock:  # FFmpeg writes the description as a log message
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            describe: Callable[[], str] = getattr(container, "dumps_format")  # noqa: B009
            description = describe()  # absent from PyAV's annotations
        finally:
            av.logging.set_level(level)
    line = rf"Stream #0:{stream.index}\b.*: none \((.+?) / (0x\w+)\)"
    match = re.search(line, description)
    if match is None:
        return "unknown codec"
    return f"codec {match[2] if '[' in match[1] else repr(match[1])}"


def is_tile(stream: VideoStream) -> bool:
    """Return whether a stream is a part of an image rather than the whole."""
    return Disposition.dependent in stream.disposition


def undecodable(name: str, container: InputContainer, stream: VideoStream) -> str:
    """Return why a video stream cannot be decoded; an empty string if it can.

    Args:
        name: Name of the source, for the message.
        container: The open source.
        stream: Its video stream.
    """
    context: VideoCodecContext | None = stream.codec_context  # None if the codec is unknown
    if is_tile(stream):
        return f"'{name}' is an image stored in tiles; use a local file whose name ends in .heic"
    if context is not None:
        return ""
    codec = codec_name(container, stream)
    return (
        f"'{name}' cannot be decoded: this FFmpeg has no decoder for its {codec}; convert the "
        "video to H.264"
    )


class FrameConverter:
    """Converts decoded frames into BGR images, in any thread.

    Frames in GPU memory are downloaded, and HDR is mapped to the range of ordinary video.

    Each thread has a converter of its own: it is expensive to create and not safe to share.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def to_bgr(self, frame: av.VideoFrame) -> Image:
        """Return a frame as an upright image, H × W × 3 uint8 BGR."""
        reformatter: VideoReformatter | None = getattr(self._local, "reformatter", None)
        if reformatter is None:
            reformatter = self._local.reformatter = VideoReformatter()
            self._local.tone_mapper = ToneMapper(reformatter)
        if is_hdr(frame):
            converted = self._local.tone_mapper.to_bgr24(frame)
        else:
            converted = reformatter.reformat(frame, format="bgr24", threads=1)
        image = np.asarray(converted.to_ndarray(), np.uint8)
        return _turn(image, orientation_of(frame))


def error_reason(error: Exception) -> str:
    """Return the meaning of an FFmpeg or system error, without the URL it may contain."""
    if isinstance(error, av.error.InvalidDataError):
        return "it is not a video, or it is damaged"
    if isinstance(error, av.error.PatchWelcomeError | av.error.BugError):
        return "FFmpeg does not support this kind of file"
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "the server refused the user name or password"
    if isinstance(error, av.error.ExitError):
        return "no answer in time"
    if isinstance(error, av.error.FFmpegError) and error.errno == errno.ETIMEDOUT:
        return "no answer in time"
    reason: str = getattr(error, "strerror", None) or "unknown error"
    return reason.lower() if isinstance(error, av.error.FFmpegError) else reason
