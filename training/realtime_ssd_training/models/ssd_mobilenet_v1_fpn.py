"""SSD on MobileNetV1 with a feature pyramid, for small objects in wide frames.

Sources: Howard et al., "MobileNets" (2017), table 1, for the backbone; Lin et al., "Feature Pyramid
Networks" (2017), section 3, for the way down that gives fine maps the knowledge of coarse ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.models.default_boxes import choose
from realtime_ssd_training.models.layers import (
    conv_norm,
    plain_heads,
    scaled,
    separable,
    start_convolutions,
    start_heads,
)
from realtime_ssd_training.models.ssd import SSD, FeatureMaps
from realtime_ssd_training.models.ssd300_mobilenet_v1 import BLOCKS

__all__ = ["build"]

TAPS = (5, 11, 13)  # blocks whose maps have strides 8, 16 and 32
STRIDES = (8, 16, 32, 64, 128)
PYRAMID = 192
Sides = tuple[tuple[tuple[float, tuple[float, ...]], ...], ...]
"""For each stride: sides (roots of the areas) of the default boxes in pixels, each with its aspect
ratios."""

# People and traffic lights are tall, vehicles are wide.
STREET: Sides = (
    ((14, (0.38,)), (19, (0.38, 0.7, 1.1)), (27, (0.38, 0.6, 1.3))),
    ((36, (0.38, 0.7, 1.4)), (52, (0.45, 0.9, 1.6))),
    ((76, (0.55, 1.0, 1.8)), (108, (0.9, 1.7))),
    ((150, (0.8, 1.4, 2.4)),),
    ((210, (1.0, 1.9)),),
)

LARGEST = 0.88  # of the shorter side of the input


def _general(columns: int, rows: int) -> Sides:
    """Let sides grow evenly, from twice the stride of each map, up to almost the whole image."""
    largest = LARGEST * min(columns, rows)
    plan = [[2.0 * stride, 2.0 * stride * 2**0.5] for stride in STRIDES]
    while plan[-1][-1] < largest:
        plan[-1].append(plan[-1][-1] * 2**0.5)
    limited = [dict.fromkeys(min(side, largest) for side in sides) for sides in plan]
    return tuple(tuple((side, (0.5, 1.0, 2.0)) for side in sides) for sides in limited)


class _Backbone(FeatureMaps):
    """MobileNetV1, three merged maps of strides 8, 16 and 32, and two coarser ones."""

    def __init__(self, width: float) -> None:
        super().__init__()
        channels = scaled(32, width)
        self.stem = conv_norm(3, channels, 3, stride=2)
        blocks, taps = [], []
        for number, (outputs, stride) in enumerate(BLOCKS, start=1):
            blocks.append(separable(channels, scaled(outputs, width), stride))
            channels = scaled(outputs, width)
            if number in TAPS:
                taps.append(channels)
        self.blocks = nn.ModuleList(blocks)
        merged = scaled(PYRAMID, width)
        self.laterals = nn.ModuleList([conv_norm(inputs, merged) for inputs in taps])
        self.smooth = nn.ModuleList([separable(merged, merged) for _ in taps])
        self.extras = nn.ModuleList([separable(merged, merged, 2) for _ in STRIDES[len(TAPS) :]])
        self.channels = (merged,) * len(STRIDES)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the five maps; see `FeatureMaps.forward`."""
        features = self.stem(images)
        maps: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            features = block(features)
            if number in TAPS:
                maps.append(self.laterals[len(maps)](features))
        for level in (1, 0):
            above = functional.interpolate(maps[level + 1], scale_factor=2.0, mode="nearest")
            maps[level] = maps[level] + above
        maps = [smooth(part) for smooth, part in zip(self.smooth, maps, strict=True)]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


def _boxes(columns: int, rows: int, plan: Sides) -> AnchorSpec:
    layers = []
    for stride, sides in zip(STRIDES, plan, strict=True):
        sizes = tuple(
            (side * ratio**0.5 / columns, side / ratio**0.5 / rows)
            for side, ratios in sides
            for ratio in ratios
        )
        cells = -(-rows // stride), -(-columns // stride)
        layers.append(AnchorLayer(*cells, stride / rows, stride / columns, sizes))
    return AnchorSpec(tuple(layers))


def build(
    labels: Sequence[str],
    *,
    width: float = 0.5,
    columns: int = 384,
    rows: int = 224,
    boxes: str = "street",
) -> SSD:
    """Build the network with new weights.

    Args:
        labels: Class names, "background" first.
        width: Factor of all channel counts.
        columns: Width of the input in pixels, a multiple of 32.
        rows: Height of the input in pixels, a multiple of 32.
        boxes: Default boxes: "street" for people, lights and vehicles up to 210 pixels, "general"
            for objects of every size up to the whole image.

    Returns:
        The network; 11,928 default boxes on 384 × 224 BGR input.

    Raises:
        UsageError: If the input size does not fit, or there are no such default boxes.
    """
    if columns < 128 or rows < 128 or columns % 32 or rows % 32:
        raise UsageError(
            f"an input of {columns}x{rows} does not fit 'ssd_mobilenet_v1_fpn'; give multiples of "
            "32 from 128 on"
        )
    plans = {"street": STREET, "general": _general(columns, rows)}
    recipes = {name: _boxes(columns, rows, plan) for name, plan in plans.items()}
    spec = ModelSpec(
        name="ssd_mobilenet_v1_fpn",
        input=InputSpec(columns, rows, "BGR", mean=(127.5,) * 3, scale=(0.007843,) * 3),
        boxes=choose(recipes, boxes, "ssd_mobilenet_v1_fpn"),
        labels=tuple(labels),
        thresholds=Thresholds(pre_nms_top_k=100, max_detections=100),
    )
    backbone = _Backbone(width)
    score_heads, offset_heads = plain_heads(backbone.channels, spec, 1)
    start_convolutions(backbone)
    start_heads([*score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
