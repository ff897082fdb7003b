"""Matching of whole batches, compared with that of single images, and its waits for a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_ssd_training.engine.batched_matching import match_batch, pad_targets
from realtime_ssd_training.engine.loader import Target
from realtime_ssd_training.engine.loss import MultiBoxLoss
from realtime_ssd_training.engine.matching import BestMatch, match
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from realtime_ssd.core import boxes as plain
from tests.training import torchvision_cases
from tests.training.engine.test_loss import ORACLE, SPEC, batch
from tests.training.engine.test_matching import Box, Scene, scene

WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "is_nonzero")


class Waits(TorchDispatchMode):
    """Counts operations whose result a GPU would have to send to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.name()
        masks = args[1] if name.startswith(("aten::index", "aten::index_put")) else ()
        by_mask = any(m is not None and m.dtype == torch.bool for m in masks or ())
        if by_mask or any(part in name for part in WAITING):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def defaults_of(boxes: Sequence[Box]) -> Tensor:
    return torch.from_numpy(plain.to_center(np.array(boxes, np.float32)))


def target_of(case: Scene) -> Target:
    _, objects, ignored = case
    return Target(
        torch.tensor(objects, dtype=torch.float32).reshape(-1, 4),
        torch.arange(len(objects)) + 1,
        torch.tensor(ignored, dtype=torch.bool),
    )


@settings(deadline=None)
@given(
    st.lists(scene(), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from(["bipartite", "forced"]),
)
def test_a_batch_is_matched_as_its_images_are(
    cases: list[Scene], threshold: float, first: BestMatch
) -> None:
    defaults, targets = defaults_of(cases[0][0]), [target_of(case) for case in cases]
    objects, labels = match_batch(defaults, pad_targets(targets), threshold, first)
    for row, one in enumerate(targets):
        expected = match(
            defaults, one.boxes, one.labels, threshold, ignored=one.ignored, first=first
        )
        assert objects[row].tolist() == expected.objects.tolist()
        assert labels[row].tolist() == expected.labels.tolist()


@pytest.mark.parametrize("first", ["bipartite", "forced"])
def test_crowded_images_are_matched_alike(first: BestMatch) -> None:
    random = np.random.default_rng(4)
    corners = random.uniform(0, 0.7, (900, 2))
    boxes = np.hstack([corners, corners + random.uniform(0.1, 0.3, (900, 2))])
    defaults = defaults_of(boxes.tolist())
    targets = []
    for count in (0, 1, 40, 17):
        corners = random.uniform(0, 0.7, (count, 2))
        boxes = np.hstack([corners, corners + random.uniform(0.1, 0.3, (count, 2))])
        targets.append(target_of(([], boxes.tolist(), (random.random(count) < 0.2).tolist())))
    objects, _ = match_batch(defaults, pad_targets(targets), first=first)
    for row, one in enumerate(targets):
        expected = match(defaults, one.boxes, one.labels, ignored=one.ignored, first=first)
        assert torch.equal(objects[row], expected.objects)


@pytest.mark.parametrize("name", torchvision_cases.cases())
def test_loss_and_gradient_of_padded_targets_equal_those_of_torchvision(name: str) -> None:
    case, expected = torchvision_cases.cases()[name], ORACLE[name]
    scores, offsets, targets = batch(case)
    loss = MultiBoxLoss(SPEC, torch.from_numpy(case.defaults), first="forced")
    total = loss(scores, offsets, pad_targets(targets))
    assert total.item() == pytest.approx(expected["scores"] + expected["offsets"], rel=1e-5)
    total.backward()
    for tensor, probe, sums in zip(
        (scores, offsets), case.probe, expected["gradient"], strict=True
    ):
        assert tensor.grad is not None
        weighted = (tensor.grad * torch.from_numpy(probe)).sum((1, 2)).tolist()
        assert weighted == pytest.approx(sums, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("first", ["bipartite", "forced"])
def test_padded_targets_never_wait_for_the_device(first: BestMatch) -> None:
    case = next(iter(torchvision_cases.cases().values()))
    scores, offsets, targets = batch(case)
    loss = MultiBoxLoss(SPEC, torch.from_numpy(case.defaults), first=first)
    padded = pad_targets(targets)
    with Waits() as waits:
        labels, encoded = loss.assign(padded)
    assert waits.names == []
    assert encoded.shape == (*labels.shape, 4)
    with Waits() as waits:  # on the CPU, hard negatives are selected by their count
        loss(scores, offsets, padded).backward()
    assert len(waits.names) <= 1
    with Waits() as waits:
        loss.assign(targets)
    assert len(waits.names) > len(targets)
