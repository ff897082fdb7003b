"""Fits of curves, on curves that are known; which of the two is drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.cpu.scaling import Curve, _fitted, cases, draw, fits, heads
from realtime_ssd.core.postprocess import PostProcessor

XS = [1, 2, 4, 8, 16]


def made(ys: list[float], xs: list[float] | None = None) -> Curve:
    xs = xs or list(map(float, XS))
    return {"x": "boxes", "values": xs, "ms": ys, **fits(xs, ys)}


def test_a_line_is_found() -> None:
    found = made([3 + 0.5 * x for x in XS])
    assert found["line"] == {"at_zero": pytest.approx(3), "per_unit": pytest.approx(0.5)}
    assert found["r_squared"] == 1
    assert _fitted(found, np.array(found["values"], float))[1] == "3 + 0.5 · x, R² 1.00"


def test_a_power_is_found_and_drawn_where_it_fits_better() -> None:
    found = made([2 * x**0.5 for x in XS])
    assert (found["power"], found["power_at_one"]) == (pytest.approx(0.5), pytest.approx(2))
    assert found["r_squared"] < found["power_r_squared"] == 1
    (_, ys), words = _fitted(found, np.array(found["values"], float))
    assert ys.tolist() == pytest.approx([2 * x**0.5 for x in XS])
    assert words == "2 · x^0.50, R² 1.00"


def test_zero_takes_part_in_the_line_alone() -> None:
    found = made([1, 2, 3, 4], [0, 1, 2, 3])
    assert found["line"]["at_zero"] == pytest.approx(1)
    (xs, _), _ = _fitted({**found, "r_squared": 0.0}, np.array(found["values"], float))
    assert xs.tolist() == [1, 2, 3]


@pytest.mark.parametrize("candidates", [0, 50, 400])
def test_heads_have_as_many_candidates_as_wanted(candidates: int) -> None:
    scores, offsets, spec = heads(1000, 21, candidates)
    assert (scores > spec.thresholds.score_threshold).sum() == candidates
    assert len(PostProcessor(spec)(scores, offsets).scores) <= min(
        candidates, spec.thresholds.max_detections
    )


def test_memory_is_measured_against_all_that_time_is() -> None:
    assert set(cases()) == {
        *("megapixels", "default boxes", "classes", "candidates"),
        *("batch", "streams", "threads"),
    }


def test_every_curve_gets_a_panel(tmp_path: Path) -> None:
    file = tmp_path / "curves.png"
    sizes = []
    for count in (2, 12):
        draw({f"curve {n}": made([float(x) for x in XS]) for n in range(count)}, file)
        sizes.append(cv2.imread(str(file)).shape[0])
    assert sizes[1] > 2 * sizes[0]
