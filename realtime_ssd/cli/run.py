"""One run of the detector: sources, backend and sinks put together, and brought to an end."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from realtime_ssd.backends import Backend
from realtime_ssd.cli.outputs import Target, check_place, check_targets, plan_outputs
from realtime_ssd.cli.progress import RunProgress, summary
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.files import make_folder, replace_file
from realtime_ssd.core.results import FrameResult
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.sinks.base import Sink
from realtime_ssd.sources import Source, open_source

if TYPE_CHECKING:
    from realtime_ssd.cli.detect import Results
    from realtime_ssd.sinks.window import WindowSink

__all__ = ["Run", "open_sources"]


def open_sources(words: Sequence[str], *, gpu: bool = False) -> list[Source]:
    """Open sources by their names; if one fails those before it are closed.

    Args:
        words: As `open_source` takes them.
        gpu: Whether video files are decoded on the GPU, where it can.

    Raises:
        UsageError: If there is no such source.
        SourceError: If one cannot be read.
    """
    opened: list[Source] = []
    try:
        for word in words:
            opened.append(open_source(word, gpu=gpu))
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


class Run:
    """Runs the loop and hands its results to the sinks.

    Args:
        sources: Where frames come from.
        backend: What finds the objects.
        max_frames: Frames to process of each source; None for all.
    """

    def __init__(self, sources: Sequence[Source], backend: Backend, max_frames: int | None) -> None:
        self._sources = sources
        self._loop = Pipeline(sources, backend, PipelineOptions(max_frames=max_frames))
        self._backend, self._max_frames = backend, max_frames
        self._sinks: dict[str, list[Sink]] = {one.info.name: [] for one in sources}
        self._all: list[Sink] = []
        self._window: WindowSink | None = None
        self._signal = 0

    def add_sinks(self, results: Results) -> None:
        """Open everything that results go to; if one cannot be opened, the others are closed.

        Args:
            results: Where the user wants them.

        Raises:
            UsageError: If an output exists, is a source, or cannot be written.
        """
        infos = [one.info for one in self._sources]
        targets = [] if results.output is None else plan_outputs(results.output, infos)
        files = [file for target in targets for file in target.files()]
        if results.json not in (None, "-"):
            files.append(Path(results.json))
        if results.stats is not None:
            files.append(results.stats)
        check_targets(files, infos, overwrite=results.overwrite)
        if results.stats is not None:
            check_place(results.stats)
        try:
            for target in targets:
                self._add(_open_target(target, results.overwrite), target.info.name)
            if results.json is not None:
                from realtime_ssd.sinks.jsonlines import JsonSink

                self._add(JsonSink(results.json, overwrite=results.overwrite))
            if results.window:
                self._add_window(alone=not self._all)
        except BaseException:
            self._close_sinks()
            raise

    def _add(self, sink: Sink, name: str | None = None) -> None:
        self._all.append(sink)
        for key, sinks in self._sinks.items():
            if name in (None, key):
                sinks.append(sink)

    def _add_window(self, *, alone: bool) -> None:
        from realtime_ssd.sinks.window import WindowSink, unavailable_reason

        reason = unavailable_reason()
        if reason:
            print(f"going on without a window: {reason}", file=sys.stderr)
            return
        infos = [one.info for one in self._sources]
        window = WindowSink(self._loop.statistics, self._loop.stop, infos, paced=alone)
        self._window = window
        self._add(window)

    def go(self, stats: Path | None = None) -> int:
        """Run to the end, or until the user stops it.

        Returns:
            The exit status: 0, or 128 + signal for a file that was not finished.

        Raises:
            RealtimeSSDError: If something failed; what was written before can be read.
        """
        live = any(one.info.live for one in self._sources)
        try:
            with (
                self._signals(),
                RunProgress(self._loop.statistics, self._total(), live=live) as progress,
            ):
                idle = self._window.poll if self._window else None
                for result in self._loop.results(idle):
                    self._write(result)
                    progress.update()
        finally:
            self._finish(stats, live=live)
        files = any(not one.info.live for one in self._sources)
        return 128 + self._signal if self._signal and files else 0

    def _finish(self, stats: Path | None, *, live: bool) -> None:
        """Close all sinks and tell what happened, whatever the sinks say."""
        try:
            self._close_sinks()
        finally:
            if self._loop.statistics.total.captured:
                print(summary(self._loop.statistics, live=live), file=sys.stderr)
            if stats is not None:
                self._write_stats(stats)

    def _write(self, result: FrameResult) -> None:
        for sink in self._sinks[result.frame.source]:
            try:
                sink.write(result)
            except (RealtimeSSDError, BrokenPipeError):
                raise
            except Exception as error:
                raise RealtimeSSDError(
                    f"writing to {type(sink).__name__} failed: {type(error).__name__}: {error}"
                ) from error

    def _total(self) -> int | None:
        counts = [one.info.frame_count for one in self._sources]
        most = self._max_frames
        if most is not None:
            counts = [most if count is None else min(most, count) for count in counts]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _close_sinks(self) -> None:
        """Close all sinks, each whatever the others do, then raise the first failure."""
        failure: Exception | None = None
        while self._all:
            try:
                self._all.pop(0).close()
            except Exception as error:
                failure = failure or error
        if failure:
            raise failure

    def _write_stats(self, path: Path) -> None:
        values = {
            "backend": self._backend.name,
            "model": self._backend.spec.name,
            **self._loop.statistics.to_dict(),
        }
        try:
            replace_file(path, (json.dumps(values, indent=1) + "\n").encode())
        except OSError as error:
            raise RealtimeSSDError(f"'{path}' cannot be written: {error.strerror}") from None

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """End in order on Ctrl+C and SIGTERM; a second one ends at once."""

        def react(number: int, _: FrameType | None) -> None:
            if self._signal:
                raise KeyboardInterrupt
            self._signal = number
            self._loop.stop()
            if self._window:
                self._window.quit()

        before = {one: signal.signal(one, react) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _open_target(target: Target, overwrite: bool) -> Sink:
    if target.names:
        from realtime_ssd.sinks.images import ImageSink

        return ImageSink(target.path, target.names, overwrite=overwrite)
    from realtime_ssd.sinks.video import VideoSink

    if target.folder is not None:
        make_folder(target.folder)
    return VideoSink(target.path, target.info, overwrite=overwrite)
