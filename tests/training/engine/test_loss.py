"""The loss against torchvision's answers, against plain loops, and against its own gradient."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from realtime_ssd_training.engine.loader import Target
from realtime_ssd_training.engine.loss import MultiBoxLoss, hard_negatives
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
    """Give the ground truth of an image; by default all objects are of class 1 and count."""
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels or [1] * len(boxes), dtype=torch.int64),
        torch.tensor(ignored or [False] * len(boxes), dtype=torch.bool),
    )


def batch(case: Case) -> tuple[Tensor, Tensor, list[Target]]:
    """Give heads that ask for gradients, and targets."""
    targets = [
        Target(torch.from_numpy(boxes), torch.from_numpy(labels), torch.zeros(len(labels)) > 0)
        for boxes, labels in zip(case.boxes, case.labels, strict=True)
    ]
    scores, offsets = torch.from_numpy(case.scores), torch.from_numpy(case.offsets)
    return scores.requires_grad_(), offsets.requires_grad_(), targets


@pytest.mark.parametrize("name", torchvision_cases.cases())
def test_torchvision(name: str) -> None:
    case, wanted = torchvision_cases.cases()[name], ORACLE[name]
    scores, offsets, targets = batch(case)
    loss = MultiBoxLoss(SPEC, torch.from_numpy(case.defaults), first="forced")
    parts = loss.parts(scores, offsets, targets)
    count = max(1, int(parts.matched))
    assert int(parts.matched) == sum(map(len, wanted["matched"]))
    assert parts.scores.item() / count == pytest.approx(wanted["scores"], rel=1e-5)
    assert parts.offsets.item() / count == pytest.approx(wanted["offsets"], rel=1e-5)
    whole = loss(scores, offsets, targets)
    assert whole.item() == pytest.approx(wanted["scores"] + wanted["offsets"], rel=1e-5)
    whole.backward()
    for tensor, probe, sums in zip((scores, offsets), case.probe, wanted["gradient"], strict=True):
        assert tensor.grad is not None
        found = (tensor.grad * torch.from_numpy(probe)).sum((1, 2)).tolist()
        assert found == pytest.approx(sums, rel=1e-4, abs=1e-5)


def test_torchvision_counts_matched_boxes_twice_where_negatives_run_out() -> None:
    # There, ranks beyond the last negative are the matched boxes once more. Not so here.
    case, wanted = torchvision_cases.overfull(), ORACLE["overfull"]
    scores, offsets, targets = batch(case)
    loss = MultiBoxLoss(SPEC, torch.from_numpy(case.defaults), first="forced")
    parts = loss.parts(scores, offsets, targets)
    labels, _ = loss.assign(targets)
    entropy = functional.cross_entropy(scores.transpose(1, 2), labels, reduction="none")
    assert 3 * int((labels[0] > 0).sum()) > labels.shape[1]
    assert parts.scores.item() == pytest.approx(entropy.sum().item(), rel=1e-5)
    twice = entropy.sum() + entropy[labels > 0].sum()
    assert (twice / parts.matched).item() == pytest.approx(wanted["scores"], rel=1e-5)
    assert (parts.offsets / parts.matched).item() == pytest.approx(wanted["offsets"], rel=1e-5)


# Sixty-fourths are exact in every precision, so that equal overlaps stay equal.
SIDE = st.integers(0, 57).map(lambda n: n / 64)
LENGTH = st.integers(3, 40).map(lambda n: n / 64)
BOX = st.tuples(SIDE, SIDE, LENGTH, LENGTH)


@given(
    st.lists(BOX, min_size=1, max_size=9),
    st.lists(st.lists(st.tuples(BOX, st.integers(1, 3), st.booleans()), max_size=5), max_size=3),
    st.sampled_from([0.0, 1.0, 2.5, 3.0]),
    st.integers(0, 2**32 - 1),
)
def test_plain_loops(
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
        found = reference.match(defaults, boxes, ignored, 0.5, "bipartite")
        sums += reference.loss(
            scores[k], offsets[k], found, boxes, labels, defaults, VARIANCES, ratio
        )
        flags = torch.tensor(ignored, dtype=torch.bool)
        targets.append(Target(torch.from_numpy(boxes), torch.tensor(labels).long(), flags))
    loss = MultiBoxLoss(SPEC, torch.from_numpy(defaults), negatives=ratio, alpha=0.5).double()
    heads = torch.from_numpy(scores), torch.from_numpy(offsets)
    parts = loss.parts(*heads, targets)
    values = [parts.scores.item(), parts.offsets.item(), int(parts.matched)]
    assert values == pytest.approx(sums.tolist(), rel=1e-6, abs=1e-9)
    whole = (sums[0] + 0.5 * sums[1]) / max(1, sums[2])
    assert float(loss(*heads, targets)) == pytest.approx(whole, rel=1e-6, abs=1e-9)


@pytest.fixture
def grid() -> Tensor:
    """36 default boxes (cx, cy, w, h)."""
    steps = torch.arange(6) / 6 + 1 / 12
    centres = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)
    return torch.cat([centres, torch.full((36, 2), 0.25)], 1)


def heads(images: int, count: int = 36, classes: int = 4) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    scores = torch.randn(images, count, classes, generator=random)
    return scores.requires_grad_(), torch.randn(images, count, 4, generator=random).requires_grad_()


def test_gradient_is_that_of_finite_differences(grid: Tensor) -> None:
    scores, offsets = (part.detach().double().requires_grad_() for part in heads(2))
    loss = MultiBoxLoss(SPEC, grid).double()
    objects = [[0.1, 0.1, 0.5, 0.4], [0.55, 0.6, 0.8, 0.9]]
    plain = [target(objects), target([[0.0, 0.0, 1.0, 0.3], [0.5, 0.5, 0.7, 0.7]], [3, 2], [1, 0])]
    targets = [Target(one.boxes.double(), one.labels, one.ignored) for one in plain]
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, targets), (scores, offsets))


def test_only_chosen_boxes_get_a_gradient(grid: Tensor) -> None:
    scores, offsets = heads(1)
    objects = target([[0.05, 0.05, 0.3, 0.3], [0.5, 0.5, 1.0, 1.0]], [2, 1], [False, True])
    loss = MultiBoxLoss(SPEC, grid)
    labels, _ = loss.assign([objects])
    loss(scores, offsets, [objects]).backward()
    assert scores.grad is not None
    assert offsets.grad is not None
    moved = scores.grad[0].abs().sum(1) > 0
    matched = labels[0] > 0
    assert (offsets.grad[0].abs().sum(1) > 0).tolist() == matched.tolist()
    assert int(moved.sum()) == 4 * int(matched.sum())
    assert moved[matched].all()
    assert int((labels[0] == -1).sum()) > 0
    assert not moved[labels[0] == -1].any()


NOTHING = {
    "no objects": [target([]), target([])],
    "all ignored": [target([[0.1, 0.1, 0.5, 0.5]], [1], [True]), target([])],
    "the whole image ignored": [target([[0.0, 0.0, 1.0, 1.0]] * 3, [1, 2, 3], [True] * 3)] * 2,
}


@pytest.mark.parametrize("case", NOTHING)
@pytest.mark.parametrize("first", ["bipartite", "forced"])
def test_a_batch_without_objects_has_no_loss(grid: Tensor, case: str, first: str) -> None:
    scores, offsets = heads(2)
    loss = MultiBoxLoss(SPEC, grid, first=first)  # type: ignore[arg-type]
    value = loss(scores, offsets, NOTHING[case])
    assert value.item() == 0.0
    value.backward()
    for part in (scores, offsets):
        assert part.grad is not None
        assert torch.equal(part.grad, torch.zeros_like(part))


def test_images_without_objects_add_nothing(grid: Tensor) -> None:
    scores, offsets = heads(2)
    one = target([[0.1, 0.1, 0.5, 0.4]])
    loss = MultiBoxLoss(SPEC, grid)
    both = loss(scores, offsets, [one, target([])])
    alone = loss(scores[:1], offsets[:1], [one])
    assert both.item() == pytest.approx(alone.item(), rel=1e-6)


def test_half_precision_is_computed_in_single(grid: Tensor) -> None:
    scores, offsets = (part.detach().bfloat16() for part in heads(1))
    loss, one = MultiBoxLoss(SPEC, grid), [target([[0.1, 0.1, 0.5, 0.4]])]
    value = loss(scores, offsets, one)
    assert value.dtype == torch.float32
    assert value.item() == float(loss(scores.float(), offsets.float(), one))


def test_heads_of_another_size_are_refused(grid: Tensor) -> None:
    scores, offsets = heads(1)
    with pytest.raises(ValueError, match="do not fit 1 images with 36 default boxes"):
        MultiBoxLoss(SPEC, grid)(scores[:, :-1], offsets[:, :-1], [target([])])
    with pytest.raises(ValueError, match="do not fit 2 images"):
        MultiBoxLoss(SPEC, grid)(scores, offsets, [target([]), target([])])


def test_hard_negatives_by_hand() -> None:
    entropy = torch.tensor([[0.1, 0.9, 0.5, 0.9, 0.7, 0.2], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    labels = torch.tensor([[2, 0, 0, 0, -1, 0], [0, 0, 0, 0, 0, 0]])
    for ratio, wanted in (
        (0.0, []),
        (1.0, [1]),
        (2.9, [1, 3]),
        (3.0, [1, 2, 3]),
        (9.0, [1, 2, 3, 5]),
    ):
        chosen = hard_negatives(entropy, labels, ratio)
        assert torch.nonzero(chosen[0]).flatten().tolist() == wanted
        assert not chosen[1].any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 3.0]))
def test_hard_negatives_are_the_hardest(seed: int, ratio: float) -> None:
    random = torch.Generator().manual_seed(seed)
    entropy = torch.randint(0, 5, (3, 20), generator=random).float()
    labels = torch.randint(-1, 3, (3, 20), generator=random).where(
        torch.rand(3, 20, generator=random) < 0.4, 0
    )
    chosen = hard_negatives(entropy, labels, ratio)
    for k in range(3):
        free = labels[k] == 0
        assert not chosen[k][~free].any()
        most = min(int(free.sum()), int((labels[k] > 0).sum() * ratio))
        assert int(chosen[k].sum()) == most
        rest = entropy[k][free & ~chosen[k]]
        if most and len(rest):
            assert entropy[k][chosen[k]].min() >= rest.max()
