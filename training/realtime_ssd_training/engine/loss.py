"""The SSD training loss: softmax cross-entropy with hard negative mining, and smooth L1.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2, "Training
objective" and "Hard negative mining":

    L = (L_conf + alpha · L_loc) / N,    N = matched default boxes of the batch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_training.engine.batched_matching import PaddedTargets, match_batch
from realtime_ssd_training.engine.loader import Target
from realtime_ssd_training.engine.matching import BestMatch, encode, match

__all__ = ["Losses", "MultiBoxLoss", "hard_negatives"]


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """The two terms of the loss, summed over a batch and not normalized.

    Attributes:
        scores: Cross-entropy of matched default boxes and hard negatives.
        offsets: Smooth L1 of matched default boxes.
        matched: Number of matched default boxes.
    """

    scores: Tensor
    offsets: Tensor
    matched: Tensor


class MultiBoxLoss(nn.Module):
    """The loss of a batch: matching, hard negative mining, cross-entropy and smooth L1.

    Args:
        spec: Specification of the model; its variances are used.
        default_boxes: P × 4 float32 (cx, cy, w, h).
        iou_threshold: See `match`.
        negatives: Maximum number of hard negatives per matched default box of an image.
        alpha: Weight of the localization loss.
        first: See `match`.
    """

    default_boxes: Tensor
    variances: Tensor

    def __init__(
        self,
        spec: ModelSpec,
        default_boxes: Tensor,
        *,
        iou_threshold: float = 0.5,
        negatives: float = 3.0,
        alpha: float = 1.0,
        first: BestMatch = "bipartite",
    ) -> None:
        super().__init__()
        self.register_buffer("default_boxes", default_boxes.detach().clone(), persistent=False)
        self.register_buffer("variances", torch.tensor(spec.variances), persistent=False)
        self.iou_threshold = iou_threshold
        self.negatives = negatives
        self.alpha = alpha
        self.first: BestMatch = first

    def assign(self, targets: Sequence[Target] | PaddedTargets) -> tuple[Tensor, Tensor]:
        """Return the training target of each default box of each image.

        Padded targets are matched in one go, without waiting for the device.

        Returns:
            N × P labels (0 background, -1 ignored) and N × P × 4 offsets (0 where not matched).
        """
        if isinstance(targets, PaddedTargets):
            return self._assign_batch(targets)
        labels, offsets = [], []
        for target in targets:
            matches = match(
                self.default_boxes,
                target.boxes,
                target.labels,
                self.iou_threshold,
                ignored=target.ignored,
                first=self.first,
            )
            rows = torch.nonzero(matches.matched).flatten()
            encoded = torch.zeros_like(self.default_boxes)
            boxes = target.boxes[matches.objects[rows]]
            encoded[rows] = encode(boxes, self.default_boxes[rows], self.variances)
            labels.append(matches.labels)
            offsets.append(encoded)
        return torch.stack(labels), torch.stack(offsets)

    def _assign_batch(self, targets: PaddedTargets) -> tuple[Tensor, Tensor]:
        objects, labels = match_batch(self.default_boxes, targets, self.iou_threshold, self.first)
        rows = objects.clamp(min=0)[..., None].expand(*objects.shape, 4)
        encoded = encode(torch.gather(targets.boxes, 1, rows), self.default_boxes, self.variances)
        return labels, torch.where((objects >= 0)[..., None], encoded, 0.0)

    def parts(
        self, scores: Tensor, offsets: Tensor, targets: Sequence[Target] | PaddedTargets
    ) -> Losses:
        """Compute both terms, summed over a batch, in float32, or in float64 for float64 heads.

        Args:
            scores: N × P × C logits.
            offsets: N × P × 4.
            targets: N targets on the same device.

        Raises:
            ValueError: If the shapes do not fit the default boxes or the targets.
        """
        expected = (len(targets), len(self.default_boxes))
        if scores.shape[:2] != expected or offsets.shape != (*expected, 4):
            raise ValueError(
                f"heads of shape {tuple(scores.shape)} and {tuple(offsets.shape)} do not fit "
                f"{expected[0]} images with {expected[1]} default boxes"
            )
        labels, encoded = self.assign(targets)
        matched = labels > 0
        scores, offsets = _at_least_float32(scores), _at_least_float32(offsets)
        entropy = functional.cross_entropy(
            scores.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="none"
        ).view_as(labels)
        negatives = hard_negatives(entropy.detach(), labels, self.negatives)
        if isinstance(targets, PaddedTargets):
            distances = functional.smooth_l1_loss(offsets, encoded, reduction="none").sum(dim=2)
            counted = torch.where(matched | negatives, entropy, 0.0)
            return Losses(counted.sum(), torch.where(matched, distances, 0.0).sum(), matched.sum())
        distance = functional.smooth_l1_loss(offsets[matched], encoded[matched], reduction="sum")
        return Losses(entropy[matched | negatives].sum(), distance, matched.sum())

    def forward(
        self, scores: Tensor, offsets: Tensor, targets: Sequence[Target] | PaddedTargets
    ) -> Tensor:
        """Compute the loss of a batch: the weighted sum of both terms per matched default box.

        Images without objects contribute nothing, as in the paper: no matches, no negatives. A
        batch without any object has loss 0.
        """
        parts = self.parts(scores, offsets, targets)
        return (parts.scores + self.alpha * parts.offsets) / parts.matched.clamp(min=1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def hard_negatives(entropy: Tensor, labels: Tensor, ratio: float) -> Tensor:
    """Select the background boxes with the highest loss.

    Args:
        entropy: N × P cross-entropy.
        labels: N × P, above 0 where matched, 0 for background, -1 for ignored.
        ratio: Maximum number of negatives per matched box of the same image.

    Returns:
        N × P booleans.
    """
    count = ((labels > 0).sum(dim=1, keepdim=True) * ratio).long()
    candidates = entropy.masked_fill(labels != 0, -torch.inf)
    if entropy.device.type == "cpu":
        return _highest(candidates, count) & (labels == 0)
    ranked = candidates.sort(dim=1, descending=True, stable=True).indices
    order = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    rank = torch.empty_like(ranked).scatter_(1, ranked, order)
    return (rank < count) & (labels == 0)


def _highest(values: Tensor, count: Tensor) -> Tensor:
    """Select the highest values of each row, the first of equal ones; faster than sorting on CPUs.

    Args:
        values: N × P.
        count: N × 1 numbers of values to select.

    Returns:
        N × P booleans.
    """
    count = count.clamp(max=values.shape[1])
    largest = int(count.max()) if len(count) else 0
    if not largest:
        return torch.zeros_like(values, dtype=torch.bool)
    top = values.topk(largest, dim=1).values
    lowest = top.gather(1, (count - 1).clamp(min=0))
    above, equal = values > lowest, values == lowest
    missing = count - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= missing))
    return chosen & (count > 0)
