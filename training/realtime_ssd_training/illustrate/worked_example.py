"""The worked example of `docs/ssd.md`: two objects, fourteen default boxes, three classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.spec import InputSpec, ModelSpec
from realtime_ssd_training.engine.loader import Target
from realtime_ssd_training.engine.loss import Losses, MultiBoxLoss, hard_negatives

__all__ = ["LOGITS", "OBJECTS", "OFFSETS", "SIDE", "SPEC", "Solution", "heads", "solve", "target"]

SIDE = 100
"""Side of the image in pixels."""

SPEC = ModelSpec(
    name="example",
    input=InputSpec(SIDE, SIDE),
    boxes=AnchorSpec(
        (
            AnchorLayer(2, 2, 0.50, 0.50, ((0.40, 0.40), (0.56, 0.28), (0.28, 0.56))),
            AnchorLayer(1, 1, 1.00, 1.00, ((0.70, 0.70), (0.90, 0.90))),
        )
    ),
    labels=("background", "car", "person"),
)

OBJECTS = ((4, 12, 52, 40, 1), (68, 50, 84, 94, 2))
"""Box (x1, y1, x2, y2) in pixels and class id of each object."""

LOGITS = (
    (1.0, 2.0, 0.0),
    (0.0, 3.0, 0.0),
    (1.0, 1.0, 0.0),
    (3.0, 0.0, 0.0),
    (2.0, 1.0, 0.0),
    (3.0, 0.0, 0.5),
    (4.0, 0.0, 0.0),
    (5.0, 0.0, 0.0),
    (3.0, 1.0, 0.0),
    (1.0, 0.0, 1.5),
    (1.5, 0.0, 1.0),
    (0.5, 0.0, 1.5),
    (2.0, 1.5, 0.0),
    (2.5, 1.0, 0.5),
)
"""Logits of background, car and person for each default box."""

OFFSETS = {0: (0.5, 0.2, 0.5, -1.0), 1: (0.4, 0.3, -0.6, 0.1), 11: (0.0, -0.5, -1.0, -1.2)}
"""Predicted offsets by default box; 0 for all other default boxes."""


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Matching and loss of the example.

    Attributes:
        labels: 14 target classes.
        target_offsets: 14 × 4 target offsets; 0 if not matched.
        entropy: 14 cross-entropies.
        hard: 14 booleans: the hard negatives.
        parts: Sums of the classification and the localization loss.
        loss: The total loss.
    """

    labels: Tensor
    target_offsets: Tensor
    entropy: Tensor
    hard: Tensor
    parts: Losses
    loss: Tensor


def target() -> Target:
    """Return the ground truth in the format of the loss."""
    rows = torch.tensor(OBJECTS, dtype=torch.float32)
    ignored = torch.zeros(len(rows), dtype=torch.bool)
    return Target(rows[:, :4] / SIDE, rows[:, 4].long(), ignored)


def heads() -> tuple[Tensor, Tensor]:
    """Return the predictions: 1 × 14 × 3 logits and 1 × 14 × 4 offsets."""
    offsets = torch.zeros(1, len(LOGITS), 4)
    for row, values in OFFSETS.items():
        offsets[0, row] = torch.tensor(values)
    return torch.tensor(LOGITS)[None], offsets


def solve(**options: float) -> Solution:
    """Compute matching and loss of the example.

    Args:
        **options: Options of `MultiBoxLoss`.
    """
    loss = MultiBoxLoss(SPEC, torch.from_numpy(SPEC.boxes.boxes()), **options)  # type: ignore[arg-type]
    scores, offsets = heads()
    labels, target_offsets = loss.assign([target()])
    entropy = functional.cross_entropy(scores[0], labels[0], reduction="none")
    hard = hard_negatives(entropy[None], labels, loss.negatives)
    parts = loss.parts(scores, offsets, [target()])
    total = loss(scores, offsets, [target()])
    return Solution(labels[0], target_offsets[0], entropy, hard[0], parts, total)
