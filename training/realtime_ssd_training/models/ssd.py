"""The SSD detector: feature maps, each with a classification head and an offset head.

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
    """A backbone with its extra layers, which computes the inputs of the heads.

    Attributes:
        channels: Channels of each feature map, in the order of the heads.
    """

    channels: tuple[int, ...]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps.

        Args:
            images: N × 3 × H × W float32, normalized.

        Returns:
            One N × C × rows × columns tensor per layer of the anchor specification.
        """
        raise NotImplementedError


class SSD(nn.Module):
    """A single-shot detector: class scores and box offsets for every default box.

    Args:
        spec: Specification of the model; its default boxes must fit the feature maps.
        backbone: Computes the feature maps.
        score_heads: One layer per feature map with boxes × classes output channels.
        offset_heads: One layer per feature map with boxes × 4 output channels.

    Attributes:
        spec: The specification.
        default_boxes: P × 4 float32 (cx, cy, w, h), fractions of the image.
        architecture: Name of this network for `realtime_ssd_training.models.create`.
        options: Options it was built with.
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
        """Compute the raw outputs of the heads.

        Args:
            images: N × 3 × H × W float32, normalized as in `spec.input`.

        Returns:
            Scores (N × P × C logits) and offsets (N × P × 4) in the order of the default boxes.
        """
        maps = self.backbone(images)
        scores = [
            _flatten_head(head(features), self.spec.num_classes)
            for head, features in zip(self.score_heads, maps, strict=True)
        ]
        offsets = [
            _flatten_head(head(features), 4)
            for head, features in zip(self.offset_heads, maps, strict=True)
        ]
        return torch.cat(scores, dim=1), torch.cat(offsets, dim=1)

    def replace_spec(self, spec: ModelSpec) -> None:
        """Replace the specification, for example to change default boxes or labels.

        Args:
            spec: Specification with the same number of default boxes and classes.

        Raises:
            ModelError: If the numbers differ.
        """
        current = (self.spec.num_boxes, self.spec.num_classes)
        new = (spec.num_boxes, spec.num_classes)
        if current != new:
            raise ModelError(
                f"the heads of '{self.architecture}' have {current[0]} boxes × {current[1]} "
                f"classes, but the specification '{spec.name}' has {new[0]} × {new[1]}; use the "
                "one it was built with"
            )
        self.set_boxes(spec)

    def set_boxes(self, spec: ModelSpec) -> None:
        """Set a specification for another input size, whose default boxes the caller has checked.

        Args:
            spec: Specification with as many default boxes as the heads have cells at its size.
        """
        self.spec = spec
        self.default_boxes = torch.from_numpy(spec.boxes.boxes()).to(self.default_boxes)


def _flatten_head(output: Tensor, columns: int) -> Tensor:
    """Reshape N × C × H × W to N × boxes × columns: row by row, boxes of a cell adjacent."""
    return output.permute(0, 2, 3, 1).reshape(output.shape[0], -1, columns)
