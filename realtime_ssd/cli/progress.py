"""How a run is going: a bar for files, one line for cameras, plain lines without a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from realtime_ssd.pipeline import Statistics

__all__ = ["RunProgress", "summary"]

TERMINAL_SECONDS, PLAIN_SECONDS = 0.2, 10.0


class RunProgress:
    """Tells about a run on standard error.

    Args:
        statistics: What happens.
        total: Frames to come; None if unknown or live.
        live: Whether a source is live.
    """

    def __init__(self, statistics: Statistics, total: int | None, *, live: bool) -> None:
        self._statistics, self._total, self._live = statistics, total, live
        self._console = Console(file=sys.stderr)
        self._terminal = self._console.is_terminal
        self._next = time.monotonic() + (0 if self._terminal else PLAIN_SECONDS)
        columns = [TextColumn("{task.description}")]
        if total is not None:
            columns += [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]  # type: ignore[list-item]
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> RunProgress:
        if self._terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._terminal:
            self._bar.stop()

    def update(self) -> None:
        """Tell how far it is, not more often than a reader can follow."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS)
        text, done = self._text(), self._statistics.total.processed
        if self._terminal:
            self._bar.update(self._task, description=text, completed=done)
        else:
            of_all = f" of {self._total}" if self._total else ""
            print(f"{done}{of_all} frames, {text}", file=sys.stderr, flush=True)

    def _text(self) -> str:
        statistics = self._statistics
        text = f"{statistics.recent_fps:.1f} FPS"
        if self._live:
            dropped = sum(statistics.total.dropped.values())
            text += f", latency {statistics.latency() * 1000:.0f} ms, {dropped} dropped"
        return text


def summary(statistics: Statistics, *, live: bool) -> str:
    """Say in one line what a run did.

    Args:
        statistics: Of the run.
        live: Whether a source was live; the frames of files wait for each other, so that their
            latency means nothing.
    """
    total = statistics.total
    drops = ", ".join(f"{count} {cause}" for cause, count in sorted(total.dropped.items()) if count)
    frames = "1 frame" if total.processed == 1 else f"{total.processed} frames"
    middle, late = (statistics.latency(share=share) * 1000 for share in (0.5, 0.99))
    return (
        f"{frames}, {statistics.fps:.1f} FPS"
        + (f", latency p50 {middle:.1f} ms, p99 {late:.1f} ms" if live else "")
        + (f", dropped: {drops}" if drops else ", none dropped")
    )
