"""Mutated files of every format: a result or one sentence, no other error, no hang, no crash."""

from __future__ import annotations

import pytest

from tests.fuzz.formats import KINDS
from tests.fuzz.runner import fuzz

pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("defusedxml")


@pytest.mark.parametrize("kind", ["mkv", "webp", "onnx", "toml", "coco"])
def test_a_few_mutations(kind: str) -> None:
    counts = fuzz(kind, 0, 20)
    assert (counts.inputs, counts.faults) == (20, [])


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutations(kind: str) -> None:
    counts = fuzz(kind, 100, 200)
    assert (counts.inputs, counts.faults) == (200, [])
    assert counts.sentences > 0
    assert counts.successes > 0


def test_hangs_and_crashes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner itself: workers that crash or hang at one input go on with the next."""
    monkeypatch.setenv("REALTIME_SSD_FUZZ_FAULTS", "3=crash,5=hang,6=error")
    counts = fuzz("png", 0, 8)
    assert counts.inputs == 8
    assert [number for number, _ in counts.faults] == [3, 5, 6]
    crash, hang, error = (outcome for _, outcome in counts.faults)
    assert crash.startswith("crash: status -11")
    assert hang == "hang"
    assert error == "ValueError: planted"
