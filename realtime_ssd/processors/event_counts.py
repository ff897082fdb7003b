"""`EventCounts`: totals of the events of zones and lines, and their CSV file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.files import open_output
from realtime_ssd.core.printable import csv_text, printable
from realtime_ssd.core.results import Event

__all__ = ["EventCounts"]

_COLUMNS = ("start", "end", "source", "name", "event", "class", "count")
_COUNTED = frozenset({"enter", "leave", "cross", "dwell"})

_LATENESS = 10.0
"""Seconds of stream time for which an interval waits: an object that is lost has left earlier."""

_Key = tuple[str, str, str]
"""Name of the zone or line, what happened, and class."""


class EventCounts:
    """Counts events by zone or line, kind and class.

    Args:
        path: CSV file with the counts of each interval; None writes none.
        interval: Seconds of stream time per row.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: If the interval is not positive, or the file exists or cannot be written.
    """

    def __init__(
        self, path: Path | None = None, interval: float = 60.0, *, overwrite: bool = False
    ) -> None:
        if not 0.001 <= interval <= 1e7:
            raise UsageError(f"`counts_interval` must be at least 0.001 seconds, not {interval:g}")
        self._path, self._interval = path, interval
        self._file: BinaryIO | None = None
        self.totals: Counter[_Key] = Counter()
        self._open: dict[str, dict[int, Counter[_Key]]] = {}
        if path is not None:
            self._file = open_output(path, overwrite=overwrite)
            self._write([_COLUMNS])

    def add(self, source: str, event: Event) -> None:
        """Count an event; intervals before it are written.

        Raises:
            RealtimeSSDError: If the file cannot be written.
        """
        if event.kind not in _COUNTED:
            return
        what = str(event.data.get("direction", event.kind))
        name = str(event.data.get("zone", event.data.get("line", "")))
        key = name, what, str(event.data.get("label", ""))
        self.totals[key] += 1
        number = int(event.time // self._interval)
        intervals = self._open.setdefault(source, {})
        intervals.setdefault(number, Counter())[key] += 1
        for earlier in sorted(intervals):
            if (earlier + 1) * self._interval + _LATENESS < event.time:
                self._write_interval(source, earlier)

    def summary(self) -> list[str]:
        """Return one line per zone or line, as in "gate: in 3 (car 2, person 1), out 1 (car 1)"."""
        return [
            f"{printable(name)}: {self._describe(name)}"
            for name in sorted({k[0] for k in self.totals})
        ]

    def _describe(self, name: str) -> str:
        parts = []
        for what in sorted({key[1] for key in self.totals if key[0] == name}):
            classes = {k[2]: n for k, n in sorted(self.totals.items()) if k[:2] == (name, what)}
            listed = ", ".join(f"{printable(label)} {count}" for label, count in classes.items())
            parts.append(f"{what} {sum(classes.values())} ({listed})")
        return ", ".join(parts)

    def close(self) -> None:
        """Write the last intervals; may be called any number of times."""
        try:
            for source, intervals in self._open.items():
                for number in sorted(intervals):
                    self._write_interval(source, number)
        finally:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _write_interval(self, source: str, number: int) -> None:
        counts = self._open[source].pop(number)
        start, end = number * self._interval, (number + 1) * self._interval
        times = f"{start:.3f}", f"{end:.3f}"
        self._write([(*times, source, *key, str(count)) for key, count in sorted(counts.items())])

    def _write(self, rows: list[tuple[str, ...]]) -> None:
        if self._file is None:
            return
        text = io.StringIO()
        cells = ([_cell(value) for value in row] for row in rows)
        csv.writer(text, lineterminator="\n").writerows(cells)
        try:
            self._file.write(text.getvalue().encode())
            self._file.flush()
        except OSError as error:
            raise RealtimeSSDError(
                f"'{self._path}' cannot be written: {error.strerror}; the rows before are complete"
            ) from None


def _cell(value: object) -> object:
    return csv_text(value) if isinstance(value, str) else value
