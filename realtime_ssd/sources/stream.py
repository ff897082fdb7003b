"""Network streams (RTSP, HTTP, …): the most recent frame, and an explicit error after a loss."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from fractions import Fraction
from math import floor

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import InputContainer
from av.format import Flags

from realtime_ssd.core.errors import SourceError, redact
from realtime_ssd.core.frames import Frame
from realtime_ssd.sources.base import BaseSource, SourceInfo
from realtime_ssd.sources.ffmpeg import FrameConverter, error_reason, orientation_of, undecodable
from realtime_ssd.sources.timestamps import is_gap, is_jump

__all__ = ["Stream"]

# In seconds; below the stall timeout of the pipeline, so that the reason of a loss is known.
OPEN_TIMEOUT, READ_TIMEOUT = 5.0, 5.0
# Without `fflags=nobuffer`: it discards the packets that were read to detect the format, and with
# them the first key frame, so that the first image would have to wait for the next one.
_OPTIONS = {
    "rtsp_transport": "tcp",
    "flags": "low_delay",
    "probesize": "500000",
    "analyzeduration": "1000000",
}
_UDP_OPTIONS = {**_OPTIONS, "rtsp_transport": "udp"}


class Stream(BaseSource):
    """Reads a stream that may be lost and reopened.

    Args:
        url: Address; a user name and password in it are never shown.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._container: InputContainer | None = None
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._index = 0
        self._interrupted = self._no_timestamps = self._resync = False
        # Of the latest frame, in seconds: arrival, and time in the stream as `read` returned it.
        self._last_arrival = self._last_time = 0.0
        self._last = Fraction(0)  # the same time, exact
        self._offset = 0.0  # in seconds, added to the time stamps of the stream
        self._converter = FrameConverter()
        self.info = SourceInfo(redact(url), live=True)

    def open(self) -> None:
        """See `Source.open`."""
        self.close()
        self._interrupted = False
        name = self.info.name
        try:
            container = self._connect()
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"'{name}' cannot be opened: {error_reason(error)}") from None
        if not container.streams.video:
            container.close()
            raise SourceError(f"'{name}' contains no video; use a stream with video")
        problem = undecodable(name, container, container.streams.video[0])
        if problem:
            container.close()
            raise SourceError(problem)
        self._container = container
        self._resync = self._index > 0
        self._no_timestamps = Flags.no_timestamps in Flags(container.format.flags)
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # frame threading would delay frames
        self._frames = container.decode(stream)
        context = stream.codec_context
        self.info = SourceInfo(
            name,
            context.width,
            context.height,
            live=True,
            rate=stream.average_rate,
            pixel_aspect=Fraction(stream.sample_aspect_ratio or 1),
        )

    def _connect(self) -> InputContainer:
        """Open the URL; RTSP servers without TCP transport are tried again over UDP."""
        try:
            return _open(self._url, _OPTIONS)
        except (av.error.FFmpegError, OSError) as error:
            if error.errno != errno.EPROTONOSUPPORT or not self._url.lower().startswith("rtsp"):
                raise
            return _open(self._url, _UDP_OPTIONS)

    def read(self) -> Frame | None:
        """See `Source.read`; the end of a stream is reported as a loss."""
        if self._container is None or self._interrupted:
            return None
        try:
            decoded = next(self._frames)
        except StopIteration:
            raise SourceError(f"'{self.info.name}' ended") from None
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"'{self.info.name}' was lost: {error_reason(error)}") from None
        now = time.monotonic()
        time_base = (None if self._no_timestamps else decoded.time_base) or Fraction(1, 1000)
        pts, discontinuity = self._timestamp(decoded, time_base, now)
        frame = Frame(
            self._converter.to_bgr(decoded),
            self._index,
            self.info.name,
            pts,
            time_base,
            now,
            discontinuity=discontinuity,
            pixel_aspect=self._pixel_aspect(decoded),
        )
        self._index += 1
        return frame

    def _pixel_aspect(self, decoded: av.VideoFrame) -> Fraction:
        aspect = self.info.pixel_aspect
        return 1 / aspect if orientation_of(decoded)[0] else aspect

    def _timestamp(
        self, decoded: av.VideoFrame, time_base: Fraction, now: float
    ) -> tuple[int, bool]:
        """Return the time stamp of a frame in units of `time_base`, and whether time jumped there.

        A frame without a time stamp follows the one before as it arrived after it. The offset is
        chosen so that time stamps continue like that after such a frame, after a loss, and where
        the clock of the stream jumps.
        """
        elapsed = now - self._last_arrival if self._index else 0.0
        expected = self._last_time + elapsed
        self._last_arrival = now
        jumped = False
        if self._no_timestamps or decoded.pts is None:
            self._resync = True
            pts = round(expected / time_base)
        else:
            raw = float(decoded.pts * time_base)
            step = raw + self._offset - self._last_time
            jumped = self._index > 0 and not self._resync and is_jump(step)
            if self._resync or jumped:
                self._resync = False
                self._offset = expected - raw
            pts = decoded.pts + round(self._offset / time_base)
        if self._index:
            pts = max(pts, floor(self._last / time_base) + 1)
            jumped = jumped or is_gap(float(pts * time_base) - self._last_time)
        self._last = pts * time_base
        # Without its rounding, arrival times would drift.
        self._last_time = expected if self._resync else float(self._last)
        return pts, jumped

    def interrupt(self) -> None:
        """See `Source.interrupt`; a blocked read returns after its timeout."""
        self._interrupted = True

    def close(self) -> None:
        """See `Source.close`."""
        container, self._container = self._container, None
        self._frames = iter(())
        if container is not None:
            container.close()


def _open(url: str, options: dict[str, str]) -> InputContainer:
    timeout = (OPEN_TIMEOUT, READ_TIMEOUT)
    return av.open(url, options=options, timeout=timeout, metadata_errors="replace")
