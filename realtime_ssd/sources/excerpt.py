"""Parts of a source: between two times, and every n-th frame."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Protocol, runtime_checkable

from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.sources.base import BaseSource, Source, SourceOptions

__all__ = ["Seekable", "select_frames"]


@runtime_checkable
class Seekable(Protocol):
    """A file that can skip to a time faster than by reading all frames before it.

    Attributes:
        first_time: Time of its first frame in seconds.
    """

    first_time: Fraction

    def seek(self, time: Fraction) -> None:
        """Continue at or before a time in seconds of the source; only before the first `read`."""
        ...


def select_frames(source: Source, options: SourceOptions) -> Source:
    """Return a source with the frames that `start`, `end` and `frame_step` select.

    The frames keep their times, and without `start` their numbers.

    Args:
        source: An open file, or a live source; closed if the options do not apply to it.
        options: The options.

    Raises:
        UsageError: If a live source or photos are to be cut.
    """
    cut = options.start > 0 or options.end is not None
    if not cut and options.frame_step == 1:
        return source
    if cut and (source.info.live or source.info.still):
        source.close()
        kind = "live" if source.info.live else "a photo"
        hint = "set `max_frames`, or stop it" if source.info.live else "leave them out"
        raise UsageError(
            f"'{source.info.name}' is {kind}: `start` and `end` are for video files; {hint}"
        )
    return _Excerpt(source, options)


class _Excerpt(BaseSource):
    """Some frames of another source.

    Args:
        source: The source, which is closed with this one.
        options: Which frames.
    """

    def __init__(self, source: Source, options: SourceOptions) -> None:
        self._source, self._step = source, options.frame_step
        self._start = Fraction(options.start).limit_denominator(10**6)
        self._end = None if options.end is None else Fraction(options.end).limit_denominator(10**6)
        self._first_time: Fraction | None = None
        self._read = 0
        if isinstance(source, Seekable):
            self._first_time = source.first_time
            if self._start:
                source.seek(self._first_time + self._start)
        self._update_info()

    def _update_info(self) -> None:
        """Derive the properties from those of the source, which a live one has once it is open."""
        info = self._source.info
        rate = None if info.rate is None else info.rate / self._step
        start = info.start
        if self._start:
            start += (self._first_time or 0) + self._start
        self.info = replace(info, rate=rate, frame_count=self._frame_count(), start=start)

    def _frame_count(self) -> int | None:
        """Return the number of frames, which is an estimate where a part is cut out."""
        info, count = self._source.info, self._source.info.frame_count
        if count is None:
            return None
        if self._start or self._end is not None:
            if not info.rate:
                return None
            last = count if self._end is None else min(count, ceil(self._end * info.rate))
            count = max(0, last - ceil(self._start * info.rate))
        return ceil(count / self._step)

    def open(self) -> None:
        """See `Source.open`."""
        self._source.open()
        self._update_info()

    def read(self) -> Frame | None:
        """See `Source.read`."""
        while (frame := self._source.read()) is not None:
            time = (frame.pts or 0) * frame.time_base
            if self._first_time is None:
                self._first_time = time
                self._update_info()
            time -= self._first_time
            if time < self._start:
                continue
            if self._end is not None and time >= self._end:
                break
            self._read += 1
            if (self._read - 1) % self._step == 0:
                # After a jump, their numbers in the file are unknown.
                return replace(frame, index=self._read - 1) if self._start else frame
        if self._start and not self._read and not self._source.info.live:
            raise SourceError(
                f"'{self.info.name}' ends before `start` ({float(self._start):g} seconds)"
            )
        return None

    def interrupt(self) -> None:
        """See `Source.interrupt`."""
        self._source.interrupt()

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()
