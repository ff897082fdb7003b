"""Matching of default boxes with ground-truth objects.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2, "Matching
strategy": each object is matched to the default box with the best overlap, then default boxes are
matched to any object they overlap by at least a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "IGNORED",
    "UNMATCHED",
    "BestMatch",
    "Matches",
    "corners",
    "encode",
    "match",
    "overlaps",
]

UNMATCHED = -1
"""Object index of a default box that is trained as background."""

IGNORED = -2
"""Object index of a default box without any target."""

BestMatch = Literal["bipartite", "forced"]
"""How each object gets its best default box; see `match`."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The matches of one image.

    Attributes:
        objects: P int64: index of the object that each default box is matched to, `UNMATCHED`, or
            `IGNORED` where the default box is neither a positive nor a negative example.
        labels: P int64: class of that object; 0 for background, -1 for ignored.
    """

    objects: Tensor
    labels: Tensor

    @property
    def matched(self) -> Tensor:
        """P booleans: default boxes that are matched to an object."""
        return self.objects >= 0


def corners(boxes: Tensor) -> Tensor:
    """Convert … × 4 boxes (cx, cy, w, h) to (x1, y1, x2, y2)."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def encode(boxes: Tensor, default_boxes: Tensor, variances: Tensor) -> Tensor:
    """Encode boxes as offsets from default boxes, as `realtime_ssd.core.boxes.encode` does.

    Args:
        boxes: … × 4, x1, y1, x2, y2.
        default_boxes: … × 4, cx, cy, w, h, in the same unit.
        variances: 4 divisors.

    Returns:
        … × 4 offsets (cx, cy, w, h).
    """
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    sizes = boxes[..., 2:] - boxes[..., :2]
    shifts = (centers - default_boxes[..., :2]) / default_boxes[..., 2:]
    log_scales = torch.log(sizes / default_boxes[..., 2:])
    return torch.cat([shifts, log_scales], dim=-1) / variances


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Compute pairwise overlaps.

    Args:
        first: N × 4, x1, y1, x2, y2.
        second: M × 4 in the same unit.

    Returns:
        N × M intersection over union (IoU), and N × M intersection over the second box's area.
    """
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=2)
    areas = (first[:, 2:] - first[:, :2]).prod(dim=1), (second[:, 2:] - second[:, :2]).prod(dim=1)
    union = areas[0][:, None] + areas[1][None, :] - intersection
    return intersection / union, intersection / areas[1][None, :]


def match(
    default_boxes: Tensor,
    boxes: Tensor,
    labels: Tensor,
    iou_threshold: float = 0.5,
    *,
    ignored: Tensor | None = None,
    first: BestMatch = "bipartite",
) -> Matches:
    """Match every default box of an image with an object or the background, or ignore it.

    Args:
        default_boxes: P × 4, cx, cy, w, h.
        boxes: N × 4, x1, y1, x2, y2, in the same unit, with positive area; N may be 0.
        labels: N int64 class ids, from 1.
        iou_threshold: Minimum IoU of a default box with the object it is matched to.
        ignored: N booleans: crowds and other objects to ignore. They are not matched, and default
            boxes of which they cover half or more are ignored instead of background.
        first: How each object gets its best default box, whatever the IoU. "bipartite" assigns the
            best pair of all first, then the best of the remaining ones (the paper and its Caffe
            code); "forced" assigns each object its best default box, and on a conflict the last
            object wins (torchvision).

    Returns:
        The matches.

    Example:
        >>> defaults = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])
        >>> boxes, labels = torch.tensor([[0.0, 0.0, 0.5, 0.45]]), torch.tensor([3])
        >>> match(defaults, boxes, labels).labels.tolist()
        [3, 0]
    """
    objects = torch.full((len(default_boxes),), UNMATCHED, device=default_boxes.device)
    iou, covered = overlaps(boxes, corners(default_boxes))
    if ignored is not None and bool(ignored.any()):
        objects[(covered[ignored] >= 0.5).any(dim=0)] = IGNORED
        valid = torch.nonzero(~ignored).flatten()
        iou = iou[valid]
    else:
        valid = torch.arange(len(boxes), device=boxes.device)
    if len(valid):
        best, row_of_best = iou.max(dim=0)
        objects = torch.where(best >= iou_threshold, valid[row_of_best], objects)
        columns = _bipartite(iou) if first == "bipartite" else iou.argmax(dim=1)
        for row, column in enumerate(columns.tolist()):
            if column >= 0:
                objects[column] = valid[row]
    return Matches(objects, _labels_of(objects, labels))


def _labels_of(objects: Tensor, labels: Tensor) -> Tensor:
    # Index -1 (`UNMATCHED`) selects the last entry, index -2 (`IGNORED`) the one before it.
    table = torch.cat([labels, labels.new_tensor([-1, 0])])
    return table[objects]


def _bipartite(iou: Tensor) -> Tensor:
    """Assign each row of an N × P IoU matrix its own column, best pairs first; -1 without one."""
    best, columns = iou.max(dim=1)
    if len(torch.unique(columns)) == len(columns):
        # Without conflicts the order of assignment does not matter.
        return torch.where(best > 0, columns, -1)
    remaining = iou.clone()
    assigned = torch.full((len(iou),), -1)
    for _ in range(len(iou)):
        row, column = divmod(int(remaining.argmax()), remaining.shape[1])
        if remaining[row, column] <= 0:
            break
        assigned[row] = column
        remaining[row] = -1
        remaining[:, column] = -1
    return assigned
