"""How two runs of a model are compared, on made-up heads and on the real model in FP16."""

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
    Floats,
    Gate,
    Heads,
    compare,
    frames_of,
    onnx_runner,
    sample_frames,
)

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import ModelSpec, read_spec
from tests.engines.cuda.test_detect import heads as random_heads
from tests.engines.cuda.test_detect import make_spec
from tests.tiny import tiny_spec

FRAME = np.zeros((64, 64, 3), np.uint8)


def runs(spec: ModelSpec, first: Heads, second: Heads, gate: Gate | None = None):  # type: ignore[no-untyped-def]
    return compare(lambda _: first, lambda _: second, spec, [FRAME], gate)


def sharp(spec: ModelSpec, found: dict[tuple[int, int], float]) -> Heads:
    """Logits that find the given classes at the given default boxes, nothing else."""
    scores = np.zeros((spec.num_boxes, spec.num_classes), np.float32)
    scores[:, 0] = 10
    for (box, label), logit in found.items():
        scores[box, label] = logit
    return scores, np.zeros((spec.num_boxes, 4), np.float32)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), activation=st.sampled_from(["softmax", "sigmoid"]))
def test_a_run_agrees_with_itself(seed: int, activation: str) -> None:
    spec = make_spec(activation=activation)
    scores, offsets = random_heads(spec, 1, seed)
    found = runs(spec, (scores[0], offsets[0]), (scores[0], offsets[0]))
    assert found.passed
    assert found.detections == found.agreeing == found.classes_agreeing > 0
    assert found.same_after_nms <= found.detections
    assert (found.score_max, found.offset_max, found.least_iou) == (0, 0, pytest.approx(1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_order_of_the_two_does_not_matter(seed: int) -> None:
    spec = make_spec()
    (one, two), (first, second) = random_heads(spec, 2, seed)
    a, b = runs(spec, (one, first), (two, second)), runs(spec, (two, second), (one, first))
    assert a == b


@pytest.mark.parametrize(
    ("logit", "agrees"), [(12.0, True), (12.06, True), (12.5, False), (9.0, False)]
)
def test_scores_may_differ_by_two_hundredths(logit: float, agrees: bool) -> None:
    spec = make_spec()
    found = runs(spec, sharp(spec, {(5, 2): 12.0}), sharp(spec, {(5, 2): logit}), Gate(share=0.999))
    assert found.scores_agreeing == found.agreeing == found.detections - (not agrees)


@pytest.mark.parametrize(("shift", "agrees"), [(0.0, True), (0.1, True), (0.4, False)])
def test_boxes_must_overlap(shift: float, agrees: bool) -> None:
    """An offset of x moves a box by 0.1·x of its width: the overlap is (1 - d) / (1 + d)."""
    spec = tiny_spec()
    scores = np.tile(np.array([0, 5], np.float32), (16, 1))
    zero = np.zeros((16, 4), np.float32)
    moved = zero.copy()
    moved[:, 0] = shift
    found = runs(spec, (scores, zero), (scores, moved))
    assert found.boxes_agreeing == (16 if agrees else 0)
    step = shift * 0.1
    assert found.least_iou == pytest.approx((1 - step) / (1 + step), rel=1e-3)
    assert found.offset_max == pytest.approx(shift)


def test_a_class_that_changes_is_seen() -> None:
    spec = make_spec()
    first, second = sharp(spec, {(5, 2): 13.0}), sharp(spec, {(5, 3): 13.0})
    found = runs(spec, first, second)
    assert not found.passed
    assert found.classes_agreeing < found.detections
    assert found.same_after_nms == 0


def test_what_only_one_run_finds_counts_against_it() -> None:
    spec = make_spec()
    many = {(box, 1 + box % 4): 14.0 for box in range(0, 140, 4)}
    nothing = sharp(spec, {})
    for first, second in ((sharp(spec, many), nothing), (nothing, sharp(spec, many))):
        found = runs(spec, first, second)
        assert found.agreeing == 0
        assert found.detections >= 20


def test_a_tie_that_nms_breaks_the_other_way_is_no_disagreement() -> None:
    """Two default boxes of a cell that overlap much and score alike."""
    spec = make_spec()
    sizes = spec.boxes.boxes()
    assert np.array_equal(sizes[0, :2], sizes[1, :2])
    pairs = range(0, 144, 4)
    first = sharp(spec, {**{(b, 1): 14.0 for b in pairs}, **{(b + 1, 1): 13.999 for b in pairs}})
    second = sharp(spec, {**{(b, 1): 13.999 for b in pairs}, **{(b + 1, 1): 14.0 for b in pairs}})
    found = runs(spec, first, second)
    assert found.passed
    assert found.same_after_nms < found.detections


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("head", [0, 1])
def test_what_is_no_number_never_passes(value: float, head: int) -> None:
    spec = make_spec()
    good = sharp(spec, {(5, 2): 14.0})
    bad = tuple(part.copy() for part in good)
    bad[head][77, 0] = value
    found = runs(spec, good, (bad[0], bad[1]))
    assert found.broken == 1
    assert not found.passed
    assert "1 values are NaN or infinite" in found.sentence()
    json.dumps(found.to_dict(), allow_nan=False)


def test_where_nothing_is_found_the_best_candidates_are_compared() -> None:
    spec = make_spec()
    rng = np.random.default_rng(1)
    quiet = sharp(spec, {(int(box), 1): -1.0 for box in rng.integers(0, 140, 30)})
    found = runs(spec, quiet, quiet)
    assert (found.detections, found.passed) == (20, True)
    moved = quiet[0], quiet[1] + np.float32(3)
    assert runs(spec, quiet, moved).agreeing == 0


def test_the_gate_is_a_share() -> None:
    spec = tiny_spec()
    scores = np.tile(np.array([0, 5], np.float32), (16, 1))
    zero, moved = np.zeros((16, 4), np.float32), np.zeros((16, 4), np.float32)
    moved[0] = 2
    many = [FRAME] * 20

    def every_other(tensor: Floats, count: list[int] = []) -> Heads:  # noqa: B006
        count.append(0)
        return scores, moved if len(count) == 1 else zero

    found = compare(lambda _: (scores, zero), every_other, spec, many)
    assert (found.detections, found.agreeing) == (320, 319)
    assert found.passed


def test_the_real_model_in_fp16_passes_on_real_photos(shared_data: Path, tmp_path: Path) -> None:
    from realtime_ssd_training.importers import ImportOptions, import_model

    folder = shared_data / "weights" / "ssd_mobilenet_v1_coco_onnx"
    path = tmp_path / "coco.onnx"
    import_model(folder / "ssd_mobilenet_v1_coco_300.onnx", path, ImportOptions())
    spec = read_spec(path)
    half = to_fp16(onnx.load(str(path)), keep_io=False).SerializeToString()
    frames = frames_of(str(shared_data / "coco_person_val" / "images"), 15)
    found = compare(onnx_runner(path, spec), onnx_runner(half, spec), spec, frames)
    assert found.passed
    assert found.detections > 200
    assert found.score_max < 0.01
    assert 0 < found.score_mean < 1e-3
    wrong = onnx.load(str(path))
    damaged = next(item for item in wrong.graph.initializer if len(item.dims) == 4)
    values = onnx.numpy_helper.to_array(damaged) * 1.2
    damaged.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), damaged.name))
    other = compare(
        onnx_runner(path, spec), onnx_runner(wrong.SerializeToString(), spec), spec, frames[:4]
    )
    assert not other.passed


def test_frames_are_spread_over_a_video(shared_data: Path) -> None:
    frames = frames_of(str(shared_data / "clips" / "nasa_13013.mp4"), 5)
    assert len(frames) == 5
    assert len({frame.tobytes() for frame in frames}) == 5


def test_live_sources_are_no_reference() -> None:
    with pytest.raises(UsageError, match="is live"):
        frames_of("rtsp://user:secret@127.0.0.1:1/x")


def test_sample_frames_differ() -> None:
    frames = sample_frames(3)
    assert len({frame.tobytes() for frame in frames}) == 3


def test_a_model_that_does_not_load_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the model"):
        onnx_runner(b"rubbish", tiny_spec())


def test_boxes_without_area_or_beyond_float_agree_with_themselves() -> None:
    spec = make_spec()
    scores, offsets = sharp(spec, {(0, 1): 14.0, (1, 1): 14.0, (2, 2): 14.0})
    offsets[0, 2:], offsets[1, 2:] = 300.0, -3000.0
    found = runs(spec, (scores, offsets), (scores, offsets.copy()))
    assert found.passed
    assert found.detections == found.agreeing
    other = offsets.copy()
    other[1, 0] += 100.0
    assert not runs(spec, (scores, offsets), (scores, other)).passed
