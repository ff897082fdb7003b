"""NMS baselines are compared by their detections before they are timed."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import readme
from benchmarks.cpu import nms_baselines
from benchmarks.cpu.nms_baselines import TORCHVISION_SSD, Boxes, measure
from benchmarks.cpu.scaling import random_heads
from realtime_ssd.core.spec import ModelSpec


def test_baselines_keep_the_same_boxes() -> None:
    scores, offsets, spec = random_heads(400, 5, 150)
    values = measure([(scores, offsets)], spec, 0.3, 1)
    assert values["candidates"] == 150
    assert 0 < values["survivors"] < 150
    for name in ("supervision", "OpenCV"):
        assert values["rows"][name]["agreement"] == 1
        assert values["rows"][name]["same_answers"]
        assert values["rows"][name]["ms"] > 0
    assert TORCHVISION_SSD not in values["rows"]  # it supports softmax only


def test_different_detections_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_all(candidates: Boxes, spec: ModelSpec) -> Boxes:
        return candidates

    monkeypatch.setattr(nms_baselines, "NMS", {"supervision": keep_all})
    scores, offsets, spec = random_heads(400, 5, 150)
    values = measure([(scores, offsets)], spec, 0.3, 1)
    assert not values["rows"]["supervision"]["same_answers"]
    (row,) = readme.comparisons({"nms": {"400 x 5 above 0.3": values}})
    assert row.title.endswith("supervision (different detections)")


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)
def test_torchvision_keeps_the_same_boxes() -> None:
    scores, offsets, spec = random_heads(400, 5, 150)
    logits = np.log(scores + 1e-3)
    softmax_spec = replace(spec, activation="softmax", clip_before_nms=True)
    rows = measure([(logits, offsets)], softmax_spec, 0.3, 1)["rows"]
    assert rows["torchvision"]["same_answers"]
    assert rows[TORCHVISION_SSD]["same_answers"]
