"""One run of the detector: sources, backend and sinks, from opening to the exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from realtime_ssd.annotators import BoxAnnotator
from realtime_ssd.backends import Backend
from realtime_ssd.cli.extensions import (
    add_sinks,
    create_annotators,
    create_observers,
    processor_factory,
)
from realtime_ssd.cli.options import ExtensionOptions, OutputOptions
from realtime_ssd.cli.outputs import OutputTarget, check_output_files, plan_outputs
from realtime_ssd.cli.progress import RunProgress, summary
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.files import make_folder, replace_file
from realtime_ssd.core.signals import stop_on_signals
from realtime_ssd.pipeline import Pipeline, PipelineOptions, SinkGroup
from realtime_ssd.sinks.base import Sink
from realtime_ssd.sources import Source, open_source

if TYPE_CHECKING:
    from realtime_ssd.sinks.window import WindowSink

__all__ = ["Run", "open_sources"]


def open_sources(names: Sequence[str], *, gpu: bool = False) -> list[Source]:
    """Open sources; if one fails, those before it are closed.

    Args:
        names: What `open_source` takes.
        gpu: Whether video files are decoded on the GPU where possible.

    Raises:
        UsageError: If there is no such source.
        SourceError: If one cannot be read.
    """
    opened: list[Source] = []
    try:
        for name in names:
            opened.append(open_source(name, gpu=gpu))
    except BaseException:
        for source in opened:
            source.close()
        raise
    return opened


class Run:
    """Runs the pipeline and passes its results to the sinks.

    Args:
        sources: Where frames come from.
        backend: What detects objects.
        max_frames: Frames to process of each source; None for all.
        extensions: Processors, annotators, observers and further sinks to use.

    Raises:
        UsageError: If an extension is not installed or its argument is malformed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        backend: Backend,
        max_frames: int | None,
        extensions: ExtensionOptions,
    ) -> None:
        self._infos = [source.info for source in sources]
        self._live = any(info.live for info in self._infos)
        annotators = (BoxAnnotator(), *create_annotators(extensions.annotator or ()))
        self._pipeline = Pipeline(
            sources,
            backend,
            PipelineOptions(max_frames=max_frames, annotators=annotators),
            processors=processor_factory(extensions.processor or ()),
            observers=create_observers(extensions.observer or ()),
        )
        self._sink_specs = extensions.sink or ()
        self._backend, self._max_frames = backend, max_frames
        self._sinks = SinkGroup()
        self._window: WindowSink | None = None

    def add_sinks(self, outputs: OutputOptions) -> None:
        """Open all outputs; if one cannot be opened, the others are closed.

        Args:
            outputs: Choices of the user.

        Raises:
            UsageError: If an output exists, is a source, or cannot be written.
        """
        targets = [] if outputs.output is None else plan_outputs(outputs.output, self._infos)
        files = [file for target in targets for file in target.files()]
        if outputs.json not in (None, "-"):
            files.append(Path(outputs.json))
        if outputs.stats is not None:
            files.append(outputs.stats)
        check_output_files(files, self._infos, overwrite=outputs.overwrite)
        try:
            for target in targets:
                self._sinks.add(_open_target(target, outputs.overwrite), target.info.name)
            if outputs.json is not None:
                from realtime_ssd.sinks.jsonlines import JsonSink

                self._sinks.add(JsonSink(outputs.json, overwrite=outputs.overwrite))
            add_sinks(self._sinks, self._sink_specs, self._infos, overwrite=outputs.overwrite)
            if outputs.window and not (self._sink_specs and outputs.show is None):
                self._add_window(paced=not self._sinks)
        except BaseException:
            self._sinks.close()
            raise

    def _add_window(self, *, paced: bool) -> None:
        from realtime_ssd.sinks.window import WindowSink, unavailable_reason

        reason = unavailable_reason()
        if reason:
            print(f"running without a window: {reason}", file=sys.stderr)
            return
        statistics, stop = self._pipeline.statistics, self._pipeline.stop
        self._window = WindowSink(statistics, stop, self._infos, paced=paced)
        self._sinks.add(self._window)

    def run(self, stats: Path | None = None) -> int:
        """Run to the end, or until the user stops it.

        Args:
            stats: JSON file to write the statistics to.

        Returns:
            The exit status: 0, or 128 + signal for a file that was not finished.

        Raises:
            RealtimeSSDError: If something failed; what was written before can be read.
        """
        progress = RunProgress(self._pipeline.statistics, self._total_frames(), live=self._live)
        try:
            with stop_on_signals(self._stop) as signal_received, progress:
                on_idle = self._window.poll if self._window else None
                for result in self._pipeline.results(on_idle):
                    self._sinks.write(result)
                    progress.update()
        finally:
            self._finish(stats)
        has_file = any(not info.live for info in self._infos)
        return 128 + signal_received() if signal_received() and has_file else 0

    def _stop(self, _: int) -> None:
        self._pipeline.stop()
        if self._window:
            self._window.quit()

    def _finish(self, stats: Path | None) -> None:
        """Close all sinks, print the summary and write the statistics, whatever fails."""
        statistics = self._pipeline.statistics
        try:
            self._sinks.close()
        finally:
            if statistics.total.captured:
                print(summary(statistics, live=self._live), file=sys.stderr)
            if stats is not None:
                self._write_stats(stats)

    def _total_frames(self) -> int | None:
        """Return the number of frames to process; None if a source does not know its own."""
        limit = self._max_frames
        total = 0
        for info in self._infos:
            frames = info.frame_count if limit is None else min(info.frame_count or limit, limit)
            if frames is None:
                return None
            total += frames
        return total

    def _write_stats(self, path: Path) -> None:
        values = {
            "backend": self._backend.name,
            "model": self._backend.spec.name,
            **self._pipeline.statistics.to_dict(),
        }
        try:
            replace_file(path, (json.dumps(values, indent=1) + "\n").encode())
        except OSError as error:
            raise RealtimeSSDError(f"'{path}' cannot be written: {error.strerror}") from None


def _open_target(target: OutputTarget, overwrite: bool) -> Sink:
    if target.names:
        from realtime_ssd.sinks.images import ImageSink

        return ImageSink(target.path, target.names, overwrite=overwrite)
    from realtime_ssd.sinks.video import VideoSink

    make_folder(target.path.parent)
    return VideoSink(target.path, target.info, overwrite=overwrite)
