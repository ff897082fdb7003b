"""`ProcessorChain`: the processors of each source, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from realtime_ssd.core.errors import RealtimeSSDError, describe
from realtime_ssd.core.metrics import Observer
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors.base import Processor
from realtime_ssd.sources.base import SourceInfo

__all__ = ["ProcessorChain", "ProcessorFactory"]

ProcessorFactory = Callable[[SourceInfo], Sequence[Processor]]
"""Return new processors for one source, in the order they run."""


class ProcessorChain:
    """Runs every result through the processors of its source.

    Args:
        infos: The sources.
        create: Creates the processors of a source, so that none is shared between two.
        observer: Notified of the time of each processor, under its name.
    """

    def __init__(
        self, infos: Iterable[SourceInfo], create: ProcessorFactory, observer: Observer
    ) -> None:
        self._observer = observer
        self._processors: dict[str, Sequence[Processor]] = {}
        try:
            for info in infos:
                self._processors[info.name] = tuple(create(info))
        except BaseException:
            self.close()
            raise

    def process(self, result: FrameResult) -> FrameResult:
        """Return the result after all processors of its source.

        Raises:
            RealtimeSSDError: If a processor fails; the error names it.
        """
        source, restarted = result.frame.source, result.frame.discontinuity
        for processor in self._processors.get(source, ()):
            started = time.perf_counter()
            try:
                if restarted:
                    processor.reset()
                result = processor.process(result)
            except RealtimeSSDError:
                raise
            except Exception as error:
                raise RealtimeSSDError(
                    f"processor '{processor.name}' failed on frame {result.frame.index} of "
                    f"'{source}': {describe(error)}"
                ) from error
            seconds = time.perf_counter() - started
            result.timings[processor.name] = seconds
            self._observer.on_stage(source, processor.name, seconds)
        return result

    def close(self) -> None:
        """Close all processors, then raise the first error."""
        with ExitStack() as stack:
            for processors in self._processors.values():
                for processor in processors:
                    stack.callback(processor.close)
        self._processors = {}
