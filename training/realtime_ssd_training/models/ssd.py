"""The detector every model here is: feature maps, and on each a score and an offset convolution.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import ModelSpec

__all__ = ["SSD", "FeatureMaps"]


class FeatureMaps(nn.Module):
    """A backbone with its extra layers: one image batch in, the maps of the heads out.

    Attributes:
        channels: Channels of each feature map, in the order of the heads.
    """

    channels: tuple[int, ...]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps.

        Args:
            images: N × 3 × H × W float32, normalised.

        Returns:
            One N × C × rows × columns tensor for each layer of the box recipe.
        """
        raise NotImplementedError


class SSD(nn.Module):
    """A single-shot detector: raw class scores and box offsets for every default box.

    Args:
        spec: Contract of the model; its default boxes must fit the feature maps.
        backbone: Gives the feature maps.
        score_heads: For each feature map a layer with boxes × classes output channels.
        offset_heads: For each feature map a layer with boxes × 4 output channels.

    Attributes:
        spec: The contract.
        default_boxes: P × 4 float32 (cx, cy, w, h), fractions of the image.
        architecture: Name under which `realtime_ssd_training.models.create` builds this network.
        options: The options it was built with.
    """

    default_boxes: Tensor

    def __init__(
        self,
        spec: ModelSpec,
        backbone: FeatureMaps,
        score_heads: Sequence[nn.Module],
        offset_heads: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.spec = spec
        self.architecture = spec.name
        self.options: Mapping[str, object] = {}
        self.backbone = backbone
        self.score_heads = nn.ModuleList(score_heads)
        self.offset_heads = nn.ModuleList(offset_heads)
        boxes = torch.from_numpy(spec.boxes.boxes())
        self.register_buffer("default_boxes", boxes, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the raw heads.

        Args:
            images: N × 3 × H × W float32, already normalised as `spec.input` says.

        Returns:
            Scores (N × P × C logits) and offsets (N × P × 4), default boxes in recipe order.
        """
        maps = self.backbone(images)
        scores = [
            _rows(head(part), self.spec.num_classes)
            for head, part in zip(self.score_heads, maps, strict=True)
        ]
        offsets = [_rows(head(part), 4) for head, part in zip(self.offset_heads, maps, strict=True)]
        return torch.cat(scores, dim=1), torch.cat(offsets, dim=1)

    def adopt(self, spec: ModelSpec) -> None:
        """Take over another contract for the same heads, such as other default boxes or labels.

        Args:
            spec: Contract with as many default boxes and classes as this network has.

        Raises:
            ModelError: If the heads do not fit the contract.
        """
        have = (self.spec.num_boxes, self.spec.num_classes)
        want = (spec.num_boxes, spec.num_classes)
        if have != want:
            raise ModelError(
                f"the heads of '{self.architecture}' give {have[0]} boxes × {have[1]} classes, but "
                f"the specification '{spec.name}' says {want[0]} × {want[1]}; use the one it was "
                "built with"
            )
        self.spec = spec
        self.default_boxes.copy_(torch.from_numpy(spec.boxes.boxes()))


def _rows(head: Tensor, columns: int) -> Tensor:
    """Lay a head out as N × boxes × columns: cells row by row, boxes of a cell side by side."""
    return head.permute(0, 2, 3, 1).reshape(head.shape[0], -1, columns)
