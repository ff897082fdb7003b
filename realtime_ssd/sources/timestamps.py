"""The rule for time stamps: what a file or stream says becomes a clock that only goes forward.

- **Set back** by more than 0.1 s, as where two recordings were joined, or **ahead** by more than
  6 hours, as by a 33-bit clock that wrapped or was taken to have wrapped: time continues by one
  frame, and the frame is marked as a discontinuity. MP4 cannot store longer gaps either.
- **Gaps** of up to 6 hours are kept; from 10 s they are marked as a discontinuity.
- **Missing** time stamps, **repeated** ones and smaller steps back: the frame follows the one
  before by the average frame duration, but comes before the next frame.
- **Negative** starts of MPEG streams begin at 0.
- **AVI and ASF** store times in decoding order, which are sorted into presentation order.

`PacketClock` corrects jumps in packets before they are decoded, and `FrameClock` the remaining
defects in decoded frames. Sound and subtitles are shifted with `PacketClock.offsets`.
"""

from __future__ import annotations

import heapq
from collections import deque
from fractions import Fraction
from typing import Any, TypeAlias

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import InputContainer
from av.video.stream import VideoStream

from realtime_ssd.sources.packet_feed import PacketFeed, PacketTimes

__all__ = ["FrameClock", "PacketClock", "frame_duration", "is_gap", "is_jump"]

MAX_STEP_BACK, MAX_GAP, MIN_DISCONTINUITY = 0.1, 6 * 3600.0, 10.0
"""Limits of the rule in seconds."""

_DEFAULT_RATE = Fraction(25)
_MAX_REORDERING = 17  # frames between decoding and presentation
_DECODING_ORDER = ("avi", "asf", "asf_o")  # names of formats in FFmpeg
_WRAP = Fraction(2**33, 90000)  # seconds until a clock of 33 bits starts again
_WRAPPING = ("mpegts", "mpeg", "hls")

Packet: TypeAlias = "av.Packet[Any] | PacketTimes"


def is_jump(seconds: float) -> bool:
    """Return whether a step between consecutive packets means that the clock was changed.

    Example:
        >>> [is_jump(seconds) for seconds in (-60.0, -0.05, 0.04, 3600.0, 95443.7)]
        [True, False, False, False, True]
    """
    return not -MAX_STEP_BACK <= seconds <= MAX_GAP


def is_gap(seconds: float) -> bool:
    """Return whether a step between consecutive frames is a discontinuity.

    Example:
        >>> [is_gap(seconds) for seconds in (0.04, 3600.0)]
        [False, True]
    """
    return seconds > MIN_DISCONTINUITY


def frame_duration(stream: VideoStream) -> Fraction:
    """Return the average duration of a frame in units of the stream's time base."""
    rate = stream.average_rate or stream.base_rate or _DEFAULT_RATE
    return 1 / (rate * (stream.time_base or Fraction(1, 1000)))


class PacketClock:
    """Corrects jumps in the time stamps of video packets, in the order of the file.

    Args:
        container: Open file, or the packets of a source that can be read only once.
        stream: Its video stream.

    Attributes:
        offsets: What was added to the time stamps so far, in seconds: one value for the start and
            one for each jump.
    """

    def __init__(self, container: InputContainer | PacketFeed, stream: VideoStream) -> None:
        self._time_base = stream.time_base or Fraction(1, 1000)
        self._duration = max(1, round(frame_duration(stream)))
        formats = container.format.name.split(",")
        negative = min(0, stream.start_time or 0) if formats[0] in _WRAPPING else 0
        self._offset = -negative
        self._last: int | None = None
        self._wraps = formats[0] in _WRAPPING
        self._sorts = formats[0] in _DECODING_ORDER
        self._pending: list[int] = []
        self._starts: deque[int] = deque()
        self.offsets = [self._offset * self._time_base]

    def correct(self, packet: Packet) -> None:
        """Correct the time stamps of a packet in place; call it for every packet, before decoding.

        Args:
            packet: The next packet of the video stream.
        """
        if not packet.size:
            return
        raw = packet.dts
        if raw is not None:
            self._check(raw, raw if packet.pts is None else packet.pts)
            self._last, packet.dts = raw, raw + self._offset
        if self._sorts and packet.dts is not None:
            packet.pts = packet.dts
            heapq.heappush(self._pending, packet.dts)
        elif packet.pts is not None:
            packet.pts += self._offset

    def jumps(self, before: Fraction, time: Fraction) -> bool:
        """Return whether the clock was changed between two packets of a stream.

        Args:
            before: End of the earlier one in seconds, before correction.
            time: Time of the later one, likewise.
        """
        step = time - before
        if self._wraps and is_gap(float(step)) and before // _WRAP != time // _WRAP:
            return True  # FFmpeg takes a clock that was set back for one that wrapped
        return is_jump(float(step))

    def _check(self, dts: int, pts: int) -> None:
        """Change the offset where the clock jumps, which decoding times in file order show."""
        last, base = self._last, self._time_base
        if last is not None and self.jumps(last * base, dts * base):
            self._offset += last + self._duration - dts
            self.offsets.append(self._offset * base)
            self._starts.append(pts + self._offset)

    def discard(self, packet: Packet) -> None:
        """Forget the time stamp of a packet that could not be decoded."""
        if self._sorts and packet.pts in self._pending:
            self._pending.remove(packet.pts)
            heapq.heapify(self._pending)

    def presentation_time(self, frame: av.VideoFrame) -> int | None:
        """Return the time stamp of a decoded frame, in units of its time base.

        Args:
            frame: The next frame in presentation order, from corrected packets.
        """
        pts = frame.pts
        if not self._sorts or pts is None:
            return pts
        # Packets that the decoder discarded leave time stamps behind.
        oldest = pts - _MAX_REORDERING * self._duration
        while self._pending and self._pending[0] < oldest:
            heapq.heappop(self._pending)
        return heapq.heappop(self._pending) if self._pending else pts

    def is_restart(self, pts: int | None) -> bool:
        """Return whether a frame is the first one after a jump; call it once per frame."""
        restarted = False
        while self._starts and pts is not None and pts >= self._starts[0]:
            self._starts.popleft()
            restarted = True
        return restarted


class FrameClock:
    """Makes the time stamps of consecutive frames complete and strictly increasing.

    Args:
        duration: Average duration of a frame, in units of the time stamps.
        start: Time stamp of the first frame if it has none.

    Example:
        >>> clock = FrameClock(Fraction(40))
        >>> [clock.next(pts) for pts in (0, 40, 40, None, 160, 165)]
        [0, 40, 80, 120, 160, 165]
    """

    def __init__(self, duration: Fraction, start: int = 0) -> None:
        self._duration, self._start = duration, start
        self._last: int | None = None
        self._exact = Fraction(start)  # without the rounding of repaired time stamps

    def next(self, pts: int | None, following: int | None = None) -> int:
        """Return the time stamp of the next frame.

        Args:
            pts: Its own time stamp, or None.
            following: The time stamp of the frame after it, if known.
        """
        if self._last is None:
            self._last = self._start if pts is None else pts
            self._exact = Fraction(self._last)
            return self._last
        if pts is not None and pts > self._last:
            self._exact = Fraction(pts)
        else:
            self._exact += self._duration
            if following is not None and self._last < following <= self._exact:
                self._exact = Fraction(self._last + following, 2)
            pts = round(self._exact)
        self._last = max(pts, self._last + 1)
        return self._last
