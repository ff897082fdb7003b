"""Peers are compared by their answers before they are timed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from benchmarks import readme
from benchmarks.cpu import nms_baselines as nms_peers
from benchmarks.cpu.nms_baselines import OWN, Answers, measure
from benchmarks.cpu.scaling import heads
from realtime_ssd.core.spec import ModelSpec


def test_peers_give_our_survivors() -> None:
    scores, offsets, spec = heads(400, 5, 150)
    found = measure([(scores, offsets)], spec, 0.3, 1)
    assert found["candidates"] == 150
    assert 0 < found["survivors"] < 150
    for name in ("supervision", "OpenCV"):
        assert found["rows"][name]["agreement"] == 1
        assert found["rows"][name]["same_answers"]
        assert found["rows"][name]["ms"] > 0
    assert OWN not in found["rows"]  # it knows softmax alone


def test_other_survivors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_them(found: Answers, spec: ModelSpec) -> Answers:
        return found

    monkeypatch.setattr(nms_peers, "NMS", {"supervision": all_of_them})
    scores, offsets, spec = heads(400, 5, 150)
    found = measure([(scores, offsets)], spec, 0.3, 1)
    assert not found["rows"]["supervision"]["same_answers"]
    (line,) = readme.lines_of({"nms": {"400 x 5 above 0.3": found}})
    assert line.what.endswith("supervision (its answers differ)")


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)
def test_torchvision_gives_our_survivors() -> None:
    from dataclasses import replace

    scores, offsets, spec = heads(400, 5, 150)
    logits = np.log(scores + 1e-3)
    contract = replace(spec, activation="softmax", clip_before_nms=True)
    rows = measure([(logits, offsets)], contract, 0.3, 1)["rows"]
    assert rows["torchvision"]["same_answers"]
    assert rows[OWN]["same_answers"]
