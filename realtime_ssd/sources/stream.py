"""Network streams (RTSP, HTTP, ...): the newest picture, and a clear word when it is lost."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.format import Flags

from realtime_ssd.core.errors import SourceError, redact
from realtime_ssd.core.frames import Frame
from realtime_ssd.sources.base import BaseSource, SourceInfo
from realtime_ssd.sources.file import FrameConverter, explain

__all__ = ["Stream"]

OPEN_SECONDS, READ_SECONDS = 5.0, 5.0  # below the loop's watchdog, so that the cause is known
_OPTIONS = {
    "rtsp_transport": "tcp",
    "fflags": "nobuffer",
    "flags": "low_delay",
    "probesize": "500000",
    "analyzeduration": "1000000",
}
_DATAGRAMS = {**_OPTIONS, "rtsp_transport": "udp"}  # for servers that know nothing else
del _DATAGRAMS["fflags"]  # with it FFmpeg takes the first pause for the end


class Stream(BaseSource):
    """Reads a stream that may vanish and come back.

    Args:
        url: Where it is; user name and password in it are never shown.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._container: InputContainer | None = None
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._index = 0
        self._stopped = self._timeless = False
        self._fresh = True
        self._begin = self._arrived = self._time = self._shift = 0.0
        self._painter = FrameConverter()
        self.info = SourceInfo(redact(url), live=True)

    def open(self) -> None:
        """See `Source.open`."""
        self.close()
        self._stopped = False
        name = self.info.name
        try:
            container = self._connect()
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"'{name}' cannot be opened: {_reason(error)}") from None
        if not container.streams.video:
            container.close()
            raise SourceError(f"'{name}' carries no video; give a stream with pictures")
        self._container = container
        self._fresh = True
        self._timeless = Flags.no_timestamps in Flags(container.format.flags)
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # frame threads would hold pictures back
        self._frames = container.decode(stream)
        context = stream.codec_context
        self.info = SourceInfo(
            name, context.width, context.height, live=True, rate=stream.average_rate
        )

    def _connect(self) -> InputContainer:
        timeout = (OPEN_SECONDS, READ_SECONDS)
        try:
            return av.open(self._url, options=_OPTIONS, timeout=timeout)
        except (av.error.FFmpegError, OSError) as error:
            if error.errno != errno.EPROTONOSUPPORT or not self._url.lower().startswith("rtsp"):
                raise
            return av.open(self._url, options=_DATAGRAMS, timeout=timeout)

    def read(self) -> Frame | None:
        """See `Source.read`; the end of a stream counts as a loss."""
        if self._container is None or self._stopped:
            return None
        try:
            decoded = next(self._frames)
        except StopIteration:
            raise SourceError(f"'{self.info.name}' ended") from None
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"'{self.info.name}' was lost: {_reason(error)}") from None
        now = time.monotonic()
        base = (None if self._timeless else decoded.time_base) or Fraction(1, 1000)
        pts = self._stamp(decoded, base, now)
        frame = Frame(self._painter.paint(decoded), self._index, self.info.name, pts, base, now)
        self._index += 1
        return frame

    def _stamp(self, decoded: av.VideoFrame, base: Fraction, now: float) -> int:
        """Give the time stamp; a stream that came back goes on after the time it was away.

        Where the stream carries no times, those of arrival are taken.
        """
        if not self._index:
            self._begin = now
        if self._timeless or decoded.pts is None or decoded.time_base is None:
            return round((now - self._begin) / base)
        if self._fresh and self._index:
            away = now - self._arrived
            self._shift = self._time + away - float(decoded.pts * base)
        self._fresh, self._arrived = False, now
        pts = decoded.pts + round(self._shift / base)
        self._time = float(pts * base)
        return pts

    def interrupt(self) -> None:
        """See `Source.interrupt`; a read that waits ends with its time-out."""
        self._stopped = True

    def close(self) -> None:
        """See `Source.close`."""
        container, self._container = self._container, None
        self._frames = iter(())
        if container is not None:
            container.close()


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.FFmpegError):
        return explain(error)
    return getattr(error, "strerror", None) or "unknown error"
