"""Comparison of two runs of a model, on constructed heads and on the COCO model in FP16."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_ssd_engines.onnx.precision import to_fp16
from realtime_ssd_engines.onnx.verify import (
    ComparisonReport,
    Floats,
    Heads,
    Tolerance,
    compare,
    onnx_runner,
    read_frames,
    synthetic_frames,
)

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import ModelSpec, read_spec
from tests.engines.cuda.test_detect import make_spec, random_heads
from tests.tiny import tiny_spec

FRAME = np.zeros((64, 64, 3), np.uint8)


def compare_heads(
    spec: ModelSpec, first: Heads, second: Heads, tolerance: Tolerance | None = None
) -> ComparisonReport:
    return compare(lambda _: first, lambda _: second, spec, [FRAME], tolerance)


def confident_heads(spec: ModelSpec, logits: dict[tuple[int, int], float]) -> Heads:
    """Return heads with the given logits by (default box, class) and background elsewhere."""
    scores = np.zeros((spec.num_boxes, spec.num_classes), np.float32)
    scores[:, 0] = 10
    for (box, label), logit in logits.items():
        scores[box, label] = logit
    return scores, np.zeros((spec.num_boxes, 4), np.float32)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), activation=st.sampled_from(["softmax", "sigmoid"]))
def test_identical_runs_agree(seed: int, activation: str) -> None:
    spec = make_spec(activation=activation)
    scores, offsets = random_heads(spec, 1, seed)
    report = compare_heads(spec, (scores[0], offsets[0]), (scores[0], offsets[0]))
    assert report.passed
    assert report.detections == report.agreeing == report.classes_agreeing > 0
    assert report.same_after_nms <= report.detections
    assert report.score_max == report.offset_max == 0
    assert report.min_iou == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_comparison_is_symmetric(seed: int) -> None:
    spec = make_spec()
    (one, two), (first, second) = random_heads(spec, 2, seed)
    a, b = (
        compare_heads(spec, (one, first), (two, second)),
        compare_heads(spec, (two, second), (one, first)),
    )
    assert a == b


@pytest.mark.parametrize(
    ("logit", "agrees"), [(12.0, True), (12.06, True), (12.5, False), (9.0, False)]
)
def test_scores_agree_within_the_tolerance(logit: float, agrees: bool) -> None:
    spec = make_spec()
    first, second = confident_heads(spec, {(5, 2): 12.0}), confident_heads(spec, {(5, 2): logit})
    report = compare_heads(spec, first, second, Tolerance(share=0.999))
    assert report.scores_agreeing == report.agreeing == report.detections - (not agrees)


@pytest.mark.parametrize(("shift", "agrees"), [(0.0, True), (0.1, True), (0.4, False)])
def test_boxes_agree_within_the_tolerance(shift: float, agrees: bool) -> None:
    """An x offset moves a box by d = 0.1·x of its width; the IoU is (1 - d) / (1 + d)."""
    spec = tiny_spec()
    scores = np.tile(np.array([0, 5], np.float32), (16, 1))
    zero = np.zeros((16, 4), np.float32)
    moved = zero.copy()
    moved[:, 0] = shift
    report = compare_heads(spec, (scores, zero), (scores, moved))
    assert report.boxes_agreeing == (16 if agrees else 0)
    step = shift * 0.1
    assert report.min_iou == pytest.approx((1 - step) / (1 + step), rel=1e-3)
    assert report.offset_max == pytest.approx(shift)


def test_a_changed_class_fails() -> None:
    spec = make_spec()
    first, second = confident_heads(spec, {(5, 2): 13.0}), confident_heads(spec, {(5, 3): 13.0})
    report = compare_heads(spec, first, second)
    assert not report.passed
    assert report.classes_agreeing < report.detections
    assert report.same_after_nms == 0


def test_detections_of_only_one_run_disagree() -> None:
    spec = make_spec()
    many = {(box, 1 + box % 4): 14.0 for box in range(0, 140, 4)}
    nothing = confident_heads(spec, {})
    for first, second in (
        (confident_heads(spec, many), nothing),
        (nothing, confident_heads(spec, many)),
    ):
        report = compare_heads(spec, first, second)
        assert report.agreeing == 0
        assert report.detections >= 20


def test_ties_that_nms_resolves_differently_agree() -> None:
    """Two overlapping default boxes of each cell have almost the same score."""
    spec = make_spec()
    sizes = spec.boxes.boxes()
    assert np.array_equal(sizes[0, :2], sizes[1, :2])
    pairs = range(0, 144, 4)
    first = confident_heads(
        spec, {**{(b, 1): 14.0 for b in pairs}, **{(b + 1, 1): 13.999 for b in pairs}}
    )
    second = confident_heads(
        spec, {**{(b, 1): 13.999 for b in pairs}, **{(b + 1, 1): 14.0 for b in pairs}}
    )
    report = compare_heads(spec, first, second)
    assert report.passed
    assert report.same_after_nms < report.detections


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("head", [0, 1])
def test_nan_and_infinity_never_pass(value: float, head: int) -> None:
    spec = make_spec()
    good = confident_heads(spec, {(5, 2): 14.0})
    scores, offsets = good[0].copy(), good[1].copy()
    (scores, offsets)[head][77, 0] = value
    report = compare_heads(spec, good, (scores, offsets))
    assert report.non_finite == 1
    assert not report.passed
    assert "1 values are NaN or infinite" in report.summary()
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.to_dict()["broken"] == 1


def test_without_detections_the_best_candidates_are_compared() -> None:
    spec = make_spec()
    rng = np.random.default_rng(1)
    quiet = confident_heads(spec, {(int(box), 1): -1.0 for box in rng.integers(0, 140, 30)})
    report = compare_heads(spec, quiet, quiet)
    assert (report.detections, report.passed) == (20, True)
    moved = quiet[0], quiet[1] + np.float32(3)
    assert compare_heads(spec, quiet, moved).agreeing == 0


def test_the_tolerance_is_a_share_of_all_detections() -> None:
    spec = tiny_spec()
    scores = np.tile(np.array([0, 5], np.float32), (16, 1))
    zero, moved = np.zeros((16, 4), np.float32), np.zeros((16, 4), np.float32)
    moved[0] = 2
    outputs = iter([moved, *[zero] * 19])

    def first_differs(_: Floats) -> Heads:
        return scores, next(outputs)

    report = compare(lambda _: (scores, zero), first_differs, spec, [FRAME] * 20)
    assert (report.detections, report.agreeing) == (320, 319)
    assert report.passed


def test_the_coco_model_in_fp16_passes_on_photos(shared_data: Path, tmp_path: Path) -> None:
    from realtime_ssd_training.importers import ImportOptions, import_model

    folder = shared_data / "weights" / "ssd_mobilenet_v1_coco_onnx"
    path = tmp_path / "coco.onnx"
    import_model(folder / "ssd_mobilenet_v1_coco_300.onnx", path, ImportOptions())
    spec = read_spec(path)
    half = to_fp16(onnx.load(str(path)), keep_io=False).SerializeToString()
    frames = read_frames(str(shared_data / "coco_person_val" / "images"), 15)
    report = compare(onnx_runner(path, spec), onnx_runner(half, spec), spec, frames)
    assert report.passed
    assert report.detections > 200
    assert report.score_max < 0.01
    assert 0 < report.score_mean < 1e-3
    modified = onnx.load(str(path))
    weights = next(item for item in modified.graph.initializer if len(item.dims) == 4)
    values = onnx.numpy_helper.to_array(weights) * 1.2
    weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weights.name))
    other = compare(
        onnx_runner(path, spec), onnx_runner(modified.SerializeToString(), spec), spec, frames[:4]
    )
    assert not other.passed


def test_frames_are_spread_over_the_video(shared_data: Path) -> None:
    frames = read_frames(str(shared_data / "clips" / "nasa_13013.mp4"), 5)
    assert len(frames) == 5
    assert len({frame.tobytes() for frame in frames}) == 5


def test_live_sources_are_rejected() -> None:
    with pytest.raises(UsageError, match="is a live source"):
        read_frames("rtsp://user:secret@127.0.0.1:1/x")


def test_synthetic_frames_are_distinct() -> None:
    frames = synthetic_frames(3)
    assert len({frame.tobytes() for frame in frames}) == 3


def test_an_unreadable_model_raises_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the model"):
        onnx_runner(b"rubbish", tiny_spec())


def test_boxes_with_zero_or_infinite_area_agree_with_themselves() -> None:
    spec = make_spec()
    scores, offsets = confident_heads(spec, {(0, 1): 14.0, (1, 1): 14.0, (2, 2): 14.0})
    offsets[0, 2:], offsets[1, 2:] = 300.0, -3000.0
    report = compare_heads(spec, (scores, offsets), (scores, offsets.copy()))
    assert report.passed
    assert report.detections == report.agreeing
    other = offsets.copy()
    other[1, 0] += 100.0
    assert not compare_heads(spec, (scores, offsets), (scores, other)).passed
