"""COCO's average precision, computed by faster-coco-eval.

Source: Lin et al., "Microsoft COCO: Common Objects in Context" (2014); the evaluation rules are
those of the COCO API.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd_training.data.sample import Annotation
from realtime_ssd_training.evaluation.metrics import SIZES, ClassScore, Score, mean_of, occurring

__all__ = ["coco_ap"]

Table = NDArray[np.float64]

_IOU_50, _IOU_75 = 0, 5
_LIMITS = (1, 10, 100)


def coco_ap(
    truths: Sequence[Annotation],
    answers: Sequence[Detections],
    labels: Sequence[str],
    *,
    classes: Iterable[int] | None = None,
) -> Score:
    """Score detections as COCO does: IoU 0.5 to 0.95, at most 100 detections of a class an image.

    Difficult boxes are treated as crowds: a detection that lies in one does not count.

    Args:
        truths: Ground truth of every image.
        answers: Detections of the same images; class ids in the numbering of the truths.
        labels: Class names by class id.
        classes: Class ids to score; all if None. Only those that occur count.

    Returns:
        The score: "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10",
        "AR100", "AR_small", "AR_medium", "AR_large".

    Raises:
        RealtimeSSDError: If faster-coco-eval is not installed.
    """
    chosen = occurring(truths, classes)
    if not chosen:
        return Score("coco", {key: mean_of([]) for key in _summaries()}, ())
    precision, recall, scores = _evaluate(truths, answers, chosen)
    results = [
        _class_score(
            labels[class_id], _objects(truths, class_id), precision[k], recall[k], scores[k]
        )
        for k, class_id in enumerate(chosen)
    ]
    summary = {key: mean_of(item.values[key] for item in results) for key in _summaries()}
    return Score("coco", summary, tuple(results))


def _summaries() -> tuple[str, ...]:
    sizes = tuple(SIZES)
    return (
        *("AP", "AP50", "AP75"),
        *(f"AP_{size}" for size in sizes),
        *(f"AR{limit}" for limit in _LIMITS),
        *(f"AR_{size}" for size in sizes),
    )


def _objects(truths: Sequence[Annotation], class_id: int) -> int:
    wanted = (t.labels[~t.difficult & ~t.crowd] == class_id for t in truths)
    return int(sum(part.sum() for part in wanted))


def _evaluate(
    truths: Sequence[Annotation], answers: Sequence[Detections], classes: list[int]
) -> tuple[Table, Table, Table]:
    """Run the evaluator.

    Returns:
        Precision (classes × IoUs × 101 recalls × areas × limits), recall (classes × IoUs × areas ×
        limits) and the scores that go with the precision; -1 where no object of the area occurs.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise RealtimeSSDError(
            "COCO's metric needs faster-coco-eval, which is not installed; "
            "install it with pip install 'realtime-ssd[train]' or choose --metric voc"
        ) from None
    wanted = COCO(_ground_truth(truths, classes))
    evaluator = COCOeval_faster(wanted, wanted.loadRes(_detections(answers, classes)), "bbox")
    evaluator.params.maxDets = list(_LIMITS)
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall, scores = (
        np.asarray(evaluator.eval[name], np.float64) for name in ("precision", "recall", "scores")
    )
    return np.moveaxis(precision, 2, 0), np.moveaxis(recall, 1, 0), np.moveaxis(scores, 2, 0)


def _ground_truth(truths: Sequence[Annotation], classes: list[int]) -> dict[str, Any]:
    """Write ground truth as a COCO file; ids count from 1, because id 0 means "no match"."""
    images = [
        {"id": k, "width": truth.width, "height": truth.height}
        for k, truth in enumerate(truths, start=1)
    ]
    rows = [
        (image, row, truth)
        for image, truth in enumerate(truths, start=1)
        for row in np.flatnonzero(np.isin(truth.labels, classes))
    ]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": int(truth.labels[row]),
            "bbox": _bbox(truth.boxes[row]),
            "area": float(truth.areas[row]),
            "iscrowd": int(truth.crowd[row] or truth.difficult[row]),
        }
        for number, (image, row, truth) in enumerate(rows, start=1)
    ]
    categories = [{"id": class_id, "name": str(class_id)} for class_id in classes]
    return {"images": images, "annotations": annotations, "categories": categories}


def _detections(answers: Sequence[Detections], classes: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": int(answer.class_ids[row]),
            "bbox": _bbox(answer.boxes[row]),
            "score": float(answer.scores[row]),
        }
        for image, answer in enumerate(answers, start=1)
        for row in np.flatnonzero(np.isin(answer.class_ids, classes))
    ]


def _bbox(box: NDArray[np.float32]) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _class_score(
    label: str, objects: int, precision: Table, recall: Table, scores: Table
) -> ClassScore:
    """Read the figures of one class out of the evaluator's tables."""
    values = {
        "AP": _mean(precision[:, :, 0, -1]),
        "AP50": _mean(precision[_IOU_50, :, 0, -1]),
        "AP75": _mean(precision[_IOU_75, :, 0, -1]),
    }
    for place, size in enumerate(SIZES, start=1):
        values[f"AP_{size}"] = _mean(precision[:, :, place, -1])
        values[f"AR_{size}"] = _mean(recall[:, place, -1])
    for place, limit in enumerate(_LIMITS):
        values[f"AR{limit}"] = _mean(recall[:, 0, place])
    curve, needed = (np.maximum(table[_IOU_50, :, 0, -1], 0) for table in (precision, scores))
    return ClassScore(label, objects, values, np.linspace(0, 1, len(curve)), curve, needed)


def _mean(values: Table) -> float:
    """Mean of the entries that exist; NaN if there are none."""
    return mean_of(values[values > -1].tolist())
