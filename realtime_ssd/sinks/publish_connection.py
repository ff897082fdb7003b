"""`Connection`: encodes frames and sends them to a server, in a thread of its own."""

from __future__ import annotations

import io
import os
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from errno import EPIPE
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, cast

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.sinks.encoder_options import EncoderOptions
from realtime_ssd.sinks.encoders import RateLimit, add_video, choose_encoder
from realtime_ssd.sinks.encoding import fit_image, to_yuv420p
from realtime_ssd.sinks.publish_targets import PublishTarget
from realtime_ssd.sinks.relay import Relay
from realtime_ssd.sources.base import SourceInfo
from realtime_ssd.sources.ffmpeg import error_reason

__all__ = ["Connection", "TimedImage"]

_TIME_BASE = Fraction(1, 90000)
_MAX_QUEUED = 2
_BITS_PER_PIXEL = 0.1
_MIN_BITS, _MAX_BITS = 500_000, 20_000_000  # of the limit, per second
_RELAY_TIMEOUT = 4.0  # seconds in which the other process ends after its input
_NUT = {"write_index": "0", "flush_packets": "1"}


@dataclass(frozen=True, slots=True)
class TimedImage:
    """An annotated image and its time in the stream, in seconds."""

    image: Image
    time: Fraction
    frame: Frame


class Connection:
    """One connection, from its first frame until it fails or is finished.

    Args:
        target: Where to send.
        info: The source.
        encoding: Encoder, quality or bit rate.

    Attributes:
        frames: Frames to send.
        reason: Why it failed.
    """

    def __init__(self, target: PublishTarget, info: SourceInfo, encoding: EncoderOptions) -> None:
        self.frames: queue.Queue[TimedImage | None] = queue.Queue(_MAX_QUEUED)
        self.reason = ""
        self._target, self._info, self._encoding = target, info, encoding
        self._busy_since: float | None = None
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._relay: Relay | None = None
        self._write_failures: list[OSError] = []
        self._started_at = time.monotonic()
        self._size = (0, 0)
        self._first: Fraction | None = None
        self._last_pts = -1
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the server accepted the stream."""
        return self._relay is not None and self._relay.connected

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, image: TimedImage) -> bool:
        """Queue a frame in place of the oldest one if the queue is full; never blocks."""
        with suppress(queue.Full):
            self.frames.put_nowait(image)
            return True
        with suppress(queue.Empty, queue.Full):
            self.frames.get_nowait()
            self.frames.put_nowait(image)
        return False

    def has_failed(self, timeout: float) -> bool:
        """Return whether it failed, or one step takes longer than `timeout` seconds."""
        if self.reason:
            return True
        now = time.monotonic()
        waits = self._target.remote and not self.connected
        since = self._started_at if waits else self._busy_since
        if since is None or now - since < timeout:
            return False
        self.abandon()
        return True

    def abandon(self) -> None:
        """End it without waiting."""
        self.reason = self.reason or "no answer in time"
        if self._relay is not None:
            self._relay.kill()

    def finish(self, timeout: float) -> None:
        """Send what is queued and end the stream; give up after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._thread.is_alive() and time.monotonic() < deadline:
            with suppress(queue.Full):
                self.frames.put(None, timeout=0.1)
                break
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.abandon()

    def _run(self) -> None:
        reason = ""
        try:
            while (item := self.frames.get()) is not None and not self.reason:
                self._busy_since = time.monotonic()
                self._send(item)
                self._busy_since = None
            self._busy_since = time.monotonic()
            self._end()
        except (av.error.FFmpegError, OSError, ValueError, RealtimeSSDError) as error:
            reason = _reason(error)
        self._busy_since = None
        reason = self._release() or reason
        self.reason = self.reason or reason

    def _send(self, item: TimedImage) -> None:
        if self._container is None:
            self._open(item)
        if self._relay is not None and self._relay.has_ended:
            raise BrokenPipeError(EPIPE, os.strerror(EPIPE))
        frame = to_yuv420p(fit_image(item.image, self._size))
        if self._first is None:
            self._first = item.time
        pts = round((item.time - self._first) / _TIME_BASE)
        self._last_pts = max(pts, self._last_pts + 1)
        frame.pts, frame.time_base = self._last_pts, _TIME_BASE
        self._mux(frame)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        if self._container is not None and self._stream is not None:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        self._check_files()

    def _check_files(self) -> None:
        if self._write_failures:
            raise self._write_failures[0]

    def _open(self, item: TimedImage) -> None:
        target = self._target
        if not target.remote:
            options = dict(target.format.options)
            container = av.open(
                target.url, "w", target.format.name, options=options, io_open=self._open_file
            )
            self._start(container, item)
            return
        self._relay = Relay(target)
        self._start(av.open(self._relay, "w", "nut", options=_NUT), item)

    def _open_file(self, path: str, flags: int, options: dict[str, str]) -> IO[bytes]:
        """Open a segment or playlist; FFmpeg does not report what fails while it is written."""
        try:
            file = _OutputFile(path, self._write_failures)
        except OSError as error:
            self._write_failures.append(error)
            file = _OutputFile(os.devnull, self._write_failures)
        return cast("IO[bytes]", file)

    def _start(self, container: OutputContainer, item: TimedImage) -> None:
        """Create the video stream and send the header."""
        height, width = item.image.shape[:2]
        self._size = (width + width % 2, height + height % 2)
        rate = self._info.rate or Fraction(25)
        bits = round(_BITS_PER_PIXEL * width * height * float(rate))
        limit = RateLimit(min(max(bits, _MIN_BITS), _MAX_BITS), 1.0)
        encoder = choose_encoder(self._encoding.encoder, self._target.format, self._size, rate)
        remote = self._target.remote
        self._container = container
        self._stream = add_video(
            container, encoder, rate, self._size, self._encoding, limit, low_delay=remote
        )
        self._stream.codec_context.time_base = self._stream.time_base = _TIME_BASE
        self._stream.codec_context.sample_aspect_ratio = item.frame.pixel_aspect
        container.start_encoding()

    def _end(self) -> None:
        self._mux(None)
        container, self._container = self._container, None
        if container is not None:
            container.close()
        self._check_files()

    def _release(self) -> str:
        """Close what is left; return why the other process failed, if it did."""
        container, self._container = self._container, None
        with suppress(av.error.FFmpegError, OSError, ValueError):
            if container is not None:
                container.close()
        return "" if self._relay is None else self._relay.finish(_RELAY_TIMEOUT)


class _OutputFile(io.FileIO):
    """A file that keeps the errors of writing it; raised, they would only be printed by PyAV.

    Args:
        path: File to replace.
        failures: Receives errors.
    """

    def __init__(self, path: str, failures: list[OSError]) -> None:
        self._failures = failures
        super().__init__(path.removeprefix("file:"), "w")

    def write(self, data: Any) -> int:
        """Write all data and return its size, also after a failure."""
        remaining = memoryview(data)
        try:
            while remaining:
                remaining = remaining[super().write(remaining) :]
        except OSError as error:
            self._failures.append(error)
            if str(self.name).endswith(".tmp"):
                # FFmpeg would replace the playlist by an incomplete one.
                Path(str(self.name)).unlink(missing_ok=True)
        return len(data)


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "the server refused the stream"
    if isinstance(error, av.error.FFmpegError | OSError):
        return error_reason(error)
    return str(error)
