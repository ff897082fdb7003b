"""Decode and NMS kernels, executed on the host, against the numpy reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from realtime_ssd_engines.cuda.kernel_params import Precision

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, cell_sizes
from realtime_ssd.core.postprocess import PostProcessor, RawDetections
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from tests.engines.cuda.host_kernels import HostDetector


def make_spec(classes: int = 5, cells: int = 6, **changes: Any) -> ModelSpec:
    """Return a small model: cells × cells × 4 default boxes and one for the whole image."""
    layer = AnchorLayer(cells, cells, 1 / cells, 1 / cells, cell_sizes(0.2, 0.3, (2.0,)))
    anchors = AnchorSpec((layer, AnchorLayer(1, 1, 1.0, 1.0, ((0.9, 0.9),))))
    labels = ("background", *(f"class {i}" for i in range(1, classes)))
    limits = Thresholds(
        score_threshold=0.3, iou_threshold=0.45, pre_nms_top_k=40, max_detections=20
    )
    base = ModelSpec("test", InputSpec(64, 64), anchors, labels, thresholds=limits)
    return replace(base, **changes)


def random_heads(
    spec: ModelSpec, images: int, seed: int, spread: float = 3.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return random logits (or probabilities) and offsets that FP16 represents exactly."""
    rng = np.random.default_rng(seed)
    shape = (images, spec.num_boxes)
    scores = rng.normal(0, spread, (*shape, spec.num_classes))
    if spec.activation == "none":
        scores = rng.random((*shape, spec.num_classes))
    offsets = rng.normal(0, 1.0, (*shape, 4))
    exact_scores, exact_offsets = scores.astype(np.float16), offsets.astype(np.float16)
    return exact_scores.astype(np.float32), exact_offsets.astype(np.float32)


def assert_same(got: RawDetections, expected: RawDetections, exact: bool = False) -> None:
    """Assert equal rows, in an order that may differ only within rounding errors of the scores."""
    assert len(got.scores) == len(expected.scores)
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-5, atol=0)
    assert (np.diff(got.scores) <= 0).all()

    def rows(raw: RawDetections) -> list[tuple[int, int]]:
        return list(zip(raw.box_indices.tolist(), raw.class_ids.tolist(), strict=True))

    if exact:
        assert rows(got) == rows(expected)
    assert sorted(rows(got)) == sorted(rows(expected))
    order = {key: i for i, key in enumerate(rows(expected))}
    indices = [order[key] for key in rows(got)]
    np.testing.assert_allclose(got.boxes, expected.boxes[indices], rtol=1e-5, atol=1e-6)


# So many detections are kept that all thresholds matter.
LIMITS = replace(make_spec().thresholds, max_detections=1000)
CASES: dict[str, dict[str, Any]] = {
    "softmax": {},
    "sigmoid": {"activation": "sigmoid"},
    "probabilities": {"activation": "none", "coding": "yxhw"},
    "clipped": {"clip_before_nms": True},
    "no background": {"activation": "sigmoid", "background": None},
    "last background": {"background": 4},
    "scores by class": {"thresholds": replace(LIMITS, class_scores=(0, 0.3, 0.9, 0.05, 0.6))},
    "scores by class, sigmoid": {
        "activation": "sigmoid",
        "thresholds": replace(LIMITS, class_scores=(0, 0.9, 0.5, 0.99, 0.7)),
    },
    "all classes as one": {"thresholds": replace(LIMITS, agnostic_nms=True)},
    "all classes as one, no background": {
        "activation": "none",
        "background": None,
        "thresholds": replace(LIMITS, agnostic_nms=True, class_scores=(0.2, 0.5, 0.9, 0.7, 0.4)),
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_batch_equals_reference(case: str, precision: Precision) -> None:
    spec = make_spec(**CASES[case])
    detector = HostDetector(spec, 3, precision, precision)
    scores, offsets = random_heads(spec, 3, seed=1)
    for image, (header, raw) in enumerate(detector(scores, offsets, seed=5)):
        expected = PostProcessor(spec)(scores[image], offsets[image])
        assert header.overflow == header.nan_boxes == 0
        assert len(expected.scores) > 5
        assert_same(raw, expected, exact=spec.activation == "none")


def test_corner_coding_returns_the_offsets_as_boxes() -> None:
    spec = make_spec(activation="none", coding="corners")
    rng = np.random.default_rng(3)
    low = rng.random((1, spec.num_boxes, 2)) * 0.7
    corners = np.concatenate([low, low + 0.05 + rng.random(low.shape) * 0.3], -1).astype(np.float32)
    scores, _ = random_heads(spec, 1, seed=3)
    ((_, raw),) = HostDetector(spec, 1)(scores, corners)
    expected = PostProcessor(spec)(scores[0], corners[0])
    assert_same(raw, expected, exact=True)
    np.testing.assert_array_equal(raw.boxes, corners[0][raw.box_indices])


def test_corner_boxes_are_clipped_before_nms_if_specified() -> None:
    limits = Thresholds(score_threshold=0.1, iou_threshold=0.5, pre_nms_top_k=40, max_detections=20)
    spec = make_spec(activation="none", clip_before_nms=True, coding="corners", thresholds=limits)
    offsets = np.zeros((1, spec.num_boxes, 4), np.float32)
    scores = np.zeros((1, spec.num_boxes, spec.num_classes), np.float32)
    # The boxes overlap by more than 0.5 only after clipping.
    offsets[0, :2] = np.array([[0, 0, 1, 1], [0, 0, 1.5, 1.5]], np.float32)
    scores[0, :2, 1] = [0.9, 0.8]
    ((_, raw),) = HostDetector(spec, 1)(scores, offsets)
    assert raw.box_indices.tolist() == [0]
    assert_same(raw, PostProcessor(spec)(scores[0], offsets[0]), exact=True)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    score=st.sampled_from([0.0, 0.01, 0.3, 0.9, 1.0]),
    nms=st.sampled_from([0.0, 0.2, 0.45, 1.0]),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_ties_and_extreme_thresholds(seed: int, score: float, nms: float, levels: int) -> None:
    """Scores with few distinct values have many ties; their order must equal the reference's."""
    limits = Thresholds(
        score_threshold=score, iou_threshold=nms, pre_nms_top_k=40, max_detections=20
    )
    spec = make_spec(activation="none", thresholds=limits)
    scores, offsets = random_heads(spec, 2, seed)
    scores = (np.floor(scores * levels) / levels).astype(np.float32)
    for image, (_, raw) in enumerate(HostDetector(spec, 2)(scores, offsets, seed % 1000)):
        assert_same(raw, PostProcessor(spec)(scores[image], offsets[image]), exact=True)


def test_results_do_not_depend_on_thread_order() -> None:
    spec = make_spec()
    detector = HostDetector(spec, 2)
    scores, offsets = random_heads(spec, 2, seed=9)
    first = detector(scores, offsets, seed=0)
    for seed in range(1, 8):
        for (_, one), (_, two) in zip(first, detector(scores, offsets, seed), strict=True):
            np.testing.assert_array_equal(one.boxes, two.boxes)
            np.testing.assert_array_equal(one.scores, two.scores)
            np.testing.assert_array_equal(one.box_indices, two.box_indices)


def test_iou_exactly_at_the_threshold_is_kept() -> None:
    limits = Thresholds(score_threshold=0.1, iou_threshold=0.5, pre_nms_top_k=40, max_detections=20)
    spec = make_spec(activation="none", coding="corners", thresholds=limits)
    offsets = np.zeros((1, spec.num_boxes, 4), np.float32)
    scores = np.zeros((1, spec.num_boxes, spec.num_classes), np.float32)
    boxes = [[0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0, 1, 0.625]]
    offsets[0, :3] = np.array(boxes, np.float32)
    scores[0, :3, 1] = [0.9, 0.8, 0.7]
    ((_, raw),) = HostDetector(spec, 1)(scores, offsets)
    assert raw.box_indices.tolist() == [0, 1]
    assert_same(raw, PostProcessor(spec)(scores[0], offsets[0]), exact=True)


def test_nan_and_infinity_are_counted_and_do_not_affect_other_images() -> None:
    spec = make_spec()
    detector = HostDetector(spec, 2)
    scores, offsets = random_heads(spec, 2, seed=4)
    clean = detector(scores, offsets)
    scores[0, 3, 1] = np.nan
    offsets[0, 7] = np.nan
    offsets[0, 8] = np.inf
    damaged = detector(scores, offsets)
    assert damaged[0][0].nan_boxes == 2
    assert damaged[1][0].nan_boxes == 0
    np.testing.assert_array_equal(damaged[1][1].boxes, clean[1][1].boxes)


@pytest.mark.parametrize("clip", [False, True])
def test_a_box_with_nan_suppresses_nothing(clip: bool) -> None:
    """Infinite offsets decode to NaN; in numpy such a box overlaps no other."""
    spec = make_spec(clip_before_nms=clip)
    scores, offsets = random_heads(spec, 1, seed=8)
    scores[0, :, 0] = 9.0
    scores[0, 40:60, 1] = np.linspace(12, 14, 20)
    offsets[0, 59] = [np.inf, np.inf, 1e4, 1e4]
    ((header, raw),) = HostDetector(spec, 1)(scores, offsets)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = PostProcessor(spec)(scores[0], offsets[0])
    assert header.nan_boxes == 0
    assert np.isnan(raw.boxes[0]).any()
    assert len(raw.scores) > 5
    assert_same(raw, expected, exact=True)


@pytest.mark.parametrize(("classes", "cells"), [(3, 4), (33, 4), (140, 2), (300, 2), (1030, 1)])
def test_heads_with_layout_classes_by_boxes(classes: int, cells: int) -> None:
    """The class counts cover every block size of `ssd_select`."""
    spec = make_spec(classes=classes, cells=cells, activation="sigmoid")
    scores, offsets = random_heads(spec, 2, seed=classes, spread=1.0)
    detector = HostDetector(spec, 2)
    boxes_by_classes = detector(scores, offsets, seed=3)
    classes_by_boxes = detector(scores, offsets, seed=4, classes_first=False)
    for image, ((_, first), (_, second)) in enumerate(
        zip(boxes_by_classes, classes_by_boxes, strict=True)
    ):
        assert_same(first, PostProcessor(spec)(scores[image], offsets[image]))
        assert_same(second, first, exact=True)


def test_no_detections() -> None:
    spec = make_spec()
    scores, offsets = random_heads(spec, 1, seed=2)
    scores[..., 0] = 100.0
    ((header, raw),) = HostDetector(spec, 1)(scores, offsets)
    assert (header.count, len(raw.scores), raw.boxes.shape) == (0, 0, (0, 4))


@pytest.mark.parametrize(
    ("top_k", "max_detections", "cells"),
    [(400, 200, 12), (1024, 1024, 17), (1, 1, 12), (33, 700, 12)],
)
def test_candidates_that_exceed_the_limits(top_k: int, max_detections: int, cells: int) -> None:
    """All boxes of all classes are above the threshold, so the selection must cut exactly."""
    limits = Thresholds(
        score_threshold=0.01,
        iou_threshold=0.9,
        pre_nms_top_k=top_k,
        max_detections=max_detections,
    )
    spec = make_spec(classes=3, cells=cells, activation="none", thresholds=limits)
    assert spec.num_boxes > max(256, top_k)
    scores, offsets = random_heads(spec, 1, seed=6)
    scores = np.maximum(scores, 0.02).astype(np.float32)
    ((header, raw),) = HostDetector(spec, 1)(scores, offsets)
    assert header.overflow == 0
    assert_same(raw, PostProcessor(spec)(scores[0], offsets[0]), exact=True)


def test_overflow_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_ssd_engines.cuda.kernel_params.CANDIDATE_BYTES", 0)
    limits = Thresholds(
        score_threshold=0.01, iou_threshold=0.45, pre_nms_top_k=10, max_detections=20
    )
    spec = make_spec(classes=2, activation="none", thresholds=limits)
    scores, offsets = random_heads(spec, 1, seed=6)
    scores = np.maximum(scores, 0.02).astype(np.float32)
    ((header, raw),) = HostDetector(spec, 1)(scores, offsets)
    assert header.overflow == spec.num_boxes - 40
    assert len(raw.scores) > 0


def test_class_counts_with_and_without_row_padding() -> None:
    for classes in (2, 8, 91, 130):
        spec = make_spec(classes=classes, cells=3)
        scores, offsets = random_heads(spec, 1, seed=classes)
        ((_, raw),) = HostDetector(spec, 1)(scores, offsets)
        assert_same(raw, PostProcessor(spec)(scores[0], offsets[0]))


@pytest.mark.parametrize("name", ["000009", "dog"])
@pytest.mark.parametrize("score", [0.3, 0.01])
def test_recorded_heads_of_the_coco_model(shared_data: Path, name: str, score: float) -> None:
    data = np.load(shared_data / "golden" / "onnx_heads" / f"{name}.npz")
    anchors = np.load(shared_data / "weights/ssd_mobilenet_v1_coco_onnx/anchors_ycxchw_f32.npy")
    limits = Thresholds(
        score_threshold=score, iou_threshold=0.6, pre_nms_top_k=200, max_detections=100
    )
    spec = make_spec(
        classes=91,
        boxes=AnchorSpec.from_array(anchors[:, [1, 0, 3, 2]]),
        activation="none",
        coding="yxhw",
        thresholds=limits,
    )
    scores = next(data[key] for key in data if data[key].shape[-1] == 91).reshape(1, -1, 91)
    offsets = next(data[key] for key in data if data[key].shape[-1] == 4).reshape(1, -1, 4)
    ((_, raw),) = HostDetector(spec, 1)(scores, offsets)
    expected = PostProcessor(spec)(scores[0].astype(np.float32), offsets[0].astype(np.float32))
    assert_same(raw, expected, exact=True)
