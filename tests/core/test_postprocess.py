"""Decoding and NMS, compared with a loop over all candidates and with the NMS of OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, decode, iou
from realtime_ssd.core.postprocess import PostProcessor, RawDetections, to_frame_detections
from realtime_ssd.core.spec import Activation, InputSpec, ModelSpec, Thresholds, read_spec

Floats = NDArray[np.float32]


Row = tuple[float, int, int]
"""Score, default box and class of a detection."""


def reference(spec: ModelSpec, scores: Floats, offsets: Floats) -> list[Row]:
    """Follow the definition, one candidate after another."""
    limits = spec.thresholds
    boxes = offsets
    if spec.coding != "corners":
        order = [1, 0, 3, 2] if spec.coding == "yxhw" else [0, 1, 2, 3]
        boxes = decode(offsets[:, order], spec.boxes.boxes(), spec.variances).astype(np.float32)
    thresholds = limits.class_scores or (limits.score_threshold,) * spec.num_classes
    columns = [column for column in range(spec.num_classes) if column != spec.background]
    groups = [columns] if limits.agnostic_nms else [[column] for column in columns]
    kept: list[Row] = []
    for group in groups:
        candidates = [
            (-scores[row, column], row, column)
            for column in group
            for row in range(len(scores))
            if scores[row, column] > np.float32(thresholds[column])
        ]
        free: list[int] = []
        for score, row, column in sorted(candidates)[: limits.pre_nms_top_k]:
            if not free or (iou(boxes[row][None], boxes[free])[0] <= limits.iou_threshold).all():
                free.append(row)
                kept.append((float(-score), row, column))
    return sorted(kept, key=lambda item: (-item[0], item[1], item[2]))[: limits.max_detections]


def as_list(raw: RawDetections) -> list[Row]:
    return list(
        zip(raw.scores.tolist(), raw.box_indices.tolist(), raw.class_ids.tolist(), strict=True)
    )


def corners_spec(classes: int, limits: Thresholds) -> ModelSpec:
    return ModelSpec(
        name="corners",
        input=InputSpec(32, 32),
        boxes=AnchorSpec(()),
        labels=("background", *(f"c{k}" for k in range(classes))),
        coding="corners",
        activation="none",
        thresholds=limits,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 150),
    classes=st.integers(1, 4),
    levels=st.sampled_from([3, 10, 10**6]),
    limit=st.sampled_from([1, 3, 20, 500]),
    top_k=st.sampled_from([1, 5, 400]),
    by_class=st.booleans(),
    agnostic=st.booleans(),
)
def test_equals_the_reference(
    seed: int,
    count: int,
    classes: int,
    levels: int,
    limit: int,
    top_k: int,
    by_class: bool,
    agnostic: bool,
) -> None:
    random = np.random.default_rng(seed)
    scores = (random.integers(0, levels, (count, classes + 1)) / levels).astype(np.float32)
    corner = random.integers(0, 6, (count, 2)) / 8
    sides = random.integers(0, 5, (count, 2)) / 8  # also empty boxes
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    limits = Thresholds(0.2, 0.5, top_k, limit, agnostic_nms=agnostic)
    if by_class:
        drawn = random.integers(0, 10, classes + 1) / 10
        limits = replace(limits, class_scores=tuple(drawn.tolist()))
    spec = corners_spec(classes, limits)
    assert as_list(PostProcessor(spec)(scores, boxes)) == reference(spec, scores, boxes)


def test_selected_classes_keep_their_thresholds() -> None:
    limits = Thresholds(0.5, class_scores=(0.0, 0.9, 0.1, 0.6))
    scores = np.array([[0, 0.8, 0.2, 0.7], [0, 0.95, 0.05, 0.5]], np.float32)
    boxes = np.array([[0, 0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]], np.float32)
    found = PostProcessor(corners_spec(3, limits), (2, 3))(scores, boxes)
    assert found.class_ids.tolist() == [3, 2]
    assert found.scores.tolist() == pytest.approx([0.7, 0.2])
    assert found.box_indices.tolist() == [0, 0]


def test_nms_over_all_classes_equals_that_of_opencv() -> None:
    random = np.random.default_rng(5)
    low = random.random((80, 2)) * 0.7
    boxes = np.concatenate([low, low + 0.1 + random.random((80, 2)) * 0.2], 1).astype(np.float32)
    scores = np.zeros((80, 4), np.float32)
    scores[np.arange(80), random.integers(1, 4, 80)] = random.random(80)
    spec = corners_spec(3, Thresholds(0.3, 0.4, agnostic_nms=True))
    rectangles = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) * 1000
    expected = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.max(axis=1).tolist(), 0.3, 0.4)
    found = PostProcessor(spec)(scores, boxes)
    assert found.box_indices.tolist() == np.asarray(expected).ravel().tolist()
    assert len(set(found.class_ids.tolist())) == 3


def test_box_with_iou_at_the_threshold_is_kept() -> None:
    spec = corners_spec(1, Thresholds(0.1, 0.5))
    boxes = np.array([[0, 0, 0.5, 1], [0, 0, 0.25, 1], [0, 0, 0.3, 1]], np.float32)
    scores = np.array([[0, 0.9], [0, 0.8], [0, 0.7]], np.float32)
    # The second has an IoU of exactly 0.5 with the first, the third one of 0.6.
    assert PostProcessor(spec)(scores, boxes).box_indices.tolist() == [0, 1]


@pytest.mark.parametrize("threshold", [0.3, 0.05, 0.01])
def test_recorded_heads(coco_model: Path, shared_data: Path, threshold: float) -> None:
    spec = read_spec(coco_model).with_thresholds(score_threshold=threshold)
    for name in ("dog", "000009"):
        heads = np.load(shared_data / f"golden/onnx_heads/{name}.npz")
        scores = np.asarray(heads["class_scores"], np.float32).reshape(-1, 91)
        offsets = np.asarray(heads["box_encodings"], np.float32).reshape(-1, 4)
        assert as_list(PostProcessor(spec)(scores, offsets)) == reference(spec, scores, offsets)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 80))
def test_equals_opencv(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.6, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.05, 0.4, (count, 2))], 1)
    boxes = boxes.astype(np.float32)
    scores = np.zeros((count, 2), np.float32)
    scores[:, 1] = random.permutation(count) / count * 0.8 + 0.1
    spec = corners_spec(1, Thresholds(0.05, 0.45, 400, 400))
    sized = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in (boxes * 1000).tolist()]
    expected = cv2.dnn.NMSBoxes(sized, scores[:, 1].tolist(), 0.05, 0.45)
    kept = PostProcessor(spec)(scores, boxes).box_indices.tolist()
    assert kept == np.asarray(expected).ravel().tolist()


def softmax(scores: Floats) -> Floats:
    powers = np.exp(scores.astype(np.float64))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def sigmoid(scores: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-scores.astype(np.float64))), np.float32)


ACTIVATIONS: dict[Activation, Callable[[Floats], Floats]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": lambda scores: scores,
}


def decoding_spec(**changes: Any) -> ModelSpec:
    """Return a specification of 24 default boxes, four classes and a background."""
    layer = AnchorLayer(3, 4, 1 / 3, 1 / 4, ((0.3, 0.4), (0.6, 0.5)))
    return ModelSpec(
        name="decoding",
        input=InputSpec(32, 32),
        boxes=AnchorSpec((layer,)),
        labels=("background", "a", "b", "c", "d"),
        **changes,
    )


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("background", [0, 3, None])
@pytest.mark.parametrize("coding", ["xywh", "yxhw"])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.6, 1.0])
def test_raw_outputs_equal_the_reference(
    activation: Activation, background: int | None, coding: str, threshold: float
) -> None:
    random = np.random.default_rng(5)
    spec = decoding_spec(
        activation=activation,
        background=background,
        coding=coding,
        thresholds=Thresholds(threshold, 0.45, 10, 15),
    )
    scores = random.normal(0, 2, (24, 5)).astype(np.float32)
    offsets = random.normal(0, 1, (24, 4)).astype(np.float32)
    processor = PostProcessor(spec)
    probabilities = ACTIVATIONS[activation](scores)
    assert np.allclose(processor.activate(scores), probabilities, rtol=1e-5)
    raw = processor(scores, offsets)
    expected = reference(spec, processor.activate(scores), offsets)
    assert as_list(raw) == expected
    assert bool(expected) == (threshold < 1 or activation == "none")
    assert np.array_equal(raw.boxes, processor.decode(raw.box_indices, offsets))
    assert (raw.class_ids.dtype.name, raw.box_indices.dtype.name) == ("int32", "int64")


def test_softmax_of_large_scores() -> None:
    spec = decoding_spec()
    scores = np.zeros((24, 5), np.float32)
    scores[7, 2] = 500
    raw = PostProcessor(spec)(scores, np.zeros((24, 4), np.float32))
    assert as_list(raw) == [(1.0, 7, 2)]


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.9])
def test_softmax_just_above_the_threshold_is_kept(threshold: float) -> None:
    """Most rows are skipped by a bound on their logits, which must not exclude a detection."""
    spec = replace(
        corners_spec(1, Thresholds(threshold)), activation="softmax", labels=("background", "a")
    )
    scores = np.zeros((2, 2), np.float32)
    scores[:, 1] = np.log(threshold / (1 - threshold)) + np.array([-5e-4, 5e-4])
    boxes = np.array([[0, 0, 0.1, 0.1], [0.5, 0.5, 1, 1]], np.float32)
    assert PostProcessor(spec)(scores, boxes).box_indices.tolist() == [1]


@pytest.mark.parametrize("background", [0, 3, None])
def test_only_selected_classes_are_detected(background: int | None) -> None:
    random = np.random.default_rng(6)
    spec = decoding_spec(background=background, thresholds=Thresholds(0.1))
    scores = random.normal(0, 2, (24, 5)).astype(np.float32)
    offsets = random.normal(0, 1, (24, 4)).astype(np.float32)
    everything = as_list(PostProcessor(spec)(scores, offsets))
    selected = as_list(PostProcessor(spec, (4, 1))(scores, offsets))
    assert selected == [row for row in everything if row[2] in (1, 4)]
    assert 0 < len(selected) < len(everything)


@pytest.mark.parametrize("clip", [False, True])
def test_boxes_are_clipped_before_nms_only_if_specified(clip: bool) -> None:
    spec = replace(corners_spec(1, Thresholds(0.1, 0.45)), clip_before_nms=clip)
    # Inside the image both boxes are equal; without clipping their IoU is 2/9, the threshold 0.45.
    boxes = np.array([[0, 0, 0.5, 1], [-1, 0, 0.5, 1.5]], np.float32)
    scores = np.array([[0, 0.8], [0, 0.9]], np.float32)
    raw = PostProcessor(spec)(scores, boxes)
    assert raw.box_indices.tolist() == ([1] if clip else [1, 0])
    assert (raw.boxes.min(), raw.boxes.max()) == ((0, 1) if clip else (-1, 1.5))


def test_detections_of_a_frame_are_clipped_to_it() -> None:
    spec = corners_spec(1, Thresholds(0.1))
    raw = RawDetections(
        np.array([[0.25, 0.5, 2, 0.75]], np.float32),
        np.array([0.9], np.float32),
        np.array([1], np.int32),
        np.array([0]),
    )
    detections = to_frame_detections(raw, spec, 200, 100)
    assert detections.boxes.tolist() == [[50, 50, 200, 75]]
    assert detections[0].label == "c0"


def test_no_boxes_and_no_candidates() -> None:
    spec = corners_spec(2, Thresholds(0.1))
    for count in (0, 3):
        raw = PostProcessor(spec)(np.zeros((count, 3), "f4"), np.zeros((count, 4), "f4"))
        assert (len(raw.scores), raw.boxes.shape) == (0, (0, 4))
    softmax_spec = replace(spec, activation="softmax")
    raw = PostProcessor(softmax_spec)(np.zeros((0, 3), "f4"), np.zeros((0, 4), "f4"))
    assert len(raw.scores) == 0


@pytest.mark.parametrize("seed", range(3))
def test_many_candidates_in_several_groups_and_chunks(seed: int) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.9, (3000, 2))
    sides = random.uniform(0.01, 0.3, (3000, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    scores = random.integers(0, 500, (3000, 4)).astype(np.float32) / np.float32(500)
    spec = corners_spec(3, Thresholds(0.05, 0.3, 900, (20, 100, 1000)[seed]))
    assert as_list(PostProcessor(spec)(scores, boxes)) == reference(spec, scores, boxes)
