"""Which object each default box has to find.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2, "Matching
strategy": first every object gets a default box of its own, then every default box that overlaps
an object well enough joins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["BACKGROUND", "IGNORED", "Matches", "corners", "encode", "match", "overlaps"]

BACKGROUND = -1
IGNORED = -2

First = Literal["bipartite", "forced"]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The answer for one image.

    Attributes:
        objects: P int64: index of the object that each default box has to find, or `BACKGROUND`,
            or `IGNORED` where the default box is neither an example nor a counter-example.
        labels: P int64: class of that object; 0 for background, -1 for ignored.
    """

    objects: Tensor
    labels: Tensor

    @property
    def found(self) -> Tensor:
        """P booleans: default boxes that have to find an object."""
        return self.objects >= 0


def corners(boxes: Tensor) -> Tensor:
    """Turn … × 4 boxes (cx, cy, w, h) into (x1, y1, x2, y2)."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def encode(boxes: Tensor, default_boxes: Tensor, variances: Tensor) -> Tensor:
    """Express boxes as offsets from default boxes; `realtime_ssd.core.boxes.encode` for tensors.

    Args:
        boxes: … × 4, x1, y1, x2, y2.
        default_boxes: … × 4, cx, cy, w, h, in the same unit.
        variances: 4 divisors.

    Returns:
        … × 4 offsets (cx, cy, w, h).
    """
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    sizes = boxes[..., 2:] - boxes[..., :2]
    moved = (centers - default_boxes[..., :2]) / default_boxes[..., 2:]
    scaled = torch.log(sizes / default_boxes[..., 2:])
    return torch.cat([moved, scaled], dim=-1) / variances


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Compare every pair of boxes.

    Args:
        first: N × 4, x1, y1, x2, y2.
        second: M × 4 in the same unit.

    Returns:
        N × M intersection over union, and N × M share of the second box that the first covers.
    """
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    common = (high - low).clamp(min=0).prod(dim=2)
    areas = (first[:, 2:] - first[:, :2]).prod(dim=1), (second[:, 2:] - second[:, :2]).prod(dim=1)
    union = areas[0][:, None] + areas[1][None, :] - common
    return common / union, common / areas[1][None, :]


def match(
    default_boxes: Tensor,
    boxes: Tensor,
    labels: Tensor,
    iou_threshold: float = 0.5,
    *,
    ignored: Tensor | None = None,
    first: First = "bipartite",
) -> Matches:
    """Give every default box an object, the background, or nothing to learn.

    Args:
        default_boxes: P × 4, cx, cy, w, h.
        boxes: N × 4, x1, y1, x2, y2, in the same unit, with positive area; N may be 0.
        labels: N int64 class ids, from 1.
        iou_threshold: Default boxes that overlap an object at least this much have to find it.
        ignored: N booleans: crowds and objects that count for nothing. They get no default box,
            and default boxes that lie in them by half or more are no background either.
        first: How every object gets a default box of its own. "bipartite" gives the best pair of
            all away first, then the best of the rest (the paper and its Caffe code); "forced"
            gives each object its best default box, the last one winning a quarrel (torchvision).

    Returns:
        The matches.

    Example:
        >>> defaults = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])
        >>> boxes, labels = torch.tensor([[0.0, 0.0, 0.5, 0.45]]), torch.tensor([3])
        >>> match(defaults, boxes, labels).labels.tolist()
        [3, 0]
    """
    objects = torch.full((len(default_boxes),), BACKGROUND, device=default_boxes.device)
    iou, covered = overlaps(boxes, corners(default_boxes))
    if ignored is not None and bool(ignored.any()):
        objects[(covered[ignored] >= 0.5).any(dim=0)] = IGNORED
        real = torch.nonzero(~ignored).flatten()
        iou = iou[real]
    else:
        real = torch.arange(len(boxes), device=boxes.device)
    if len(real):
        best, owner = iou.max(dim=0)
        objects = torch.where(best >= iou_threshold, real[owner], objects)
        chosen = _bipartite(iou) if first == "bipartite" else iou.argmax(dim=1)
        for row, column in enumerate(chosen.tolist()):
            if column >= 0:
                objects[column] = real[row]
    return Matches(objects, _labels_of(objects, labels))


def _labels_of(objects: Tensor, labels: Tensor) -> Tensor:
    # The last entry serves the background (-1), the one before it the ignored boxes (-2).
    table = torch.cat([labels, labels.new_tensor([-1, 0])])
    return table[objects]


def _bipartite(iou: Tensor) -> Tensor:
    """Give each row of N × P overlaps a column of its own, best pairs first; -1 for no overlap."""
    best, columns = iou.max(dim=1)
    if len(torch.unique(columns)) == len(columns):
        # Nobody wants the same default box, so giving away in any order ends the same.
        return torch.where(best > 0, columns, -1)
    left = iou.clone()
    chosen = torch.full((len(iou),), -1)
    for _ in range(len(iou)):
        place = int(left.argmax())
        row, column = divmod(place, left.shape[1])
        if left[row, column] <= 0:
            break
        chosen[row] = column
        left[row] = -1
        left[:, column] = -1
    return chosen
