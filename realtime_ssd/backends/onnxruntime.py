"""Inference on the CPU with ONNX Runtime.

For files every core runs whole frames of its own, which keeps all cores busy without the threads of
one frame waiting for each other; for live sources all cores work on one frame, so that its answer
comes soonest. Pre- and post-processing run in the same worker as the network.
"""

from __future__ import annotations

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

__all__ = ["PLUGIN", "OnnxRuntimeBackend", "open_session"]

GROUP = 8  # frames of a file that a worker takes at once

Floats = NDArray[np.float32]
_TYPES: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class OnnxRuntimeBackend(Closeable):
    """Runs a model on the CPU.

    Of a file a worker takes several batches at once and does each step on all of them before the
    next, for code and data of a step leave the cache whenever the network runs.

    Args:
        path: ONNX file.
        spec: Its contract with the thresholds in force.
        options: What the user chose.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, spec: ModelSpec, options: BackendOptions) -> None:
        self.spec = spec
        self.max_batch = self.max_submit = options.batch
        if not options.live:
            self.max_submit *= max(1, GROUP // options.batch)
        self.converts_frames = not options.live
        workers = 1 if options.live else cpu_count()
        self.max_in_flight = 1 if options.live else workers + 1
        self._post = PostProcessor(spec, class_ids(spec, options.classes))
        self._session = open_session(path, cpu_count() if options.live else 1)
        self._dtype = _check_graph(self._session, spec, path, options.batch)
        self._path = path
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="inference")

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """See `Backend.submit`."""
        ticket = PendingBatch(tuple(frames))
        ticket.payload = self._pool.submit(self._run, ticket)
        return ticket

    def collect(self, ticket: PendingBatch) -> list[Detections]:
        """See `Backend.collect`."""
        future: Future[list[Detections]] = ticket.payload
        return future.result()

    def close(self) -> None:
        """Stop the workers after the work they have begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, ticket: PendingBatch) -> list[Detections]:
        """Answer a ticket, in a worker; all batches up to one that fails."""
        try:
            return self._answer(ticket, ticket.frames)
        except Exception:
            if len(ticket.frames) <= self.max_batch:
                raise
        answers: list[Detections] = []
        for start in range(0, len(ticket.frames), self.max_batch):
            try:
                answers += self._answer(ticket, ticket.frames[start : start + self.max_batch])
            except Exception as error:
                if not start:
                    raise
                ticket.error = error
                break
        return answers

    def _answer(self, ticket: PendingBatch, frames: Sequence[Frame]) -> list[Detections]:
        """Do each step on all batches before the next; timings are those of one batch."""
        begun = time.perf_counter()
        tensor = self._inputs(frames)
        ready = time.perf_counter()
        starts = range(0, len(tensor), self.max_batch)
        heads = [pair for at in starts for pair in self._infer(tensor[at : at + self.max_batch])]
        inferred = time.perf_counter()
        answers = [
            to_frame_detections(self._post(*pair), self.spec, frame.width, frame.height)
            for frame, pair in zip(frames, heads, strict=True)
        ]
        ended = time.perf_counter()
        for stage, spent in (
            ("preprocess", ready - begun),
            ("network", inferred - ready),
            ("postprocess", ended - inferred),
        ):
            ticket.timings[stage] = spent / len(starts)
        ticket.passes = len(starts)
        return answers

    def _inputs(self, frames: Sequence[Frame]) -> NDArray[np.floating]:
        """Fill this worker's input tensor (N × 3 × H × W)."""
        rows = max(len(frames), self.max_batch)
        shape = (rows, 3, self.spec.input.height, self.spec.input.width)
        tensor: Floats | None = getattr(self._local, "tensor", None)
        if tensor is None or len(tensor) < rows:
            tensor = self._local.tensor = np.empty(shape, np.float32)
        for row, frame in enumerate(frames):
            preprocess(frame.image, self.spec.input, tensor[row])
        return tensor[: len(frames)].astype(self._dtype, copy=False)

    def _infer(self, tensor: NDArray[np.floating]) -> list[tuple[Floats, Floats]]:
        """Run the network on a batch; P × C scores and P × 4 offsets of each image, checked."""
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
        model: File, or a serialised model.
        threads: Threads that work on one operator.

    Raises:
        ModelError: If it cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin answer a third sooner where nothing else runs, and take twice as long
    # beside an encoder on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        given = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        name = "the model" if isinstance(model, bytes) else f"'{model}'"
        raise ModelError(
            f"ONNX Runtime cannot load {name} ({first_line(error)}); "
            "the file may be damaged: export or import the model again"
        ) from error


def _check_graph(
    session: onnxruntime.InferenceSession, spec: ModelSpec, path: Path, batch: int
) -> type[np.floating]:
    """Compare what the graph declares with the specification; give the type of its input."""
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    for name, values in (
        (spec.input.name, inputs),
        (spec.scores_output, outputs),
        (spec.offsets_output, outputs),
    ):
        if name not in values:
            raise _disagreement(path, f"names '{name}', the graph has {', '.join(values)}")
    given = inputs[spec.input.name]
    if given.type not in _TYPES:
        raise _disagreement(path, f"feeds floats, the graph's input is {given.type}")
    for value, wanted in (
        (given, (None, 3, spec.input.height, spec.input.width)),
        (outputs[spec.scores_output], (None, spec.num_boxes or None, spec.num_classes)),
        (outputs[spec.offsets_output], (None, spec.num_boxes or None, 4)),
    ):
        if not _fits(value.shape, wanted):
            raise _disagreement(path, f"says '{value.name}' is {wanted}, the graph {value.shape}")
    check_batch(given.shape, path, batch)
    return _TYPES[given.type]


def _disagreement(path: Path, what: str) -> ModelError:
    return ModelError(
        f"the specification in '{path}' disagrees with its graph: it {what}; import it again"
    )


def _fits(shape: Sequence[int | str | None], wanted: Sequence[int | None]) -> bool:
    """Tell whether a declared shape allows the wanted one; unknown sizes allow everything."""
    if not shape:
        return True
    return len(shape) == len(wanted) and all(
        not isinstance(have, int) or have <= 0 or want is None or have == want
        for have, want in zip(shape, wanted, strict=True)
    )


def _output_problem(scores: Floats, offsets: Floats, spec: ModelSpec, count: int) -> str:
    """Say what is wrong with the outputs of a run; empty if nothing is.

    A maximum carries every NaN along, so one pass over each output is enough.
    """
    boxes = spec.num_boxes or (scores.shape[1] if scores.ndim == 3 else 0)
    if scores.shape != (count, boxes, spec.num_classes):
        return f"gave scores of shape {scores.shape}, not {(count, boxes, spec.num_classes)}"
    if offsets.shape != (count, boxes, 4):
        return f"gave offsets of shape {offsets.shape}, not {(count, boxes, 4)}"
    if boxes and (np.isnan(scores.max()) or np.isnan(offsets.max())):
        return "gave NaN (not a number); its weights may be damaged or overflow: export it again"
    return ""


class OnnxRuntimePlugin:
    """See `realtime_ssd.backends.BackendPlugin`."""

    priority = 0
    engine_suffix = ""
    decodes_surfaces = False

    def missing(self) -> list[str]:
        """See `BackendPlugin.missing`; it runs everywhere."""
        return []

    def open(self, path: Path, spec: ModelSpec, options: BackendOptions) -> OnnxRuntimeBackend:
        """See `BackendPlugin.open`."""
        return OnnxRuntimeBackend(path, spec, options)

    def open_engine(self, path: Path, options: BackendOptions) -> OnnxRuntimeBackend:
        """See `BackendPlugin.open_engine`; there are no engines of ONNX Runtime."""
        raise ModelError(f"'{path}' is not an ONNX file")

    def diagnose(self) -> tuple[tuple[str, str, str], ...]:
        """See `BackendPlugin.diagnose`."""
        return (("ONNX Runtime", version("onnxruntime"), ""),)


PLUGIN = OnnxRuntimePlugin()
