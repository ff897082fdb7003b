"""CSV: one row per detection."""

from __future__ import annotations

import csv
import io

from realtime_ssd.core.printable import csv_text
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.jsonlines import wall_clock
from realtime_ssd.sinks.record_file import RecordFile

__all__ = ["CSV_COLUMNS", "CsvSink"]

CSV_COLUMNS = (
    *("source", "file", "captured_at", "frame", "time"),
    *("label", "class_id", "score", "x1", "y1", "x2", "y2", "track_id"),
)


class CsvSink(BaseSink):
    """Writes one row per detection, with the columns of `CSV_COLUMNS`.

    Boxes are in pixels and times in seconds of the stream; `file`, `captured_at` and `track_id` are
    empty where they do not apply. The rows of a frame are written together, so that the file is
    readable at any moment.

    Args:
        target: File, or "-" for standard output.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: If the file exists or cannot be written.
    """

    def __init__(self, target: str, *, overwrite: bool = False) -> None:
        self._rows = RecordFile(target, "rows", overwrite=overwrite)
        self._has_header = False

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._has_header:
            writer.writerow(CSV_COLUMNS)
        frame = result.frame
        captured = wall_clock(frame.captured_at) if result.live else ""
        start = (csv_text(frame.source), csv_text(frame.name), captured, frame.index)
        for item in result.detections:
            box = (round(value, 3) for value in item.box)
            label, track = (
                csv_text(item.label),
                "" if item.track_id is None else item.track_id,
            )
            found = (label, item.class_id, round(item.score, 6), *box, track)
            writer.writerow((*start, round(frame.time, 6), *found))
        if text.tell():
            self._rows.append(text.getvalue())
            self._has_header = True

    def close(self) -> None:
        """See `Sink.close`; a file without a header is deleted."""
        self._rows.close()
