"""Network streams (RTSP, HTTP, …): the most recent frame, and an explicit error after a loss."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from math import floor
from urllib.parse import quote

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import InputContainer
from av.format import Flags

from realtime_ssd.core.errors import SourceError, UsageError, redact
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.printable import printable
from realtime_ssd.sources.base import BaseSource, InputLimits, SourceInfo
from realtime_ssd.sources.ffmpeg import (
    FrameConverter,
    discard,
    error_reason,
    main_video,
    orientation_of,
    undecodable,
)
from realtime_ssd.sources.media_input import open_input, pixel_problem
from realtime_ssd.sources.timestamps import is_gap, is_jump

__all__ = ["Stream", "check_password", "connect", "password_hint"]

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
_MAX_CONNECTION_AGE = 2.0  # in seconds
_UDP_OPTIONS = {**_OPTIONS, "rtsp_transport": "udp"}


class Stream(BaseSource):
    """Reads a stream that may be lost and reopened.

    Args:
        url: Address; a user name and password in it are never shown.
        container: Its connection, if there is one already, for the first `open`.
        opened_at: `time.monotonic()` in seconds of that connection.
        error: Raised by the first `open`, if the address was tried before.
        limits: Limits of the source.
    """

    def __init__(
        self,
        url: str,
        *,
        container: InputContainer | None = None,
        opened_at: float = 0.0,
        error: SourceError | None = None,
        limits: InputLimits | None = None,
    ) -> None:
        self._limits = limits or InputLimits()
        self._error = error
        self._url = url
        self._connected, self._connected_at = container, opened_at
        self._container: InputContainer | None = None
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._index = 0
        self._interrupted = self._no_timestamps = self._resync = False
        # Of the latest frame, in seconds: arrival, and time in the stream as `read` returned it.
        self._last_arrival = self._last_time = 0.0
        self._last = Fraction(0)  # the same time, exact
        self._offset = 0.0  # in seconds, added to the time stamps of the stream
        self._converter = FrameConverter()
        self.info = SourceInfo(printable(redact(url)), live=True)

    def open(self) -> None:
        """See `Source.open`."""
        self._disconnect()
        self._interrupted = False
        name = self.info.name
        error, self._error = self._error, None
        if error is not None:
            raise error
        container = self._take_connection() or connect(self._url, self._limits)
        if not container.streams.video:
            container.close()
            raise SourceError(f"'{name}' contains no video; use a stream with video")
        stream = main_video(container.streams.video)
        problem = undecodable(name, container, stream)
        problem = problem or pixel_problem(name, stream, self._limits)
        if problem:
            container.close()
            raise SourceError(problem)
        self._container = container
        self._resync = self._index > 0
        self._no_timestamps = Flags.no_timestamps in Flags(container.format.flags)
        discard(one for one in container.streams if one is not stream)
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

    def _take_connection(self) -> InputContainer | None:
        """Return the connection made before, unless its images are old by now."""
        container, self._connected = self._connected, None
        if container is None or time.monotonic() - self._connected_at < _MAX_CONNECTION_AGE:
            return container
        container.close()
        return None

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
        self._disconnect()
        if self._connected is not None:
            self._connected.close()
            self._connected = None

    def _disconnect(self) -> None:
        container, self._container = self._container, None
        self._frames = iter(())
        if container is not None:
            container.close()


def connect(url: str, limits: InputLimits) -> InputContainer:
    """Open a URL.

    Raises:
        SourceError: If it cannot be opened.
    """
    try:
        return _connect(url, limits)
    except (av.error.FFmpegError, OSError) as error:
        reason = f"{error_reason(error)}{password_hint(url)}"
        raise SourceError(f"'{redact(url)}' cannot be opened: {reason}") from None


def _connect(url: str, limits: InputLimits) -> InputContainer:
    """Open a URL; RTSP servers without TCP transport are tried again over UDP."""
    try:
        return _open(url, _OPTIONS, limits)
    except (av.error.FFmpegError, OSError) as error:
        if error.errno != errno.EPROTONOSUPPORT or not url.lower().startswith("rtsp"):
            raise
        return _open(url, _UDP_OPTIONS, limits)


def password_hint(url: str) -> str:
    """Return what to do about a character that may be part of a password; usually nothing.

    Example:
        >>> password_hint("rtsp://admin:12/3@camera/live")
        "; if the '/' is part of the password, write it as %2F"
    """
    rest = url.partition("://")[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority or "@" not in rest or ":" not in authority:
        return ""
    character = rest[len(authority)]
    return f"; if the '{character}' is part of the password, write it as {quote(character, '')}"


def check_password(url: str) -> None:
    """Check that the host of a URL can be told from its password.

    Raises:
        UsageError: If the password contains a character that ends the host of a URL.
    """
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    port = authority.rpartition(":")[2]
    if ":" in authority and password_hint(url) and not port.isdecimal():
        host = rest.rpartition("@")[2]
        raise UsageError(
            f"the password in '{scheme}://{host}' contains a '/', '?' or '#'; write them as %2F, "
            "%3F and %23"
        )


def _open(url: str, options: dict[str, str], limits: InputLimits) -> InputContainer:
    return open_input(url, limits=limits, options=options, timeout=(OPEN_TIMEOUT, READ_TIMEOUT))
