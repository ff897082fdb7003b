"""Raw heads to decode: random, adversarial and recorded, each with its model specification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, cell_sizes
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds

__all__ = ["HeadCase", "adversarial_cases", "random_cases", "recorded_cases", "ssd300_case"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadCase:
    """Raw heads of a batch.

    Attributes:
        name: Short description.
        spec: Specification of the model.
        scores: N × P × C.
        offsets: N × P × 4.
    """

    name: str
    spec: ModelSpec
    scores: Floats
    offsets: Floats


def make_spec(classes: int, cells: int, limits: Thresholds, **changes: Any) -> ModelSpec:
    """Return a model with cells × cells × 4 default boxes and one for the whole image."""
    layer = AnchorLayer(cells, cells, 1 / cells, 1 / cells, cell_sizes(0.2, 0.3, (2.0,)))
    anchor_spec = AnchorSpec((layer, AnchorLayer(1, 1, 1.0, 1.0, ((0.9, 0.9),))))
    labels = ("background", *(f"class {i}" for i in range(1, classes)))
    base = ModelSpec("random", InputSpec(64, 64), anchor_spec, labels, thresholds=limits)
    return replace(base, **changes)


def _random(spec: ModelSpec, images: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return heads that FP16 represents exactly, so that both precisions give the same result."""
    shape = (images, spec.num_boxes)
    scores = rng.normal(0, 3, (*shape, spec.num_classes))
    if spec.activation == "none":
        scores = rng.random((*shape, spec.num_classes))
    offsets = rng.normal(0, 1, (*shape, 4))
    return (
        scores.astype(np.float16).astype(np.float32),
        offsets.astype(np.float16).astype(np.float32),
    )


def random_cases(rng: np.random.Generator, *, quick: bool = False) -> Iterator[HeadCase]:
    """Yield random heads for several kinds of model."""
    limits = Thresholds(
        score_threshold=0.3, iou_threshold=0.45, pre_nms_top_k=40, max_detections=20
    )
    by_class = (0.0, 0.3, 0.9, 0.05, 0.6)
    cases: tuple[tuple[str, int, int, dict[str, Any]], ...] = (
        ("softmax, 21 classes", 21, 12, {}),
        ("sigmoid, 91 classes", 91, 10, {"activation": "sigmoid"}),
        ("probabilities, y x h w", 8, 12, {"activation": "none", "coding": "yxhw"}),
        ("sigmoid, no background", 5, 8, {"activation": "sigmoid", "background": None}),
        ("clipped before NMS, 2 classes", 2, 20, {"clip_before_nms": True}),
        (
            "scores by class",
            5,
            12,
            {"thresholds": replace(limits, max_detections=1000, class_scores=by_class)},
        ),
        ("all classes as one", 21, 12, {"thresholds": replace(limits, agnostic_nms=True)}),
    )
    for name, classes, cells, changes in cases:
        spec = make_spec(classes, cells, limits, **changes)
        yield HeadCase(f"random: {name}", spec, *_random(spec, 3, rng))
    if not quick:
        case = ssd300_case(rng, 2)
        yield replace(case, name="random: 8732 x 21 at score 0.01")


def adversarial_cases(rng: np.random.Generator) -> Iterator[HeadCase]:
    """Yield heads that are difficult to decode: ties, extreme thresholds and degenerate boxes."""
    limits = Thresholds(
        score_threshold=0.1, iou_threshold=0.5, pre_nms_top_k=1024, max_detections=1024
    )
    spec = make_spec(3, 20, limits, activation="none")
    scores, offsets = _random(spec, 2, rng)
    yield HeadCase("all boxes above the threshold", spec, np.maximum(scores, 0.125), offsets)
    yield HeadCase("nothing above the threshold", spec, np.zeros_like(scores), offsets)
    levels = np.floor(scores * 4) / 4
    yield HeadCase("four score levels: ties everywhere", spec, levels.astype(np.float32), offsets)
    yield HeadCase("all boxes equal", spec, np.full_like(scores, 0.5), np.zeros_like(offsets))
    corners = replace(spec, coding="corners")
    boxes = np.zeros_like(offsets)
    box_values = [[0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0, 1, 0.625], [0.5, 0.5, 0.5, 0.5]]
    boxes[:, :4] = np.array(box_values, np.float32)
    sparse = np.zeros_like(scores)
    sparse[:, :4, 1] = [0.9, 0.8, 0.7, 0.6]
    yield HeadCase("IoU exactly at the threshold, zero area", corners, sparse, boxes)
    single = replace(
        spec,
        thresholds=Thresholds(
            score_threshold=0.0, iou_threshold=1.0, pre_nms_top_k=1, max_detections=1
        ),
    )
    yield HeadCase("threshold 0, one detection", single, scores, offsets)


def recorded_cases(folder: Path, anchors: Path) -> Iterator[HeadCase]:
    """Yield recorded heads of the COCO MobileNet SSD (`golden/onnx_heads`).

    Args:
        folder: Contains one .npz file per image.
        anchors: P × 4 array of y, x, h, w.
    """
    boxes = AnchorSpec.from_array(np.load(anchors)[:, [1, 0, 3, 2]])
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as arrays:
            scores = next(arrays[key] for key in arrays if arrays[key].shape[-1] == 91)
            offsets = next(arrays[key] for key in arrays if arrays[key].shape[-1] == 4)
        for score in (0.3, 0.01):
            limits = Thresholds(
                score_threshold=score, iou_threshold=0.6, pre_nms_top_k=200, max_detections=100
            )
            spec = make_spec(91, 3, limits, boxes=boxes, activation="none", coding="yxhw")
            heads = (scores.reshape(1, -1, 91), offsets.reshape(1, -1, 4))
            yield HeadCase(f"recorded: {file.stem} at score {score}", spec, *heads)


def ssd300_case(rng: np.random.Generator, images: int) -> HeadCase:
    """Return heads of 8732 boxes × 21 classes with the statistics of a trained detector.

    Nearly all boxes are background. About forty boxes around each of eight objects have a high
    score for its class, and 300 others score slightly above 0.01 for some class.
    """
    sizes = ((38, 4), (19, 6), (10, 6), (5, 6), (3, 4), (1, 4))
    ratios = {4: (2.0,), 6: (2.0, 3.0)}
    layers = tuple(
        AnchorLayer(n, n, 1 / n, 1 / n, cell_sizes(0.1 + 0.15 * i, 0.25 + 0.15 * i, ratios[k]))
        for i, (n, k) in enumerate(sizes)
    )
    labels = ("background", *(f"class {i}" for i in range(1, 21)))
    limits = Thresholds(
        score_threshold=0.01, iou_threshold=0.45, pre_nms_top_k=400, max_detections=200
    )
    spec = ModelSpec(
        "8732 x 21", InputSpec(300, 300), AnchorSpec(layers), labels, thresholds=limits
    )
    boxes = spec.boxes.boxes()
    scores = rng.normal(0, 0.5, (images, len(boxes), 21)).astype(np.float32)
    scores[..., 0] += 9
    offsets = rng.normal(0, 0.5, (images, len(boxes), 4)).astype(np.float32)
    for image in range(images):
        for _ in range(8):
            center, label = rng.random(2), int(rng.integers(1, 21))
            near = np.argsort(np.abs(boxes[:, :2] - center).sum(1))[:40]
            scores[image, near, label] += rng.uniform(7, 12, 40)
        noise_boxes = rng.choice(len(boxes), 300, replace=False)
        scores[image, noise_boxes, rng.integers(1, 21, 300)] += 5.5
    return HeadCase(
        "8732 x 21",
        spec,
        scores.astype(np.float16).astype(np.float32),
        offsets.astype(np.float16).astype(np.float32),
    )
