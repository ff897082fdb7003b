"""Heads to decode: random, adversarial and real ones, each with the contract it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec, cell_sizes
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds

__all__ = ["Case", "adversarial_cases", "random_cases", "real_cases", "ssd300_case"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """Heads of a batch.

    Attributes:
        name: What is special.
        spec: Contract they belong to.
        scores: N × P × C.
        offsets: N × P × 4.
    """

    name: str
    spec: ModelSpec
    scores: Floats
    offsets: Floats


def spec_of(classes: int, cells: int, limits: Thresholds, **more: object) -> ModelSpec:
    """Make a contract of cells × cells × 4 default boxes and one over the whole image."""
    layer = AnchorLayer(cells, cells, 1 / cells, 1 / cells, cell_sizes(0.2, 0.3, (2.0,)))
    recipe = AnchorSpec((layer, AnchorLayer(1, 1, 1.0, 1.0, ((0.9, 0.9),))))
    labels = ("background", *(f"class {i}" for i in range(1, classes)))
    base = ModelSpec("proof", InputSpec(64, 64), recipe, labels, thresholds=limits)
    return replace(base, **more)  # type: ignore[arg-type]


def _random(spec: ModelSpec, images: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw heads that FP16 holds exactly, so that both precisions must give one answer."""
    shape = (images, spec.num_boxes)
    scores = rng.normal(0, 3, (*shape, spec.num_classes))
    if spec.activation == "none":
        scores = rng.random((*shape, spec.num_classes))
    offsets = rng.normal(0, 1, (*shape, 4))
    return (
        scores.astype(np.float16).astype(np.float32),
        offsets.astype(np.float16).astype(np.float32),
    )


def random_cases(rng: np.random.Generator, *, quick: bool = False) -> Iterator[Case]:
    """Draw fresh heads for several kinds of model."""
    limits = Thresholds(
        score_threshold=0.3, iou_threshold=0.45, pre_nms_top_k=40, max_detections=20
    )
    for name, classes, cells, more in (
        ("softmax, 21 classes", 21, 12, {}),
        ("sigmoid, 91 classes", 91, 10, {"activation": "sigmoid"}),
        ("probabilities, y x h w", 8, 12, {"activation": "none", "coding": "yxhw"}),
        ("sigmoid, no background", 5, 8, {"activation": "sigmoid", "background": None}),
        ("clipped before NMS, 2 classes", 2, 20, {"clip_before_nms": True}),
    ):
        spec = spec_of(classes, cells, limits, **more)
        yield Case(f"random: {name}", spec, *_random(spec, 3, rng))
    if not quick:
        case = ssd300_case(rng, 2)
        yield replace(case, name="random: 8732 x 21 at score 0.01")


def adversarial_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Give heads on which decoders go wrong."""
    limits = Thresholds(
        score_threshold=0.1, iou_threshold=0.5, pre_nms_top_k=1024, max_detections=1024
    )
    spec = spec_of(3, 20, limits, activation="none")
    scores, offsets = _random(spec, 2, rng)
    yield Case("all boxes above the threshold", spec, np.maximum(scores, 0.125), offsets)
    yield Case("nothing above the threshold", spec, np.zeros_like(scores), offsets)
    levels = np.floor(scores * 4) / 4
    yield Case("four score levels: ties everywhere", spec, levels.astype(np.float32), offsets)
    yield Case("all boxes alike", spec, np.full_like(scores, 0.5), np.zeros_like(offsets))
    corners = replace(spec, coding="corners")
    exact = np.zeros_like(offsets)
    cut = [[0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0, 1, 0.625], [0.5, 0.5, 0.5, 0.5]]
    exact[:, :4] = np.array(cut, np.float32)
    few = np.zeros_like(scores)
    few[:, :4, 1] = [0.9, 0.8, 0.7, 0.6]
    yield Case("IoU exactly at the threshold, zero area", corners, few, exact)
    one = replace(
        spec,
        thresholds=Thresholds(
            score_threshold=0.0, iou_threshold=1.0, pre_nms_top_k=1, max_detections=1
        ),
    )
    yield Case("threshold 0, top-k 1, keep 1", one, scores, offsets)


def real_cases(folder: Path, anchors: Path) -> Iterator[Case]:
    """Read recorded heads of the real MobileNet SSD (`golden/onnx_heads`).

    Args:
        folder: With one .npz a photo.
        anchors: P × 4 y, x, h, w.
    """
    boxes = AnchorSpec.from_array(np.load(anchors)[:, [1, 0, 3, 2]])
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as kept:
            scores = next(kept[key] for key in kept if kept[key].shape[-1] == 91)
            offsets = next(kept[key] for key in kept if kept[key].shape[-1] == 4)
        for score in (0.3, 0.01):
            limits = Thresholds(
                score_threshold=score, iou_threshold=0.6, pre_nms_top_k=200, max_detections=100
            )
            spec = spec_of(91, 3, limits, boxes=boxes, activation="none", coding="yxhw")
            heads = (scores.reshape(1, -1, 91), offsets.reshape(1, -1, 4))
            yield Case(f"real: {file.stem} at score {score}", spec, *heads)


def ssd300_case(rng: np.random.Generator, images: int) -> Case:
    """Draw heads of 8732 boxes × 21 classes as a trained detector gives them.

    Nearly every box is background; about forty boxes around each of eight objects score for its
    class, and some 300 boxes more score a little above 0.01 for some class.
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
            centre, label = rng.random(2), int(rng.integers(1, 21))
            near = np.argsort(np.abs(boxes[:, :2] - centre).sum(1))[:40]
            scores[image, near, label] += rng.uniform(7, 12, 40)
        stray = rng.choice(len(boxes), 300, replace=False)
        scores[image, stray, rng.integers(1, 21, 300)] += 5.5
    return Case(
        "8732 x 21",
        spec,
        scores.astype(np.float16).astype(np.float32),
        offsets.astype(np.float16).astype(np.float32),
    )
