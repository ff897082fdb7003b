"""The interface of every processor."""

from __future__ import annotations

from typing import Protocol

from realtime_ssd.core.results import FrameResult
from realtime_ssd.sources.base import SourceInfo

__all__ = ["BaseProcessor", "Processor", "ProcessorPlugin"]


class Processor(Protocol):
    """Changes or adds to results, for one source; results arrive in order.

    Attributes:
        name: Name of its stage in the statistics.
    """

    name: str

    def process(self, result: FrameResult) -> FrameResult:
        """Return the result to pass on: the same object, changed, or a new one.

        `result.frame.image` is read-only; replace `result.frame` to change pixels.
        """
        ...

    def reset(self) -> None:
        """Forget earlier frames: the source was lost and reopened, or jumped in time."""
        ...

    def close(self) -> None:
        """Release everything; may be called any number of times."""
        ...


class BaseProcessor:
    """A processor that keeps nothing between frames."""

    name = "processor"

    def process(self, result: FrameResult) -> FrameResult:
        """See `Processor.process`."""
        raise NotImplementedError

    def reset(self) -> None:
        """See `Processor.reset`."""

    def close(self) -> None:
        """See `Processor.close`."""


class ProcessorPlugin(Protocol):
    """Callable that an entry point of the group `realtime_ssd.processors` registers."""

    def __call__(self, info: SourceInfo, argument: str) -> Processor:
        """Return a new processor for one source.

        Args:
            info: The source.
            argument: What follows the name in `--processor NAME:ARGUMENT`; empty without it.

        Raises:
            UsageError: If the argument is malformed.
        """
        ...
