"""The loss, compared with torchvision, with plain loops and with finite differences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_ssd_training.engine.loader import Target
from realtime_ssd_training.engine.loss import MultiBoxLoss, hard_negatives
from realtime_ssd_training.engine.matching import BestMatch
from realtime_ssd_training.recipe import LossConfig
from torch import Tensor
from torch.nn import functional

from tests.tiny import tiny_spec
from tests.training import reference, torchvision_cases
from tests.training.torchvision_cases import Case

ORACLE = json.loads((Path(__file__).parent / "torchvision_oracle.json").read_text())["cases"]
VARIANCES = (0.1, 0.1, 0.2, 0.2)
SPEC = replace(tiny_spec(), variances=VARIANCES)


def target(
    boxes: Sequence[Sequence[float]], labels: Sequence[int] = (), ignored: Sequence[bool] = ()
) -> Target:
    """Return the ground truth of an image; by default all objects are of class 1 and used."""
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels or [1] * len(boxes), dtype=torch.int64),
        torch.tensor(ignored or [False] * len(boxes), dtype=torch.bool),
    )


def batch(case: Case) -> tuple[Tensor, Tensor, list[Target]]:
    """Return heads that require gradients, and targets."""
    targets = [
        Target(torch.from_numpy(boxes), torch.from_numpy(labels), torch.zeros(len(labels)) > 0)
        for boxes, labels in zip(case.boxes, case.labels, strict=True)
    ]
    scores, offsets = torch.from_numpy(case.scores), torch.from_numpy(case.offsets)
    return scores.requires_grad_(), offsets.requires_grad_(), targets


@pytest.mark.parametrize("name", torchvision_cases.cases())
def test_loss_and_gradient_equal_those_of_torchvision(name: str) -> None:
    case, expected = torchvision_cases.cases()[name], ORACLE[name]
    scores, offsets, targets = batch(case)
    loss = MultiBoxLoss(SPEC, torch.from_numpy(case.defaults), first="forced")
    parts = loss.parts(scores, offsets, targets)
    count = max(1, int(parts.matched))
    assert int(parts.matched) == sum(map(len, expected["matched"]))
    assert parts.scores.item() / count == pytest.approx(expected["scores"], rel=1e-5)
    assert parts.offsets.item() / count == pytest.approx(expected["offsets"], rel=1e-5)
    total = loss(scores, offsets, targets)
    assert total.item() == pytest.approx(expected["scores"] + expected["offsets"], rel=1e-5)
    total.backward()
    for tensor, probe, sums in zip(
        (scores, offsets), case.probe, expected["gradient"], strict=True
    ):
        assert tensor.grad is not None
        weighted = (tensor.grad * torch.from_numpy(probe)).sum((1, 2)).tolist()
        assert weighted == pytest.approx(sums, rel=1e-4, abs=1e-5)


def test_matched_boxes_are_counted_once_where_negatives_run_out() -> None:
    # torchvision counts them twice: its ranks beyond the last negative select matched boxes.
    case, expected = torchvision_cases.overfull(), ORACLE["overfull"]
    scores, offsets, targets = batch(case)
    loss = MultiBoxLoss(SPEC, torch.from_numpy(case.defaults), first="forced")
    parts = loss.parts(scores, offsets, targets)
    labels, _ = loss.assign(targets)
    entropy = functional.cross_entropy(scores.transpose(1, 2), labels, reduction="none")
    assert 3 * int((labels[0] > 0).sum()) > labels.shape[1]
    assert parts.scores.item() == pytest.approx(entropy.sum().item(), rel=1e-5)
    twice = entropy.sum() + entropy[labels > 0].sum()
    assert (twice / parts.matched).item() == pytest.approx(expected["scores"], rel=1e-5)
    assert (parts.offsets / parts.matched).item() == pytest.approx(expected["offsets"], rel=1e-5)


def test_the_defaults_are_those_of_the_paper(grid: Tensor) -> None:
    loss = MultiBoxLoss(SPEC, grid)
    config = LossConfig()
    for parameters in (loss, config):
        assert parameters.iou_threshold == 0.5
        assert parameters.negatives == 3.0
        assert parameters.alpha == 1.0
        assert parameters.first == "bipartite"


# Multiples of 1/64 are exact in every precision, so that equal overlaps remain equal.
SIDE = st.integers(0, 57).map(lambda n: n / 64)
LENGTH = st.integers(3, 40).map(lambda n: n / 64)
BOX = st.tuples(SIDE, SIDE, LENGTH, LENGTH)


@settings(deadline=None)
@given(
    st.lists(BOX, min_size=1, max_size=9),
    st.lists(st.lists(st.tuples(BOX, st.integers(1, 3), st.booleans()), max_size=5), max_size=3),
    st.sampled_from([0.0, 1.0, 2.5, 3.0]),
    st.integers(0, 2**32 - 1),
)
def test_the_loss_equals_plain_loops(
    shapes: list[tuple[float, ...]],
    images: list[list[tuple[tuple[float, ...], int, bool]]],
    ratio: float,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    defaults = np.array(shapes, np.float64)
    images = images or [[]]
    scores = random.normal(size=(len(images), len(defaults), 4)) * 3
    offsets = random.normal(size=(len(images), len(defaults), 4)) * 2
    targets, sums = [], np.zeros(3)
    for k, objects in enumerate(images):
        boxes = np.array([box for box, _, _ in objects], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [label for _, label, _ in objects]
        ignored = [flag for _, _, flag in objects]
        objects_of = reference.match(defaults, boxes, ignored, 0.5, "bipartite")
        sums += reference.loss(
            scores[k], offsets[k], objects_of, boxes, labels, defaults, VARIANCES, ratio
        )
        flags = torch.tensor(ignored, dtype=torch.bool)
        targets.append(Target(torch.from_numpy(boxes), torch.tensor(labels).long(), flags))
    loss = MultiBoxLoss(SPEC, torch.from_numpy(defaults), negatives=ratio, alpha=0.5).double()
    heads = torch.from_numpy(scores), torch.from_numpy(offsets)
    parts = loss.parts(*heads, targets)
    values = [parts.scores.item(), parts.offsets.item(), int(parts.matched)]
    assert values == pytest.approx(sums.tolist(), rel=1e-6, abs=1e-9)
    total = (sums[0] + 0.5 * sums[1]) / max(1, sums[2])
    assert float(loss(*heads, targets)) == pytest.approx(total, rel=1e-6, abs=1e-9)


@pytest.fixture
def grid() -> Tensor:
    """36 default boxes (cx, cy, w, h)."""
    steps = torch.arange(6) / 6 + 1 / 12
    centers = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)
    return torch.cat([centers, torch.full((36, 2), 0.25)], 1)


def heads(images: int, count: int = 36, classes: int = 4) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    scores = torch.randn(images, count, classes, generator=random)
    return scores.requires_grad_(), torch.randn(images, count, 4, generator=random).requires_grad_()


def test_the_gradient_equals_finite_differences(grid: Tensor) -> None:
    scores, offsets = (part.detach().double().requires_grad_() for part in heads(2))
    loss = MultiBoxLoss(SPEC, grid).double()
    objects = [[0.1, 0.1, 0.5, 0.4], [0.55, 0.6, 0.8, 0.9]]
    other = target([[0.0, 0.0, 1.0, 0.3], [0.5, 0.5, 0.7, 0.7]], [3, 2], [True, False])
    targets = [Target(t.boxes.double(), t.labels, t.ignored) for t in (target(objects), other)]
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, targets), (scores, offsets))


def test_only_matched_boxes_and_hard_negatives_receive_a_gradient(grid: Tensor) -> None:
    scores, offsets = heads(1)
    objects = target([[0.05, 0.05, 0.3, 0.3], [0.5, 0.5, 1.0, 1.0]], [2, 1], [False, True])
    loss = MultiBoxLoss(SPEC, grid)
    labels, _ = loss.assign([objects])
    loss(scores, offsets, [objects]).backward()
    assert scores.grad is not None
    assert offsets.grad is not None
    has_gradient = scores.grad[0].abs().sum(1) > 0
    matched = labels[0] > 0
    assert (offsets.grad[0].abs().sum(1) > 0).tolist() == matched.tolist()
    assert int(has_gradient.sum()) == 4 * int(matched.sum())
    assert has_gradient[matched].all()
    assert int((labels[0] == -1).sum()) > 0
    assert not has_gradient[labels[0] == -1].any()


WITHOUT_OBJECTS = {
    "no objects": [target([]), target([])],
    "all ignored": [target([[0.1, 0.1, 0.5, 0.5]], [1], [True]), target([])],
    "the whole image ignored": [target([[0.0, 0.0, 1.0, 1.0]] * 3, [1, 2, 3], [True] * 3)] * 2,
}


@pytest.mark.parametrize("case", WITHOUT_OBJECTS)
@pytest.mark.parametrize("first", ["bipartite", "forced"])
def test_a_batch_without_objects_has_zero_loss(grid: Tensor, case: str, first: BestMatch) -> None:
    scores, offsets = heads(2)
    loss = MultiBoxLoss(SPEC, grid, first=first)
    value = loss(scores, offsets, WITHOUT_OBJECTS[case])
    assert value.item() == 0.0
    value.backward()
    for part in (scores, offsets):
        assert part.grad is not None
        assert torch.equal(part.grad, torch.zeros_like(part))


def test_images_without_objects_contribute_nothing(grid: Tensor) -> None:
    scores, offsets = heads(2)
    truth = target([[0.1, 0.1, 0.5, 0.4]])
    loss = MultiBoxLoss(SPEC, grid)
    both = loss(scores, offsets, [truth, target([])])
    alone = loss(scores[:1], offsets[:1], [truth])
    assert both.item() == pytest.approx(alone.item(), rel=1e-6)


def test_half_precision_heads_are_computed_in_float32(grid: Tensor) -> None:
    scores, offsets = (part.detach().bfloat16() for part in heads(1))
    loss, targets = MultiBoxLoss(SPEC, grid), [target([[0.1, 0.1, 0.5, 0.4]])]
    value = loss(scores, offsets, targets)
    assert value.dtype == torch.float32
    assert value.item() == float(loss(scores.float(), offsets.float(), targets))


def test_heads_of_another_size_are_rejected(grid: Tensor) -> None:
    scores, offsets = heads(1)
    with pytest.raises(ValueError, match="do not fit 1 images with 36 default boxes"):
        MultiBoxLoss(SPEC, grid)(scores[:, :-1], offsets[:, :-1], [target([])])
    with pytest.raises(ValueError, match="do not fit 2 images"):
        MultiBoxLoss(SPEC, grid)(scores, offsets, [target([]), target([])])


def test_hard_negatives_of_a_small_example() -> None:
    entropy = torch.tensor([[0.1, 0.9, 0.5, 0.9, 0.7, 0.2], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    labels = torch.tensor([[2, 0, 0, 0, -1, 0], [0, 0, 0, 0, 0, 0]])
    for ratio, expected in (
        (0.0, []),
        (1.0, [1]),
        (2.9, [1, 3]),
        (3.0, [1, 2, 3]),
        (9.0, [1, 2, 3, 5]),
    ):
        chosen = hard_negatives(entropy, labels, ratio)
        assert torch.nonzero(chosen[0]).flatten().tolist() == expected
        assert not chosen[1].any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 3.0]))
def test_hard_negatives_have_the_highest_loss(seed: int, ratio: float) -> None:
    random = torch.Generator().manual_seed(seed)
    entropy = torch.randint(0, 5, (3, 20), generator=random).float()
    labels = torch.randint(-1, 3, (3, 20), generator=random).where(
        torch.rand(3, 20, generator=random) < 0.4, 0
    )
    chosen = hard_negatives(entropy, labels, ratio)
    for k in range(3):
        background = labels[k] == 0
        assert not chosen[k][~background].any()
        count = min(int(background.sum()), int((labels[k] > 0).sum() * ratio))
        assert int(chosen[k].sum()) == count
        rest = entropy[k][background & ~chosen[k]]
        if count and len(rest):
            assert entropy[k][chosen[k]].min() >= rest.max()
