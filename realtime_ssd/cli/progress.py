"""Progress on standard error: a bar for files, a line for cameras, plain lines in a log."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from realtime_ssd.core.metrics import Statistics

__all__ = ["RunProgress", "summary"]

TERMINAL_INTERVAL, PLAIN_INTERVAL = 0.2, 10.0


class RunProgress(AbstractContextManager["RunProgress"]):
    """Shows the progress of a run on standard error.

    Args:
        statistics: Counts of the run.
        total: Frames to process; None if unknown.
        live: Whether a source is live.
    """

    def __init__(self, statistics: Statistics, total: int | None, *, live: bool) -> None:
        self._statistics, self._total, self._live = statistics, total, live
        console = Console(file=sys.stderr)
        self._is_terminal = console.is_terminal
        self._next_update = time.monotonic() + (0 if self._is_terminal else PLAIN_INTERVAL)
        columns = [TextColumn("{task.description}")]
        if total is not None:
            columns += [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]  # type: ignore[list-item]
        # Standard output carries JSON lines, which rich must not capture.
        self._progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        self._task = self._progress.add_task("starting", total=total)

    def __enter__(self) -> RunProgress:
        if self._is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_terminal:
            self._progress.stop()

    def update(self) -> None:
        """Refresh the display, not more often than a reader can follow."""
        now = time.monotonic()
        if now < self._next_update:
            return
        self._next_update = now + (TERMINAL_INTERVAL if self._is_terminal else PLAIN_INTERVAL)
        description, processed = self._description(), self._statistics.total.processed
        if self._is_terminal:
            self._progress.update(self._task, description=description, completed=processed)
        else:
            of_total = f" of {self._total}" if self._total else ""
            print(f"{processed}{of_total} frames, {description}", file=sys.stderr, flush=True)

    def _description(self) -> str:
        statistics = self._statistics
        text = f"{statistics.recent_fps:.1f} FPS"
        if self._live:
            dropped = statistics.total.dropped.total()
            text += f", latency {statistics.latency() * 1000:.0f} ms, {dropped} dropped"
        return text


def summary(statistics: Statistics, *, live: bool) -> str:
    """Return one line about a finished run.

    Args:
        statistics: Counts of the run.
        live: Whether a source was live. The latency of files is not shown, because their frames
            wait in queues on purpose.
    """
    total = statistics.total
    drops = ", ".join(f"{n} {outcome}" for outcome, n in sorted(total.dropped.items()) if n)
    frames = "1 frame" if total.processed == 1 else f"{total.processed} frames"
    p50, p99 = (statistics.latency(fraction=fraction) * 1000 for fraction in (0.5, 0.99))
    return (
        f"{frames}, {statistics.fps:.1f} FPS"
        + (f", latency p50 {p50:.1f} ms, p99 {p99:.1f} ms" if live else "")
        + (f", dropped: {drops}" if drops else ", none dropped")
    )
