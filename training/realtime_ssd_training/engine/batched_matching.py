"""Matching of a whole batch without waiting for the device: the same result as `match`.

`match` looks at values to decide what to do next, and so waits for a GPU several times per image.
Here every image has as many rows as the one with the most objects, and masks replace decisions.
Ties are decided as in `match`: by the lower row, then by the lower column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from realtime_ssd_training.engine.loader import Target
from realtime_ssd_training.engine.matching import IGNORED, UNMATCHED, BestMatch, corners

__all__ = ["PaddedTargets", "match_batch", "pad_targets"]

_SHIFT = 32
_LOW = (1 << _SHIFT) - 1


@dataclass(frozen=True, slots=True, eq=False)
class PaddedTargets:
    """The ground truth of N images with M rows each; rows without an object are 0.

    Attributes:
        boxes: N × M × 4 float32, x1, y1, x2, y2 as fractions of the input.
        labels: N × M int64, class ids from 1.
        ignored: N × M bool, difficult and crowd boxes.
        valid: N × M bool, whether there is an object.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> PaddedTargets:
        """Return a copy on a device; from pinned memory the copy is asynchronous."""
        columns = (self.boxes, self.labels, self.ignored, self.valid)
        return PaddedTargets(*(column.to(device, non_blocking=True) for column in columns))

    def pin_memory(self) -> PaddedTargets:
        """Return a copy in page-locked memory."""
        columns = (self.boxes, self.labels, self.ignored, self.valid)
        return PaddedTargets(*(column.pin_memory() for column in columns))


def pad_targets(targets: Sequence[Target]) -> PaddedTargets:
    """Return the targets of a batch, which are on the CPU, with equally many rows."""
    count = max((len(target.labels) for target in targets), default=0)
    size = (len(targets), max(1, count))
    padded = PaddedTargets(
        torch.zeros(*size, 4),
        torch.zeros(size, dtype=torch.int64),
        torch.zeros(size, dtype=torch.bool),
        torch.zeros(size, dtype=torch.bool),
    )
    for row, target in enumerate(targets):
        objects = slice(len(target.labels))
        padded.boxes[row, objects] = target.boxes
        padded.labels[row, objects] = target.labels
        padded.ignored[row, objects] = target.ignored
        padded.valid[row, objects] = True
    return padded


def match_batch(
    default_boxes: Tensor,
    targets: PaddedTargets,
    iou_threshold: float = 0.5,
    first: BestMatch = "bipartite",
) -> tuple[Tensor, Tensor]:
    """Match every default box of every image; see `match`.

    Args:
        default_boxes: P × 4 float32, cx, cy, w, h.
        targets: The objects of N images.
        iou_threshold: Minimum IoU of a default box with the object it is matched to.
        first: How each object gets its best default box.

    Returns:
        N × P rows of the matched objects, `UNMATCHED` or `IGNORED`, and N × P labels: 0 for
        background, -1 for ignored.
    """
    iou, covered = _overlaps(targets.boxes, corners(default_boxes))
    used = targets.valid & ~targets.ignored
    iou = torch.where(used[..., None], iou, 0.0)
    crowded = (covered >= 0.5) & (targets.valid & targets.ignored)[..., None]
    objects = torch.where(crowded.any(dim=1), IGNORED, UNMATCHED)
    best_key = _keys(iou, dim=1).amax(dim=1)
    row_of_best = iou.shape[1] - 1 - (best_key & _LOW)
    # A threshold of 0 matches everything, but only with objects that exist.
    reached = (_values(best_key) >= iou_threshold) & used.any(dim=1, keepdim=True)
    row_of_best = torch.where(_values(best_key) > 0, row_of_best, _first_used(used))
    objects = torch.where(reached, row_of_best, objects)
    assigned = _bipartite(iou) if first == "bipartite" else _forced(iou, used)
    objects = torch.where(assigned >= 0, assigned, objects)
    labels = torch.gather(targets.labels, 1, objects.clamp(min=0))
    labels = torch.where(objects == UNMATCHED, 0, torch.where(objects == IGNORED, -1, labels))
    return objects, labels


def _overlaps(boxes: Tensor, default_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return N × M × P IoU, and intersection over the area of the default box."""
    low = torch.maximum(boxes[:, :, None, :2], default_boxes[:, :2])
    high = torch.minimum(boxes[:, :, None, 2:], default_boxes[:, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    default_areas = (default_boxes[:, 2:] - default_boxes[:, :2]).prod(dim=1)
    union = areas[..., None] + default_areas - intersection
    return intersection / union, intersection / default_areas


def _keys(iou: Tensor, dim: int) -> Tensor:
    """Return int64 that sort by IoU, then by the lower index along a dimension."""
    shape = [1] * iou.ndim
    shape[dim] = iou.shape[dim]
    order = torch.arange(iou.shape[dim] - 1, -1, -1, device=iou.device).view(shape)
    # The bits of floats of at least 0 sort like the floats.
    return (iou.float().contiguous().view(torch.int32).long() << _SHIFT) | order


def _values(keys: Tensor) -> Tensor:
    """Return the IoU in the keys."""
    return (keys >> _SHIFT).int().view(torch.float32)


def _first_used(used: Tensor) -> Tensor:
    """Return N × 1: the first row with an object that is not ignored; 0 without one."""
    rows = torch.arange(used.shape[1], device=used.device)
    last = used.shape[1] - 1
    return torch.where(used, rows, last).amin(dim=1, keepdim=True)


def _forced(iou: Tensor, used: Tensor) -> Tensor:
    """Return N × P: the row whose best column it is, the last on a conflict; -1 without one."""
    images, rows, columns = iou.shape
    best = columns - 1 - (_keys(iou, dim=2).amax(dim=2) & _LOW)
    best = torch.where(used, best, columns)  # the extra column takes what is no object
    source = torch.arange(rows, device=iou.device).expand(images, rows)
    empty = torch.full((images, columns + 1), -1, device=iou.device)
    return empty.scatter_reduce(1, best, source, "amax")[:, :columns]


def _bipartite(iou: Tensor) -> Tensor:
    """Return N × P: the row that each column is assigned to, best pairs first; -1 without one.

    In each round, every waiting row names its best free column, and gets it unless another waiting
    row suits that column better. The best pair of all is always assigned, so that there are at
    most M rounds, and a row never needs more than its M best columns.
    """
    images, rows, columns = iou.shape
    keys = _keys(iou, dim=2).topk(min(rows, columns), dim=2).values
    candidates = columns - 1 - (keys & _LOW)
    usable = _values(keys) > 0
    preference = torch.arange(keys.shape[2], 0, -1, device=iou.device)
    row_numbers = torch.arange(rows, device=iou.device).expand(images, rows)
    row_order = (rows - 1 - row_numbers)[..., None]
    bits = iou.float().contiguous().view(torch.int32).long() << _SHIFT
    taken = torch.zeros((images, columns + 1), dtype=torch.bool, device=iou.device)
    owner = torch.full((images, columns + 1), -1, device=iou.device)
    waiting = torch.ones((images, rows), dtype=torch.bool, device=iou.device)
    for _ in range(rows):
        free = ~torch.gather(taken, 1, candidates.flatten(1)).view_as(candidates)
        free &= usable & waiting[..., None]
        choice = (free * preference).argmax(dim=2, keepdim=True)
        has_choice = torch.gather(free, 2, choice)[..., 0]
        column = torch.gather(candidates, 2, choice)[..., 0]
        # Row r' against row r: how well row r' suits the column that row r names.
        rivals = torch.gather(bits, 2, column[:, None, :].expand(images, rows, rows)) | row_order
        rivals = torch.where(waiting[..., None], rivals, -1)
        won = has_choice & (rivals.argmax(dim=1) == row_numbers)
        target = torch.where(won, column, columns)  # the extra column takes the others
        owner = owner.scatter(1, target, row_numbers)
        taken = taken.scatter(1, target, True)
        waiting &= ~won
    return owner[:, :columns]
