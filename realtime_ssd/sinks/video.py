"""Annotated video: H.264 with the source's own time stamps, and its audio copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

from realtime_ssd.errors import RealtimeSSDError, UsageError
from realtime_ssd.frames import Image
from realtime_ssd.sinks.base import BaseSink, Result
from realtime_ssd.sources.base import SourceInfo

__all__ = ["SUFFIXES", "VideoSink"]

Packet: TypeAlias = "av.Packet[Any]"

_CODECS = {
    ".mp4": "libx264",
    ".m4v": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".avi": "libx264",
    ".webm": "libvpx-vp9",
}
SUFFIXES = tuple(_CODECS)
_ENCODER = {
    "libx264": {"preset": "veryfast", "crf": "20", "bf": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "30", "b": "0"},
}
# Written in fragments, each readable once it is on the disk, and made an ordinary file at the end.
# Time stamps stay as they are, also where audio begins before the video.
_FRAGMENTS = {
    "movflags": "hybrid_fragmented+delay_moov",
    "frag_duration": "1000000",
    "avoid_negative_ts": "disabled",
    "flush_packets": "1",
}
_KEY_SECONDS = 2


class VideoSink(BaseSink):
    """Writes annotated frames into a video file.

    What was written stays readable if the program is killed or the disk gets full.

    Args:
        path: File; its ending chooses the container.
        info: The source, for its rate, time base and audio.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: If the file exists, cannot be written or has an unknown ending.
    """

    def __init__(self, path: Path, info: SourceInfo, *, overwrite: bool = False) -> None:
        self._path, self._info = path, info
        self._codec = _codec(path)
        _claim(path, overwrite)
        self._container: OutputContainer | None = None
        self._audio: _Audio | None = None
        self._closed = self._failed = False
        self._stream: VideoStream | None = None
        self._size = (0, 0)
        self._last = -1
        self._frames = 0

    def write(self, result: Result) -> None:
        """See `Sink.write`; frames of another size are scaled to that of the first."""
        if self._closed:
            return
        image = result.annotated()
        with _Told(self):
            if self._container is None:
                self._begin(image)
            frame = av.VideoFrame.from_ndarray(_planes(image, self._size), format="yuv420p")
            frame.time_base = self._base
            frame.pts = self._stamp(result)
            self._mux(frame)
            self._frames += 1

    def close(self) -> None:
        """See `Sink.close`."""
        if self._closed:
            return
        self._closed = True
        container = self._container
        if container is None:
            if self._path.exists() and self._path.stat().st_size == 0:
                self._path.unlink()  # no frame ever came; an empty file is no video
            return
        if self._failed:
            with suppress(av.error.FFmpegError, OSError):
                container.close()
            return
        with _Told(self):
            self._mux(None)
            if self._audio:
                whole = self._info.frame_count is not None and self._frames >= (
                    self._info.frame_count
                )
                self._copy_audio(None if whole else self._time(self._last + self._step))
                self._audio.close()
            container.close()

    def _begin(self, image: Image) -> None:
        height, width = image.shape[:2]
        self._size = (width + width % 2, height + height % 2)
        self._base = self._info.time_base
        rate = self._info.rate or Fraction(30)
        self._step = max(1, round(1 / (rate * self._base)))
        options = _FRAGMENTS if self._path.suffix.lower() in (".mp4", ".m4v", ".mov") else {}
        self._container = container = av.open(str(self._path), "w", container_options=options)
        stream = container.add_stream(self._codec, rate, options=_ENCODER[self._codec])
        if not isinstance(stream, VideoStream):
            raise TypeError(self._codec)
        context = stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt, context.time_base = "yuv420p", self._base
        context.gop_size = max(1, round(rate * _KEY_SECONDS))
        # BT.601, limited range: what OpenCV's conversion gives.
        context.colorspace, context.color_range = 6, 1
        context.color_primaries, context.color_trc = 6, 6
        stream.time_base = self._base
        self._stream = stream
        if self._info.path is not None:
            self._audio = _Audio.of(self._info.path, container)

    def _stamp(self, result: Result) -> int:
        """Give the frame's time stamp; never one that goes back."""
        frame = result.frame
        if frame.pts is None:
            wanted = self._last + self._step if self._frames else 0
        else:
            wanted = round(frame.pts * frame.time_base / self._base)
        self._last = wanted if not self._frames else max(wanted, self._last + 1)
        return self._last

    def _time(self, pts: int) -> float:
        return float(pts * self._base)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        container = self._container
        if container is None or self._stream is None:
            return
        for packet in self._stream.encode(frame):
            if packet.pts is not None and packet.duration == 0:
                packet.duration = self._step
            if self._audio:
                self._copy_audio(_seconds(packet))
            container.mux(packet)

    def _copy_audio(self, until: float | None) -> None:
        if self._audio and self._container is not None:
            for packet in self._audio.packets(until):
                self._container.mux(packet)

    def fail(self, error: Exception) -> RealtimeSSDError:
        """Note that nothing more can be written, and say why."""
        self._failed = True
        reason = getattr(error, "strerror", None) or str(error)
        return RealtimeSSDError(
            f"'{self._path}' cannot be written any further ({reason}); the {self._frames} frames "
            "before can be played but for the last second"
        )


class _Told:
    """Turns a failure to write into one sentence."""

    def __init__(self, sink: VideoSink) -> None:
        self._sink = sink

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, av.error.FFmpegError | OSError | ValueError):
            raise self._sink.fail(error) from error


class _Audio:
    """Gives the audio packets of a source file, as they are, in step with the video.

    Args:
        source: Opened source file.
        container: Where the packets go.
    """

    def __init__(self, source: av.container.InputContainer, container: OutputContainer) -> None:
        self._source = source
        self._input = source.streams.audio[0]
        self._output = container.add_stream_from_template(self._input)
        self._waiting: Packet | None = None
        self._rest: Iterator[Packet] = source.demux(self._input)

    @classmethod
    def of(cls, path: Path, container: OutputContainer) -> _Audio | None:
        """Open the audio of a file; None if it has none that this container can take."""
        try:
            source = av.open(str(path))
        except av.error.FFmpegError:
            return None
        if not source.streams.audio:
            source.close()
            return None
        try:
            return cls(source, container)
        except (av.error.FFmpegError, ValueError):
            source.close()
            return None

    def packets(self, until: float | None) -> Iterator[Packet]:
        """Give the packets up to a time in seconds, or all that are left."""
        while True:
            packet = self._waiting or self._next()
            self._waiting = packet
            if packet is None:
                return
            if until is not None and _seconds(packet) > until:
                return
            self._waiting = None
            if packet.dts is not None:
                packet.stream = self._output
                yield packet

    def _next(self) -> Packet | None:
        try:
            return next(self._rest, None)
        except av.error.FFmpegError:
            return None  # a damaged source ends here; its video says so

    def close(self) -> None:
        """Close the source file."""
        self._source.close()


def _seconds(packet: Packet) -> float:
    """Give the time at which a packet is decoded; 0.0 where it does not say."""
    if packet.dts is None or packet.time_base is None:
        return 0.0
    return float(packet.dts * packet.time_base)


def _codec(path: Path) -> str:
    codec = _CODECS.get(path.suffix.lower())
    if codec is None:
        raise UsageError(
            f"'{path}' has an ending that is no video format here; use one of {', '.join(SUFFIXES)}"
        )
    return codec


def _claim(path: Path, overwrite: bool) -> None:
    """Make the file, so that a wrong place is known before any work is done."""
    try:
        with path.open("wb" if overwrite else "xb"):
            pass
    except FileExistsError:
        raise UsageError(f"'{path}' exists; add --overwrite to replace it") from None
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from None


def _planes(image: Image, size: tuple[int, int]) -> Image:
    """Convert BGR to planar YUV 4:2:0 of the wanted size, (height × 3 / 2) × width."""
    height, width = image.shape[:2]
    if (width, height) != size:
        if size == (width + width % 2, height + height % 2):
            image = cv2.copyMakeBorder(
                image, 0, size[1] - height, 0, size[0] - width, cv2.BORDER_REPLICATE
            ).astype(np.uint8, copy=False)
        else:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(
                np.uint8, copy=False
            )
    planes: Image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
    return planes
