"""Evaluation of a model on annotated images, the same for checkpoints, ONNX files and engines.

Every model is opened as a `realtime_ssd.backends.Backend`. Pre-processing, thresholds and
post-processing are therefore those of the program, and conversion losses show in the metrics.
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
from realtime_ssd.backends.tiled import TiledBackend
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.extras import require
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd.core.tiles import TileOptions
from realtime_ssd_training.data.classes import format_names
from realtime_ssd_training.data.sample import Annotation, Dataset, Problem, Subset, unreadable
from realtime_ssd_training.evaluation.coco_metrics import coco_ap, require_coco_evaluator
from realtime_ssd_training.evaluation.confusion import (
    ConfusionMatrix,
    ThresholdAdvice,
    advise_thresholds,
    count_confusions,
)
from realtime_ssd_training.evaluation.error_analysis import ErrorAnalysis, find_errors
from realtime_ssd_training.evaluation.voc_metrics import SIZES, MetricResult, voc_ap

__all__ = [
    "METRICS",
    "SCORE_THRESHOLD",
    "Evaluation",
    "Metric",
    "check_metric",
    "compute_metric",
    "evaluate",
    "match_labels",
    "open_model",
]

Metric = Literal["coco", "voc07", "voc"]
METRICS: tuple[Metric, ...] = ("coco", "voc07", "voc")

SCORE_THRESHOLD = 0.02
"""Score threshold for evaluation, low enough to cover the whole precision-recall curve."""

_VOC_TO_COCO = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""COCO's names of Pascal VOC classes, where they differ."""

ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Detections of a model on a dataset, with metrics and error analysis.

    Attributes:
        data: The images that could be read; its problems list the others.
        metrics: The metrics.
        ground_truth: Annotation of every image.
        detections: Detections of every image, with the class ids of the dataset.
        known_classes: Class ids of the dataset that the model has.
        unknown_classes: Classes with objects in the dataset that the model does not have; they
            are excluded from all means.
        errors: Errors at the score threshold with the best F1.
        spec: Specification of the model, with the thresholds in use.
        backend: Name of the backend.
    """

    data: Dataset
    metrics: MetricResult
    ground_truth: tuple[Annotation, ...]
    detections: tuple[Detections, ...]
    known_classes: tuple[int, ...]
    unknown_classes: tuple[str, ...]
    errors: ErrorAnalysis
    spec: ModelSpec
    backend: str

    def sizes(self) -> dict[str, dict[str, float | int | None]]:
        """Return objects, AP and (for COCO) AR by object size; None if undefined."""
        rows: dict[str, dict[str, float | int | None]] = {}
        for size, (low, high) in SIZES.items():
            sides = self.errors.sides
            rows[size] = {"objects": int(((sides >= low**0.5) & (sides < high**0.5)).sum())}
            for key, value in self.metrics.summary.items():
                if key.endswith(f"_{size}"):
                    rows[size][key[: -len(size) - 1]] = None if isnan(value) else round(value, 6)
        return rows

    def thresholds(self) -> tuple[ThresholdAdvice, ...]:
        """Return the score threshold with the best F1 of every class with a true positive."""
        return advise_thresholds(
            self.ground_truth, self.detections, self.data.labels, self.known_classes
        )

    def confusion(self) -> ConfusionMatrix:
        """Return what the objects of each class are detected as, at these thresholds."""
        return count_confusions(
            self.ground_truth,
            self.detections,
            self.data.labels,
            self.known_classes,
            self.thresholds(),
            self.errors.score,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serializable values."""
        thresholds = self.spec.thresholds
        return {
            **self.metrics.to_dict(),
            "sizes": self.sizes(),
            "errors": {
                "score": round(self.errors.score, 6),
                "objects": self.errors.objects,
                "found": self.errors.true_positives,
                **self.errors.counts,
            },
            "unknown_classes": list(self.unknown_classes),
            "images": len(self.ground_truth),
            "detections": sum(len(detected) for detected in self.detections),
            "model": self.spec.name,
            "backend": self.backend,
            "score_threshold": thresholds.score_threshold,
            "nms_threshold": thresholds.iou_threshold,
            "top_k": thresholds.pre_nms_top_k,
            "keep": thresholds.max_detections,
        }


def check_metric(metric: str) -> Metric:
    """Return a metric by name after checking that the packages it needs are installed.

    Raises:
        UsageError: If the metric is unknown.
        RealtimeSSDError: If a package is missing.
    """
    if metric == "coco":
        require_coco_evaluator()
    for name in METRICS:
        if name == metric:
            return name
    raise UsageError(f"metric '{metric}' is unknown; choose {', '.join(METRICS)}")


def open_model(
    model: Path,
    backend: str = "auto",
    score_threshold: float = SCORE_THRESHOLD,
    batch: int = 1,
    *,
    trust_model: bool = False,
    tile: TileOptions | None = None,
) -> Backend:
    """Open a model for evaluation.

    Args:
        model: Checkpoint (.safetensors), ONNX file or engine.
        backend: "auto", or the name of a backend for an ONNX file; "tensorrt" builds an engine
            from it unless one is cached.
        score_threshold: Minimum score of a detection, exclusive.
        batch: Maximum batch size of the network.
        trust_model: Whether to run a graph with operators or sizes that SSDs do not need.
        tile: How large images are cut into tiles; None for whole images only.

    Raises:
        UsageError: If the backend does not support the file.
        ModelError: If the file cannot be read or run.
        RealtimeSSDError: If PyTorch is needed for a checkpoint but not installed.
    """
    options = BackendOptions(
        score_threshold=score_threshold, batch=batch, trust_model=trust_model, tile=tile
    )
    check_options(options)
    if model.suffix != ".safetensors":
        return open_backend(model, backend, options)
    if backend not in ("auto", "torch"):
        raise UsageError(
            f"'{model}' is a checkpoint, which backend '{backend}' cannot run; export it first "
            "with realtime-ssd export, or omit `backend`"
        )
    purpose = f"reading '{model}'"
    require("train", "torch", "safetensors", purpose=purpose, alternative="use an ONNX file")
    from realtime_ssd_training.evaluation.torch_backend import open_checkpoint

    opened = open_checkpoint(model, score_threshold, batch)
    return opened if tile is None else TiledBackend(opened, tile)


def evaluate(
    backend: Backend,
    data: Dataset,
    metric: Metric = "coco",
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Evaluate a model on a dataset.

    Args:
        backend: The model, opened with a low score threshold (see `open_model`).
        data: Annotated images; its classes are matched with those of the model by name.
        metric: "coco", "voc07" (11 points) or "voc" (every point).
        progress: Called with the number of processed images and the number of images.

    Raises:
        UsageError: If the metric is unknown, the model knows no class of the data, or the data
            has no object of a known class.
        RealtimeSSDError: If a package is missing or no image can be read.

    Example:
        >>> with open_model(Path("street.onnx")) as backend:
        ...     evaluation = evaluate(backend, open_dataset("demo:900-909"), "voc")
        >>> evaluation.metrics.mean
        0.93
    """
    check_metric(metric)
    class_ids = match_labels(backend.spec, data.labels)
    known = set(class_ids.tolist()) - {0}
    if not known:
        raise UsageError(
            f"model '{backend.spec.name}' has none of the classes of '{data.name}': the data has "
            f"{format_names(data.labels[1:])}, the model "
            f"{format_names(_foreground_labels(backend.spec))}"
        )
    data, detections = _detect(backend, data, class_ids, progress)
    ground_truth = tuple(data.annotation(index) for index in range(len(data)))
    metrics = compute_metric(metric, ground_truth, detections, data.labels, known)
    if isnan(metrics.mean):
        raise UsageError(
            f"'{data.name}' has no object of a class that model '{backend.spec.name}' knows; "
            "choose other data or another split"
        )
    present = {int(label) for truth in ground_truth for label in truth.labels}
    unknown = tuple(data.labels[k] for k in sorted(present - known))
    errors = find_errors(ground_truth, detections, known)
    return Evaluation(
        data=data,
        metrics=metrics,
        ground_truth=ground_truth,
        detections=detections,
        known_classes=tuple(sorted(known)),
        unknown_classes=unknown,
        errors=errors,
        spec=backend.spec,
        backend=backend.name,
    )


def compute_metric(
    metric: Metric,
    ground_truth: Sequence[Annotation],
    detections: Sequence[Detections],
    labels: Sequence[str],
    classes: set[int] | None = None,
) -> MetricResult:
    """Compute a metric by name.

    Args:
        metric: "coco", "voc07" or "voc".
        ground_truth: Annotation of every image.
        detections: Detections of the same images, with the class ids of the ground truth.
        labels: Class names by class id.
        classes: Class ids to evaluate; all if None.
    """
    if metric == "coco":
        return coco_ap(ground_truth, detections, labels, classes=classes)
    points: Literal["11", "all"] = "11" if metric == "voc07" else "all"
    return voc_ap(ground_truth, detections, labels, points=points, classes=classes)


def match_labels(spec: ModelSpec, labels: Sequence[str]) -> NDArray[np.int64]:
    """Map the score columns of a model to the class ids of a dataset by name.

    Equal names belong together. The remaining names are compared without case, spaces, hyphens and
    underscores, and Pascal VOC's names match COCO's, unless several would be equal then.

    Args:
        spec: Specification of the model, with C classes.
        labels: Class names of the data, "background" first.

    Returns:
        C class ids; 0 for columns without a class in the data.
    """
    exact = {name: k for k, name in enumerate(labels) if k}
    columns = [
        0 if column == spec.background else exact.get(name, 0)
        for column, name in enumerate(spec.labels)
    ]
    names = [name for name in labels[1:] if exact[name] not in columns]
    others = [
        name
        for column, name in enumerate(spec.labels)
        if not columns[column] and column != spec.background
    ]
    similar = _unique_by_normalized(names)
    candidates = _unique_by_normalized(others)
    for key in similar.keys() & candidates.keys():
        columns[spec.labels.index(candidates[key])] = exact[similar[key]]
    return np.array(columns, np.int64)


def _unique_by_normalized(names: Sequence[str]) -> dict[str, str]:
    """Return the names by their normalized form, without those that share one."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_normalized(name), []).append(name)
    return {key: group[0] for key, group in groups.items() if len(group) == 1}


def _normalized(name: str) -> str:
    plain = "".join(letter for letter in name.casefold() if letter not in " -_")
    return _VOC_TO_COCO.get(plain, plain)


def _foreground_labels(spec: ModelSpec) -> list[str]:
    return [name for column, name in enumerate(spec.labels) if column != spec.background]


def _detect(
    backend: Backend,
    data: Dataset,
    class_ids: NDArray[np.int64],
    progress: ProgressCallback | None,
) -> tuple[Dataset, tuple[Detections, ...]]:
    """Run the model on all readable images, with up to `max_in_flight` batches at a time."""
    detections: list[Detections] = []
    readable, problems = list[int](), list[Problem]()
    in_flight: deque[PendingBatch] = deque()

    def collect() -> None:
        detections.extend(
            _relabel(detected, class_ids, data.labels)
            for detected in backend.collect(in_flight.popleft())
        )
        if progress:
            progress(len(detections) + len(problems), len(data))

    frames: list[Frame] = []
    for index in range(len(data)):
        try:
            frames.append(Frame(data[index].image, index, data.name))
            readable.append(index)
        except RealtimeSSDError as error:
            problems.append(unreadable(data, index, error))
        if frames and (len(frames) == backend.max_batch or index == len(data) - 1):
            if len(in_flight) >= backend.max_in_flight:
                collect()
            in_flight.append(backend.submit(frames))
            frames = []
    while in_flight:
        collect()
    if not readable:
        raise RealtimeSSDError(f"no image of '{data.name}' can be read; the first: {problems[0]}")
    return Subset(data, readable, problems), tuple(detections)


def _relabel(
    detected: Detections, class_ids: NDArray[np.int64], labels: tuple[str, ...]
) -> Detections:
    """Convert class ids to those of the dataset and drop classes it does not have."""
    ids = class_ids[detected.class_ids]
    kept = detected.select(ids > 0)
    return replace(kept, class_ids=ids[ids > 0].astype(np.int32), labels=labels)
