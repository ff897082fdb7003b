"""One run of the detector: sources, backend and sinks, from opening to the exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realtime_ssd.backends import Backend
from realtime_ssd.cli.extensions import (
    create_annotators,
    create_observers,
    plan_sinks,
    processor_factory,
)
from realtime_ssd.cli.options import ExtensionOptions, OutputOptions
from realtime_ssd.cli.outputs import (
    check_folders,
    check_output_files,
    encoder_options,
    plan_detections,
    plan_outputs,
)
from realtime_ssd.cli.progress import RunProgress
from realtime_ssd.cli.scene import Scene
from realtime_ssd.cli.summary import RunSummary, unit_of
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import write_output
from realtime_ssd.core.signals import stop_on_signals
from realtime_ssd.pipeline import Pipeline, PipelineOptions, SinkGroup
from realtime_ssd.processors import Processor
from realtime_ssd.sources import Source, SourceInfo

if TYPE_CHECKING:
    from realtime_ssd.sinks.window import WindowSink

__all__ = ["Run"]


class Run:
    """Runs the pipeline and passes its results to the sinks.

    Args:
        sources: Where frames come from.
        backend: What detects objects.
        options: Settings of the pipeline; annotators of `extensions` are added to its own.
        extensions: Processors, annotators, observers and further sinks to use.
        scene: Tracking, zones and privacy.

    Raises:
        UsageError: If an extension is not installed or its argument is malformed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        backend: Backend,
        options: PipelineOptions,
        extensions: ExtensionOptions,
        scene: Scene,
    ) -> None:
        self._infos, self._scene = [source.info for source in sources], scene
        self._named_processors = processor_factory(extensions.processor or ())
        self._live = any(info.live for info in self._infos)
        annotators = (*options.annotators, *create_annotators(extensions.annotator or ()))
        self._pipeline = Pipeline(
            sources,
            backend,
            replace(options, annotators=annotators),
            processors=self._create_processors,
            observers=create_observers(extensions.observer or ()),
        )
        self._sink_specs, self._observed = extensions.sink or (), bool(extensions.observer)
        self._backend, self._max_frames = backend, options.max_frames
        self._sinks = SinkGroup()
        self._window: WindowSink | None = None
        self._summary = RunSummary(self._infos)
        self._locations: list[str] = []  # of results, for the summary
        self._prints_results = False

    def _create_processors(self, info: SourceInfo) -> list[Processor]:
        scene = self._scene
        # Covering comes first: it needs all detections, and nothing may see the original pixels.
        return [*scene.anonymizers(), *scene.create(info), *self._named_processors(info)]

    def add_sinks(self, outputs: OutputOptions) -> None:
        """Open all outputs; if one cannot be opened, the others are closed.

        Args:
            outputs: Choices of the user.

        Raises:
            UsageError: If an output exists, is a source, or cannot be written.
        """
        encoding = encoder_options(outputs)
        sinks = plan_detections(outputs, self._infos)
        sinks += plan_sinks(self._sink_specs, self._infos)
        targets = [] if outputs.output is None else plan_outputs(outputs.output, self._infos)
        files = [file for target in targets for file in target.files()]
        files += [file for sink in sinks for file in sink.files()]
        files += self._scene.files()
        if outputs.stats is not None:
            files.append(outputs.stats)
        check_output_files(files, self._infos, overwrite=outputs.overwrite)
        if [sink.target for sink in sinks].count("-") > 1:
            raise UsageError("standard output takes only one output; write the others to files")
        check_folders((folder for sink in sinks for folder in sink.folders()), self._infos)
        wants_window = outputs.window and not (self._sink_specs and outputs.show is None)
        if wants_window:
            wants_window = self._can_show(has_output=bool(sinks or files or self._observed))
        try:
            self._scene.open()
            for target in targets:
                sink = target.open(encoding, overwrite=outputs.overwrite)
                self._sinks.add(sink, target.info.name)
            for planned in sinks:
                planned.add_to(self._sinks, overwrite=outputs.overwrite)
            self._locations = [*outputs.locations(), *map(str, self._scene.files())]
            self._prints_results = "-" in (outputs.json, outputs.csv) and sys.stdout.isatty()
            if wants_window:
                self._add_window(paced=not self._sinks)
        except BaseException:
            self._sinks.close()
            raise

    def _can_show(self, *, has_output: bool) -> bool:
        """Return whether a window can be shown; if not, there must be another output."""
        from realtime_ssd.sinks.window import unavailable_reason

        reason = unavailable_reason()
        if reason and not has_output:
            raise UsageError(
                f"no window can be shown: {reason}; add an output, such as --output FILE, "
                "--json FILE, --csv FILE, or --json - for standard output"
            )
        if reason:
            print(f"running without a window: {reason}", file=sys.stderr)
        return not reason

    def _add_window(self, *, paced: bool) -> None:
        from realtime_ssd.sinks.window import WindowSink

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
        progress = RunProgress(
            self._pipeline.statistics,
            self._total_frames(),
            live=self._live,
            unit=unit_of(self._infos),
            quiet=self._prints_results,
        )
        completed = False
        with stop_on_signals(self._stop) as signal_received:
            try:
                with progress:
                    on_idle = self._window.poll if self._window else None
                    for result in self._pipeline.results(on_idle):
                        self._summary.observe(result)
                        self._sinks.write(result)
                        progress.update()
                        for name in self._pipeline.finished_sources():
                            self._sinks.close_source(name)
                completed = True
            finally:
                self._finish(stats, completed=completed)
        has_file = any(not info.live for info in self._infos)
        return 128 + signal_received() if signal_received() and has_file else 0

    def _stop(self, _: int) -> None:
        self._pipeline.stop()
        if self._window:
            self._window.quit()

    def _finish(self, stats: Path | None, *, completed: bool) -> None:
        """Close all sinks, write the statistics and print the summary, whatever fails."""
        try:
            try:
                self._sinks.close()
            except BaseException:
                completed = False
                raise
            finally:
                if stats is not None:
                    self._write_stats(stats)
        finally:
            self._print_summary(completed=completed)

    def _print_summary(self, *, completed: bool) -> None:
        """Print the summary; URLs are results only of a run that was completed."""
        statistics = self._pipeline.statistics
        if statistics.total.captured:
            results = [
                text
                for text in self._locations
                if (completed if "://" in text else Path(text).exists())
            ]
            lines = [*self._summary.lines(statistics, results), *self._scene.summary()]
            print("\n".join(lines), file=sys.stderr)

    def _total_frames(self) -> int | None:
        """Return the number of frames to process; None if a source has no frame count."""
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
        write_output(path, (json.dumps(values, indent=1) + "\n").encode())
