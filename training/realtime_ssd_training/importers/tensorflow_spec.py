"""Specification of SSD MobileNetV1 of the TensorFlow object-detection models.

Sources: the published pipeline configuration `ssd_mobilenet_v1_coco` (anchor generator: 6 layers,
scales 0.2 to 0.95, ratios 1, 2, 1/2, 3, 1/3, fewer boxes in the lowest layer; box coder scales 10,
10, 5, 5; score converter sigmoid) and the COCO label map.
"""

from __future__ import annotations

from math import sqrt

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.importers.class_names import COCO_91

__all__ = ["mobilenet_boxes", "mobilenet_spec"]

MAPS = (19, 10, 5, 3, 2, 1)
SMALLEST, LARGEST = 0.2, 0.95
RATIOS = (1.0, 2.0, 0.5, 3.0, 1 / 3)


def mobilenet_boxes(rounding: float = 0.0) -> AnchorSpec:
    """Return the 1917 anchors of TensorFlow's SSD MobileNet for 300 × 300 pixels.

    Args:
        rounding: Step to which a quantized model rounds them; 0 for none.
    """
    last = len(MAPS) - 1
    scales = [SMALLEST + (LARGEST - SMALLEST) * layer / last for layer in range(len(MAPS))]
    layers = [
        AnchorLayer(rows, rows, 1 / rows, 1 / rows, _sizes(layer, scale, next_scale))
        for layer, (rows, scale, next_scale) in enumerate(
            zip(MAPS, scales, [*scales[1:], 1.0], strict=True)
        )
    ]
    return AnchorSpec(layers=tuple(layers), rounding=rounding)


def _sizes(layer: int, scale: float, next_scale: float) -> tuple[tuple[float, float], ...]:
    """List the anchors of a cell: three in the lowest layer, six in the others."""
    if layer == 0:
        pairs = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
    else:
        pairs = [*((scale, ratio) for ratio in RATIOS), (sqrt(scale * next_scale), 1.0)]
    return tuple((side * sqrt(ratio), side / sqrt(ratio)) for side, ratio in pairs)


def mobilenet_spec(has_activation: bool, rounding: float = 0.0) -> ModelSpec:
    """Return the specification of TensorFlow's SSD MobileNetV1, trained on COCO.

    Args:
        has_activation: Whether the graph contains the sigmoid.
        rounding: See `mobilenet_boxes`.
    """
    return ModelSpec(
        name="ssd_mobilenet_v1_coco",
        input=InputSpec(300, 300, "RGB", mean=(128.0,) * 3, scale=(1 / 128,) * 3),
        boxes=mobilenet_boxes(rounding),
        labels=COCO_91,
        coding="yxhw",
        activation="none" if has_activation else "sigmoid",
        thresholds=Thresholds(
            score_threshold=0.5, iou_threshold=0.6, pre_nms_top_k=200, max_detections=100
        ),
        description="SSD300 MobileNetV1 of TensorFlow's object-detection models, 80 COCO classes",
    )
