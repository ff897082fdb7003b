"""The interface of every inference backend: frames in, pending batches, detections out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd.core.tiles import TileOptions

__all__ = ["Backend", "BackendOptions", "BackendPlugin", "PendingBatch"]


@dataclass(slots=True, eq=False)
class PendingBatch:
    """Frames submitted to a backend.

    Attributes:
        frames: The frames.
        payload: Whatever the backend needs to collect the answer.
        timings: Seconds of one pass through each stage ("preprocess", "network", "postprocess"),
            set once the batch is collected.
        passes: Number of passes the frames took, set once the batch is collected.
        submitted_at: `time.monotonic()` in seconds when the frames were submitted.
        error: Why only the first frames have an answer, set once the batch is collected.
    """

    frames: tuple[Frame, ...]
    payload: Any = None
    timings: dict[str, float] = field(default_factory=dict)
    passes: int = 1
    submitted_at: float = field(default_factory=time.monotonic)
    error: Exception | None = None


class Backend(AbstractContextManager[Any], Protocol):
    """Runs one model.

    `submit` may be called `max_in_flight` times before the first `collect`; batches are collected
    in the order of submission. One thread submits, one thread (the same or another) collects.

    Attributes:
        name: Name of the backend, such as "onnxruntime".
        spec: Specification of the model, with the thresholds in use.
        max_batch: Largest number of frames that pass through the network together.
        max_submit: Largest number of frames in one `submit`; above `max_batch` where working on
            several batches together saves time.
        max_in_flight: Largest number of batches submitted and not yet collected.
        converts_frames: Whether the backend's own workers convert decoded frames to BGR.
            Otherwise the capture threads do, so that `submit` never waits for a conversion.
    """

    name: str
    spec: ModelSpec
    max_batch: int
    max_submit: int
    max_in_flight: int
    converts_frames: bool

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """Start inference on 1 to `max_submit` frames of any size."""
        ...

    def collect(self, batch: PendingBatch) -> list[Detections]:
        """Wait for a batch and return the detections of its frames, in order, in frame pixels.

        If a frame other than the first failed, the detections of the frames before it are
        returned and `PendingBatch.error` is set; if the first failed, its error is raised.
        """
        ...

    def close(self) -> None:
        """Release everything; may be called from any thread, any number of times."""
        ...


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """Choices of the user about inference; None keeps the model's own value.

    Attributes:
        live: Whether to minimize the latency of each frame rather than maximize throughput.
        batch: Largest number of frames that pass through the network together.
        score_threshold: Detections must score above this; or such values by class name, with the
            model's own value, or that of "*", for all other classes.
        iou_threshold: Boxes of a class that overlap a better one by more than this are suppressed.
        pre_nms_top_k: Best candidates of a class that enter NMS.
        agnostic_nms: Whether boxes are suppressed by better ones of other classes too.
        classes: Names of the classes to detect; empty for all.
        precision: Of an engine: "fp16", "fp32" or "int8"; ONNX Runtime runs a model as it is.
        calibration: Folder of photos for int8.
        trust_model: Whether to run a graph with operators or sizes that SSDs do not need.
        device: Number of the GPU, from 0; the first one by default. ONNX Runtime uses none.
        tile: How large frames are cut into tiles; None runs the model on whole frames only.
    """

    live: bool = False
    batch: int = 1
    score_threshold: float | Mapping[str, float] | None = None
    iou_threshold: float | None = None
    pre_nms_top_k: int | None = None
    agnostic_nms: bool = False
    classes: tuple[str, ...] = ()
    precision: str = "fp16"
    calibration: Path | None = None
    trust_model: bool = False
    device: int | None = None
    tile: TileOptions | None = None


class BackendPlugin(Protocol):
    """What an entry point of the group `realtime_ssd.backends` registers.

    Importing the module that holds it must be cheap; the libraries of the backend are imported in
    `open`.

    Attributes:
        priority: Of the backends that can run here, "auto" tries the one with the highest first.
        engine_suffix: Suffix of model files that only this backend runs, such as ".engine"; empty
            for none.
        decodes_surfaces: Whether it takes frames that a hardware decoder left in GPU memory.
        default_precision: Precision of the engines it builds from a model, such as "fp16"; empty
            if it runs models as they are.
    """

    priority: int
    engine_suffix: str
    decodes_surfaces: bool
    default_precision: str

    def missing(self) -> list[str]:
        """Return what this machine lacks to run the backend; empty if nothing."""
        ...

    def open(self, path: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
        """Load an ONNX file.

        Args:
            path: ONNX file.
            spec: Its specification with the thresholds in use.
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
