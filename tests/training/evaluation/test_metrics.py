"""Average precision: published results, a second evaluator, and cases worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_ssd_training.data.sample import Annotation
from realtime_ssd_training.evaluation.coco_metrics import coco_ap
from realtime_ssd_training.evaluation.metrics import Score, occurring, voc_ap

from realtime_ssd.core.boxes import iou
from realtime_ssd.core.detections import Detections

LABELS = ("background", "cat", "dog")
Row = tuple[float, float, float, float]


def truth(
    boxes: Sequence[Row],
    labels: Sequence[int] | None = None,
    difficult: Sequence[int] = (),
    crowd: Sequence[int] = (),
    areas: Sequence[float] | None = None,
) -> Annotation:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    sides = array[:, 2:] - array[:, :2]
    places = np.arange(len(array))
    return Annotation(
        "image",
        640,
        480,
        array,
        np.ones(len(array), np.int64) if labels is None else np.array(labels, np.int64),
        np.isin(places, difficult),
        np.isin(places, crowd),
        np.array(sides.prod(axis=1) if areas is None else areas, np.float32),
    )


def found(rows: Sequence[tuple[float, Row]], class_id: int = 1) -> Detections:
    return Detections(
        np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        np.array([score for score, _ in rows], np.float32),
        np.full(len(rows), class_id, np.int32),
        LABELS,
    )


A: Row = (0, 0, 10, 10)
B: Row = (20, 0, 30, 10)
C: Row = (40, 0, 50, 10)
NOWHERE: Row = (100, 100, 110, 110)

# name, ground truth, detections, mAP of every point, mAP of 11 points
CASES: list[tuple[str, Annotation, Detections, float, float]] = [
    ("perfect", truth([A, B]), found([(0.9, A), (0.8, B)]), 1.0, 1.0),
    ("nothing found", truth([A]), found([]), 0.0, 0.0),
    # Recall 1/2 at precision 1; six of the eleven recalls (0 to 0.5) are reached.
    ("half", truth([A, B]), found([(0.9, A)]), 0.5, 6 / 11),
    # Precision 1/2 at recall 1, raised nowhere.
    ("mistake first", truth([A]), found([(0.9, NOWHERE), (0.8, A)]), 0.5, 0.5),
    ("mistake last", truth([A]), found([(0.9, A), (0.8, NOWHERE)]), 1.0, 1.0),
    # The second box on A is a mistake, so B comes at precision 2/3.
    (
        "duplicate",
        truth([A, B]),
        found([(0.9, A), (0.8, A), (0.7, B)]),
        0.5 + 0.5 * 2 / 3,
        (6 + 5 * 2 / 3) / 11,
    ),
    # The difficult box is neither wanted nor punished, however often it is found.
    (
        "difficult",
        truth([A, B], difficult=[0]),
        found([(0.9, A), (0.85, A), (0.8, B)]),
        1.0,
        1.0,
    ),
    ("crowd", truth([A, B], crowd=[0]), found([(0.9, A), (0.8, B)]), 1.0, 1.0),
    # Equal scores keep the order given: the mistake stands first.
    ("tie", truth([A]), found([(0.5, NOWHERE), (0.5, A)]), 0.5, 0.5),
    # Overlap of exactly one half is enough (the development kit asks for >=).
    ("half overlap", truth([A]), found([(0.9, (0, 0, 10, 5))]), 1.0, 1.0),
    ("too little", truth([A]), found([(0.9, (0, 0, 10, 4.99))]), 0.0, 0.0),
    # 3 of 10 objects reach the recalls 0, 0.1, 0.2 and 0.3.
    (
        "recall of exactly 0.3",
        truth([(20.0 * k, 0, 20.0 * k + 10, 10) for k in range(10)]),
        found([(0.9 - k / 10, (20.0 * k, 0, 20.0 * k + 10, 10)) for k in range(3)]),
        0.3,
        4 / 11,
    ),
]


@pytest.mark.parametrize(
    ("truths", "answers", "every", "eleven"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_hand_computed_cases(
    truths: Annotation, answers: Detections, every: float, eleven: float
) -> None:
    assert voc_ap([truths], [answers], LABELS).mean == pytest.approx(every)
    assert voc_ap([truths], [answers], LABELS, points="11").mean == pytest.approx(eleven)


def test_a_detection_counts_for_the_object_it_overlaps_most_even_if_that_is_taken() -> None:
    near = (0.0, 0.0, 10.0, 12.0)
    answers = found([(0.9, A), (0.8, near)])
    both_fit = truth([A, (0, 0, 10, 20)])
    assert iou(np.array([near]), both_fit.boxes[1:])[0, 0] >= 0.5
    assert voc_ap([both_fit], [answers], LABELS).mean == pytest.approx(0.5)


def test_only_classes_that_occur_count() -> None:
    image = truth([A, B], [1, 2], difficult=[1])
    score = voc_ap([image], [found([(0.9, A)])], LABELS)
    assert [item.label for item in score.classes] == ["cat"]
    assert score.mean == 1.0
    assert occurring([image], [2]) == []


def test_the_mean_is_over_classes_not_objects() -> None:
    image = truth([A, B, C], [1, 1, 2])
    score = voc_ap([image], [found([(0.9, A), (0.8, B)])], LABELS)
    assert score.to_dict()["per_class"] == {"cat": 1.0, "dog": 0.0}
    assert score.mean == pytest.approx(0.5)


def test_no_object_at_all_gives_no_number() -> None:
    for score in (voc_ap([truth([])], [found([(0.5, A)])], LABELS), coco_ap([], [], LABELS)):
        assert np.isnan(score.mean)
        assert score.classes == ()
        assert json.loads(json.dumps(score.to_dict()))["per_class"] == {}


def test_scores_of_sizes_ignore_everything_of_other_sizes() -> None:
    large = (100.0, 100.0, 300.0, 300.0)
    image = truth([A, large])
    answers = found([(0.9, (400, 300, 600, 470)), (0.8, A)])
    summary = voc_ap([image], [answers], LABELS).summary
    assert summary["mAP_small"] == 1.0
    assert summary["mAP_large"] == 0.0
    assert np.isnan(summary["mAP_medium"])


def test_the_curve_belongs_to_the_class() -> None:
    score = voc_ap([truth([A, B])], [found([(0.9, A), (0.8, NOWHERE), (0.7, B)])], LABELS)
    np.testing.assert_allclose(score.classes[0].recall, [0.5, 0.5, 1.0])
    np.testing.assert_allclose(score.classes[0].precision, [1, 1 / 2, 2 / 3])
    assert score.classes[0].objects == 2


def read_boxes(path: Path, corners: bool, scored: bool) -> list[tuple[str, float, Row, bool]]:
    """Read text files of boxes whose last pixel belongs to them."""
    rows = []
    for line in path.read_text().splitlines():
        words = line.split()
        difficult = words[-1] == "difficult"
        words = words[:-1] if difficult else words
        a, b, c, d = (float(word) for word in words[-4:])
        box = (a, b, c + 1, d + 1) if corners else (a, b, a + c + 1, b + d + 1)
        rows.append((words[0], float(words[1]) if scored else 1.0, box, difficult))
    return rows


def read_folder(
    truths: Path, answers: Path, corners: bool
) -> tuple[list[Annotation], list[Detections], tuple[str, ...]]:
    wanted = {path.stem: read_boxes(path, corners, False) for path in sorted(truths.glob("*.txt"))}
    labels = ("background", *sorted({row[0] for rows in wanted.values() for row in rows}))
    images, results = [], []
    for stem, rows in wanted.items():
        images.append(
            truth(
                [row[2] for row in rows],
                [labels.index(row[0]) for row in rows],
                difficult=[k for k, row in enumerate(rows) if row[3]],
            )
        )
        got = [r for r in read_boxes(answers / f"{stem}.txt", corners, True) if r[0] in labels]
        ids = np.array([labels.index(row[0]) for row in got], np.int32)
        plain = found([(row[1], row[2]) for row in got])
        results.append(Detections(plain.boxes, plain.scores, ids, labels))
    return images, results, labels


def test_padilla_published_results(shared_data: Path) -> None:
    folder = shared_data / "eval_oracles" / "padilla_sample_2"
    images, answers, labels = read_folder(folder / "groundtruths", folder / "detections", False)
    every = voc_ap(images, answers, labels, iou_threshold=0.3)
    eleven = voc_ap(images, answers, labels, iou_threshold=0.3, points="11")
    assert every.mean == pytest.approx(0.24568668046928915, abs=1e-9)
    assert eleven.mean == pytest.approx(0.26839826839826836, abs=1e-9)


def test_cartucho_thirty_classes(shared_data: Path) -> None:
    folder = shared_data / "eval_oracles"
    expected = json.loads((folder / "expected_voc_style.json").read_text())["cartucho"]
    images, answers, labels = read_folder(
        folder / "cartucho" / "ground-truth", folder / "cartucho" / "detection-results", True
    )
    score = voc_ap(images, answers, labels)
    assert score.mean == pytest.approx(expected["mAP"], abs=1e-6)
    assert score.to_dict()["per_class"] == pytest.approx(expected["per_class"], abs=1e-6)


def from_coco(
    content: dict[str, Any], results: list[dict[str, Any]]
) -> tuple[list[Annotation], list[Detections], tuple[str, ...]]:
    """Turn a COCO file and COCO results into our values."""
    ids = {item["id"]: k for k, item in enumerate(content["categories"], start=1)}
    labels = ("background", *(item["name"] for item in content["categories"]))
    images, answers = [], []
    for image in content["images"]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        images.append(
            truth(
                [corners(a["bbox"]) for a in own],
                [ids[a["category_id"]] for a in own],
                crowd=[k for k, a in enumerate(own) if a["iscrowd"]],
                areas=[a["area"] for a in own],
            )
        )
        got = [r for r in results if r["image_id"] == image["id"]]
        plain = found([(r["score"], corners(r["bbox"])) for r in got])
        classes = np.array([ids[r["category_id"]] for r in got], np.int32)
        answers.append(Detections(plain.boxes, plain.scores, classes, labels))
    return images, answers, labels


def corners(bbox: Sequence[float]) -> Row:
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


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Annotation], list[Detections]]:
    """Draw a few images whose detections lie on and off the objects."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images, answers = [], []
    for _ in range(draw(st.integers(1, 4))):
        low = rng.uniform(0, 300, (rng.integers(0, 6), 2))
        boxes = np.hstack([low, low + rng.uniform(5, 150, low.shape)])
        crowd = np.flatnonzero(rng.random(len(boxes)) < 0.1).tolist()
        difficult = np.flatnonzero(rng.random(len(boxes)) < 0.1).tolist()
        images.append(truth(boxes, rng.integers(1, 3, len(boxes)), difficult, crowd))
        near = np.repeat(boxes, 2, axis=0) + rng.normal(0, 8, (2 * len(boxes), 4))
        near = near[(near[:, 2:] - near[:, :2] > 1).all(axis=1)].astype(np.float32)
        scores = rng.permutation(1000)[: len(near)].astype(np.float32) / 1000
        ids = rng.integers(1, 3, len(near)).astype(np.int32)
        answers.append(Detections(near, scores, ids, LABELS))
    return images, answers


def pycocotools_summary(
    images: list[Annotation], answers: list[Detections]
) -> dict[str, float] | None:
    """Score with the COCO API itself."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    from realtime_ssd_training.evaluation.coco_metrics import _detections, _ground_truth

    chosen, results = occurring(images), _detections(answers, occurring(images))
    if not chosen or not results:
        return None
    gt = coco.COCO()
    gt.dataset = {"info": {}, **_ground_truth(images, chosen)}
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
def test_coco_equals_the_coco_api(scene: tuple[list[Annotation], list[Detections]]) -> None:
    expected = pycocotools_summary(*scene)
    if expected is not None:
        summary = coco_ap(*scene, LABELS).summary
        ours = {key: -1.0 if np.isnan(value) else value for key, value in summary.items()}
        assert ours == pytest.approx(expected, abs=1e-9)


def outcomes(images: list[Annotation], answers: list[Detections], class_id: int) -> list[bool]:
    """Judge the detections of a class straight from the rules, one after another."""
    entries = [
        (-float(answer.scores[row]), image, row)
        for image, answer in enumerate(answers)
        for row in np.flatnonzero(answer.class_ids == class_id)
    ]
    taken: set[tuple[int, int]] = set()
    judged = []
    for _, image, row in sorted(entries):
        boxes = images[image].boxes.astype(np.float64)
        overlap = iou(answers[image].boxes[row : row + 1].astype(np.float64), boxes)[0]
        overlap[images[image].labels != class_id] = -1
        best = int(overlap.argmax()) if len(overlap) else -1
        if best < 0 or overlap[best] < 0.5:
            judged.append(False)
        elif not (images[image].crowd[best] or images[image].difficult[best]):
            judged.append((image, best) not in taken)
            taken.add((image, best))
    return judged


def wanted_objects(images: list[Annotation], class_id: int) -> int:
    return sum(int(((i.labels == class_id) & ~i.crowd & ~i.difficult).sum()) for i in images)


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_voc_equals_its_definition(scene: tuple[list[Annotation], list[Detections]]) -> None:
    score: Score = voc_ap(*scene, LABELS)
    for item in score.classes:
        class_id = LABELS.index(item.label)
        judged = outcomes(*scene, class_id)
        precision = [sum(judged[:k]) / k for k in range(1, len(judged) + 1)]
        area = sum(max(precision[k:]) for k, hit in enumerate(judged) if hit)
        wanted = wanted_objects(scene[0], class_id)
        assert item.objects == wanted
        assert item.values["AP"] == pytest.approx(area / wanted)


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_voc07_equals_its_definition(scene: tuple[list[Annotation], list[Detections]]) -> None:
    for item in voc_ap(*scene, LABELS, points="11").classes:
        class_id = LABELS.index(item.label)
        judged, wanted = outcomes(*scene, class_id), wanted_objects(scene[0], class_id)
        points = [
            (Fraction(sum(judged[:k]), wanted), sum(judged[:k]) / k)
            for k in range(1, len(judged) + 1)
        ]
        best = [
            max((precision for recall, precision in points if recall >= Fraction(t, 10)), default=0)
            for t in range(11)
        ]
        assert item.values["AP"] == pytest.approx(sum(best) / 11)
