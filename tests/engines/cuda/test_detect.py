"""decode + NMS kernels, run on the host, against the numpy reference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, cell_sizes
from realtime_ssd.core.postprocess import PostProcessor, RawDetections
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from tests.engines.cuda.host_kernels import HostDetector


def make_spec(classes: int = 5, cells: int = 6, **changes: object) -> ModelSpec:
    """A small model: cells × cells × 4 default boxes and one box over the whole image."""
    layer = AnchorLayer(cells, cells, 1 / cells, 1 / cells, cell_sizes(0.2, 0.3, (2.0,)))
    recipe = AnchorSpec((layer, AnchorLayer(1, 1, 1.0, 1.0, ((0.9, 0.9),))))
    labels = ("background", *(f"class {i}" for i in range(1, classes)))
    limits = Thresholds(
        score_threshold=0.3, iou_threshold=0.45, pre_nms_top_k=40, max_detections=20
    )
    base = ModelSpec("test", InputSpec(64, 64), recipe, labels, thresholds=limits)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def heads(
    spec: ModelSpec, images: int, seed: int, spread: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Random logits (or probabilities) and offsets, away from half-precision surprises."""
    rng = np.random.default_rng(seed)
    shape = (images, spec.num_boxes)
    scores = rng.normal(0, spread, (*shape, spec.num_classes))
    if spec.activation == "none":
        scores = rng.random((*shape, spec.num_classes))
    offsets = rng.normal(0, 1.0, (*shape, 4))
    return scores.astype(np.float16).astype(np.float32), offsets.astype(np.float16).astype(
        np.float32
    )


def assert_same(got: RawDetections, expected: RawDetections, exact: bool = False) -> None:
    """Same rows; order may differ only where two scores differ by less than rounding."""
    assert len(got.scores) == len(expected.scores)
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-5, atol=0)
    assert (np.diff(got.scores) <= 0).all()

    def rows(found: RawDetections) -> list[tuple[int, int]]:
        return list(zip(found.box_indices.tolist(), found.class_ids.tolist(), strict=True))

    if exact:
        assert rows(got) == rows(expected)
    assert sorted(rows(got)) == sorted(rows(expected))
    order = {key: i for i, key in enumerate(rows(expected))}
    places = [order[key] for key in rows(got)]
    np.testing.assert_allclose(got.boxes, expected.boxes[places], rtol=1e-5, atol=1e-6)


CASES = {
    "softmax": {},
    "sigmoid": {"activation": "sigmoid"},
    "probabilities": {"activation": "none", "coding": "yxhw"},
    "clipped": {"clip_before_nms": True},
    "no background": {"activation": "sigmoid", "background": None},
    "last background": {"background": 4},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_batch_equals_reference(case: str, precision: str) -> None:
    spec = make_spec(**CASES[case])
    detector = HostDetector(spec, 3, precision, precision)
    scores, offsets = heads(spec, 3, seed=1)
    for image, (header, found) in enumerate(detector(scores, offsets, seed=5)):
        expected = PostProcessor(spec)(scores[image], offsets[image])
        assert header.overflow == header.broken == 0
        assert len(expected.scores) > 5
        assert_same(found, expected, exact=case == "probabilities")


def test_corner_boxes_are_taken_as_they_are() -> None:
    spec = make_spec(activation="none", coding="corners")
    rng = np.random.default_rng(3)
    low = rng.random((1, spec.num_boxes, 2)) * 0.7
    corners = np.concatenate([low, low + 0.05 + rng.random(low.shape) * 0.3], -1).astype(np.float32)
    scores, _ = heads(spec, 1, seed=3)
    ((_, found),) = HostDetector(spec, 1)(scores, corners)
    expected = PostProcessor(spec)(scores[0], corners[0])
    assert_same(found, expected, exact=True)
    np.testing.assert_array_equal(found.boxes, corners[0][found.box_indices])


def test_corner_boxes_are_clipped_before_nms_where_the_contract_says_so() -> None:
    limits = Thresholds(score_threshold=0.1, iou_threshold=0.5, pre_nms_top_k=40, max_detections=20)
    clipped = {"clip_before_nms": True, "coding": "corners", "thresholds": limits}
    spec = make_spec(activation="none", **clipped)
    offsets = np.zeros((1, spec.num_boxes, 4), np.float32)
    scores = np.zeros((1, spec.num_boxes, spec.num_classes), np.float32)
    offsets[0, :2] = [[0, 0, 1, 1], [0, 0, 1.5, 1.5]]  # alike only once they are clipped
    scores[0, :2, 1] = [0.9, 0.8]
    ((_, found),) = HostDetector(spec, 1)(scores, offsets)
    assert found.box_indices.tolist() == [0]
    assert_same(found, PostProcessor(spec)(scores[0], offsets[0]), exact=True)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    score=st.sampled_from([0.0, 0.01, 0.3, 0.9, 1.0]),
    nms=st.sampled_from([0.0, 0.2, 0.45, 1.0]),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_ties_and_extreme_thresholds(seed: int, score: float, nms: float, levels: int) -> None:
    """Scores on few levels give many ties; the order must still be the reference's."""
    limits = Thresholds(
        score_threshold=score, iou_threshold=nms, pre_nms_top_k=40, max_detections=20
    )
    spec = make_spec(activation="none", thresholds=limits)
    scores, offsets = heads(spec, 2, seed)
    scores = (np.floor(scores * levels) / levels).astype(np.float32)
    for image, (_, found) in enumerate(HostDetector(spec, 2)(scores, offsets, seed % 1000)):
        assert_same(found, PostProcessor(spec)(scores[image], offsets[image]), exact=True)


def test_every_order_of_threads_gives_the_same_bits() -> None:
    spec = make_spec()
    detector = HostDetector(spec, 2)
    scores, offsets = heads(spec, 2, seed=9)
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
    offsets[0, :3] = [[0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0, 1, 0.625]]
    scores[0, :3, 1] = [0.9, 0.8, 0.7]
    ((_, found),) = HostDetector(spec, 1)(scores, offsets)
    assert found.box_indices.tolist() == [0, 1]
    assert_same(found, PostProcessor(spec)(scores[0], offsets[0]), exact=True)


def test_damaged_heads_are_reported_and_harm_nobody() -> None:
    spec = make_spec()
    detector = HostDetector(spec, 2)
    scores, offsets = heads(spec, 2, seed=4)
    clean = detector(scores, offsets)
    scores[0, 3, 1] = np.nan
    offsets[0, 7] = np.nan
    offsets[0, 8] = np.inf
    broken = detector(scores, offsets)
    assert broken[0][0].broken == 2
    assert broken[1][0].broken == 0
    np.testing.assert_array_equal(broken[1][1].boxes, clean[1][1].boxes)


@pytest.mark.parametrize("clip", [False, True])
def test_a_box_that_is_not_a_number_drops_nobody(clip: bool) -> None:
    """Infinite offsets decode to infinity minus infinity; numpy lets such a box overlap none."""
    spec = make_spec(clip_before_nms=clip)
    scores, offsets = heads(spec, 1, seed=8)
    scores[0, :, 0] = 9.0
    scores[0, 40:60, 1] = np.linspace(12, 14, 20)
    offsets[0, 59] = [np.inf, np.inf, 1e4, 1e4]
    ((header, found),) = HostDetector(spec, 1)(scores, offsets)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = PostProcessor(spec)(scores[0], offsets[0])
    assert header.broken == 0
    assert np.isnan(found.boxes[0]).any()
    assert len(found.scores) > 5
    assert_same(found, expected, exact=True)


@pytest.mark.parametrize("classes", [3, 33, 140, 300, 1030])
def test_heads_with_default_boxes_side_by_side(classes: int) -> None:
    """A head laid out classes x boxes, and blocks of every size."""
    spec = make_spec(classes=classes, cells=4, activation="sigmoid")
    scores, offsets = heads(spec, 2, seed=classes, spread=1.0)
    detector = HostDetector(spec, 2)
    plain = detector(scores, offsets, seed=3)
    turned = detector(scores, offsets, seed=4, classes_first=False)
    for image, ((_, one), (_, two)) in enumerate(zip(plain, turned, strict=True)):
        assert_same(one, PostProcessor(spec)(scores[image], offsets[image]))
        assert_same(two, one, exact=True)


def test_nothing_found() -> None:
    spec = make_spec()
    scores, offsets = heads(spec, 1, seed=2)
    scores[..., 0] = 100.0
    ((header, found),) = HostDetector(spec, 1)(scores, offsets)
    assert (header.count, len(found.scores), found.boxes.shape) == (0, 0, (0, 4))


@pytest.mark.parametrize(("top_k", "keep"), [(400, 200), (1024, 1024), (1, 1), (33, 700)])
def test_more_candidates_than_places(top_k: int, keep: int) -> None:
    """Every box of every class is above the threshold: selection must cut exactly."""
    limits = Thresholds(
        score_threshold=0.01, iou_threshold=0.9, pre_nms_top_k=top_k, max_detections=keep
    )
    spec = make_spec(classes=3, cells=20, activation="none", thresholds=limits)
    scores, offsets = heads(spec, 1, seed=6)
    scores = np.maximum(scores, 0.02).astype(np.float32)
    ((header, found),) = HostDetector(spec, 1)(scores, offsets)
    assert header.overflow == 0
    assert_same(found, PostProcessor(spec)(scores[0], offsets[0]), exact=True)


def test_overflow_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_ssd_engines.cuda.kernel_params.CANDIDATE_BYTES", 0)
    limits = Thresholds(
        score_threshold=0.01, iou_threshold=0.45, pre_nms_top_k=10, max_detections=20
    )
    spec = make_spec(classes=2, activation="none", thresholds=limits)
    scores, offsets = heads(spec, 1, seed=6)
    scores = np.maximum(scores, 0.02).astype(np.float32)
    ((header, found),) = HostDetector(spec, 1)(scores, offsets)
    assert header.overflow == spec.num_boxes - 40
    assert len(found.scores) > 0


def test_class_counts_with_and_without_bank_padding() -> None:
    for classes in (2, 8, 91, 130):
        spec = make_spec(classes=classes, cells=3)
        scores, offsets = heads(spec, 1, seed=classes)
        ((_, found),) = HostDetector(spec, 1)(scores, offsets)
        assert_same(found, PostProcessor(spec)(scores[0], offsets[0]))


@pytest.mark.parametrize("name", ["000009", "dog"])
@pytest.mark.parametrize("score", [0.3, 0.01])
def test_real_heads(shared_data: Path, name: str, score: float) -> None:
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
    ((_, found),) = HostDetector(spec, 1)(scores, offsets)
    expected = PostProcessor(spec)(scores[0].astype(np.float32), offsets[0].astype(np.float32))
    assert_same(found, expected, exact=True)
