"""Matching, compared with plain loops and with torchvision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from realtime_ssd_training.engine.matching import (
    IGNORED,
    UNMATCHED,
    BestMatch,
    Matches,
    corners,
    encode,
    match,
    overlaps,
)

from realtime_ssd.core import boxes as plain
from tests.training import reference, torchvision_cases

ORACLE = json.loads((Path(__file__).parent / "torchvision_oracle.json").read_text())["cases"]
Box = tuple[float, float, float, float]
Scene = tuple[list[Box], list[Box], list[bool]]
VARIANCES = torch.tensor([0.1, 0.1, 0.2, 0.2])

# A coarse grid produces ties, equal boxes and overlaps of exactly one half.
GRID = st.integers(0, 8)


@st.composite
def box(draw: st.DrawFn) -> Box:
    x, y = draw(GRID), draw(GRID)
    width, height = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    return x / 8, y / 8, (x + width) / 8, (y + height) / 8


@st.composite
def scene(draw: st.DrawFn) -> Scene:
    """Draw default boxes (corners), objects, and which of the objects are ignored."""
    defaults = draw(st.lists(box(), min_size=1, max_size=6))
    objects = draw(st.lists(st.one_of(box(), st.sampled_from(defaults)), max_size=8))
    ignored = draw(st.lists(st.booleans(), min_size=len(objects), max_size=len(objects)))
    return defaults, objects, ignored


def run(
    defaults: Sequence[Box],
    objects: Sequence[Box],
    ignored: Sequence[bool] | None = None,
    threshold: float = 0.5,
    first: BestMatch = "bipartite",
) -> Matches:
    """Match default boxes and objects, both given by corners; objects have classes 1, 2, ..."""
    centered = torch.from_numpy(plain.to_center(np.array(defaults, np.float64)))
    boxes = torch.tensor(objects, dtype=torch.float64).reshape(-1, 4)
    labels = torch.arange(len(objects)) + 1
    flags = None if ignored is None else torch.tensor(ignored, dtype=torch.bool)
    return match(centered, boxes, labels, threshold, ignored=flags, first=first)


@given(scene(), st.sampled_from([0.3, 0.5, 1.0]), st.sampled_from(["bipartite", "forced"]))
@example(([(0, 0, 1, 1)], [(0, 0, 1, 1)] * 3, [False] * 3), 0.5, "bipartite")
@example(([(0, 0, 1, 1)] * 4, [(0, 0, 1, 1)] * 2, [False] * 2), 0.5, "bipartite")
@example(([(0, 0, 1, 1)], [(0, 0, 1, 0.5)], [False]), 0.5, "bipartite")
@example(([(0, 0, 1, 1), (2, 2, 3, 3)], [], []), 0.5, "bipartite")
def test_matching_follows_the_rule_of_the_paper(
    case: Scene, threshold: float, first: BestMatch
) -> None:
    defaults, objects, ignored = case
    matches = run(defaults, objects, ignored, threshold, first)
    centered = plain.to_center(np.array(defaults, np.float64)).astype(np.float64)
    boxes = np.array(objects, np.float64).reshape(-1, 4)
    assert matches.objects.tolist() == reference.match(centered, boxes, ignored, threshold, first)
    labels = {UNMATCHED: 0, IGNORED: -1}
    assert matches.labels.tolist() == [labels.get(n, n + 1) for n in matches.objects.tolist()]
    assert matches.matched.tolist() == [n >= 0 for n in matches.objects.tolist()]


@given(scene())
def test_every_overlapping_object_gets_a_default_box_while_there_are_any(case: Scene) -> None:
    defaults, objects, _ = case
    matched = set(run(defaults, objects, threshold=1.0).objects.tolist()) - {UNMATCHED}
    overlapping = [
        any(reference.overlap(np.array(a), np.array(b))[0] > 0 for b in defaults) for a in objects
    ]
    if sum(overlapping) <= 1:
        assert len(matched) == sum(overlapping)
    assert len(matched) <= min(len(defaults), sum(overlapping))
    if all(np.array_equal(a, defaults[0]) for a in [*defaults, *objects]):
        assert len(matched) == min(len(defaults), len(objects))


def test_ignored_objects_are_not_matched_and_default_boxes_in_them_are_ignored() -> None:
    crowd = (0.0, 0.0, 1.0, 1.0)
    defaults = [(0, 0, 1, 1), (0.5, 0, 1.5, 1), (0.6, 0, 1.6, 1), (3, 3, 4, 4)]
    assert run(defaults, [crowd], [True]).labels.tolist() == [-1, -1, 0, 0]
    # An object inside the crowd is still matched.
    both = run(defaults, [crowd, (0.6, 0, 1.6, 1), (0, 0, 1, 0.9)], [True, False, False])
    assert both.labels.tolist() == [3, 2, 2, 0]


def test_a_default_box_is_ignored_from_half_coverage_on() -> None:
    assert run([(0.5, 0, 1.5, 1)], [(0, 0, 1, 1)], [True]).labels.tolist() == [-1]
    assert run([(0.501, 0, 1.501, 1)], [(0, 0, 1, 1)], [True]).labels.tolist() == [0]


def test_an_iou_equal_to_the_threshold_is_a_match() -> None:
    defaults = [(0, 0, 1, 0.5), (0, 0, 1, 0.49), (0, 0, 1, 0.6)]
    assert run(defaults, [(0, 0, 1, 1)]).labels.tolist() == [1, 0, 1]


def test_conflicts_for_the_same_best_default_box() -> None:
    defaults = [(0, 0, 1, 1), (0, 0, 1, 0.7)]
    objects = [(0, 0, 1, 0.95), (0, 0, 1, 1)]
    assert run(defaults, objects).labels.tolist() == [2, 1]
    assert run(defaults, objects, first="forced").labels.tolist() == [2, 1]
    far = [(0, 0, 1, 1), (5, 5, 6, 6)]
    assert run(far, objects).labels.tolist() == [2, 0]
    assert run(far, objects[::-1], first="forced").labels.tolist() == [2, 0]


@pytest.mark.parametrize("name", ORACLE)
def test_forced_matching_equals_that_of_torchvision(name: str) -> None:
    batches = {**torchvision_cases.cases(), "overfull": torchvision_cases.overfull()}
    case, expected = batches[name], ORACLE[name]
    defaults, encoded = torch.from_numpy(case.defaults), []
    for k, (boxes, labels) in enumerate(zip(case.boxes, case.labels, strict=True)):
        inputs = torch.from_numpy(boxes), torch.from_numpy(labels)
        matches = match(defaults, *inputs, first="forced")
        rows = torch.nonzero(matches.matched).flatten()
        assert rows.tolist() == expected["matched"][k]
        assert matches.objects[rows].tolist() == expected["objects"][k]
        objects = inputs[0][matches.objects[rows]]
        encoded += encode(objects, defaults[rows], VARIANCES).sum(1).tolist()
    assert encoded == pytest.approx(expected["encoded"], rel=1e-5, abs=1e-4)


def test_box_functions_equal_those_for_numpy() -> None:
    random = np.random.default_rng(0)
    low = random.uniform(0, 1, (50, 2))
    boxes = np.concatenate([low, low + random.uniform(0.01, 1, (50, 2))], 1).astype(np.float32)
    defaults = plain.to_center(boxes[::-1]).astype(np.float32)
    pair = torch.from_numpy(boxes), torch.from_numpy(defaults)
    assert np.allclose(corners(pair[1]).numpy(), boxes[::-1], atol=1e-6)
    expected = plain.encode(boxes, defaults, (0.1, 0.1, 0.2, 0.2))
    assert np.allclose(encode(*pair, VARIANCES).numpy(), expected, atol=1e-4)
    iou, covered = overlaps(pair[0], pair[0])
    assert np.allclose(iou.numpy(), plain.iou(boxes, boxes), atol=1e-6)
    areas = (pair[0][:, 2:] - pair[0][:, :2]).prod(1)
    intersection = covered * areas
    assert np.allclose(intersection.numpy(), intersection.T.numpy(), atol=1e-6)
    assert np.allclose(covered.diagonal().numpy(), 1.0)
