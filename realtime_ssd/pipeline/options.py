"""`PipelineOptions`: the settings of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from realtime_ssd.annotators import Annotator, BoxAnnotator
from realtime_ssd.core.errors import UsageError

__all__ = ["PipelineOptions"]


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """Settings of a pipeline.

    Attributes:
        max_frames: Frames to process of each source; None for all.
        batch_timeout: Seconds a batch waits to be filled with frames of several sources once it
            holds one; None for the default: 0 if a source is live, 0.1 s for files.
        stall_timeout: Seconds without a frame after which a live source counts as lost. It must
            exceed the time-outs of the sources themselves.
        join_timeout: Seconds that the end of the run waits for threads blocked in a driver.
        annotators: What draws onto the annotated image of every result, in order.
        wait: Whether live sources that cannot be opened at the start are tried again like those
            that were lost. Otherwise the run ends if no live source can be opened.
        max_open_files: Files that are read at the same time; the others follow as these end.

    Raises:
        UsageError: If a value is out of range.
    """

    max_frames: int | None = None
    batch_timeout: float | None = None
    stall_timeout: float = 10.0
    join_timeout: float = 1.0
    annotators: Sequence[Annotator] = (BoxAnnotator(),)
    wait: bool = False
    max_open_files: int = 4

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"`max_frames` must be at least 1, not {self.max_frames}")
        if self.max_open_files < 1:
            raise UsageError(f"`max_open_files` must be at least 1, not {self.max_open_files}")
        for name in ("batch_timeout", "stall_timeout", "join_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 <= seconds < inf:
                raise UsageError(f"`{name}` must be at least 0 seconds, not {seconds:g}")
