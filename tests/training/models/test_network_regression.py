"""The networks have not changed since their summaries were recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from realtime_ssd_training.models import names

from tests.training.models.network_summary import (
    FILE,
    NETWORKS,
    VGG_BOXES,
    summarize_boxes,
    summarize_network,
)

RECORDED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


def test_every_network_is_recorded() -> None:
    assert {architecture for architecture, _ in NETWORKS.values()} == set(names())
    assert set(RECORDED) == {*NETWORKS, *VGG_BOXES}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_equals_its_recorded_summary(name: str) -> None:
    summary, recorded = summarize_network(name), RECORDED[name]
    assert summary["shapes"] == recorded["shapes"]
    assert summary["spec"] == recorded["spec"]
    assert summary["boxes"] == pytest.approx(recorded["boxes"], rel=1e-6)
    if "outputs" in recorded:
        assert summary["outputs"] == pytest.approx(recorded["outputs"], rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("name", VGG_BOXES)
def test_default_boxes_equal_their_recorded_summary(name: str) -> None:
    assert summarize_boxes(VGG_BOXES[name]) == pytest.approx(RECORDED[name], rel=1e-6)
