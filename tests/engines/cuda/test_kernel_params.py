"""Settings and limits of the kernels."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from realtime_ssd_engines.cuda.kernel_params import (
    DetectBuffers,
    class_mask,
    detect_params,
    detect_settings,
    input_table,
    select_rows,
)

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import InputSpec, Thresholds
from tests.engines.cuda.test_detect import make_spec


@pytest.mark.parametrize(
    ("classes", "rows"),
    [(2, 64), (128, 64), (129, 32), (256, 32), (257, 8), (1024, 8), (1025, 2), (4096, 2)],
)
def test_scores_of_a_block_fit_into_shared_memory(classes: int, rows: int) -> None:
    assert select_rows(classes) == rows
    assert rows * (classes | 1) * 4 <= 48 << 10


@pytest.mark.parametrize("limit", [{"pre_nms_top_k": 1025}, {"max_detections": 1025}])
def test_limits_above_1024_are_rejected(limit: dict[str, Any]) -> None:
    spec = make_spec(thresholds=Thresholds(**limit))
    with pytest.raises(ModelError, match="must be at most 1024 on the GPU"):
        detect_settings(spec)


def test_the_class_mask_excludes_the_background() -> None:
    spec = make_spec(classes=34)
    assert class_mask(spec).tolist() == [0xFFFFFFFE, 0b11]
    assert class_mask(spec, (0, 1, 33)).tolist() == [0b10, 0b10]


def test_candidate_lists_are_bounded_by_memory() -> None:
    small = DetectBuffers.for_batch(make_spec(), 145, 2)
    assert small.capacity == 145
    assert small.output == 2 * (20 + 1) * 8 * 4
    large = DetectBuffers.for_batch(make_spec(), 1 << 20, 32)
    assert large.candidates <= 64 << 20
    assert large.capacity == large.candidates // (8 * 5 * 32)


def taps(spec: InputSpec, size: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the taps of rows (luma, then chroma) and of columns as words."""
    words = np.frombuffer(input_table(spec, size), np.int32)[8:]
    rows = words[: 8 * spec.height].reshape(2, spec.height, 4)
    return rows, words[8 * spec.height :][: 4 * spec.width].reshape(2, spec.width, 2)


@pytest.mark.parametrize("size", [(301, 177), (302, 178)])
def test_luma_and_chroma_have_separate_scales(size: tuple[int, int]) -> None:
    """Chroma has half the size of luma, rounded up."""
    rows, columns = taps(InputSpec(100, 50), size)
    for values, scale in ((rows[0, :, 0], size[1] / 50), (rows[1, :, 0], 89 / 50)):
        np.testing.assert_allclose(values, (np.arange(50) + 0.5) * scale - 0.5, atol=1)
    for values, scale in ((columns[0, :, 0], size[0] / 100), (columns[1, :, 0], 151 / 100)):
        np.testing.assert_allclose(values, (np.arange(100) + 0.5) * scale - 0.5, atol=1)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (640, 30), (30, 640)])
@pytest.mark.parametrize("resize", ["warp", "letterbox"])
def test_taps_stay_inside_the_image(
    size: tuple[int, int], resize: Literal["warp", "letterbox"]
) -> None:
    """The kernel reads the column after `low` too, except in images of one column."""
    rows, columns = taps(InputSpec(64, 48, resize=resize), size)
    for plane, divisor in enumerate((1, 2)):
        height, width = -(-size[1] // divisor), -(-size[0] // divisor)
        inside = rows[plane][rows[plane, :, 2:].any(1)]
        assert len(inside)
        assert inside[:, :2].min() >= 0
        assert inside[:, :2].max() < height
        assert (inside[:, 2:].sum(1) == 2048).all()
        low = columns[plane][columns[plane, :, 0] >= 0, 0]
        assert len(low)
        assert low.max() <= max(width - 2, 0)


@pytest.mark.parametrize(("threshold", "margin"), [(0.0, -math.inf), (0.5, -1e-3), (1.0, math.inf)])
def test_the_logit_margin_excludes_no_candidate(threshold: float, margin: float) -> None:
    spec = make_spec(thresholds=Thresholds(score_threshold=threshold))
    buffers = DetectBuffers.for_batch(spec, spec.num_boxes, 1)
    params = detect_params(spec, spec.num_boxes, buffers, {})
    assert params["score_margin"] == np.float32(margin)
