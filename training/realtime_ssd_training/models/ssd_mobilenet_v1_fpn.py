"""SSD on MobileNetV1 with a feature pyramid, for small objects in wide frames.

Sources: Howard et al., "MobileNets" (2017), table 1, for the backbone; Lin et al., "Feature Pyramid
Networks" (2017), section 3, for the top-down pathway and the lateral connections.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.models.conv_blocks import (
    conv_heads,
    conv_norm,
    init_convs,
    init_heads,
    scale_channels,
    separable_conv,
)
from realtime_ssd_training.models.default_boxes import select_boxes
from realtime_ssd_training.models.ssd import SSD, FeatureMaps
from realtime_ssd_training.models.ssd300_mobilenet_v1 import BLOCKS

__all__ = ["build"]

TAPS = (5, 11, 13)  # blocks whose maps have strides 8, 16 and 32
STRIDES = (8, 16, 32, 64, 128)
PYRAMID = 192
BoxPlan = tuple[tuple[tuple[float, tuple[float, ...]], ...], ...]
"""For each stride, the default box sizes (square roots of the areas, in pixels) and their aspect
ratios."""

# People and traffic lights are tall, vehicles are wide.
STREET: BoxPlan = (
    ((14, (0.38,)), (19, (0.38, 0.7, 1.1)), (27, (0.38, 0.6, 1.3))),
    ((36, (0.38, 0.7, 1.4)), (52, (0.45, 0.9, 1.6))),
    ((76, (0.55, 1.0, 1.8)), (108, (0.9, 1.7))),
    ((150, (0.8, 1.4, 2.4)),),
    ((210, (1.0, 1.9)),),
)

MAX_SIZE = 0.88  # fraction of the shorter side of the input


def _general_plan(columns: int, rows: int) -> BoxPlan:
    """Return sizes in geometric progression, from twice the stride of each map to `MAX_SIZE`."""
    largest = MAX_SIZE * min(columns, rows)
    plan = [[2.0 * stride, 2.0 * stride * 2**0.5] for stride in STRIDES]
    while plan[-1][-1] < largest:
        plan[-1].append(plan[-1][-1] * 2**0.5)
    limited = [dict.fromkeys(min(size, largest) for size in sizes) for sizes in plan]
    return tuple(tuple((size, (0.5, 1.0, 2.0)) for size in sizes) for sizes in limited)


class _FeaturePyramid(FeatureMaps):
    """MobileNetV1 with pyramid maps at strides 8, 16 and 32, and extra maps at 64 and 128."""

    def __init__(self, width: float) -> None:
        super().__init__()
        channels = scale_channels(32, width)
        self.stem = conv_norm(3, channels, 3, stride=2)
        blocks, tap_channels = [], []
        for number, (outputs, stride) in enumerate(BLOCKS, start=1):
            blocks.append(separable_conv(channels, scale_channels(outputs, width), stride))
            channels = scale_channels(outputs, width)
            if number in TAPS:
                tap_channels.append(channels)
        self.blocks = nn.ModuleList(blocks)
        merged = scale_channels(PYRAMID, width)
        extras = STRIDES[len(TAPS) :]
        self.laterals = nn.ModuleList([conv_norm(inputs, merged) for inputs in tap_channels])
        self.smooth = nn.ModuleList([separable_conv(merged, merged) for _ in TAPS])
        self.extras = nn.ModuleList([separable_conv(merged, merged, 2) for _ in extras])
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
            coarser = functional.interpolate(maps[level + 1], scale_factor=2.0, mode="nearest")
            maps[level] = maps[level] + coarser
        maps = [smooth(features) for smooth, features in zip(self.smooth, maps, strict=True)]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


def _build_boxes(columns: int, rows: int, plan: BoxPlan) -> AnchorSpec:
    layers = []
    for stride, shapes in zip(STRIDES, plan, strict=True):
        sizes = tuple(
            (size * ratio**0.5 / columns, size / ratio**0.5 / rows)
            for size, ratios in shapes
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
    """Build the network with random weights.

    Args:
        labels: Class names, "background" first.
        width: Width multiplier.
        columns: Width of the input in pixels, a multiple of 32.
        rows: Height of the input in pixels, a multiple of 32.
        boxes: Default boxes: "street" for people, traffic lights and vehicles of up to 210 pixels,
            "general" for objects of any size.

    Returns:
        The network; 11,928 default boxes on 384 × 224 BGR input.

    Raises:
        UsageError: If the input size is invalid, or there are no such default boxes.
    """
    if columns < 128 or rows < 128 or columns % 32 or rows % 32:
        raise UsageError(
            f"`columns` and `rows` must be multiples of 32 and at least 128, not {columns} x {rows}"
        )
    plans = {"street": STREET, "general": _general_plan(columns, rows)}
    specs = {name: _build_boxes(columns, rows, plan) for name, plan in plans.items()}
    spec = ModelSpec(
        name="ssd_mobilenet_v1_fpn",
        input=InputSpec(columns, rows, "BGR", mean=(127.5,) * 3, scale=(0.007843,) * 3),
        boxes=select_boxes(specs, boxes, "ssd_mobilenet_v1_fpn"),
        labels=tuple(labels),
        thresholds=Thresholds(pre_nms_top_k=100, max_detections=100),
    )
    backbone = _FeaturePyramid(width)
    score_heads, offset_heads = conv_heads(backbone.channels, spec, 1)
    init_convs(backbone)
    init_heads([*score_heads, *offset_heads])
    return SSD(spec, backbone, score_heads, offset_heads)
