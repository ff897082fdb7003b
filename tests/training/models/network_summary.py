"""Summaries of the networks for regression tests.

`python -m tests.training.models.network_summary` records them in `network_summaries.json`.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from realtime_ssd_training.models import SSD, create, ssd300_vgg16, ssd512_vgg16
from torch import Tensor

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.spec import ModelSpec

FILE = Path(__file__).with_name("network_summaries.json")
LABELS = ("background", "a", "b")
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ssd300_mobilenet_v1": ("ssd300_mobilenet_v1", {}),
    "ssd300_mobilenet_v1, width 0.3": ("ssd300_mobilenet_v1", {"width": 0.3}),
    "ssd300_mobilenet_v1_3x3": ("ssd300_mobilenet_v1_3x3", {}),
    "ssd300_mobilenet_v2": ("ssd300_mobilenet_v2", {}),
    "ssd300_mobilenet_v2, width 0.4": ("ssd300_mobilenet_v2", {"width": 0.4}),
    "ssd300_mobilenet_v1_3x3, lite": ("ssd300_mobilenet_v1_3x3", {"lite": True}),
    "ssd300_resnet50": ("ssd300_resnet50", {}),
    "ssd_mobilenet_v1_fpn": ("ssd_mobilenet_v1_fpn", {}),
    "ssd_mobilenet_v1_fpn, general": ("ssd_mobilenet_v1_fpn", {"rows": 320, "boxes": "general"}),
    "ssdlite320_mobilenet_v3_large": ("ssdlite320_mobilenet_v3_large", {}),
    "ssdlite320_mobilenet_v3_large, full tail": (
        "ssdlite320_mobilenet_v3_large",
        {"reduced_tail": False},
    ),
    "ssd300_vgg16": ("ssd300_vgg16", {}),
    "ssd512_vgg16": ("ssd512_vgg16", {}),
}
VGG_BOXES = {
    f"{module.__name__.rpartition('.')[2]}, {name}": spec
    for module in (ssd300_vgg16, ssd512_vgg16)
    for name, spec in module.BOXES.items()
}


def noise(count: int) -> Tensor:
    """Return reproducible values from -1 to 1, independent of any random generator."""
    index = torch.arange(1, count + 1)
    return ((index * index * 40503 + index * 2654435761) % 2**32).double().div(2**31).sub(1).float()


def summarize_boxes(spec: AnchorSpec) -> list[float]:
    """Return sums and weighted means of the columns of default boxes."""
    boxes = spec.boxes().astype(np.float64)
    weights = np.arange(1, len(boxes) + 1)[:, None]
    return [*boxes.sum(0).tolist(), *(boxes * weights).mean(0).tolist()]


def summarize_network(name: str) -> dict[str, Any]:
    """Return tensor shapes, specification, default boxes and outputs of a network, condensed."""
    architecture, options = NETWORKS[name]
    model = create(architecture, LABELS, **options)
    shapes = [f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items()]
    spec = model.spec
    summary: dict[str, Any] = {
        "shapes": hashlib.sha256("\n".join(shapes).encode()).hexdigest(),
        "spec": repr((spec.input, _limits(spec), spec.variances, spec.clip_before_nms)),
        "boxes": summarize_boxes(spec.boxes),
    }
    if "vgg" not in architecture:
        summary["outputs"] = summarize_outputs(model)
    return summary


def _limits(spec: ModelSpec) -> tuple[float, float, int, int]:
    limits = spec.thresholds
    return (
        limits.score_threshold,
        limits.iou_threshold,
        limits.pre_nms_top_k,
        limits.max_detections,
    )


def summarize_outputs(model: SSD) -> list[float]:
    """Return means of scores and offsets for reproducible weights and images.

    The network is in training mode, so that batch normalization keeps the scale of the features.
    """
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.ndim > 1:
                scale = math.sqrt(6 / math.prod(value.shape[1:]))
                value.copy_(noise(value.numel()).view(value.shape) * scale)
            elif value.is_floating_point():
                shift = 0.0 if "bias" in name else 1.0
                value.copy_(shift + 0.2 * noise(value.numel()))
        size = model.spec.input
        images = noise(2 * 3 * size.height * size.width).view(2, 3, size.height, size.width)
        outputs = model.train()(images)
    weighted = [(output.flatten() * noise(output.numel())).mean() for output in outputs]
    return [value.item() for value in [*weighted, *(output.abs().mean() for output in outputs)]]


if __name__ == "__main__":
    summaries: dict[str, Any] = {name: summarize_network(name) for name in NETWORKS}
    summaries |= {name: summarize_boxes(spec) for name, spec in VGG_BOXES.items()}
    FILE.write_text(json.dumps(summaries, indent=1) + "\n", encoding="utf-8")
