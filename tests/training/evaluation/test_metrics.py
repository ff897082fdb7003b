"""Average precision: published results, reference evaluators and hand-computed cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from realtime_ssd_training.data.sample import Annotation
from realtime_ssd_training.evaluation import coco_metrics
from realtime_ssd_training.evaluation.coco_metrics import coco_ap
from realtime_ssd_training.evaluation.voc_metrics import classes_with_objects, voc_ap

from realtime_ssd.core.boxes import iou
from realtime_ssd.core.detections import Detections
from tests.training.evaluation.scenes import (
    BACKGROUND,
    LABELS,
    A,
    B,
    Box,
    C,
    annotation,
    detections,
    scenes,
)

# Name, ground truth, detections, mAP of every point, mAP of 11 points.
CASES: list[tuple[str, Annotation, Detections, float, float]] = [
    ("perfect", annotation([A, B]), detections([(0.9, A), (0.8, B)]), 1.0, 1.0),
    ("no detections", annotation([A]), detections([]), 0.0, 0.0),
    # Recall 1/2 at precision 1; six of the eleven recalls (0 to 0.5) are reached.
    ("half", annotation([A, B]), detections([(0.9, A)]), 0.5, 6 / 11),
    # Precision is 1/2 at recall 1.
    ("false positive first", annotation([A]), detections([(0.9, BACKGROUND), (0.8, A)]), 0.5, 0.5),
    ("false positive last", annotation([A]), detections([(0.9, A), (0.8, BACKGROUND)]), 1.0, 1.0),
    # The second box on A is a false positive, so the precision at B is 2/3.
    (
        "duplicate",
        annotation([A, B]),
        detections([(0.9, A), (0.8, A), (0.7, B)]),
        0.5 + 0.5 * 2 / 3,
        (6 + 5 * 2 / 3) / 11,
    ),
    # Any number of detections of a difficult box is ignored.
    (
        "difficult",
        annotation([A, B], difficult=[0]),
        detections([(0.9, A), (0.85, A), (0.8, B)]),
        1.0,
        1.0,
    ),
    ("crowd", annotation([A, B], crowd=[0]), detections([(0.9, A), (0.8, B)]), 1.0, 1.0),
    # Equal scores keep the input order: the false positive comes first.
    ("tie", annotation([A]), detections([(0.5, BACKGROUND), (0.5, A)]), 0.5, 0.5),
    # An IoU of exactly 0.5 is a match, as in the development kit.
    ("IoU of 0.5", annotation([A]), detections([(0.9, (0, 0, 10, 5))]), 1.0, 1.0),
    ("IoU below 0.5", annotation([A]), detections([(0.9, (0, 0, 10, 4.99))]), 0.0, 0.0),
    # 3 of 10 objects reach the recalls 0, 0.1, 0.2 and 0.3.
    (
        "recall of exactly 0.3",
        annotation([(20.0 * k, 0, 20.0 * k + 10, 10) for k in range(10)]),
        detections([(0.9 - k / 10, (20.0 * k, 0, 20.0 * k + 10, 10)) for k in range(3)]),
        0.3,
        4 / 11,
    ),
]


@pytest.mark.parametrize(
    ("truth", "detected", "every", "eleven"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_hand_computed_cases(
    truth: Annotation, detected: Detections, every: float, eleven: float
) -> None:
    metrics = voc_ap([truth], [detected], LABELS)
    assert metrics.metric == "voc"
    assert metrics.mean == pytest.approx(every)
    metrics = voc_ap([truth], [detected], LABELS, points="11")
    assert metrics.metric == "voc07"
    assert metrics.mean == pytest.approx(eleven)


def test_detection_is_assigned_to_the_object_with_the_highest_iou_even_if_taken() -> None:
    near = (0.0, 0.0, 10.0, 12.0)
    detected = detections([(0.9, A), (0.8, near)])
    truth = annotation([A, (0, 0, 10, 20)])
    assert iou(np.array([near]), truth.boxes[1:])[0, 0] >= 0.5
    assert voc_ap([truth], [detected], LABELS).mean == pytest.approx(0.5)


def test_classes_without_objects_are_left_out() -> None:
    image = annotation([A, B], [1, 2], difficult=[1])
    metrics = voc_ap([image], [detections([(0.9, A)])], LABELS)
    assert [item.label for item in metrics.classes] == ["cat"]
    assert metrics.mean == 1.0
    assert classes_with_objects([image], [2]) == []


def test_mean_is_over_classes_not_objects() -> None:
    image = annotation([A, B, C], [1, 1, 2])
    metrics = voc_ap([image], [detections([(0.9, A), (0.8, B)])], LABELS)
    assert metrics.to_dict()["per_class"] == {"cat": 1.0, "dog": 0.0}
    assert metrics.mean == pytest.approx(0.5)


def test_metrics_are_nan_without_objects() -> None:
    empty = voc_ap([annotation([])], [detections([(0.5, A)])], LABELS)
    for metrics in (empty, coco_ap([], [], LABELS)):
        assert np.isnan(metrics.mean)
        assert metrics.classes == ()
        assert json.loads(json.dumps(metrics.to_dict()))["per_class"] == {}


def test_size_metrics_ignore_objects_and_detections_of_other_sizes() -> None:
    large = (100.0, 100.0, 300.0, 300.0)
    image = annotation([A, large])
    detected = detections([(0.9, (400, 300, 600, 470)), (0.8, A)])
    summary = voc_ap([image], [detected], LABELS).summary
    assert summary["mAP_small"] == 1.0
    assert summary["mAP_large"] == 0.0
    assert np.isnan(summary["mAP_medium"])


def test_curve_of_a_class() -> None:
    detected = detections([(0.9, A), (0.8, BACKGROUND), (0.7, B)])
    metrics = voc_ap([annotation([A, B])], [detected], LABELS)
    np.testing.assert_allclose(metrics.classes[0].recall, [0.5, 0.5, 1.0])
    np.testing.assert_allclose(metrics.classes[0].precision, [1, 1 / 2, 2 / 3])
    assert metrics.classes[0].objects == 2


def read_boxes(path: Path, corners: bool, scored: bool) -> list[tuple[str, float, Box, bool]]:
    """Read a text file of boxes with inclusive pixel coordinates."""
    rows = []
    for line in path.read_text().splitlines():
        fields = line.split()
        difficult = fields[-1] == "difficult"
        fields = fields[:-1] if difficult else fields
        a, b, c, d = (float(field) for field in fields[-4:])
        box = (a, b, c + 1, d + 1) if corners else (a, b, a + c + 1, b + d + 1)
        rows.append((fields[0], float(fields[1]) if scored else 1.0, box, difficult))
    return rows


def read_folder(
    truth_folder: Path, detection_folder: Path, corners: bool
) -> tuple[list[Annotation], list[Detections], tuple[str, ...]]:
    truth = {
        path.stem: read_boxes(path, corners, False) for path in sorted(truth_folder.glob("*.txt"))
    }
    labels = ("background", *sorted({row[0] for rows in truth.values() for row in rows}))
    ground_truth, detected = [], []
    for stem, rows in truth.items():
        ground_truth.append(
            annotation(
                [row[2] for row in rows],
                [labels.index(row[0]) for row in rows],
                difficult=[k for k, row in enumerate(rows) if row[3]],
            )
        )
        entries = read_boxes(detection_folder / f"{stem}.txt", corners, True)
        entries = [entry for entry in entries if entry[0] in labels]
        ids = np.array([labels.index(entry[0]) for entry in entries], np.int32)
        plain = detections([(entry[1], entry[2]) for entry in entries])
        detected.append(Detections(plain.boxes, plain.scores, ids, labels))
    return ground_truth, detected, labels


def test_padilla_published_results(shared_data: Path) -> None:
    folder = shared_data / "eval_oracles" / "padilla_sample_2"
    scene = read_folder(folder / "groundtruths", folder / "detections", False)
    every = voc_ap(*scene, iou_threshold=0.3)
    eleven = voc_ap(*scene, iou_threshold=0.3, points="11")
    assert every.mean == pytest.approx(0.24568668046928915, abs=1e-9)
    assert eleven.mean == pytest.approx(0.26839826839826836, abs=1e-9)


def test_cartucho_thirty_classes(shared_data: Path) -> None:
    folder = shared_data / "eval_oracles"
    expected = json.loads((folder / "expected_voc_style.json").read_text())["cartucho"]
    scene = read_folder(
        folder / "cartucho" / "ground-truth", folder / "cartucho" / "detection-results", True
    )
    metrics = voc_ap(*scene)
    assert metrics.mean == pytest.approx(expected["mAP"], abs=1e-6)
    assert metrics.to_dict()["per_class"] == pytest.approx(expected["per_class"], abs=1e-6)


def from_coco(
    content: dict[str, Any], results: list[dict[str, Any]]
) -> tuple[list[Annotation], list[Detections], tuple[str, ...]]:
    """Convert the contents of a COCO file and of a COCO results file."""
    ids = {item["id"]: k for k, item in enumerate(content["categories"], start=1)}
    labels = ("background", *(item["name"] for item in content["categories"]))
    ground_truth, detected = [], []
    for image in content["images"]:
        objects = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        ground_truth.append(
            annotation(
                [corners(a["bbox"]) for a in objects],
                [ids[a["category_id"]] for a in objects],
                crowd=[k for k, a in enumerate(objects) if a["iscrowd"]],
                areas=[a["area"] for a in objects],
            )
        )
        entries = [r for r in results if r["image_id"] == image["id"]]
        plain = detections([(r["score"], corners(r["bbox"])) for r in entries])
        classes = np.array([ids[r["category_id"]] for r in entries], np.int32)
        detected.append(Detections(plain.boxes, plain.scores, classes, labels))
    return ground_truth, detected, labels


def corners(bbox: Sequence[float]) -> Box:
    x, y, width, height = bbox
    return (x, y, x + width, y + height)


def test_coco_published_results(shared_data: Path) -> None:
    folder = shared_data / "eval_oracles" / "coco"
    content = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    summary = coco_ap(*from_coco(content, results)).summary
    published = {
        "AP": 0.505, "AP50": 0.697, "AP75": 0.573,
        "AP_small": 0.586, "AP_medium": 0.519, "AP_large": 0.501,
        "AR1": 0.387, "AR10": 0.594, "AR100": 0.595,
        "AR_small": 0.640, "AR_medium": 0.566, "AR_large": 0.564,
    }  # fmt: skip
    assert {key: round(value, 3) for key, value in summary.items()} == published


def pycocotools_summary(
    ground_truth: list[Annotation], detected: list[Detections]
) -> dict[str, float] | None:
    """Compute the metrics with pycocotools; None without objects or detections."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    classes = classes_with_objects(ground_truth)
    results = coco_metrics._coco_results(detected, classes)
    if not classes or not results:
        return None
    gt = coco.COCO()
    gt.dataset = {"info": {}, **coco_metrics._coco_ground_truth(ground_truth, classes)}
    gt.createIndex()
    run = evaluation.COCOeval(gt, gt.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    rates = ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
    return dict(zip((*names, *rates), run.stats.tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_coco_metrics_equal_pycocotools(scene: tuple[list[Annotation], list[Detections]]) -> None:
    expected = pycocotools_summary(*scene)
    if expected is not None:
        summary = coco_ap(*scene, LABELS).summary
        actual = {key: -1.0 if np.isnan(value) else value for key, value in summary.items()}
        assert actual == pytest.approx(expected, abs=1e-9)


def true_positives(
    ground_truth: list[Annotation], detected: list[Detections], class_id: int
) -> list[bool]:
    """Classify the detections of a class one by one, directly from the definition."""
    entries = [
        (-float(each.scores[row]), image, row)
        for image, each in enumerate(detected)
        for row in np.flatnonzero(each.class_ids == class_id)
    ]
    matched: set[tuple[int, int]] = set()
    flags = []
    for _, image, row in sorted(entries):
        truth = ground_truth[image]
        box = detected[image].boxes[row : row + 1].astype(np.float64)
        overlap = iou(box, truth.boxes.astype(np.float64))[0]
        overlap[truth.labels != class_id] = -1
        best = int(overlap.argmax()) if len(overlap) else -1
        if best < 0 or overlap[best] < 0.5:
            flags.append(False)
        elif not (truth.crowd[best] or truth.difficult[best]):
            flags.append((image, best) not in matched)
            matched.add((image, best))
    return flags


def count_objects(ground_truth: list[Annotation], class_id: int) -> int:
    return sum(int(((t.labels == class_id) & ~t.crowd & ~t.difficult).sum()) for t in ground_truth)


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_voc_ap_equals_its_definition(scene: tuple[list[Annotation], list[Detections]]) -> None:
    for item in voc_ap(*scene, LABELS).classes:
        class_id = LABELS.index(item.label)
        flags = true_positives(*scene, class_id)
        precision = [sum(flags[:k]) / k for k in range(1, len(flags) + 1)]
        area = sum(max(precision[k:]) for k, flag in enumerate(flags) if flag)
        num_objects = count_objects(scene[0], class_id)
        assert item.objects == num_objects
        assert item.values["AP"] == pytest.approx(area / num_objects)


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_voc07_ap_equals_its_definition(scene: tuple[list[Annotation], list[Detections]]) -> None:
    for item in voc_ap(*scene, LABELS, points="11").classes:
        class_id = LABELS.index(item.label)
        flags, num_objects = true_positives(*scene, class_id), count_objects(scene[0], class_id)
        points = [
            (Fraction(sum(flags[:k]), num_objects), sum(flags[:k]) / k)
            for k in range(1, len(flags) + 1)
        ]
        best = [
            max((precision for recall, precision in points if recall >= Fraction(t, 10)), default=0)
            for t in range(11)
        ]
        assert item.values["AP"] == pytest.approx(sum(best) / 11)


@pytest.mark.parametrize(
    ("side", "size"),
    [(31.9, "small"), (32.0, "medium"), (95.9, "medium"), (96.0, "large")],
)
def test_limits_of_object_sizes(side: float, size: str) -> None:
    box = (0.0, 0.0, side, side)
    scene = [annotation([box])], [detections([(0.9, box)])]
    results = [voc_ap(*scene, LABELS)]
    if side % 32:  # the COCO API counts an object at a limit in both ranges
        results.append(coco_ap(*scene, LABELS))
    for metrics in results:
        values = metrics.classes[0].values
        assert [key for key in ("small", "medium", "large") if values[f"AP_{key}"] > 0.99] == [size]


def test_coco_curve_has_101_recalls() -> None:
    boxes: list[Box] = [(0, 0, 200, 200), (250, 0, 450, 200)]
    detected = detections([(0.9, boxes[0]), (0.8, BACKGROUND), (0.7, boxes[1])])
    (item,) = coco_ap([annotation(boxes)], [detected], LABELS).classes
    np.testing.assert_allclose(item.recall, np.arange(101) / 100, atol=1e-9)
    np.testing.assert_allclose(item.precision, [1.0] * 51 + [2 / 3] * 50)
    np.testing.assert_allclose(item.scores, [0.9] * 51 + [0.7] * 50, atol=1e-6)
