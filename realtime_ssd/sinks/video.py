"""Annotated video: H.264 or VP9 with the time stamps of the source, and its audio copied."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import OutputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from realtime_ssd.core.errors import RealtimeSSDError, describe
from realtime_ssd.core.files import check_not_deleted, open_output
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.containers import container_of
from realtime_ssd.sinks.copied_tracks import CopiedTracks, decode_time
from realtime_ssd.sinks.encoder_options import EncoderOptions
from realtime_ssd.sinks.encoders import add_video, check_encoder, choose_encoder, rate_limit
from realtime_ssd.sinks.encoding import EncoderThread, fit_image, to_yuv420p
from realtime_ssd.sources.base import SourceInfo
from realtime_ssd.sources.ffmpeg import media_location
from realtime_ssd.sources.timestamps import is_gap

__all__ = ["VideoSink", "ffmpeg_version"]

_log = logging.getLogger(__name__)

_CLOCK_RESET = 1.0  # step back of a source's clock, in seconds, from which it counts as reset


class VideoSink(BaseSink):
    """Writes annotated frames to a video file.

    What was written stays readable if the process is killed or the disk is full. The encoder runs
    in a thread of its own while the next frame is drawn.

    Args:
        path: File; its suffix selects the container format.
        info: The source, for its rate, time base and audio.
        encoding: Encoder, quality or bit rate.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: If the file exists, cannot be written, has an unknown suffix or a format that
            the encoder does not write.
    """

    def __init__(
        self,
        path: Path,
        info: SourceInfo,
        *,
        encoding: EncoderOptions | None = None,
        overwrite: bool = False,
    ) -> None:
        self._path, self._info = path, info
        self._format = container_of(path)
        self._encoding = encoding or EncoderOptions()
        if self._encoding.encoder != "auto":
            check_encoder(self._encoding.encoder, self._format)
        self._avi = path.suffix.lower() == ".avi"
        self._handle = open_output(path, overwrite=overwrite)
        self._container: OutputContainer | None = None
        self._feed = info.feed if info.feed is not None and info.feed.attach() else None
        self._tracks: CopiedTracks | None = None
        self._closed = self._failed = False
        self._stream: VideoStream | None = None
        self._size = (0, 0)
        self._last_pts, self._last_time = -1, Fraction(0)
        self._shift = Fraction(0)  # from times of the source to times in the file, in seconds
        self._frames = self._encoded = self._offset = 0
        self._encoder = EncoderThread(self._encode)

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`; frames of another size are fitted into the size of the first."""
        if self._closed:
            return
        image = result.annotated_image()
        try:
            check_not_deleted(self._handle, self._path)
        except RealtimeSSDError:
            self._failed = True
            raise
        with self._write_errors():
            if self._container is None:
                self._start(image, result.frame)
            frame = to_yuv420p(fit_image(image, self._size))
            frame.time_base = self._time_base
            frame.pts = self._next_pts(result)
            self._encoder.put(frame)
            self._frames += 1
            self._last_time = (result.frame.pts or 0) * result.frame.time_base

    def close(self) -> None:
        """See `Sink.close`."""
        if self._closed:
            return
        self._closed = True
        self._handle.close()
        container = self._container
        if container is None:
            if self._feed is not None:
                self._feed.close()
            if self._path.exists() and self._path.stat().st_size == 0:
                self._path.unlink()  # no frame was written, and an empty file is not a video
            return
        if self._failed:
            with suppress(Exception):
                self._encoder.finish()
            with suppress(av.error.FFmpegError, OSError):
                self._close_files(container)
            return
        with self._write_errors():
            try:
                self._encoder.finish()
                self._mux(None)
                self._copy_remaining_tracks()
            except Exception:
                self._close_files(container)
                raise
            self._close_files(container)

    def _close_files(self, container: OutputContainer) -> None:
        if self._tracks:
            self._tracks.close()
        container.close()

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Convert an exception into an error that says what of the file is readable."""
        try:
            yield
        except Exception as error:
            self._failed = True
            reason = getattr(error, "strerror", None) or describe(error)
            raise RealtimeSSDError(
                f"writing '{self._path}' failed ({reason}); of the {self._encoded} frames written "
                "before, all but about the last second can be played"
            ) from error

    def _start(self, image: Image, first: Frame) -> None:
        """Create the file, with the tracks of the source that the container format supports."""
        height, width = image.shape[:2]
        self._size = (width + width % 2, height + height % 2)
        rate = self._info.rate or Fraction(30)
        # AVI stores a frame rate instead of time stamps, and starts at 0.
        self._time_base = 1 / rate if self._avi else self._info.time_base
        self._shift = -self._info.start
        if self._avi and first.pts is not None:
            self._shift = -first.pts * first.time_base
        self._frame_duration = max(1, round(1 / (rate * self._time_base)))
        location = media_location(str(self._path))
        container = av.open(location, "w", container_options=self._format.options)
        try:
            encoder = choose_encoder(self._encoding.encoder, self._format, self._size, rate)
            limit = rate_limit(self._info)
            self._stream = add_video(container, encoder, rate, self._size, self._encoding, limit)
            self._stream.codec_context.time_base = self._stream.time_base = self._time_base
            self._stream.disposition = Disposition.default
            self._stream.codec_context.sample_aspect_ratio = first.pixel_aspect
            if self._feed is not None:
                self._tracks = CopiedTracks(self._feed, self._info.start)
            elif self._info.media:
                self._tracks = CopiedTracks.open(self._info.media, self._info.start)
            if self._tracks is not None:
                self._tracks.attach(container, str(self._path), self._path.suffix)
            container.start_encoding()
        except (av.error.FFmpegError, ValueError):
            with suppress(av.error.FFmpegError, ValueError):
                container.close()
            raise
        self._container = container

    def _next_pts(self, result: FrameResult) -> int:
        """Return the time stamp of a frame in the file, later than the one before.

        After a reset of the source's clock, time stamps continue from the last one; in AVI, which
        stores empty frames instead of time stamps, also after a long gap.
        """
        frame = result.frame
        following = self._last_pts + self._frame_duration if self._frames else 0
        if frame.pts is None:
            pts = following
        else:
            pts = round((frame.pts * frame.time_base + self._shift) / self._time_base)
            if self._info.live and not self._frames:
                self._offset = -pts  # the clock may have run since the camera was switched on
            pts += self._offset
        step = self._seconds(pts - self._last_pts)
        if self._frames and (step < -_CLOCK_RESET or (self._avi and is_gap(step))):
            self._offset += following - pts
            pts = following
        self._last_pts = pts if not self._frames else max(pts, self._last_pts + 1)
        return self._last_pts

    def _seconds(self, pts: int) -> float:
        return float(pts * self._time_base)

    def _encode(self, frame: av.VideoFrame) -> None:
        self._mux(frame)
        self._encoded += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame, or flush the encoder, and write the packets with the audio up to them."""
        container = self._container
        if container is None or self._stream is None:
            return
        for packet in self._stream.encode(frame):
            if packet.pts is not None and packet.duration == 0:
                packet.duration = self._frame_duration
            self._copy_tracks(decode_time(packet))
            container.mux(packet)

    def _copy_tracks(self, until: Fraction | None) -> None:
        if self._tracks is None or self._container is None:
            return
        for packet in self._tracks.packets(until, self._shift):
            try:
                self._container.mux(packet)
            except (av.error.InvalidDataError, av.error.ArgumentError):
                self._tracks.drop(packet)

    def _copy_remaining_tracks(self) -> None:
        """Copy sound up to the last frame; all of it if that was the last one of the source."""
        if self._tracks is None:
            return
        if not self._tracks.has_video_after(self._last_time):
            self._copy_tracks(None)
        else:
            end = self._last_time + self._shift + self._frame_duration * self._time_base
            self._copy_tracks(end)


def ffmpeg_version() -> str:
    """Return the version of the FFmpeg libraries in use."""
    return str(av.ffmpeg_version_info)
