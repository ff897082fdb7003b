"""Fits of known curves, and which of the two fits is drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.cpu.scaling import Curve, best_fit, draw, fits, memory_cases, random_heads
from realtime_ssd.core.postprocess import PostProcessor

XS = [1, 2, 4, 8, 16]


def curve_of(ys: list[float], xs: list[float] | None = None) -> Curve:
    xs = xs or list(map(float, XS))
    return {"x": "boxes", "values": xs, "ms": ys, **fits(xs, ys)}


def test_line_is_fitted() -> None:
    curve = curve_of([3 + 0.5 * x for x in XS])
    assert curve["line"] == {"at_zero": pytest.approx(3), "per_unit": pytest.approx(0.5)}
    assert curve["r_squared"] == 1
    assert best_fit(curve, np.array(curve["values"], float))[1] == "3 + 0.5 · x, R² 1.00"


def test_power_is_fitted_and_drawn_where_it_fits_better() -> None:
    curve = curve_of([2 * x**0.5 for x in XS])
    assert (curve["power"], curve["power_at_one"]) == (pytest.approx(0.5), pytest.approx(2))
    assert curve["r_squared"] < curve["power_r_squared"] == 1
    (_, ys), formula = best_fit(curve, np.array(curve["values"], float))
    assert ys.tolist() == pytest.approx([2 * x**0.5 for x in XS])
    assert formula == "2 · x^0.50, R² 1.00"


def test_zero_is_used_by_the_line_only() -> None:
    curve = curve_of([1, 2, 3, 4], [0, 1, 2, 3])
    assert curve["line"]["at_zero"] == pytest.approx(1)
    (xs, _), _ = best_fit({**curve, "r_squared": 0.0}, np.array(curve["values"], float))
    assert xs.tolist() == [1, 2, 3]


@pytest.mark.parametrize("candidates", [0, 50, 400])
def test_random_heads_have_the_requested_candidates(candidates: int) -> None:
    scores, offsets, spec = random_heads(1000, 21, candidates)
    assert (scores > spec.thresholds.score_threshold).sum() == candidates
    assert len(PostProcessor(spec)(scores, offsets).scores) <= min(
        candidates, spec.thresholds.max_detections
    )


def test_memory_is_measured_over_all_quantities() -> None:
    assert set(memory_cases()) == {
        *("megapixels", "default boxes", "classes", "candidates"),
        *("batch", "streams", "threads"),
    }


def test_drawing_grows_with_the_number_of_curves(tmp_path: Path) -> None:
    file = tmp_path / "curves.png"
    heights = []
    for count in (2, 12):
        draw({f"curve {n}": curve_of([float(x) for x in XS]) for n in range(count)}, file)
        image = cv2.imread(str(file))
        assert image is not None
        heights.append(image.shape[0])
    assert heights[1] > 2 * heights[0]
