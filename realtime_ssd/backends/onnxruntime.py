"""Inference on the CPU with ONNX Runtime.

For files, each core runs whole frames of its own, so that no core waits for another. For live
sources, all cores work on one frame, which minimizes its latency. Pre- and post-processing run in
the same worker as the network.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.backends import BackendOptions, check_batch, class_ids
from realtime_ssd.backends.base import PendingBatch
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import ModelError, first_line
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec

if TYPE_CHECKING:
    import onnxruntime

# Read when ONNX Runtime is imported, which otherwise reports to its vendor.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["PLUGIN", "OnnxRuntimeBackend", "open_session"]

FRAMES_PER_CALL = 8
"""Frames of a file that a worker takes in one call."""

Floats = NDArray[np.float32]
_INPUT_TYPES: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class OnnxRuntimeBackend(Closeable):
    """Runs a model on the CPU.

    For files, a worker takes several batches and runs each step on all of them before the next
    step, because a pass of the network evicts code and data of the other steps from the cache.

    Args:
        path: ONNX file.
        spec: Its specification with the thresholds in use.
        options: Choices of the user.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, spec: ModelSpec, options: BackendOptions) -> None:
        self.spec = spec
        self.max_batch = self.max_submit = options.batch
        if not options.live:
            self.max_submit *= max(1, FRAMES_PER_CALL // options.batch)
        self.converts_frames = not options.live
        workers = 1 if options.live else cpu_count()
        self.max_in_flight = 1 if options.live else workers + 1
        self._postprocess = PostProcessor(spec, class_ids(spec, options.classes))
        self._session = open_session(path, cpu_count() if options.live else 1)
        self._dtype = _check_graph(self._session, spec, path, options.batch)
        self._path = path
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="inference")

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """See `Backend.submit`."""
        batch = PendingBatch(tuple(frames))
        batch.payload = self._pool.submit(self._run, batch)
        return batch

    def collect(self, batch: PendingBatch) -> list[Detections]:
        """See `Backend.collect`."""
        future: Future[list[Detections]] = batch.payload
        return future.result()

    def raw_outputs(self, frame: Frame) -> tuple[Floats, Floats]:
        """Run the network on one frame in the calling thread.

        Returns:
            P × C raw scores and P × 4 raw offsets.

        Raises:
            ModelError: If the network cannot be run, or its outputs are invalid.
        """
        return self._infer(self._preprocess([frame]))[0]

    def close(self) -> None:
        """Stop the workers once they have finished the frames they work on."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, batch: PendingBatch) -> list[Detections]:
        """Process a call in a worker; after a failure, the network batches before it one by one."""
        try:
            return self._detect(batch, batch.frames)
        except Exception:
            if len(batch.frames) <= self.max_batch:
                raise
        answers: list[Detections] = []
        for start in range(0, len(batch.frames), self.max_batch):
            try:
                answers += self._detect(batch, batch.frames[start : start + self.max_batch])
            except Exception as error:
                if not start:
                    raise
                batch.error = error
                break
        return answers

    def _detect(self, batch: PendingBatch, frames: Sequence[Frame]) -> list[Detections]:
        """Run each step on all network batches before the next; timings are those of one batch."""
        started = time.perf_counter()
        tensor = self._preprocess(frames)
        preprocessed = time.perf_counter()
        starts = range(0, len(tensor), self.max_batch)
        outputs = [row for at in starts for row in self._infer(tensor[at : at + self.max_batch])]
        inferred = time.perf_counter()
        answers = [
            to_frame_detections(self._postprocess(*row), self.spec, frame.width, frame.height)
            for frame, row in zip(frames, outputs, strict=True)
        ]
        finished = time.perf_counter()
        for stage, seconds in (
            ("preprocess", preprocessed - started),
            ("network", inferred - preprocessed),
            ("postprocess", finished - inferred),
        ):
            batch.timings[stage] = seconds / len(starts)
        batch.passes = len(starts)
        return answers

    def _preprocess(self, frames: Sequence[Frame]) -> NDArray[np.floating]:
        """Fill the input tensor of this worker (N × 3 × H × W), which is reused."""
        rows = max(len(frames), self.max_batch)
        shape = (rows, 3, self.spec.input.height, self.spec.input.width)
        tensor: Floats | None = getattr(self._local, "tensor", None)
        if tensor is None or len(tensor) < rows:
            tensor = self._local.tensor = np.empty(shape, np.float32)
        for row, frame in enumerate(frames):
            preprocess(frame.image, self.spec.input, tensor[row])
        return tensor[: len(frames)].astype(self._dtype, copy=False)

    def _infer(self, tensor: NDArray[np.floating]) -> list[tuple[Floats, Floats]]:
        """Run the network on a batch and check its outputs.

        Returns:
            P × C scores and P × 4 offsets of each image.
        """
        names = [self.spec.scores_output, self.spec.offsets_output]
        try:
            raw = self._session.run(names, {self.spec.input.name: tensor})
        except Exception as error:
            raise ModelError(
                f"ONNX Runtime could not run '{self._path}': {first_line(error)}"
            ) from error
        scores, offsets = (np.asarray(output, np.float32) for output in raw)
        problem = _output_problem(scores, offsets, self.spec, len(tensor))
        if problem:
            raise ModelError(f"model '{self.spec.name}' ({self._path}) {problem}")
        return list(zip(scores, offsets, strict=True))


def open_session(model: str | Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """Load a model into ONNX Runtime on the CPU.

    Args:
        model: ONNX file, or a serialized model.
        threads: Threads that work on one operator.

    Raises:
        ModelError: If it cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; their log lines contain raw names
    # Spinning threads answer a third sooner on an idle machine, but take twice as long next to an
    # encoder on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        source = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        name = "the model" if isinstance(model, bytes) else f"'{model}'"
        raise ModelError(
            f"ONNX Runtime cannot load {name} ({first_line(error)}); "
            "the file may be damaged: export or import the model again"
        ) from error


def _check_graph(
    session: onnxruntime.InferenceSession, spec: ModelSpec, path: Path, batch: int
) -> type[np.floating]:
    """Compare the graph's declared inputs and outputs with the specification.

    Returns:
        The type of the network's input.

    Raises:
        ModelError: If they disagree.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    for name, values in (
        (spec.input.name, inputs),
        (spec.scores_output, outputs),
        (spec.offsets_output, outputs),
    ):
        if name not in values:
            raise _mismatch(path, f"'{name}' is missing from the graph ({', '.join(values)})")
    image = inputs[spec.input.name]
    if image.type not in _INPUT_TYPES:
        raise _mismatch(path, f"the graph's input is {image.type}, not floating point")
    for value, expected in (
        (image, (None, 3, spec.input.height, spec.input.width)),
        (outputs[spec.scores_output], (None, spec.num_boxes or None, spec.num_classes)),
        (outputs[spec.offsets_output], (None, spec.num_boxes or None, 4)),
    ):
        if not _is_compatible(value.shape, expected):
            raise _mismatch(path, f"'{value.name}' should be {expected}, not {value.shape}")
    check_batch(image.shape, path, batch)
    return _INPUT_TYPES[image.type]


def _mismatch(path: Path, detail: str) -> ModelError:
    return ModelError(
        f"the specification in '{path}' does not match its graph: {detail}; import it again"
    )


def _is_compatible(declared: Sequence[int | str | None], expected: Sequence[int | None]) -> bool:
    """Return whether a declared shape allows the expected one; open sizes allow every size."""
    if not declared:
        return True
    return len(declared) == len(expected) and all(
        not isinstance(size, int) or size <= 0 or wanted is None or size == wanted
        for size, wanted in zip(declared, expected, strict=True)
    )


def _output_problem(scores: Floats, offsets: Floats, spec: ModelSpec, count: int) -> str:
    """Return what is wrong with the outputs of a run, or an empty string.

    The maximum of an array with a NaN is NaN, so one pass over each output is enough.
    """
    boxes = spec.num_boxes or (scores.shape[1] if scores.ndim == 3 else 0)
    if scores.shape != (count, boxes, spec.num_classes):
        return f"returned scores of shape {scores.shape}, not {(count, boxes, spec.num_classes)}"
    if offsets.shape != (count, boxes, 4):
        return f"returned offsets of shape {offsets.shape}, not {(count, boxes, 4)}"
    if boxes and (np.isnan(scores.max()) or np.isnan(offsets.max())):
        return "returned NaN: its weights may be damaged or overflow; export it again"
    return ""


class OnnxRuntimePlugin:
    """See `realtime_ssd.backends.BackendPlugin`."""

    priority = 0
    engine_suffix = ""
    decodes_surfaces = False
    default_precision = ""

    def missing(self) -> list[str]:
        """See `BackendPlugin.missing`; ONNX Runtime runs everywhere."""
        return []

    def open(self, path: Path, spec: ModelSpec, options: BackendOptions) -> OnnxRuntimeBackend:
        """See `BackendPlugin.open`."""
        return OnnxRuntimeBackend(path, spec, options)

    def open_engine(self, path: Path, options: BackendOptions) -> OnnxRuntimeBackend:
        """See `BackendPlugin.open_engine`; ONNX Runtime has no engine files."""
        raise ModelError(f"'{path}' is not an ONNX file")

    def diagnose(self) -> tuple[tuple[str, str, str], ...]:
        """See `BackendPlugin.diagnose`."""
        return (("ONNX Runtime", version("onnxruntime"), ""),)


PLUGIN = OnnxRuntimePlugin()
