"""Evaluation of a network during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd_training.data.sample import Dataset, Problem, Subset
from realtime_ssd_training.engine.loader import Loader, LoaderOptions
from realtime_ssd_training.evaluation.evaluator import SCORE_THRESHOLD, Metric, compute_metric
from realtime_ssd_training.evaluation.voc_metrics import MetricResult
from realtime_ssd_training.models import SSD

__all__ = ["StopRequested", "detect", "score_model"]

StopCheck = Callable[[], object]
"""Returns a true value to stop the evaluation."""


class StopRequested(Exception):  # noqa: N818 - not an error
    """Raised to end an evaluation when a stop was requested."""


def detect(
    model: SSD,
    dataset: Dataset,
    *,
    batch: int = 16,
    workers: int = 0,
    stop_requested: StopCheck | None = None,
) -> tuple[Dataset, list[Detections]]:
    """Run a network on all readable images of a dataset.

    Args:
        model: Network in evaluation mode.
        dataset: The images.
        batch: Batch size.
        workers: Number of processes that read images.
        stop_requested: Called after each batch.

    Returns:
        The images that could be read, whose problems list the others, and for each of them the
        detections with a score above `SCORE_THRESHOLD`, in pixels of the image.

    Raises:
        StopRequested: If `stop_requested` returned a true value.
    """
    options = LoaderOptions(batch, workers, shuffle=False, drop_last=False, allow_empty=True)
    device = model.default_boxes.device
    post = PostProcessor(model.spec.with_thresholds(score_threshold=SCORE_THRESHOLD))
    detections: list[Detections] = []
    readable, problems = list[int](), list[Problem]()
    loader = Loader(dataset, model.spec.input, options)
    with torch.inference_mode(), closing(loader):
        for part in loader.epoch(0):
            if stop_requested is not None and stop_requested():
                raise StopRequested
            readable += part.indices
            problems += part.problems
            if not len(part):
                continue
            scores, offsets = model(part.to(device).inputs(model.spec.input))
            for row, index in enumerate(part.indices):
                truth = dataset.annotation(index)
                raw = post(_to_numpy(scores[row]), _to_numpy(offsets[row]))
                detections.append(to_frame_detections(raw, model.spec, truth.width, truth.height))
    return Subset(dataset, readable, problems), detections


def score_model(
    model: SSD,
    dataset: Dataset,
    metric: Metric,
    *,
    workers: int = 0,
    stop_requested: StopCheck | None = None,
    on_problems: Callable[[Sequence[Problem]], None] | None = None,
) -> MetricResult:
    """Evaluate a network on the readable images of a dataset.

    Args:
        model: Network in evaluation mode.
        dataset: Images with ground truth and the labels of the network.
        metric: "voc", "voc07" or "coco".
        workers: Number of processes that read images.
        stop_requested: Called after each batch.
        on_problems: Called with the problems if some images cannot be read.

    Raises:
        StopRequested: If `stop_requested` returned a true value.
    """
    readable, detections = detect(model, dataset, workers=workers, stop_requested=stop_requested)
    if on_problems is not None and readable.problems:
        on_problems(readable.problems)
    ground_truth = [readable.annotation(index) for index in range(len(readable))]
    return compute_metric(metric, ground_truth, detections, dataset.labels)


def _to_numpy(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return tensor.float().cpu().numpy()
