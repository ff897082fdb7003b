"""Scoring a network while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd_training.data.sample import Annotation, Dataset, Problem, Subset
from realtime_ssd_training.engine.loader import Loader, LoaderOptions
from realtime_ssd_training.evaluation.evaluate import SCORE, Metric, compute
from realtime_ssd_training.evaluation.metrics import Score
from realtime_ssd_training.models import SSD

__all__ = ["StopRequested", "detect", "score_model"]


class StopRequested(Exception):  # noqa: N818 - not an error
    """Raised to end an evaluation when a stop was requested."""


def detect(
    model: SSD,
    dataset: Dataset,
    *,
    batch: int = 16,
    workers: int = 0,
    stop_requested: Callable[[], object] | None = None,
) -> tuple[Dataset, list[Detections]]:
    """Run a network over all images of a data set that can be read.

    Args:
        model: Network in evaluation mode.
        dataset: The images.
        batch: Images at once.
        workers: Processes that read images.
        stop_requested: Called after each batch; a true value stops the evaluation.

    Returns:
        The images that could be read, whose problems are the other ones, and for each of them the
        detections above 0.02 in its pixels.

    Raises:
        StopRequested: If `stop_requested` returned a true value.
    """
    options = LoaderOptions(batch, workers, shuffle=False, drop_last=False, allow_empty=True)
    device = model.default_boxes.device
    post = PostProcessor(model.spec.with_thresholds(score_threshold=SCORE))
    answers: list[Detections] = []
    numbers, problems = list[int](), list[Problem]()
    loader = Loader(dataset, model.spec.input, options)
    with torch.inference_mode(), closing(loader):
        for part in loader.epoch(0):
            if stop_requested is not None and stop_requested():
                raise StopRequested
            numbers += part.indices
            problems += part.problems
            if not len(part):
                continue
            scores, offsets = model(part.to(device).inputs(model.spec.input))
            for row, index in enumerate(part.indices):
                truth = dataset.annotation(index)
                found = post(_array(scores[row]), _array(offsets[row]))
                answers.append(to_frame_detections(found, model.spec, truth.width, truth.height))
    return Subset(dataset, numbers, problems), answers


def score_model(
    model: SSD,
    dataset: Dataset,
    metric: Metric,
    *,
    workers: int = 0,
    stop_requested: Callable[[], object] | None = None,
    on_problems: Callable[[Sequence[Problem]], None] | None = None,
) -> Score:
    """Score a network on the images of a data set that can be read.

    Args:
        model: Network in evaluation mode.
        dataset: Images with ground truth; its labels must be those of the network.
        metric: "voc", "voc07" or "coco".
        workers: Processes that read images.
        stop_requested: Called after each batch; a true value stops the evaluation.
        on_problems: Called with the problems if some images cannot be read.

    Raises:
        StopRequested: If `stop_requested` returned a true value.
    """
    seen, answers = detect(model, dataset, workers=workers, stop_requested=stop_requested)
    if on_problems is not None and seen.problems:
        on_problems(seen.problems)
    truths: list[Annotation] = [seen.annotation(index) for index in range(len(seen))]
    return compute(metric, truths, answers, dataset.labels)


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return tensor.float().cpu().numpy()
