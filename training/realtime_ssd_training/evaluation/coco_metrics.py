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
from realtime_ssd.core.extras import require
from realtime_ssd_training.data.sample import Annotation
from realtime_ssd_training.evaluation.voc_metrics import (
    SIZES,
    ClassResult,
    MetricResult,
    classes_with_objects,
    finite_mean,
)

__all__ = ["coco_ap", "require_coco_evaluator"]

Table = NDArray[np.float64]

_IOU_50, _IOU_75 = 0, 5
_MAX_DETECTIONS = (1, 10, 100)


def require_coco_evaluator() -> None:
    """Check that faster-coco-eval is installed.

    Raises:
        RealtimeSSDError: If it is not.
    """
    require(
        "train",
        "faster_coco_eval",
        purpose="COCO's metric",
        alternative="set `metric` to voc",
    )


def coco_ap(
    ground_truth: Sequence[Annotation],
    detections: Sequence[Detections],
    labels: Sequence[str],
    *,
    classes: Iterable[int] | None = None,
) -> MetricResult:
    """Compute COCO's average precision: IoU 0.5 to 0.95, 100 detections per image and class.

    Difficult boxes are treated as crowds: detections inside them are ignored.

    Args:
        ground_truth: Annotation of every image.
        detections: Detections of the same images, with the class ids of the ground truth.
        labels: Class names by class id.
        classes: Class ids to evaluate; all if None. Classes without objects are left out.

    Returns:
        "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100",
        "AR_small", "AR_medium" and "AR_large".

    Raises:
        RealtimeSSDError: If faster-coco-eval is not installed.
    """
    require_coco_evaluator()
    class_ids = classes_with_objects(ground_truth, classes)
    if not class_ids:
        return MetricResult("coco", {key: finite_mean([]) for key in _summary_keys()}, ())
    precision, recall, scores = _run_evaluator(ground_truth, detections, class_ids)
    results = tuple(
        _class_result(
            labels[class_id],
            _count_objects(ground_truth, class_id),
            precision[k],
            recall[k],
            scores[k],
        )
        for k, class_id in enumerate(class_ids)
    )
    summary = {key: finite_mean(item.values[key] for item in results) for key in _summary_keys()}
    return MetricResult("coco", summary, results)


def _summary_keys() -> tuple[str, ...]:
    return (
        *("AP", "AP50", "AP75"),
        *(f"AP_{size}" for size in SIZES),
        *(f"AR{limit}" for limit in _MAX_DETECTIONS),
        *(f"AR_{size}" for size in SIZES),
    )


def _count_objects(ground_truth: Sequence[Annotation], class_id: int) -> int:
    matches = (t.labels[~t.difficult & ~t.crowd] == class_id for t in ground_truth)
    return int(sum(match.sum() for match in matches))


def _run_evaluator(
    ground_truth: Sequence[Annotation], detections: Sequence[Detections], class_ids: list[int]
) -> tuple[Table, Table, Table]:
    """Run faster-coco-eval.

    Returns:
        Precision (classes × IoUs × 101 recalls × areas × limits), recall (classes × IoUs × areas ×
        limits) and the score thresholds of the precision; -1 where an area has no objects.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(_coco_ground_truth(ground_truth, class_ids))
    results = truth.loadRes(_coco_results(detections, class_ids))
    evaluator = COCOeval_faster(truth, results, "bbox")
    evaluator.params.maxDets = list(_MAX_DETECTIONS)
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall, scores = (
        np.asarray(evaluator.eval[name], np.float64) for name in ("precision", "recall", "scores")
    )
    return np.moveaxis(precision, 2, 0), np.moveaxis(recall, 1, 0), np.moveaxis(scores, 2, 0)


def _coco_ground_truth(ground_truth: Sequence[Annotation], class_ids: list[int]) -> dict[str, Any]:
    """Return the contents of a COCO annotation file; ids start at 1, as 0 means "no match"."""
    images = [
        {"id": k, "width": truth.width, "height": truth.height}
        for k, truth in enumerate(ground_truth, start=1)
    ]
    rows = [
        (image, row, truth)
        for image, truth in enumerate(ground_truth, start=1)
        for row in np.flatnonzero(np.isin(truth.labels, class_ids))
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
    categories = [{"id": class_id, "name": str(class_id)} for class_id in class_ids]
    return {"images": images, "annotations": annotations, "categories": categories}


def _coco_results(detections: Sequence[Detections], class_ids: list[int]) -> list[dict[str, Any]]:
    """Return the contents of a COCO results file."""
    return [
        {
            "image_id": image,
            "category_id": int(detected.class_ids[row]),
            "bbox": _bbox(detected.boxes[row]),
            "score": float(detected.scores[row]),
        }
        for image, detected in enumerate(detections, start=1)
        for row in np.flatnonzero(np.isin(detected.class_ids, class_ids))
    ]


def _bbox(box: NDArray[np.float32]) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _class_result(
    label: str, num_objects: int, precision: Table, recall: Table, scores: Table
) -> ClassResult:
    """Extract the metrics of one class from the evaluator's tables."""
    values = {
        "AP": _mean(precision[:, :, 0, -1]),
        "AP50": _mean(precision[_IOU_50, :, 0, -1]),
        "AP75": _mean(precision[_IOU_75, :, 0, -1]),
    }
    for index, size in enumerate(SIZES, start=1):
        values[f"AP_{size}"] = _mean(precision[:, :, index, -1])
        values[f"AR_{size}"] = _mean(recall[:, index, -1])
    for index, limit in enumerate(_MAX_DETECTIONS):
        values[f"AR{limit}"] = _mean(recall[:, 0, index])
    curve, thresholds = (np.maximum(table[_IOU_50, :, 0, -1], 0) for table in (precision, scores))
    return ClassResult(label, num_objects, values, np.linspace(0, 1, len(curve)), curve, thresholds)


def _mean(values: Table) -> float:
    """Return the mean of the defined entries; NaN if there are none."""
    return finite_mean(values[values > -1].tolist())
