"""Explanations agree with post-processing, and their parts with each other."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, iou, to_center
from realtime_ssd.core.explanation import Explanation, explain
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds

SIZES = ((0.3, 0.2), (0.2, 0.4))
LAYERS = (
    AnchorLayer(6, 8, 1 / 6, 1 / 8, SIZES),
    AnchorLayer(2, 3, 1 / 2, 1 / 3, (*SIZES, (0.6, 0.6))),
)
SPEC = ModelSpec(
    name="random",
    input=InputSpec(160, 120, "BGR"),
    boxes=AnchorSpec(LAYERS),
    labels=("background", "cat", "dog", "hen"),
    thresholds=Thresholds(score_threshold=0.4, iou_threshold=0.4, max_detections=1000),
)
SPECS = {
    "softmax": SPEC,
    "sigmoid": replace(SPEC, activation="sigmoid", background=None),
    "TensorFlow": replace(SPEC, coding="yxhw", clip_before_nms=True),
    "letterbox": replace(SPEC, input=replace(SPEC.input, resize="letterbox")),
    "explicit boxes": replace(SPEC, boxes=AnchorSpec.from_array(AnchorSpec(LAYERS).boxes())),
    "agnostic": SPEC.with_thresholds(agnostic_nms=True),
    "by class": SPEC.with_thresholds(class_scores=(0.0, 0.3, 0.9, 0.5)),
    "few": SPEC.with_thresholds(score_threshold=0.2, pre_nms_top_k=5),
}
WIDTH, HEIGHT = 640, 200


def outputs(spec: ModelSpec, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    scores = random.normal(0, 2, (spec.num_boxes, spec.num_classes)).astype(np.float32)
    return scores, random.normal(0, 0.7, (spec.num_boxes, 4)).astype(np.float32)


def explained(name: str, seed: int = 0) -> tuple[ModelSpec, Explanation]:
    spec = SPECS[name]
    return spec, explain(spec, *outputs(spec, seed), WIDTH, HEIGHT)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("seed", range(3))
def test_detections_are_those_of_post_processing(name: str, seed: int) -> None:
    spec, explanation = explained(name, seed)
    raw = PostProcessor(spec)(*outputs(spec, seed))
    expected = to_frame_detections(raw, spec, WIDTH, HEIGHT)
    found = [item.candidate for item in explanation.detections]
    assert len(found) == len(expected) > 5
    for candidate, detection in zip(found, expected, strict=True):
        assert (candidate.label, candidate.class_id) == (detection.label, detection.class_id)
        assert candidate.score == detection.score
        assert candidate.box == pytest.approx(detection.box)
    assert [item.origin.index for item in found] == raw.box_indices.tolist()


@pytest.mark.parametrize("name", [name for name in SPECS if name != "few"])
def test_every_candidate_is_a_detection_or_a_rival(name: str) -> None:
    spec, explanation = explained(name)
    rivals = [rival for item in explanation.detections for rival in item.rivals]
    pairs = [(r.candidate.origin.index, r.candidate.class_id) for r in rivals]
    pairs += [(d.candidate.origin.index, d.candidate.class_id) for d in explanation.detections]
    assert len(pairs) == len(set(pairs)) == explanation.candidates
    assert rivals
    for item in explanation.detections:
        assert [r.candidate.score for r in item.rivals] == sorted(
            (r.candidate.score for r in item.rivals), reverse=True
        )
        for rival in item.rivals:
            assert rival.candidate.score <= item.candidate.score
            assert rival.candidate.score > rival.candidate.threshold
            assert rival.iou > spec.thresholds.iou_threshold
            same = rival.candidate.class_id == item.candidate.class_id
            assert same or spec.thresholds.agnostic_nms


@pytest.mark.parametrize("name", SPECS)
def test_near_misses_are_below_their_threshold_and_free(name: str) -> None:
    spec, explanation = explained(name)
    misses = explanation.near_misses
    assert misses
    scores = [miss.score for miss in misses]
    assert scores == sorted(scores, reverse=True)
    others = [item.candidate for item in explanation.detections]
    for number, miss in enumerate(misses):
        assert 0.05 < miss.score <= miss.threshold
        if spec.clip_before_nms or spec.input.resize == "letterbox":
            continue  # NMS sees other boxes than those clipped to the image
        for other in (*others, *misses[:number]):
            inside = max(*other.box[:2], *miss.box[:2]) > 0 and other.class_id == miss.class_id
            if inside and max(*other.box, *miss.box) < 199:
                overlap = iou(np.array([other.box]), np.array([miss.box]))[0, 0]
                assert overlap <= spec.thresholds.iou_threshold + 1e-6


def test_a_near_miss_is_not_one_that_a_detection_would_suppress() -> None:
    layer = AnchorLayer(1, 3, 1.0, 1 / 3, ((0.3, 0.5), (0.3, 0.6)))
    spec = replace(SPEC, boxes=AnchorSpec((layer,)), activation="none", background=None)
    scores = np.zeros((6, 4), np.float32)
    scores[0, 1], scores[1, 1], scores[1, 2] = 0.9, 0.38, 0.3  # two boxes of the first cell
    scores[4, 1], scores[5, 1] = 0.35, 0.36  # two of the third cell
    explanation = explain(spec, scores, np.zeros((6, 4), np.float32), WIDTH, HEIGHT)
    assert [item.candidate.origin.index for item in explanation.detections] == [0]
    found = [(item.origin.index, item.label) for item in explanation.near_misses]
    assert found == [(5, "cat"), (1, "dog")]


def test_the_near_misses_of_a_higher_threshold_contain_detections_of_a_lower_one() -> None:
    scores, offsets = outputs(SPEC, 1)
    low = explain(SPEC.with_thresholds(score_threshold=0.7), scores, offsets, WIDTH, HEIGHT)
    best = low.detections[0].candidate
    high = explain(SPEC.with_thresholds(score_threshold=0.999), scores, offsets, WIDTH, HEIGHT)
    assert not high.detections or high.detections[0].candidate.box == best.box
    assert best.box in [item.box for item in high.near_misses] + [
        item.candidate.box for item in high.detections
    ]


def test_origins_name_the_default_box() -> None:
    _, explanation = explained("softmax")
    boxes = SPEC.boxes.boxes()
    seen = set()
    for item in explanation.detections:
        origin = item.candidate.origin
        layer = LAYERS[origin.feature_map - 1]
        seen.add(origin.feature_map)
        assert (origin.feature_maps, origin.grid) == (2, (layer.rows, layer.columns))
        assert origin.shapes == len(layer.sizes)
        row, column = origin.cell
        center = (column - 0.5) * layer.step_x, (row - 0.5) * layer.step_y
        expected = (*center, *layer.sizes[origin.shape - 1])
        assert boxes[origin.index] == pytest.approx(expected, abs=1e-6)
        assert origin.box is not None
        pixels = to_center(np.array([origin.box]))[0] / [WIDTH, HEIGHT, WIDTH, HEIGHT]
        assert pixels == pytest.approx(expected, abs=1e-6)
        assert 0 <= origin.iou <= 1
    assert seen == {1, 2}


def test_default_boxes_of_letterboxed_images_are_in_pixels_of_the_image() -> None:
    spec, explanation = explained("letterbox")
    origin = explanation.detections[0].candidate.origin
    assert origin.box is not None
    # 640 × 200 becomes 160 × 50 in the middle of 160 × 120: one pixel of the input is 4.
    x, y, w, h = spec.boxes.boxes()[origin.index] * [160, 120, 160, 120]
    expected = ((x - w / 2) * 4, (y - h / 2 - 35) * 4, (x + w / 2) * 4, (y + h / 2 - 35) * 4)
    assert origin.box == pytest.approx(expected, abs=1e-3)


def test_graphs_that_decode_boxes_and_lists_of_boxes() -> None:
    spec = replace(SPEC, coding="corners")
    scores, _ = outputs(spec, 0)
    corners = np.tile(np.array([0.1, 0.1, 0.5, 0.6], np.float32), (spec.num_boxes, 1))
    (first, *_) = explain(spec, scores, corners, WIDTH, HEIGHT).detections
    assert first.candidate.origin.box is None
    assert first.rivals[0].iou == pytest.approx(1)
    _, explanation = explained("explicit boxes")
    origin = explanation.detections[0].candidate.origin
    assert (origin.feature_map, origin.shapes) == (0, 0)
    assert origin.box is not None


def test_selected_classes_and_json() -> None:
    explanation = explain(SPEC, *outputs(SPEC, 0), WIDTH, HEIGHT, classes=(2,))
    everything = [
        *(item.candidate for item in explanation.detections),
        *explanation.near_misses,
        *(rival.candidate for item in explanation.detections for rival in item.rivals),
    ]
    assert {item.label for item in everything} == {"dog"}
    values = json.loads(json.dumps(explanation.to_dict()))
    assert values["detections"][0]["candidate"]["label"] == "dog"


def test_nothing_detected() -> None:
    scores = np.zeros((SPEC.num_boxes, 4), np.float32)
    scores[:, 0] = 20
    explanation = explain(SPEC, scores, np.zeros((SPEC.num_boxes, 4), np.float32), 10, 10)
    assert (explanation.detections, explanation.near_misses, explanation.candidates) == ((), (), 0)
