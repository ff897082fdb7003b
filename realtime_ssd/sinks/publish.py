"""Annotated video as a live stream: RTSP, RTMP, SRT, MPEG-TS or HLS."""

from __future__ import annotations

import logging
import queue
import time
from fractions import Fraction
from pathlib import Path

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.files import open_output
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.encoder_options import EncoderOptions
from realtime_ssd.sinks.encoders import check_encoder
from realtime_ssd.sinks.publish_connection import Connection, TimedImage
from realtime_ssd.sinks.publish_targets import publish_target
from realtime_ssd.sources.base import SourceInfo

__all__ = ["PublishSink"]

_log = logging.getLogger(__name__)
FIRST_RETRY_DELAY, MAX_RETRY_DELAY = 0.5, 10.0
_STALL_TIMEOUT = 10.0  # seconds for one step of a connection
_CLOSE_TIMEOUT = 10.0
_MAX_GAP = Fraction(1)  # seconds between two frames; longer gaps are left out


class PublishSink(BaseSink):
    """Publishes annotated frames.

    Frames of a file are sent at the speed at which they are played; frames of a live source are
    skipped while the network is slow. If the first connection fails, `write` raises an error; one
    that is lost later is reconnected, with growing delays, while other outputs continue.

    Args:
        target: URL (rtsp, rtsps, rtmp, rtmps, srt, udp, tcp) or an HLS playlist (.m3u8).
        info: The source.
        encoding: Encoder, quality or bit rate.
        overwrite: Whether an existing playlist may be replaced.

    Raises:
        UsageError: If the target is malformed, exists or cannot be written.
    """

    def __init__(
        self,
        target: str,
        info: SourceInfo,
        *,
        encoding: EncoderOptions | None = None,
        overwrite: bool = False,
    ) -> None:
        self._target = publish_target(target, live=info.live)
        self._encoding = encoding or EncoderOptions()
        if self._encoding.encoder != "auto":
            check_encoder(self._encoding.encoder, self._target.format)
        if not self._target.remote:
            open_output(Path(target), overwrite=overwrite).close()
        self._info = info
        self._connection: Connection | None = None
        self._was_connected = self._closed = False
        self._failure: RealtimeSSDError | None = None
        self._lost_reason = ""
        self._retry_delay, self._next_attempt = FIRST_RETRY_DELAY, 0.0
        self._skipped = 0
        self._time = Fraction(0)  # of the stream, in seconds
        self._source_time: Fraction | None = None
        self._started_at = 0.0

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`.

        Raises:
            RealtimeSSDError: If the first connection fails, or a playlist cannot be written.
        """
        if self._closed:
            return
        image = TimedImage(result.annotated_image(), self._advance(result), result.frame)
        self._pace()
        self._supervise()
        connection = self._connection
        if connection is None or not self._offer(connection, image):
            self._skipped += 1

    def pending(self) -> int:
        """Return the number of frames that wait to be sent."""
        return 0 if self._connection is None else self._connection.frames.qsize()

    def _advance(self, result: FrameResult) -> Fraction:
        """Return the time of a frame in the stream: that of the source without its jumps."""
        frame = result.frame
        now = (frame.pts or 0) * frame.time_base
        if self._source_time is None:
            self._started_at = time.monotonic()
        else:
            step = now - self._source_time
            usual = 1 / (self._info.rate or Fraction(25))
            self._time += step if 0 < step <= _MAX_GAP else usual
        self._source_time = now
        return self._time

    def _pace(self) -> None:
        """Wait until the frame of a file is due; a playlist on disk is written at full speed."""
        if self._info.live or not self._target.remote:
            return
        delay = self._started_at + float(self._time) - time.monotonic()
        if delay > 0:
            time.sleep(min(delay, float(_MAX_GAP)))

    def _offer(self, connection: Connection, image: TimedImage) -> bool:
        """Pass a frame on; return whether it was taken."""
        if self._info.live:
            return connection.offer(image)
        while not connection.has_failed(_STALL_TIMEOUT):
            try:
                connection.frames.put(image, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _supervise(self) -> None:
        """Replace a connection that was lost, once the delay is over."""
        connection = self._connection
        if connection is not None and connection.has_failed(_STALL_TIMEOUT):
            self._lose(connection)
        elif connection is not None and connection.connected and self._lost_reason:
            _log.warning("'%s' is online again", self._target.name)
            self._lost_reason, self._retry_delay = "", FIRST_RETRY_DELAY
        if self._connection is None and time.monotonic() >= self._next_attempt:
            self._connection = Connection(self._target, self._info, self._encoding)
            self._connection.start()

    def _lose(self, connection: Connection) -> None:
        reason = connection.reason
        self._was_connected = self._was_connected or connection.connected
        if not (self._was_connected and self._target.remote):
            self._closed = True
            self._failure = self._error(reason)
            raise self._failure
        if not self._lost_reason:
            _log.warning("'%s' was lost (%s); reconnecting", self._target.name, reason)
        self._lost_reason, self._connection = reason, None
        self._next_attempt = time.monotonic() + self._retry_delay
        self._retry_delay = min(self._retry_delay * 2, MAX_RETRY_DELAY)

    def _error(self, reason: str) -> RealtimeSSDError:
        name = self._target.name
        if not self._target.remote:
            return RealtimeSSDError(
                f"writing '{name}' failed ({reason}); the segments before can be played"
            )
        return RealtimeSSDError(f"'{name}' cannot be published to: {reason}")

    def close(self) -> None:
        """See `Sink.close`."""
        connection, self._connection = self._connection, None
        if connection is None and not self._lost_reason:
            if not self._closed:
                self._remove_empty_playlist()
            self._closed = True
            return
        self._closed = True
        if connection is not None:
            connection.finish(_CLOSE_TIMEOUT)
            if not connection.has_failed(_CLOSE_TIMEOUT):
                return
            if self._failure is None and not (connection.connected or self._lost_reason):
                raise self._error(connection.reason)
            self._lost_reason = "" if self._failure else self._lost_reason or connection.reason
        self._remove_empty_playlist()
        reason, self._lost_reason = self._lost_reason, ""
        if reason:
            raise RealtimeSSDError(
                f"'{self._target.name}' was lost ({reason}) until the end; {self._skipped} frames "
                "were not published"
            )

    def _remove_empty_playlist(self) -> None:
        path = Path(self._target.url)
        if not self._target.remote and path.is_file() and not path.stat().st_size:
            path.unlink()
