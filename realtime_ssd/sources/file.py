"""Video files: every frame, in order, with its own time stamp and turned upright."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Generator
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.errors import SourceError, UsageError, first_line, redact
from realtime_ssd.core.frames import Frame, Image, LazyImage
from realtime_ssd.sources.base import BaseSource, SourceInfo
from realtime_ssd.sources.nvdec import open_on_gpu, surface_of

__all__ = ["FrameConverter", "VideoFile", "decoders", "explain"]

_log = logging.getLogger(__name__)

MOST_DECODERS = 4
TIMEOUT = 8.0  # seconds that a file on the network may take to open, and for each read


class VideoFile(BaseSource):
    """Reads a video file, or a video file on the network.

    Args:
        path: File or URL.
        gpu: Whether to decode on the GPU and leave the frames there; where that cannot be, the CPU
            decodes, with a warning that says why.

    Raises:
        UsageError: If there is no such file or it may not be read.
        SourceError: If it is no video.
    """

    def __init__(self, path: str, *, gpu: bool = False) -> None:
        self._path, self._name, self._gpu = path, redact(path), gpu
        self._container: InputContainer | None = None
        self._painter = FrameConverter()
        self.info = SourceInfo(self._name)
        self.open()

    def open(self) -> None:
        """Open the file; it starts from the first frame."""
        self.close()
        container = _open(self._path, self._name, gpu=self._gpu)
        if not container.streams.video:
            container.close()
            raise SourceError(f"'{self._name}' has no video in it; give a video file")
        self._container, self._stream = container, container.streams.video[0]
        self._stream.thread_type = "AUTO"
        context = self._stream.codec_context
        context.thread_count = decoders(context.width, context.height, cpu_count())
        self._packets = self._damaged = self._patched = self._index = self._reached = 0
        self._broken = ""
        self._decoded = self._decode(container)
        self._turn: int | None = None
        first = self._first_turn()
        self.info = _describe(self._path, self._name, self._stream, upright=first % 180 == 0)

    def _first_turn(self) -> int:
        """Decode the first frame, which tells how the video is turned."""
        first = self._waiting = next(self._decoded, None)
        if first is None:
            return 0
        if self._gpu and self._stream.codec_context.is_hwaccel and first.format.name != "cuda":
            _warn(self._name, "NVDEC does not take this kind of video")
        return _rotation(first)

    def read(self) -> Frame | None:
        """See `Source.read`; damage is told after the last frame that could be read."""
        if self._container is None:
            return None
        decoded, self._waiting = self._waiting or next(self._decoded, None), None
        if decoded is None:
            self._check_end()
            return None
        base = decoded.time_base or self._stream.time_base or Fraction(1, 1000)
        frame = self._frame(decoded, base)
        self._index += 1
        return frame

    def _frame(self, decoded: av.VideoFrame, base: Fraction) -> Frame:
        return Frame(
            LazyImage(partial(self._paint, decoded), *upright_size(decoded)),
            self._index,
            self._name,
            decoded.pts,
            base,
            surface=surface_of(decoded) if decoded.format.name == "cuda" else None,
        )

    def _paint(self, decoded: av.VideoFrame) -> Image:
        try:
            return self._painter.paint(decoded)
        except (av.error.FFmpegError, ValueError) as error:
            raise SourceError(
                f"'{self._name}' holds pictures that cannot be turned into BGR: {first_line(error)}"
            ) from error

    def close(self) -> None:
        """See `Source.close`."""
        if self._container is not None:
            self._decoded.close()
            self._container.close()
            self._container = None

    def _decode(self, container: InputContainer) -> Generator[av.VideoFrame, None, None]:
        """Decode packet by packet; what cannot be decoded is counted and left out."""
        packets = container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self._broken = error.strerror or "damaged"
                return
            self._count(packet)
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self._damaged += 1
                continue
            self._patched += sum(frame.is_corrupt for frame in frames)
            yield from frames

    def _count(self, packet: av.Packet[Any]) -> None:
        """Note how many packets came, and up to which time."""
        if not packet.size:
            return
        self._packets += 1
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None:
            self._reached = max(self._reached, stamp + (packet.duration or 0))

    def _breaks_off(self) -> bool:
        """Tell whether the file ends before its time.

        AVI counts pictures that were left out among its frames, so that fewer of them are no
        damage as long as they reach to the end.
        """
        stream = self._stream
        if self._broken or not stream.frames or self._packets >= stream.frames:
            return bool(self._broken)
        if not stream.duration or not stream.time_base:
            return True
        frame = 1 / (stream.average_rate * stream.time_base) if stream.average_rate else Fraction(1)
        return self._reached < (stream.start_time or 0) + stream.duration - frame / 2

    def _check_end(self) -> None:
        """Tell what was wrong with the file once all that could be read has been.

        Raises:
            SourceError: If frames are missing.
        """
        if not self._index:
            reason = "it may be damaged"
            if "://" in self._path:
                reason += ", or its server may not let it be read from the middle: fetch it first"
            raise SourceError(f"'{self._name}' has no frame that can be decoded; {reason}")
        promised = self._stream.frames
        kept = f"the {self._index} frames that could be decoded were kept"
        if self._breaks_off():
            of_all = f" of {promised}" if promised else ""
            raise SourceError(
                f"'{self._name}' breaks off after frame {self._packets}{of_all}; {kept}"
            )
        if self._damaged:
            raise SourceError(f"'{self._name}' is damaged in {self._damaged} places; {kept}")
        if self._patched:
            _log.warning(
                "'%s' is damaged: %d of its %d frames were patched up and may look wrong",
                *(self._name, self._patched, self._index),
            )


def _open(path: str, name: str, *, gpu: bool) -> InputContainer:
    remote = "://" in path
    timeout = TIMEOUT if remote else None
    try:
        if not remote:
            with Path(path).open("rb"):
                pass
        if gpu:
            container, reason = open_on_gpu(path, timeout)
            if container is not None:
                return container
            _warn(name, reason)
        return av.open(path, timeout=timeout)
    except av.error.FFmpegError as error:
        raise SourceError(f"'{name}' cannot be read as a video: {explain(error)}") from None
    except OSError as error:
        raise UsageError(f"'{name}' cannot be opened: {error.strerror}") from None


def decoders(width: int, height: int, cores: int) -> int:
    """Choose a decoder's threads: as few as keep up with inference, for each one costs time."""
    return max(1, min(cores, MOST_DECODERS, ceil(width * height / 1e6 * cores / 2)))


def _warn(name: str, reason: str) -> None:
    _log.warning("'%s' is decoded on the CPU: %s", name, reason)


def explain(error: av.error.FFmpegError) -> str:
    """Say what FFmpeg's error means, without the URL it may contain."""
    if isinstance(error, av.error.InvalidDataError):
        return "it is no video, or it is damaged"
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "the server refused the user name or password"
    if isinstance(error, av.error.ExitError) or error.errno == errno.ETIMEDOUT:
        return "no answer in time"
    return (error.strerror or "unknown error").lower()


def _describe(path: str, name: str, stream: VideoStream, *, upright: bool) -> SourceInfo:
    width, height = stream.codec_context.width, stream.codec_context.height
    file = None if "://" in path else Path(path)
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    return SourceInfo(
        name=name,
        width=width if upright else height,
        height=height if upright else width,
        rate=stream.average_rate or stream.base_rate,
        time_base=stream.time_base or Fraction(1, 1000),
        frame_count=stream.frames or None,
        path=file,
        files=() if file is None else (file,),
        pixel_aspect=aspect if upright else 1 / aspect,
    )


def _rotation(frame: av.VideoFrame) -> int:
    """Give the angle by which a player turns the frame, counter-clockwise, 0 to 270."""
    return round(frame.rotation / 90) * 90 % 360


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Give width and height of a decoded frame as a player shows it."""
    turned = _rotation(frame) % 180 != 0
    return (frame.height, frame.width) if turned else (frame.width, frame.height)


_TURNS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}


class FrameConverter:
    """Turns decoded frames into BGR images, in any thread; frames in GPU memory are fetched.

    Each thread keeps a converter of its own, for it is costly to set up and serves one at a time.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def paint(self, frame: av.VideoFrame) -> Image:
        """Give the frame as an upright BGR image, H × W × 3 uint8."""
        converter: VideoReformatter | None = getattr(self._local, "converter", None)
        if converter is None:
            converter = self._local.converter = VideoReformatter()
        converted = converter.reformat(frame, format="bgr24", threads=1)
        image = np.asarray(converted.to_ndarray(), np.uint8)
        turn = _rotation(frame)
        if turn:
            image = cv2.rotate(image, _TURNS[turn]).astype(np.uint8, copy=False)
        return image
