"""MOTChallenge results: one line per detection of a video."""

from __future__ import annotations

from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.record_file import RecordFile

__all__ = ["MotSink"]


class MotSink(BaseSink):
    """Writes "frame, id, left, top, width, height, confidence, -1, -1, -1".

    Frames are counted from 1. Boxes are in pixels from the upper left corner, as tracking programs
    write them. Without tracking the id is -1; with it, objects that are not confirmed yet are left
    out.

    Args:
        target: File, or "-" for standard output.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: If the file exists or cannot be written.
    """

    def __init__(self, target: str, *, overwrite: bool = False) -> None:
        self._rows = RecordFile(target, "rows", overwrite=overwrite)

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        rows, tracked = [], result.detections.track_ids is not None
        for item in result.detections:
            if tracked and item.track_id is None:
                continue  # not confirmed yet: an id may stand only once in a frame
            x1, y1, x2, y2 = item.box
            track = -1 if item.track_id is None else item.track_id
            box = ",".join(f"{value:.2f}" for value in (x1, y1, x2 - x1, y2 - y1))
            rows.append(f"{result.frame.index + 1},{track},{box},{item.score:.6f},-1,-1,-1\n")
        if rows:
            self._rows.append("".join(rows))

    def close(self) -> None:
        """See `Sink.close`; a file without a single row is deleted."""
        self._rows.close()
