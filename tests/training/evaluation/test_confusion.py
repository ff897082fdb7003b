"""Confusion matrix against supervision's, and thresholds against an exhaustive search."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from realtime_ssd_training.cli.evaluate import evaluate
from realtime_ssd_training.data import Annotation
from realtime_ssd_training.evaluation.confusion import (
    ConfusionMatrix,
    advise_thresholds,
    count_confusions,
)
from realtime_ssd_training.evaluation.confusion_plot import MAX_CLASSES, draw_confusions

from realtime_ssd.core.detections import Detections
from tests.training.bright import write_bright_set

LABELS = ("background", "cat", "dog", "hen")
Row = tuple[tuple[float, float, float, float], int]


def truth(
    rows: list[Row], difficult: tuple[int, ...] = (), crowd: tuple[int, ...] = ()
) -> Annotation:
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    count = np.arange(len(rows))
    return Annotation(
        name="a",
        width=500,
        height=500,
        boxes=boxes,
        labels=np.array([label for _, label in rows], np.int64),
        difficult=np.isin(count, difficult),
        crowd=np.isin(count, crowd),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
    )


def detected(rows: list[tuple[Row, float]]) -> Detections:
    rows = sorted(rows, key=lambda item: -item[1])
    return Detections(
        np.array([box for (box, _), _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score in rows], np.float32),
        np.array([label for (_, label), _ in rows], np.int32),
        LABELS,
    )


def cell(number: int, shift: float = 0) -> tuple[float, float, float, float]:
    """Return one of 25 boxes far from each other."""
    x, y = 100.0 * (number % 5), 100.0 * (number // 5)
    return x + shift, y, x + shift + 60, y + 60


def matrix(
    truths: list[Annotation], found: list[Detections], score: float = 0.5
) -> ConfusionMatrix:
    return count_confusions(truths, found, LABELS, {1, 2, 3}, (), score)


def test_objects_are_counted_by_what_they_are_detected_as() -> None:
    objects: list[Row] = [(cell(0), 1), (cell(1), 1), (cell(2), 2), (cell(3), 3)]
    found = [
        ((cell(0, 5), 1), 0.9),  # right
        ((cell(1), 2), 0.8),  # a cat taken for a dog
        ((cell(2), 2), 0.4),  # below the threshold
        ((cell(9), 3), 0.7),  # no object
        ((cell(0, 2), 1), 0.6),  # duplicate
    ]
    counts = matrix([truth(objects)], [detected(found)]).counts
    assert counts.tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 0]]
    labels = matrix([truth([])], [detected([])]).labels
    assert labels == ("cat", "dog", "hen", "background")


def test_ignored_objects_count_for_nothing() -> None:
    objects: list[Row] = [(cell(0), 1), ((200, 200, 500, 500), 2)]
    inside = ((220.0, 220.0, 260.0, 260.0), 2)
    found = [((cell(0), 1), 0.9), (inside, 0.8), ((cell(4), 1), 0.7)]
    counts = matrix([truth(objects, difficult=(0,), crowd=(1,))], [detected(found)]).counts
    assert counts.sum() == 1
    assert counts[3, 0] == 1


def test_counts_equal_those_of_supervision() -> None:
    sv = pytest.importorskip("supervision")
    random = np.random.default_rng(5)
    truths, found = [], []
    for _ in range(40):
        cells = random.permutation(25)[: random.integers(0, 12)]
        objects: list[Row] = [(cell(k), int(random.integers(1, 4))) for k in cells]
        rows = []
        for number, (box, label) in enumerate(objects):
            if random.random() < 0.7:
                other = label if random.random() < 0.7 else int(random.integers(1, 4))
                shifted = cell(int(cells[number]), random.uniform(0, 10))
                rows.append(((shifted, other), float(random.uniform(0.1, 1))))
            assert box
        for k in set(range(25)) - set(cells.tolist()):
            if random.random() < 0.1:
                rows.append(((cell(k), int(random.integers(1, 4))), float(random.uniform(0.1, 1))))
        truths.append(truth(objects))
        found.append(detected(rows))
    ours = matrix(truths, found).counts
    theirs = sv.ConfusionMatrix.from_detections(
        predictions=[
            sv.Detections(d.boxes, class_id=d.class_ids.astype(int) - 1, confidence=d.scores)
            for d in found
        ],
        targets=[sv.Detections(t.boxes, class_id=t.labels - 1) for t in truths],
        classes=["cat", "dog", "hen"],
        conf_threshold=0.5,
        iou_threshold=0.5,
    ).matrix
    assert ours.tolist() == theirs.astype(int).tolist()
    assert ours.sum() > 200


def test_thresholds_have_the_best_f1_of_an_exhaustive_search() -> None:
    random = np.random.default_rng(8)
    truths = [truth([(cell(k), 1) for k in range(15)]) for _ in range(8)]
    found = []
    for _ in truths:
        rows = [((cell(k, random.uniform(0, 25)), 1), float(random.beta(5, 2))) for k in range(15)]
        rows += [((cell(k), 1), float(random.beta(2, 4))) for k in range(15, 25)]
        found.append(detected([(row, round(score, 2)) for row, score in rows]))
    (advice,) = advise_thresholds(truths, found, LABELS, {1, 2})
    assert advice.label == "cat"

    def f1(score: float) -> float:
        kept = [d.select(d.scores > score) for d in found]
        counts = count_confusions(truths, kept, LABELS, {1}, (), 0.0).counts
        return float(2 * counts[0, 0] / (2 * counts[0, 0] + counts[0, 1] + counts[1, 0]))

    best = max(f1(score / 1000 - 0.0005) for score in range(1001))
    assert advice.f1 == pytest.approx(best)
    assert f1(advice.score) == pytest.approx(best)
    harmonic = 2 * advice.precision * advice.recall / (advice.precision + advice.recall)
    assert advice.f1 == pytest.approx(harmonic)


def test_a_threshold_does_not_separate_equal_scores() -> None:
    found = [detected([((cell(0), 1), 0.8), ((cell(1), 1), 0.5), ((cell(2), 1), 0.5)])]
    (advice,) = advise_thresholds([truth([(cell(0), 1), (cell(1), 1)])], found, LABELS, {1})
    assert (advice.label, advice.score, advice.recall) == ("cat", 0.25, 1.0)
    assert (advice.precision, advice.f1) == pytest.approx((2 / 3, 0.8))
    assert advise_thresholds([truth([(cell(9), 1)])], found, LABELS, {1}) == ()


def test_the_matrix_is_drawn_for_any_number_of_classes(tmp_path: Path) -> None:
    for count in (1, MAX_CLASSES + 20):
        counts = np.diag(np.arange(1, count + 2))
        labels = (*(f"$class_{k}" for k in range(count)), "background")
        draw_confusions(tmp_path / "m.png", ConfusionMatrix(labels, counts, {}), "title $")
        image = cv2.imread(str(tmp_path / "m.png"))
        assert image is not None
        assert image.shape[0] > 400


def test_the_report_has_thresholds_and_a_confusion_matrix(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"coco:{write_bright_set(tmp_path / 'data', ('Bright', 'dark'))}"
    folder = tmp_path / "report"
    evaluate(str(tiny), data=data, report=folder)
    values = json.loads((folder / "evaluation.json").read_text())
    assert values["confusion"]["labels"] == ["Bright", "background"]
    assert values["confusion"]["counts"] == [[3, 2], [3, 0]]
    assert values["thresholds"]["Bright"]["recall"] == pytest.approx(0.6)
    assert (folder / "confusion.png").is_file()
    # The option takes the name that the model has.
    assert "best thresholds (mean F1 0.545): --score-threshold bright=" in capsys.readouterr().out
