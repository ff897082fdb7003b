"""Progress on standard error: a bar for files, a line for cameras, plain lines in a log."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from realtime_ssd.core.metrics import Statistics

__all__ = ["RunProgress"]

TERMINAL_INTERVAL, PLAIN_INTERVAL = 0.2, 10.0


class RunProgress(AbstractContextManager["RunProgress"]):
    """Shows the progress of a run on standard error.

    Args:
        statistics: Counts of the run.
        total: Frames to process; None if unknown.
        live: Whether a source is live.
        unit: What is counted, "frames" or "photos".
        quiet: Whether to show nothing, because the terminal shows results instead.
    """

    def __init__(
        self,
        statistics: Statistics,
        total: int | None,
        *,
        live: bool,
        unit: str = "frames",
        quiet: bool = False,
    ) -> None:
        self._statistics, self._total, self._live = statistics, total, live
        self._unit, self._quiet = unit, quiet
        console = Console(file=sys.stderr)
        self._is_terminal = console.is_terminal and not quiet
        self._next_update = time.monotonic() + (0 if self._is_terminal else PLAIN_INTERVAL)
        columns = [TextColumn("{task.description}", markup=False)]
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
        if self._quiet or now < self._next_update:
            return
        self._next_update = now + (TERMINAL_INTERVAL if self._is_terminal else PLAIN_INTERVAL)
        description, processed = self._description(), self._statistics.total.processed
        if self._is_terminal:
            self._progress.update(self._task, description=description, completed=processed)
        else:
            of_total = f" of {self._total}" if self._total else ""
            print(f"{processed}{of_total} {self._unit}, {description}", file=sys.stderr, flush=True)

    def _description(self) -> str:
        statistics = self._statistics
        text = f"{statistics.recent_fps:.1f} FPS"
        if self._live:
            dropped = statistics.total.dropped.total()
            text += f", latency {statistics.latency() * 1000:.0f} ms, {dropped} skipped"
        return text
