"""Inference backends and the choice between them."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from realtime_ssd.backends.base import Backend, Ticket
from realtime_ssd.cuda.probe import find_gpus, missing_parts
from realtime_ssd.errors import ModelError, UsageError
from realtime_ssd.spec import ModelSpec, read_spec

__all__ = [
    "NAMES",
    "Backend",
    "BackendOptions",
    "Ticket",
    "check_batch",
    "check_options",
    "class_ids",
    "cpu_count",
    "open_backend",
]

_MODULES = {
    "onnxruntime": "realtime_ssd.backends.onnxruntime",
    "tensorrt": "realtime_ssd.backends.tensorrt",
}
NAMES = ("auto", *_MODULES)

_log = logging.getLogger(__name__)

OpenBackend = Callable[[Path, ModelSpec, "BackendOptions"], Backend]


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What a user may choose about inference; None leaves the model's own default.

    Attributes:
        live: Whether to hurry each single frame rather than to get the most frames done.
        batch: Largest number of frames that go through the network together.
        score: Detections must score above this.
        nms: Boxes of a class that overlap a better one by more than this IoU are dropped.
        top_k: Best candidates of a class that enter NMS.
        classes: Names of the classes to look for; empty for all.
        precision: Of an engine: "fp16", "fp32" or "int8"; ONNX Runtime runs a model as it is.
        calibration: Folder of photos for int8.
    """

    live: bool = False
    batch: int = 1
    score: float | None = None
    nms: float | None = None
    top_k: int | None = None
    classes: tuple[str, ...] = ()
    precision: str = "fp16"
    calibration: Path | None = None


def open_backend(
    model: str | Path, name: str = "auto", options: BackendOptions | None = None
) -> Backend:
    """Load a model into a backend.

    Args:
        model: ONNX file that carries its specification, or engine (.engine) with its note.
        name: "onnxruntime", "tensorrt", or "auto": TensorRT where it can run, else ONNX Runtime.
        options: What the user chose.

    Returns:
        The backend; close it when done.

    Raises:
        UsageError: If the backend or a class is unknown, or an option does not fit the model.
        ModelError: If the model cannot be read or run.
    """
    options = options or BackendOptions()
    if name not in NAMES:
        raise UsageError(f"backend '{name}' is unknown; choose one of {', '.join(NAMES)}")
    check_options(options)
    path = Path(model)
    if path.suffix == ".engine":
        return _open_engine(path, name, options)
    spec = read_spec(path).with_thresholds(
        score=options.score, nms=options.nms, top_k=options.top_k
    )
    if name == "auto":
        return _open_best(path, spec, options)
    return _open(name, path, spec, options)


def check_options(options: BackendOptions) -> None:
    """Refuse numbers that no model can use.

    Raises:
        UsageError: If one is out of its range.
    """
    for option, share in (("--score-threshold", options.score), ("--nms-threshold", options.nms)):
        if share is not None and not 0 <= share <= 1:
            raise UsageError(f"{option} must lie from 0 to 1, not {share:g}")
    for option, count in (("--batch", options.batch), ("--top-k", options.top_k)):
        if count is not None and count < 1:
            raise UsageError(f"{option} must be at least 1, not {count}")


def _open(name: str, path: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
    opener: OpenBackend = import_module(_MODULES[name]).open_backend
    return opener(path, spec, options)


def _open_engine(path: Path, name: str, options: BackendOptions) -> Backend:
    if name not in ("auto", "tensorrt"):
        raise UsageError(
            f"'{path}' is a TensorRT engine, which backend '{name}' cannot run; give the ONNX file"
        )
    opened: Backend = import_module(_MODULES["tensorrt"]).open_engine(path, options)
    return opened


def _open_best(path: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
    """Open TensorRT where it can run this model, else ONNX Runtime, and say why."""
    missing = missing_parts()
    if not missing:
        try:
            return _open("tensorrt", path, spec, options)
        except ModelError as error:
            _log.warning("running on the CPU with ONNX Runtime, because %s", error)
    elif find_gpus():
        _log.warning("running on the CPU with ONNX Runtime, for lack of %s", ", and ".join(missing))
    else:
        _log.info("running on the CPU with ONNX Runtime, for lack of %s", ", and ".join(missing))
    return _open("onnxruntime", path, spec, options)


def check_batch(
    shape: Sequence[int | str | None], path: Path, batch: int, option: str = "--batch"
) -> None:
    """Make sure that a model takes a batch.

    Args:
        shape: Declared shape of its input; a name or None where a size is open.
        path: Its file.
        batch: Batch that is wanted.
        option: Option with which it was asked for.

    Raises:
        ModelError: If the model takes a fixed batch of more than 1.
        UsageError: If it takes one image at a time and more are wanted.
    """
    fixed = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else None
    if fixed not in (None, 1):
        raise ModelError(
            f"'{path}' has a fixed batch of {fixed}; export it with a batch of 1 or a dynamic one"
        )
    if fixed == 1 and batch > 1:
        raise UsageError(
            f"'{path}' has a fixed batch of 1, so {option} {batch} is not possible; "
            "export the model with a dynamic batch"
        )


def class_ids(spec: ModelSpec, names: Sequence[str]) -> tuple[int, ...] | None:
    """Find the score columns of class names.

    Args:
        spec: Contract of the model.
        names: Names as in the model's labels, in any case; empty for all classes.

    Returns:
        The columns, or None for all.

    Raises:
        UsageError: If the model does not know a name.
    """
    columns = {
        label.lower(): column
        for column, label in enumerate(spec.labels)
        if column != spec.background
    }
    for name in names:
        if name.lower() not in columns:
            close = difflib.get_close_matches(name.lower(), columns, n=1, cutoff=0.6)
            hint = f"did you mean '{close[0]}'" if close else f"it knows {_some(list(columns))}"
            raise UsageError(f"class '{name}' is unknown to model '{spec.name}'; {hint}")
    return tuple(columns[name.lower()] for name in names) or None


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def cpu_count() -> int:
    """Count the processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
