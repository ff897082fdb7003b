"""Specification of the Ultra-Light face detectors (slim and RFB).

Source: the published configuration of these models: cells of about 8, 16, 32 and 64 pixels that
divide the image evenly, square boxes of 10 to 256 pixels, sizes clamped to the image, variances
0.1 and 0.2, RGB (value - 127) / 128.
"""

from __future__ import annotations

from math import ceil

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds

__all__ = ["face_boxes", "face_spec"]

CELLS = (8, 16, 32, 64)
SIDES = ((10.0, 16.0, 24.0), (32.0, 48.0), (64.0, 96.0), (128.0, 192.0, 256.0))


def face_boxes(width: int, height: int) -> AnchorSpec:
    """Return the default boxes for an input of `width` × `height` pixels."""
    layers = [
        AnchorLayer(
            rows=ceil(height / cell),
            columns=ceil(width / cell),
            step_y=1 / ceil(height / cell),
            step_x=1 / ceil(width / cell),
            sizes=tuple((min(side / width, 1.0), min(side / height, 1.0)) for side in sides),
        )
        for cell, sides in zip(CELLS, SIDES, strict=True)
    ]
    return AnchorSpec(layers=tuple(layers))


def face_spec(width: int, height: int, has_activation: bool) -> ModelSpec:
    """Return the specification of a face detector for an input of `width` × `height` pixels.

    Args:
        width: Columns of the input.
        height: Rows of the input.
        has_activation: Whether the graph contains the softmax.
    """
    return ModelSpec(
        name=f"ultralight_face_{width}",
        input=InputSpec(width, height, "RGB", mean=(127.0,) * 3, scale=(1 / 128,) * 3),
        boxes=face_boxes(width, height),
        labels=("background", "face"),
        activation="none" if has_activation else "softmax",
        thresholds=Thresholds(
            score_threshold=0.7, iou_threshold=0.3, pre_nms_top_k=1000, max_detections=200
        ),
        description="Ultra-Light face detector trained on WIDER FACE",
    )
