"""Scoring a model on annotated images: one path for checkpoints, ONNX files and engines.

Every model is opened as a `realtime_ssd.backends.Backend`, so that pre-processing, thresholds and
post-processing are those of the program, and what a conversion costs is seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.backends import Backend, BackendOptions, PendingBatch, check_options, open_backend
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_training.data.classes import format_names
from realtime_ssd_training.data.sample import Annotation, Dataset, Problem, Subset, unreadable
from realtime_ssd_training.evaluation.coco_metrics import coco_ap
from realtime_ssd_training.evaluation.metrics import SIZES, Score, voc_ap
from realtime_ssd_training.evaluation.mistakes import Mistakes, find_mistakes

__all__ = [
    "METRICS",
    "SCORE",
    "Evaluation",
    "Metric",
    "compute",
    "evaluate",
    "match_labels",
    "open_model",
]

Metric = Literal["coco", "voc07", "voc"]
METRICS: tuple[Metric, ...] = ("coco", "voc07", "voc")

SCORE = 0.02
"""Score threshold while evaluating: low enough for the whole precision-recall curve."""

_SAME = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""Pascal VOC's names of classes that COCO calls otherwise."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A model's detections on a data set, and how good they are.

    Attributes:
        data: The images that could be read; its problems are the other ones.
        score: The figures.
        truths: Ground truth of every image.
        answers: Detections of every image, class ids in the numbering of the data set.
        unknown: Classes with objects in the data set that the model does not know; they are left
            out of all means.
        mistakes: What is wrong with the detections, from the score of the best F1 on.
        spec: Contract of the model, with the thresholds in force.
        backend: What ran it.
    """

    data: Dataset
    score: Score
    truths: tuple[Annotation, ...]
    answers: tuple[Detections, ...]
    unknown: tuple[str, ...]
    mistakes: Mistakes
    spec: ModelSpec
    backend: str

    def sizes(self) -> dict[str, dict[str, float | int | None]]:
        """Give objects, AP and, for COCO's metric, AR by COCO's sizes; None without objects."""
        rows: dict[str, dict[str, float | int | None]] = {}
        for size, (low, high) in SIZES.items():
            sides = self.mistakes.sides
            rows[size] = {"objects": int(((sides >= low**0.5) & (sides < high**0.5)).sum())}
            for key, value in self.score.summary.items():
                if key.endswith(f"_{size}"):
                    rows[size][key[: -len(size) - 1]] = None if isnan(value) else round(value, 6)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Give plain values ready for JSON."""
        limits = self.spec.thresholds
        return {
            **self.score.to_dict(),
            "sizes": self.sizes(),
            "errors": {
                "score": round(self.mistakes.score, 6),
                "objects": self.mistakes.objects,
                "found": self.mistakes.hits,
                **self.mistakes.counts,
            },
            "unknown_classes": list(self.unknown),
            "images": len(self.truths),
            "detections": sum(len(answer) for answer in self.answers),
            "model": self.spec.name,
            "backend": self.backend,
            "score_threshold": limits.score_threshold,
            "nms_threshold": limits.iou_threshold,
            "top_k": limits.pre_nms_top_k,
            "keep": limits.max_detections,
        }


def open_model(model: Path, backend: str = "auto", score: float = SCORE, batch: int = 1) -> Backend:
    """Open a model of any kind for evaluation.

    Args:
        model: Checkpoint (.safetensors) or ONNX file.
        backend: "auto", or a backend of `realtime_ssd.backends` for an ONNX file; "tensorrt" runs
            the engine that is built from it.
        score: Detections must score above this.
        batch: Largest number of images that go through the network together.

    Raises:
        UsageError: If the backend does not fit the file.
        ModelError: If the file cannot be read or run.
        RealtimeSSDError: If PyTorch is missing for a checkpoint.
    """
    options = BackendOptions(score_threshold=score, batch=batch)
    check_options(options)
    if model.suffix != ".safetensors":
        return open_backend(model, backend, options)
    if backend not in ("auto", "torch"):
        raise UsageError(
            f"'{model}' is a checkpoint, which backend '{backend}' cannot run; export it first "
            "with realtime-ssd export, or leave --backend out"
        )
    try:
        from realtime_ssd_training.evaluation.torch_backend import open_checkpoint
    except ModuleNotFoundError as error:
        raise RealtimeSSDError(
            f"a checkpoint needs {error.name}, which is not installed; "
            "install it with pip install 'realtime-ssd[train]' or give an ONNX file"
        ) from None
    return open_checkpoint(model, score, batch)


def evaluate(
    backend: Backend, data: Dataset, metric: Metric = "coco", progress: Progress | None = None
) -> Evaluation:
    """Score a model on a data set.

    Args:
        backend: The model, opened with a low score threshold (see `open_model`).
        data: Annotated images; classes are matched to the model's by name.
        metric: "coco", "voc07" (11 points) or "voc" (every point).
        progress: Called with the images done and all images.

    Raises:
        UsageError: If the model knows no class of the data, or no object is left to score.
        RealtimeSSDError: If no image can be read.

    Example:
        >>> with open_model(Path("street.onnx")) as backend:
        ...     result = evaluate(backend, open_dataset("demo:900-909"), "voc")
        >>> result.score.mean
        0.93
    """
    columns = match_labels(backend.spec, data.labels)
    known = set(columns.tolist()) - {0}
    if not known:
        raise UsageError(
            f"model '{backend.spec.name}' knows none of the classes of '{data.name}': the data has "
            f"{format_names(data.labels[1:])}, the model {format_names(_real_labels(backend.spec))}"
        )
    data, answers = _detect(backend, data, columns, progress)
    truths = tuple(data.annotation(index) for index in range(len(data)))
    score = compute(metric, truths, answers, data.labels, known)
    if isnan(score.mean):
        raise UsageError(
            f"'{data.name}' has no object of a class that model '{backend.spec.name}' knows, so "
            "there is nothing to score; give other data or another split"
        )
    present = {int(label) for truth in truths for label in truth.labels}
    unknown = tuple(data.labels[k] for k in sorted(present - known))
    mistakes = find_mistakes(truths, answers, known)
    return Evaluation(data, score, truths, answers, unknown, mistakes, backend.spec, backend.name)


def compute(
    metric: Metric,
    truths: Sequence[Annotation],
    answers: Sequence[Detections],
    labels: Sequence[str],
    classes: set[int] | None = None,
) -> Score:
    """Compute a metric by its name; arguments as for `realtime_ssd_training.evaluation.metrics.voc_ap`."""
    if metric == "coco":
        return coco_ap(truths, answers, labels, classes=classes)
    points: Literal["11", "all"] = "11" if metric == "voc07" else "all"
    return voc_ap(truths, answers, labels, points=points, classes=classes)


def match_labels(spec: ModelSpec, labels: Sequence[str]) -> NDArray[np.int64]:
    """Find the class of a data set that each score column of a model stands for.

    Case, spaces, hyphens and underscores do not matter, and VOC's names match COCO's.

    Args:
        spec: Contract of the model.
        labels: Class names of the data, "background" first.

    Returns:
        C class ids; 0 for columns that are no class of the data.
    """
    ids = {_key(name): k for k, name in enumerate(labels) if k}
    columns = np.array([ids.get(_key(name), 0) for name in spec.labels], np.int64)
    if spec.background is not None:
        columns[spec.background] = 0
    return columns


def _key(name: str) -> str:
    plain = "".join(letter for letter in name.casefold() if letter not in " -_")
    return _SAME.get(plain, plain)


def _real_labels(spec: ModelSpec) -> list[str]:
    return [name for column, name in enumerate(spec.labels) if column != spec.background]


def _detect(
    backend: Backend, data: Dataset, columns: NDArray[np.int64], progress: Progress | None
) -> tuple[Dataset, tuple[Detections, ...]]:
    """Run all images that can be read, as many at once as the backend takes."""
    answers: list[Detections] = []
    read, problems = list[int](), list[Problem]()
    waiting: deque[PendingBatch] = deque()

    def collect() -> None:
        answers.extend(
            _translate(answer, columns, data.labels)
            for answer in backend.collect(waiting.popleft())
        )
        if progress:
            progress(len(answers) + len(problems), len(data))

    frames: list[Frame] = []
    for number in range(len(data)):
        try:
            frames.append(Frame(data[number].image, number, data.name))
            read.append(number)
        except RealtimeSSDError as error:
            problems.append(unreadable(data, number, error))
        if frames and (len(frames) == backend.max_batch or number == len(data) - 1):
            if len(waiting) >= backend.max_in_flight:
                collect()
            waiting.append(backend.submit(frames))
            frames = []
    while waiting:
        collect()
    if not read:
        raise RealtimeSSDError(f"no image of '{data.name}' can be read; the first: {problems[0]}")
    return Subset(data, read, problems), tuple(answers)


def _translate(
    answer: Detections, columns: NDArray[np.int64], labels: tuple[str, ...]
) -> Detections:
    """Number the classes as the data does and drop those it does not have."""
    ids = columns[answer.class_ids]
    kept = answer.select(ids > 0)
    return replace(kept, class_ids=ids[ids > 0].astype(np.int32), labels=labels)
