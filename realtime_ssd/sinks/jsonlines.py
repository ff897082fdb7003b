"""JSON lines: one object per frame, each flushed immediately, so that a crash loses none."""

from __future__ import annotations

import errno
import json
import sys
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.files import open_output
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink

__all__ = ["JsonSink", "to_record", "wall_clock"]


def to_record(result: FrameResult) -> dict[str, Any]:
    """Return the object of one line.

    Returns:
        "source"; "file" of a photo, "captured_at" of a live source (UTC, ISO 8601); then "frame",
        "time" in seconds of the stream, "width", "height" and "detections" with boxes in pixels;
        "events" where processors reported some.
    """
    frame = result.frame
    record: dict[str, Any] = {"source": frame.source}
    if frame.name:
        record["file"] = frame.name
    record |= {"frame": frame.index, "time": round(frame.time, 6)}
    if result.live:
        record["captured_at"] = wall_clock(frame.captured_at)
    record |= {"width": frame.width, "height": frame.height}
    record["detections"] = result.detections.to_dicts()
    if result.events:
        record["events"] = [
            {"kind": event.kind, "time": event.time, **event.data} for event in result.events
        ]
    return record


def wall_clock(monotonic: float) -> str:
    """Return a moment of `time.monotonic()` as UTC in ISO 8601, to the millisecond."""
    seconds = time.time() - (time.monotonic() - monotonic)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonSink(BaseSink):
    """Writes JSON lines to a file, or to standard output if the target is "-".

    Args:
        target: File or "-".
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: If the file exists or cannot be written, or standard output is closed.
    """

    def __init__(self, target: str, *, overwrite: bool = False) -> None:
        if target == "-" and sys.stdout is None:
            raise UsageError("standard output is closed; write JSON lines to a file")
        self._name = "standard output" if target == "-" else f"'{target}'"
        self._path = None if target == "-" else Path(target)
        self._file: BinaryIO | None = None
        if self._path is not None:
            self._file = open_output(self._path, overwrite=overwrite)
        self._complete_bytes = 0

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`.

        Raises:
            BrokenPipeError: If the reader left, or the terminal was closed.
        """
        line = json.dumps(to_record(result), separators=(",", ":")) + "\n"
        try:
            if self._path is None:
                sys.stdout.write(line)
                sys.stdout.flush()
            elif self._file is not None:
                self._append(self._file, line.encode())
        except OSError as error:
            if isinstance(error, BrokenPipeError) or (error.errno == errno.EIO and not self._path):
                raise BrokenPipeError(error.errno, error.strerror, self._name) from None
            raise RealtimeSSDError(
                f"writing to {self._name} failed ({error.strerror}); the lines written before are "
                "complete"
            ) from None

    def _append(self, file: BinaryIO, line: bytes) -> None:
        """Write a complete line, or remove the part of it that was written."""
        try:
            remaining = memoryview(line)
            while remaining:
                remaining = remaining[file.write(remaining) :]
        except OSError:
            with suppress(OSError):
                file.truncate(self._complete_bytes)
            raise
        self._complete_bytes += len(line)

    def close(self) -> None:
        """See `Sink.close`; a file without a single line is deleted."""
        file, self._file = self._file, None
        if file is None or self._path is None:
            return
        with suppress(OSError):  # a write error was already reported by `write`
            file.close()
            if not self._complete_bytes and self._path.is_file() and not self._path.stat().st_size:
                self._path.unlink()
