"""Kinds of errors, their order, the score threshold and the contact sheet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from realtime_ssd_training.data import Annotation, open_dataset
from realtime_ssd_training.data.sample import Dataset, Sample
from realtime_ssd_training.evaluation.error_analysis import (
    DetectionError,
    ErrorAnalysis,
    LabeledBox,
    find_errors,
)
from realtime_ssd_training.evaluation.error_sheet import (
    TILE_HEIGHT,
    TILE_WIDTH,
    _crop,
    _tile,
    describe,
    write_error_sheet,
)
from realtime_ssd_training.evaluation.evaluator import evaluate, open_model
from realtime_ssd_training.evaluation.voc_metrics import match_class

from realtime_ssd.core.detections import Detections
from tests.training.bright import write_bright_set
from tests.training.evaluation.scenes import LABELS, A, B, C, annotation, detections, scenes


def test_every_kind_of_error_is_recognized(tiny: Path, tmp_path: Path) -> None:
    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    with open_model(tiny) as backend:
        evaluation = evaluate(backend, dataset, "voc")
    assert evaluation.unknown_classes == ("dark",)
    assert [item.label for item in evaluation.metrics.classes] == ["bright"]
    analysis = evaluation.errors
    assert analysis.counts == {
        "background": 1, "wrong class": 1, "poor box": 1, "duplicate": 0, "missed": 1
    }  # fmt: skip
    assert (analysis.true_positives, analysis.objects) == (3, 5)
    captions = {e.kind: (e.name, describe(e, dataset.labels)) for e in analysis.errors}
    assert captions["background"] == ("3.png", "bright 1.00")
    assert captions["wrong class"] == ("4.png", "bright 1.00\nis dark, IoU 1.00")
    assert captions["poor box"] == ("5.png", "bright 1.00\nIoU 0.33")
    assert captions["missed"] == ("6.png", "bright\nnothing near")
    values = evaluation.to_dict()
    assert values["errors"]["missed"] == 1
    assert values["errors"]["found"] == 3
    assert values["sizes"]["small"] == {"objects": 0, "mAP": None}
    assert values["sizes"]["medium"]["objects"] == 5
    assert sorted(values["per_class"]) == ["bright"]
    metrics = replace(
        evaluation.metrics, summary={**evaluation.metrics.summary, "mAP_medium": 2 / 3}
    )
    values = replace(evaluation, metrics=metrics, errors=replace(analysis, score=1 / 3)).to_dict()
    assert values["errors"]["score"] == 0.333333
    assert values["sizes"]["medium"]["mAP"] == values["mAP_medium"] == 0.666667


def test_duplicates_crowds_and_difficult_objects() -> None:
    image = annotation([A, B, C], crowd=[1], difficult=[2])
    in_crowd = (22.0, 2.0, 26.0, 6.0)  # covers 16 % of the crowd
    detected = detections([(0.9, A), (0.8, A), (0.7, in_crowd), (0.6, C), (0.5, (60, 60, 70, 70))])
    analysis = find_errors([image], [detected], {1, 2}, score=0.0)
    assert [(error.kind, round(error.score, 1)) for error in analysis.errors] == [
        ("duplicate", 0.8),
        ("background", 0.5),
    ]
    assert (analysis.true_positives, analysis.objects) == (1, 1)


def test_crowds_of_another_class_and_difficult_objects_do_not_absorb_detections() -> None:
    inside = (2.0, 2.0, 6.0, 6.0)  # 16 % of the object
    for image in (
        annotation([A, B], [2, 1], crowd=[0]),
        annotation([A, B], [1, 1], difficult=[0]),
    ):
        analysis = find_errors([image], [detections([(0.9, inside)])], {1, 2}, score=0.0)
        assert analysis.errors[0].kind in ("background", "poor box")
    half = annotation([(0, 0, 4, 4)], crowd=[0])
    for width, kinds in ((8.0, []), (8.1, ["poor box"])):
        analysis = find_errors([half], [detections([(0.9, (0, 0, width, 4))])], {1}, score=0.0)
        assert [error.kind for error in analysis.errors] == kinds


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((0, 0, 10, 5), "true positive"),  # IoU 0.5
        ((0, 0, 10, 4.9), "poor box"),
        ((0, 0, 10, 1.01), "poor box"),  # IoU just above 0.1
        ((0, 0, 10, 0.99), "background"),
    ],
)
def test_iou_limits_of_errors(box: tuple[float, float, float, float], kind: str) -> None:
    analysis = find_errors([annotation([A])], [detections([(0.9, box)])], {1}, score=0.0)
    kinds = [error.kind for error in analysis.errors if error.kind != "missed"]
    assert kinds == ([] if kind == "true positive" else [kind])
    if kinds == ["poor box"]:
        assert analysis.errors[0].truth == LabeledBox(1, A)


def test_confusion_is_preferred_to_localization_error() -> None:
    image = annotation([A, (0, 0, 10, 4)], [2, 1])
    (error,) = find_errors([image], [detections([(0.9, A)])], {1, 2}, score=0.0).errors[:1]
    assert (error.kind, error.truth) == ("wrong class", LabeledBox(2, A))


def test_best_f1_determines_the_score_threshold() -> None:
    image = annotation([A, B, C])
    detected = detections([(0.9, A), (0.8, B), (0.3, (60, 60, 70, 70)), (0.2, C)])
    best = find_errors([image], [detected], {1})
    # F1 at thresholds 0.9, 0.8, 0.3 and 0.2: 1/2, 4/5, 2/3, 6/7.
    assert best.score == pytest.approx(0.2)
    assert best.counts["background"] == 1
    strict = find_errors([image], [detected], {1}, score=0.5)
    assert [error.kind for error in strict.errors] == ["missed"]
    assert strict.errors[0].overlap == 1.0
    assert describe(strict.errors[0], ("background", "cat")) == "cat\nnearest: cat 0.20, IoU 1.00"
    assert strict.detected.tolist() == [True, True, False]
    nothing = find_errors([image], [Detections.empty()], {1})
    assert (nothing.score, nothing.true_positives, nothing.counts["missed"]) == (0.0, 0, 3)


def test_ignored_detections_do_not_affect_the_score_threshold() -> None:
    image = annotation([A, B, C], difficult=[1, 2])
    detected = detections([(0.9, B), (0.8, C), (0.7, A), (0.6, (60, 60, 70, 70))])
    assert find_errors([image], [detected], {1}).score == pytest.approx(0.7)


def test_threshold_is_inclusive_for_every_kind() -> None:
    image = annotation([A, B])
    detected = detections([(0.5, A), (0.5, (60, 60, 70, 70))])
    analysis = find_errors([image], [detected], {1}, score=0.5)
    assert (analysis.true_positives, analysis.counts["background"]) == (1, 1)
    # A localization error at the threshold explains the object, so it is not missed.
    poor = detections([(0.5, (0, 0, 10, 4))])
    counts = find_errors([annotation([A])], [poor], {1}, score=0.5).counts
    assert (counts["poor box"], counts["missed"]) == (1, 0)
    counts = find_errors([annotation([A])], [poor], {1}, score=0.6).counts
    assert (counts["poor box"], counts["missed"]) == (0, 1)


def test_missed_objects_are_sorted_by_area_and_false_positives_by_score() -> None:
    image = annotation([A, (100, 100, 200, 200), B], [1, 1, 2])
    detected = detections([(0.6, (300, 300, 310, 310)), (0.9, (320, 300, 330, 310))])
    analysis = find_errors([image], [detected], {1, 2}, score=0.0)
    assert [round(error.score, 1) for error in analysis.worst("background", 5)] == [0.9, 0.6]
    missed = analysis.worst("missed", 5)
    assert [e.truth.box[2] - e.truth.box[0] for e in missed if e.truth] == [100, 10, 10]
    assert analysis.sides.tolist() == [10, 100, 10]
    assert len(analysis.worst("missed", 2)) == 2
    only_cats = find_errors([image], [detected], {1}, score=0.0)
    assert only_cats.counts["missed"] == 2


def test_nearest_detection_of_a_missed_object() -> None:
    image = annotation([A])
    for box, expected in (((0.0, 0.0, 10.0, 1.1), (0, 0, 10, 1.1)), ((0.0, 0.0, 10.0, 0.9), None)):
        (error,) = find_errors([image], [detections([(0.3, box)])], {1}, score=0.5).errors
        assert error.kind == "missed"
        if expected is None:
            assert (error.detection, error.score, error.overlap) == (None, 0.0, 0.0)
        else:
            assert error.detection is not None
            assert error.detection.box == pytest.approx(expected)
            assert error.score == pytest.approx(0.3)


def test_errors_as_plain_values() -> None:
    image = replace(annotation([A], [2]), name="a.png")
    detected = detections([(0.9, (0, 0, 10, 8))])
    analysis = find_errors([annotation([]), image], [Detections.empty(), detected], {1, 2})
    (error,) = analysis.worst("wrong class", 1)
    assert error.image == 1
    assert error.to_dict(LABELS) == {
        "kind": "wrong class",
        "image": "a.png",
        "found": {"label": "cat", "box": [0.0, 0.0, 10.0, 8.0]},
        "score": pytest.approx(0.9, abs=1e-6),
        "object": {"label": "dog", "box": [0.0, 0.0, 10.0, 10.0]},
        "iou": 0.8,
    }


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_true_positives_equal_those_of_the_metric(
    scene: tuple[list[Annotation], list[Detections]],
) -> None:
    analysis = find_errors(*scene, {1, 2}, score=0.0)
    true_positives, num_objects = 0, 0
    for class_id in (1, 2):
        flags, _, objects = match_class(*scene, class_id).classify()
        true_positives, num_objects = true_positives + int(flags.sum()), num_objects + objects
    assert (analysis.true_positives, analysis.objects) == (true_positives, num_objects)
    counts = analysis.counts
    unexplained = num_objects - true_positives - counts["missed"]
    assert 0 <= unexplained <= counts["wrong class"] + counts["poor box"]


def test_sheet_shows_detection_and_object_in_the_crop(tiny: Path, tmp_path: Path) -> None:
    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    with open_model(tiny) as backend:
        analysis = evaluate(backend, dataset).errors
    (error,) = analysis.worst("poor box", 1)
    tile = _tile(error, dataset).astype(int)
    assert tile.shape == (TILE_HEIGHT, TILE_WIDTH, 3)
    blue, green, red = np.moveaxis(tile, 2, 0)
    red_pixels = np.argwhere((red > 180) & (green < 120) & (blue < 120))
    green_pixels = np.argwhere((green > 150) & (red < 120) & (blue < 120))
    # The object lies half a cell to the left of the detection.
    assert green_pixels[:, 1].min() < red_pixels[:, 1].min() - 20
    assert green_pixels[:, 1].max() < red_pixels[:, 1].max() - 20
    sheet = tmp_path / "none.png"
    write_error_sheet(sheet, find_errors([], [], {1}), dataset, "no errors $1$ <b>")
    assert cv2.imread(str(sheet)) is not None


def missed(box: tuple[float, float, float, float]) -> DetectionError:
    return DetectionError("missed", 0, "a.png", None, 0.0, LabeledBox(1, box), 0.0)


def test_crop_contains_the_box_with_a_margin_and_stays_inside_the_image() -> None:
    # The crop is 102 wide, so the scale is 220 / 102 and the region 139.1 × 102.
    left, top, scale = _crop(missed((300, 200, 360, 260)), 640, 480)
    assert scale == pytest.approx(220 / (60 * 1.7))
    assert (left, top) == pytest.approx((330 - 150 / scale, 230 - 110 / scale))
    # At the corner, the region is moved inside the image.
    assert _crop(missed((0, 0, 60, 60)), 640, 480)[:2] == (0, 0)
    left, top, scale = _crop(missed((580, 420, 640, 480)), 640, 480)
    assert (left + 300 / scale, top + 220 / scale) == pytest.approx((640, 480))
    # A small box is shown with at least 40 pixels around it.
    assert _crop(missed((300, 200, 302, 202)), 640, 480)[2] == pytest.approx(220 / 40)
    # A crop is never smaller than the whole image, which is then centered.
    left, top, scale = _crop(missed((0, 0, 100, 400)), 100, 400)
    assert scale == pytest.approx(220 / 400)
    assert (left, top) == pytest.approx((50 - 150 / scale, 0))


def test_captions_shorten_long_names() -> None:
    error = missed((0, 0, 10, 10))
    assert describe(error, ("background", "a" * 18)) == f"{'a' * 18}\nnothing near"
    long_name = "a" * 9 + "b" * 10
    assert describe(error, ("background", long_name)) == f"…{long_name[2:]}\nnothing near"


def test_counts_list_every_kind() -> None:
    empty = ErrorAnalysis(0.5, 0, 0, (), np.zeros(0), np.zeros(0, bool))
    assert set(empty.counts.values()) == {0}
    assert list(empty.counts) == ["background", "wrong class", "poor box", "duplicate", "missed"]


def test_ignored_detection_explains_no_object() -> None:
    image = annotation([A, B], crowd=[0])
    detected = detections([(0.9, (2.0, 2.0, 6.0, 6.0))])
    assert find_errors([image], [detected], {1}, score=0.0).counts["missed"] == 1


def test_duplicate_of_a_detection_with_score_zero() -> None:
    analysis = find_errors([annotation([A])], [detections([(0.0, A), (0.0, A)])], {1}, score=0.0)
    assert (analysis.true_positives, analysis.counts["duplicate"]) == (1, 1)


class Gradient(Dataset):
    """One image of 256 × 200 pixels whose blue value is x and whose green value is y."""

    def __init__(self, truth: Annotation) -> None:
        super().__init__("gradient", LABELS, (0, 1, 2))
        self._truth = truth

    def __len__(self) -> int:
        return 1

    def annotation(self, index: int) -> Annotation:
        return self._truth

    def image_id(self, index: int) -> int:
        return index + 1

    def __getitem__(self, index: int) -> Sample:
        image = np.zeros((200, 256, 3), np.uint8)
        image[..., 0] = np.arange(256)
        image[..., 1] = np.arange(200)[:, None]
        return Sample.of(image, self._truth)


def test_tile_is_the_crop_of_the_image_with_outlines_of_the_boxes() -> None:
    dataset = Gradient(annotation([(100, 80, 120, 100)]))
    error = missed((100, 80, 120, 100))
    left, top, scale = _crop(error, 256, 200)
    tile = _tile(error, dataset).astype(float)
    for x, y in ((105, 85), (110, 92), (98, 105), (90, 78)):
        column, row = round((x - left) * scale), round((y - top) * scale)
        blue, green, red = tile[row, column]
        assert (blue, green, red) == pytest.approx((x, y, 0), abs=0.6)
    for x, y in ((100, 90), (120, 90), (110, 80), (110, 100)):
        column, row = round((x - left) * scale), round((y - top) * scale)
        assert tuple(tile[row, column]) == pytest.approx((60, 190, 60), abs=12)
