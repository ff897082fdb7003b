"""What every inference backend looks like to the loop: frames in, tickets out, detections back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from realtime_ssd.detections import Detections
from realtime_ssd.frames import Frame
from realtime_ssd.spec import ModelSpec

__all__ = ["Backend", "Ticket"]


@dataclass(slots=True, eq=False)
class Ticket:
    """Frames on their way through a backend.

    Attributes:
        frames: The frames.
        payload: What the backend needs to find the answer again.
        timings: Seconds that one pass of the network and the stages around it took, filled by the
            time the answer is collected ("preprocess", "network", "postprocess").
        passes: How many passes the frames took, filled likewise.
        begun: `time.monotonic()` in seconds when they were submitted.
        error: Why the frames after those that were answered have no answer, filled likewise.
    """

    frames: tuple[Frame, ...]
    payload: Any = None
    timings: dict[str, float] = field(default_factory=dict)
    passes: int = 1
    begun: float = field(default_factory=time.monotonic)
    error: Exception | None = None


class Backend(Protocol):
    """Runs one model.

    `submit` may be called `capacity` times before the first `collect`; answers are collected in
    the order of submission. One thread submits, one thread (the same or another) collects.

    Attributes:
        name: "onnxruntime" or "tensorrt".
        spec: Contract of the model, with the thresholds in force.
        max_batch: Largest number of frames that go through the network together.
        group: Largest number of frames in one `submit`. More than `max_batch` where several batches
            at once are worked on in less time than one after the other.
        capacity: Tickets that may be under way at once.
        paints: Whether several workers of its own ask for the images of decoded frames. Else the
            capture threads see to it that `submit` need not wait for them.
    """

    name: str
    spec: ModelSpec
    max_batch: int
    group: int
    capacity: int
    paints: bool

    def submit(self, frames: Sequence[Frame]) -> Ticket:
        """Start work on 1 to `group` frames, of any sizes."""
        ...

    def collect(self, ticket: Ticket) -> list[Detections]:
        """Wait for a ticket and give the detections of its frames, in order, in frame pixels.

        Where a later frame failed, the answers of those before it are given, and `Ticket.error`
        tells why there are no more; where the first failed, that error is raised.
        """
        ...

    def close(self) -> None:
        """Give everything back; may be called from any thread, any number of times."""
        ...

    def __enter__(self) -> Backend: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
