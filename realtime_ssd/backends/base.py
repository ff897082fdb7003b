"""What every inference backend looks like to the loop: frames in, tickets out, detections back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.spec import ModelSpec

__all__ = ["Backend", "BackendOptions", "BackendPlugin", "PendingBatch"]


@dataclass(slots=True, eq=False)
class PendingBatch:
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


class Backend(AbstractContextManager[Any], Protocol):
    """Runs one model.

    `submit` may be called `max_in_flight` times before the first `collect`; answers are collected in
    the order of submission. One thread submits, one thread (the same or another) collects.

    Attributes:
        name: "onnxruntime" or "tensorrt".
        spec: Contract of the model, with the thresholds in force.
        max_batch: Largest number of frames that go through the network together.
        max_submit: Largest number of frames in one `submit`. More than `max_batch` where several batches
            at once are worked on in less time than one after the other.
        max_in_flight: Tickets that may be under way at once.
        converts_frames: Whether several workers of its own ask for the images of decoded frames. Else the
            capture threads see to it that `submit` need not wait for them.
    """

    name: str
    spec: ModelSpec
    max_batch: int
    max_submit: int
    max_in_flight: int
    converts_frames: bool

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """Start work on 1 to `max_submit` frames, of any sizes."""
        ...

    def collect(self, ticket: PendingBatch) -> list[Detections]:
        """Wait for a ticket and give the detections of its frames, in order, in frame pixels.

        Where a later frame failed, the answers of those before it are given, and `PendingBatch.error`
        tells why there are no more; where the first failed, that error is raised.
        """
        ...

    def close(self) -> None:
        """Give everything back; may be called from any thread, any number of times."""
        ...


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What a user may choose about inference; None leaves the model's own default.

    Attributes:
        live: Whether to hurry each single frame rather than to get the most frames done.
        batch: Largest number of frames that go through the network together.
        score_threshold: Detections must score above this.
        iou_threshold: Boxes of a class that overlap a better one by more than this are suppressed.
        pre_nms_top_k: Best candidates of a class that enter NMS.
        classes: Names of the classes to look for; empty for all.
        precision: Of an engine: "fp16", "fp32" or "int8"; ONNX Runtime runs a model as it is.
        calibration: Folder of photos for int8.
    """

    live: bool = False
    batch: int = 1
    score_threshold: float | None = None
    iou_threshold: float | None = None
    pre_nms_top_k: int | None = None
    classes: tuple[str, ...] = ()
    precision: str = "fp16"
    calibration: Path | None = None


class BackendPlugin(Protocol):
    """What an entry point of the group `realtime_ssd.backends` registers.

    Importing the module that holds it must be cheap; the libraries of the backend are imported in
    `open`.

    Attributes:
        priority: Of the backends that can run here, "auto" tries the one with the highest first.
        engine_suffix: Suffix of model files that only this backend runs, such as ".engine"; empty
            for none.
        decodes_surfaces: Whether it takes frames that a hardware decoder left in GPU memory.
    """

    priority: int
    engine_suffix: str
    decodes_surfaces: bool

    def missing(self) -> list[str]:
        """Return what this machine lacks to run the backend; empty if nothing."""
        ...

    def open(self, path: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
        """Load an ONNX file.

        Args:
            path: ONNX file.
            spec: Its specification with the thresholds in force.
            options: Choices of the user.

        Raises:
            UsageError: If an option does not fit the model.
            ModelError: If the model cannot be run here.
        """
        ...

    def open_engine(self, path: Path, options: BackendOptions) -> Backend:
        """Load a file with this backend's `engine_suffix`; errors as in `open`."""
        ...

    def diagnose(self) -> Iterable[tuple[str, str, str]]:
        """Yield rows for `realtime-ssd doctor`: name, what was found, command that fixes it."""
        ...
