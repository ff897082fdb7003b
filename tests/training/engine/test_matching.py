"""Matching against the paper's rule in plain loops, and against torchvision's answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from realtime_ssd_training.engine.matching import (
    BACKGROUND,
    IGNORED,
    Matches,
    corners,
    encode,
    match,
    overlaps,
)

from realtime_ssd.core import boxes as plain
from tests.training import reference, torchvision_cases

ORACLE = json.loads((Path(__file__).parent / "torchvision_oracle.json").read_text())["cases"]
VARIANCES = torch.tensor([0.1, 0.1, 0.2, 0.2])

# Sides on a coarse grid make ties, equal boxes and overlaps of exactly one half.
GRID = st.integers(0, 8)


@st.composite
def box(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x, y = draw(GRID), draw(GRID)
    width, height = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    return x / 8, y / 8, (x + width) / 8, (y + height) / 8


@st.composite
def scene(draw: st.DrawFn) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]], list[bool]]:
    """Default boxes (corners), objects and which of these are ignored; often more objects."""
    defaults = draw(st.lists(box(), min_size=1, max_size=6))
    objects = draw(st.lists(st.one_of(box(), st.sampled_from(defaults)), max_size=8))
    ignored = draw(st.lists(st.booleans(), min_size=len(objects), max_size=len(objects)))
    return defaults, objects, ignored


def run(
    defaults: list[tuple[float, ...]],
    objects: list[tuple[float, ...]],
    ignored: list[bool] | None,
    threshold: float = 0.5,
    first: str = "bipartite",
) -> Matches:
    centred = torch.from_numpy(plain.to_center(np.array(defaults, np.float64)))
    boxes = torch.tensor(objects, dtype=torch.float64).reshape(-1, 4)
    labels = torch.arange(len(objects)) + 1
    flags = None if ignored is None else torch.tensor(ignored, dtype=torch.bool)
    return match(centred, boxes, labels, threshold, ignored=flags, first=first)  # type: ignore[arg-type]


@given(scene(), st.sampled_from([0.3, 0.5, 1.0]), st.sampled_from(["bipartite", "forced"]))
@example(([(0, 0, 1, 1)], [(0, 0, 1, 1)] * 3, [False] * 3), 0.5, "bipartite")
@example(([(0, 0, 1, 1)] * 4, [(0, 0, 1, 1)] * 2, [False] * 2), 0.5, "bipartite")
@example(([(0, 0, 1, 1)], [(0, 0, 1, 0.5)], [False]), 0.5, "bipartite")
@example(([(0, 0, 1, 1), (2, 2, 3, 3)], [], []), 0.5, "bipartite")
def test_the_rule_of_the_paper(
    case: tuple[list[tuple[float, ...]], list[tuple[float, ...]], list[bool]],
    threshold: float,
    first: str,
) -> None:
    defaults, objects, ignored = case
    found = run(defaults, objects, ignored, threshold, first)
    centred = plain.to_center(np.array(defaults, np.float64))
    boxes = np.array(objects, np.float64).reshape(-1, 4)
    assert found.objects.tolist() == reference.match(centred, boxes, ignored, threshold, first)
    wanted = {BACKGROUND: 0, IGNORED: -1}
    assert found.labels.tolist() == [wanted.get(n, n + 1) for n in found.objects.tolist()]
    assert found.found.tolist() == [n >= 0 for n in found.objects.tolist()]


@given(scene())
def test_every_object_that_can_gets_a_default_box(
    case: tuple[list[tuple[float, ...]], list[tuple[float, ...]], list[bool]],
) -> None:
    defaults, objects, _ = case
    found = set(run(defaults, objects, None, threshold=1.0).objects.tolist()) - {BACKGROUND}
    touching = [
        any(reference.overlap(np.array(a), np.array(b))[0] > 0 for b in defaults) for a in objects
    ]
    if sum(touching) <= 1:
        assert len(found) == sum(touching)
    assert len(found) <= min(len(defaults), sum(touching))
    if all(np.array_equal(a, defaults[0]) for a in [*defaults, *objects]):
        assert len(found) == min(len(defaults), len(objects))


def test_no_ignored_object_is_matched_and_its_inside_is_nothing() -> None:
    crowd = (0.0, 0.0, 1.0, 1.0)
    defaults = [(0, 0, 1, 1), (0.5, 0, 1.5, 1), (0.6, 0, 1.6, 1), (3, 3, 4, 4)]
    assert run(defaults, [crowd], [True]).labels.tolist() == [-1, -1, 0, 0]
    # A real object inside the crowd is still found.
    both = run(defaults, [crowd, (0.6, 0, 1.6, 1), (0, 0, 1, 0.9)], [True, False, False])
    assert both.labels.tolist() == [3, 2, 2, 0]


def test_a_default_box_that_lies_in_a_crowd_by_just_half() -> None:
    assert run([(0.5, 0, 1.5, 1)], [(0, 0, 1, 1)], [True]).labels.tolist() == [-1]
    assert run([(0.501, 0, 1.501, 1)], [(0, 0, 1, 1)], [True]).labels.tolist() == [0]


def test_an_overlap_of_just_the_threshold_joins() -> None:
    defaults = [(0, 0, 1, 0.5), (0, 0, 1, 0.49), (0, 0, 1, 0.6)]
    assert run(defaults, [(0, 0, 1, 1)], None).labels.tolist() == [1, 0, 1]


def test_objects_that_want_the_same_default_box() -> None:
    defaults = [(0, 0, 1, 1), (0, 0, 1, 0.7)]
    objects = [(0, 0, 1, 0.95), (0, 0, 1, 1)]
    assert run(defaults, objects, None).labels.tolist() == [2, 1]
    assert run(defaults, objects, None, first="forced").labels.tolist() == [2, 1]
    far = [(0, 0, 1, 1), (5, 5, 6, 6)]
    assert run(far, objects, None).labels.tolist() == [2, 0]
    assert run(far, objects[::-1], None, first="forced").labels.tolist() == [2, 0]


@pytest.mark.parametrize("name", ORACLE)
def test_forced_matching_is_that_of_torchvision(name: str) -> None:
    batches = {**torchvision_cases.cases(), "overfull": torchvision_cases.overfull()}
    case, wanted = batches[name], ORACLE[name]
    defaults, encoded = torch.from_numpy(case.defaults), []
    for k, (boxes, labels) in enumerate(zip(case.boxes, case.labels, strict=True)):
        inputs = torch.from_numpy(boxes), torch.from_numpy(labels)
        found = match(defaults, *inputs, first="forced")
        rows = torch.nonzero(found.found).flatten()
        assert rows.tolist() == wanted["matched"][k]
        assert found.objects[rows].tolist() == wanted["objects"][k]
        encoded += encode(inputs[0][found.objects[rows]], defaults[rows], VARIANCES).sum(1).tolist()
    assert encoded == pytest.approx(wanted["encoded"], rel=1e-5, abs=1e-4)


def test_tensors_and_arrays_agree() -> None:
    random = np.random.default_rng(0)
    low = random.uniform(0, 1, (50, 2))
    boxes = np.concatenate([low, low + random.uniform(0.01, 1, (50, 2))], 1).astype(np.float32)
    defaults = plain.to_center(boxes[::-1]).astype(np.float32)
    pair = torch.from_numpy(boxes), torch.from_numpy(defaults)
    assert np.allclose(corners(pair[1]).numpy(), boxes[::-1], atol=1e-6)
    wanted = plain.encode(boxes, defaults, (0.1, 0.1, 0.2, 0.2))
    assert np.allclose(encode(*pair, VARIANCES).numpy(), wanted, atol=1e-4)
    iou, covered = overlaps(pair[0], pair[0])
    assert np.allclose(iou.numpy(), plain.iou(boxes, boxes), atol=1e-6)
    areas = (pair[0][:, 2:] - pair[0][:, :2]).prod(1)
    common = covered * areas  # of the second box, so that this is the area in common
    assert np.allclose(common.numpy(), common.T.numpy(), atol=1e-6)
    assert np.allclose(covered.diagonal().numpy(), 1.0)
