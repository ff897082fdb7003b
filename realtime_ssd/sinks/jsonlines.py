"""JSON lines: one object per frame, each flushed immediately, so that a crash loses none."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any

from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.record_file import RecordFile

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
        self._lines = RecordFile(target, overwrite=overwrite)

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`.

        Raises:
            BrokenPipeError: If the reader left, or the terminal was closed.
        """
        self._lines.append(json.dumps(to_record(result), separators=(",", ":")) + "\n")

    def close(self) -> None:
        """See `Sink.close`; a file without a single line is deleted."""
        self._lines.close()
