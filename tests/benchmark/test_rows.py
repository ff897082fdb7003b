"""Medians, noise and comparison, on numbers worked out by hand."""

from __future__ import annotations

import pytest

from realtime_ssd.benchmark.compare import compare, differences
from realtime_ssd.benchmark.rows import of_latencies, of_rates


def test_latencies() -> None:
    seconds = [0.001] * 4 + [0.002] * 4 + [0.003] * 4 + [0.004] * 4 + [0.100] * 4
    row = of_latencies("network", 2, seconds)
    assert row.repeats == (1, 2, 3, 4, 100)
    assert (row.value, row.unit, row.batch) == (3, "ms", 2)
    assert row.noise == pytest.approx((4 - 2) / 2 / 3, abs=1e-4)
    assert row.percentiles["p50"] == 3
    assert row.percentiles["max"] == 100


def test_a_single_duration_and_none() -> None:
    assert of_latencies("x", 1, [0.5]).value == 500
    rates = of_rates("x", 1, [10, 30, 20], [])
    assert (rates.value, rates.percentiles) == (20, {})


def result(rate: float, milliseconds: float, noise: float) -> dict:  # type: ignore[type-arg]
    shared = {"batch": 1, "noise": noise}
    return {
        "machine": {"cpu": "a", "gpus": []},
        "model": {"sha256": "1"},
        **dict.fromkeys(("backend", "precision", "source", "streams"), "same"),
        "rows": [
            {"what": "loop", "unit": "fps", "value": rate, **shared},
            {"what": "network", "unit": "ms", "value": milliseconds, **shared},
        ],
    }


@pytest.mark.parametrize(
    ("rate", "milliseconds", "noise", "words"),
    [
        (200, 5, 0.01, ["faster", "faster"]),
        (50, 20, 0.01, ["slower", "slower"]),
        (110, 9, 0.2, ["same within noise"] * 2),
        (101, 10, 0.0, ["same within noise"] * 2),
    ],
)
def test_compare(rate: float, milliseconds: float, noise: float, words: list[str]) -> None:
    changes = compare(result(rate, milliseconds, noise), result(100, 10, noise))
    assert [change.verdict for change in changes] == words
    assert changes[0].ratio == pytest.approx(rate / 100)
    assert changes[1].ratio == pytest.approx(10 / milliseconds)


def test_what_else_differs() -> None:
    other = {**result(1, 1, 0), "backend": "tensorrt", "model": {"sha256": "2"}}
    assert differences(result(1, 1, 0), other) == ["model", "backend"]
