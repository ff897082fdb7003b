"""Annotated video: H.264 with the source's own time stamps, and its audio copied."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

from realtime_ssd.core.errors import RealtimeSSDError, UsageError, describe
from realtime_ssd.core.files import open_output
from realtime_ssd.core.frames import Image
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.audio import Audio, seconds_of
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sources.base import SourceInfo

__all__ = ["SUFFIXES", "VideoSink", "add_video", "available_encoders", "ffmpeg_version"]

_log = logging.getLogger(__name__)

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
# Matroska and WebM: a part a second instead of every five.
_CLUSTERS = {
    "cluster_time_limit": "1000",
    "avoid_negative_ts": "disabled",
    "flush_packets": "1",
}
_OPTIONS = {
    ".mp4": _FRAGMENTS,
    ".m4v": _FRAGMENTS,
    ".mov": _FRAGMENTS,
    ".mkv": _CLUSTERS,
    ".webm": _CLUSTERS,
}
_KEY_SECONDS = 2
_AHEAD = 2  # frames that may wait for the encoder
_BACKWARDS = 1.0  # seconds that a source's clock may step back before it counts as set anew


class VideoSink(BaseSink):
    """Writes annotated frames into a video file.

    What was written stays readable if the program is killed or the disk gets full. The encoder
    works in a thread of its own, beside the drawing of the next frame.

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
        open_output(path, overwrite=overwrite).close()
        self._container: OutputContainer | None = None
        self._audio: Audio | None = None
        self._closed = self._failed = False
        self._stream: VideoStream | None = None
        self._size = (0, 0)
        self._last, self._end = -1, 0.0
        self._frames = self._encoded = self._shift = 0
        self._encoder = _Encoder(self._encode)

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`; frames of another size are fitted into that of the first."""
        if self._closed:
            return
        image = result.annotated_image()
        with _Told(self):
            if self._container is None:
                self._begin(image)
            planes = _planes(image, self._size)
            frame = av.VideoFrame.from_numpy_buffer(planes, format="yuv420p")
            frame.time_base = self._base
            frame.pts = self._stamp(result)
            self._encoder.put(frame)
            self._frames += 1
            self._end = result.frame.time

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
            with suppress(Exception):
                self._encoder.finish()
            with suppress(av.error.FFmpegError, OSError):
                self._shut(container)
            return
        with _Told(self):
            try:
                self._encoder.finish()
                self._mux(None)
                if self._audio:
                    whole = not self._audio.video_goes_on(self._end)
                    self._copy_audio(None if whole else self._end + self._seconds(self._step))
            except Exception:
                self._shut(container)
                raise
            self._shut(container)

    def _shut(self, container: OutputContainer) -> None:
        if self._audio:
            self._audio.close()
        container.close()

    def _begin(self, image: Image) -> None:
        height, width = image.shape[:2]
        self._size = (width + width % 2, height + height % 2)
        rate = self._info.rate or Fraction(30)
        # AVI has no time stamps, only a rate.
        avi = self._path.suffix.lower() == ".avi"
        self._base = 1 / rate if avi else self._info.time_base
        self._step = max(1, round(1 / (rate * self._base)))
        try:
            self._open(rate, audio=self._info.path is not None)
        except (av.error.FFmpegError, ValueError):
            if self._audio is None:
                raise
            _log.warning(
                "'%s' is written without sound: %s does not take the source's %s",
                *(self._path, self._path.suffix, self._audio.codec),
            )
            self._audio.close()
            self._audio = None
            self._open(rate, audio=False)

    def _open(self, rate: Fraction, *, audio: bool) -> None:
        """Begin the file with the video and, if wanted, the source's audio."""
        options = _OPTIONS.get(self._path.suffix.lower(), {})
        container = av.open(str(self._path), "w", container_options=options)
        try:
            self._stream = self._add_video(container, rate)
            if audio and self._info.path is not None:
                self._audio = Audio.of(self._info.path)
            if self._audio is not None:
                self._audio.attach(container)
            container.start_encoding()
        except (av.error.FFmpegError, ValueError):
            with suppress(av.error.FFmpegError, ValueError):
                container.close()
            raise
        self._container = container

    def _add_video(self, container: OutputContainer, rate: Fraction) -> VideoStream:
        stream = add_video(container, self._codec, rate, self._size)
        stream.codec_context.time_base = stream.time_base = self._base
        stream.codec_context.sample_aspect_ratio = self._info.pixel_aspect
        return stream

    def _stamp(self, result: FrameResult) -> int:
        """Give the frame's time stamp; never one that goes back.

        A source whose clock was set back goes on where it was.
        """
        frame = result.frame
        if frame.pts is None:
            wanted = self._last + self._step if self._frames else 0
        else:
            wanted = round(frame.pts * frame.time_base / self._base)
            if self._info.live and not self._frames:
                self._shift = -wanted  # such a clock may run since the camera was switched on
            wanted += self._shift
        if self._frames and self._seconds(self._last - wanted) > _BACKWARDS:
            self._shift += self._last + self._step - wanted
            wanted = self._last + self._step
        self._last = wanted if not self._frames else max(wanted, self._last + 1)
        return self._last

    def _seconds(self, pts: int) -> float:
        return float(pts * self._base)

    def _encode(self, frame: av.VideoFrame) -> None:
        self._mux(frame)
        self._encoded += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        container = self._container
        if container is None or self._stream is None:
            return
        for packet in self._stream.encode(frame):
            if packet.pts is not None and packet.duration == 0:
                packet.duration = self._step
            if self._audio:
                self._copy_audio(seconds_of(packet))
            container.mux(packet)

    def _copy_audio(self, until: float | None) -> None:
        if self._audio and self._container is not None:
            for packet in self._audio.packets(until):
                self._container.mux(packet)

    def fail(self, error: Exception) -> RealtimeSSDError:
        """Note that nothing more can be written, and say why."""
        self._failed = True
        reason = getattr(error, "strerror", None) or describe(error)
        return RealtimeSSDError(
            f"'{self._path}' cannot be written any further ({reason}); of the {self._encoded} "
            "frames before, all but those of about the last second can be played"
        )


class _Encoder:
    """Passes frames on in a thread of its own.

    Args:
        work: What to do with each.
    """

    def __init__(self, work: Callable[[av.VideoFrame], None]) -> None:
        self._work = work
        self._frames: queue.Queue[av.VideoFrame | None] = queue.Queue(_AHEAD)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)

    def put(self, frame: av.VideoFrame) -> None:
        """Hand a frame over, waiting while too many wait; raises what went wrong with earlier."""
        if self._thread.ident is None:
            self._thread.start()
        self._frames.put(frame)
        self._check()

    def finish(self) -> None:
        """Wait until all is done; raises what went wrong."""
        if self._thread.ident is not None:
            self._frames.put(None)
            self._thread.join()
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            if self._error is None:
                try:
                    self._work(frame)
                except Exception as error:
                    self._error = error


class _Told:
    """Turns a failure to write into one sentence."""

    def __init__(self, sink: VideoSink) -> None:
        self._sink = sink

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            raise self._sink.fail(error) from error


def add_video(
    container: OutputContainer, codec: str, rate: Fraction, size: tuple[int, int]
) -> VideoStream:
    """Add a video stream to a file, set as every annotated video is.

    Args:
        container: Where to.
        codec: "libx264" or "libvpx-vp9".
        rate: Frames a second.
        size: Width and height in pixels, both even.
    """
    stream = container.add_stream(codec, rate, options=_ENCODER[codec])
    if not isinstance(stream, VideoStream):
        raise TypeError(codec)
    context = stream.codec_context
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.gop_size = max(1, round(rate * _KEY_SECONDS))
    # BT.601, limited range: what OpenCV's conversion gives.
    context.colorspace, context.color_range = 6, 1
    context.color_primaries, context.color_trc = 6, 6
    return stream


def available_encoders() -> list[str]:
    """Return the names of the encoders of annotated video that this FFmpeg has."""
    return [name for name in _ENCODER if name in av.codecs_available]


def ffmpeg_version() -> str:
    """Return the version of the FFmpeg libraries in use."""
    return str(av.ffmpeg_version_info)


def _codec(path: Path) -> str:
    codec = _CODECS.get(path.suffix.lower())
    if codec is None:
        raise UsageError(
            f"'{path}' has an ending that is no video format here; use one of {', '.join(SUFFIXES)}"
        )
    return codec


def _planes(image: Image, size: tuple[int, int]) -> Image:
    """Convert BGR to planar YUV 4:2:0 of the wanted size, (height × 3 / 2) × width.

    A picture of another shape is scaled to fit, with black bars.
    """
    height, width = image.shape[:2]
    if size != (width + width % 2, height + height % 2):
        ratio = min(size[0] / width, size[1] / height)
        width, height = max(1, round(width * ratio)), max(1, round(height * ratio))
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    right, below = size[0] - width, size[1] - height
    if max(right, below) > 1:
        bars = (below // 2, below - below // 2, right // 2, right - right // 2)
        image = np.asarray(cv2.copyMakeBorder(image, *bars, cv2.BORDER_CONSTANT))
    elif right or below:
        image = np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE))
    planes: Image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
    return planes
