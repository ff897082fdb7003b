"""Decoding and NMS: this project against common libraries, on the same heads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import SAME_DETECTIONS, agreement
from benchmarks.cpu.video_baselines import onnxruntime_network, skipped
from realtime_ssd import Detections, open_source
from realtime_ssd.core.boxes import decode, encode, iou, to_corners
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec, Thresholds, read_spec

__all__ = ["TORCHVISION_SSD", "measure", "measure_ours", "read_heads", "widen_to_ssd300"]

Floats = NDArray[np.float32]
Heads = tuple[Floats, Floats]
"""Scores (P × C) and offsets (P × 4) of one image."""

Boxes = tuple[Floats, Floats, NDArray[np.integer[Any]]]
"""Boxes (N × 4), scores (N) and class ids (N)."""

Suppression = Callable[[Boxes, ModelSpec], Boxes]
Contender = Callable[[Heads], Boxes]
TORCHVISION_SSD = "torchvision SSD.postprocess_detections"
VARIANCES = (0.1, 0.1, 0.2, 0.2)
VOC_LABELS = (
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining-table", "dog", "horse", "motorcycle", "person", "potted-plant", "sheep", "couch"),
    *("train", "tv"),
)


def read_heads(model: Path, video: str, count: int = 8) -> list[Heads]:
    """Run a model over the first frames of a video and return its raw heads."""
    spec = read_spec(model)
    network = onnxruntime_network(model, spec)
    heads: list[Heads] = []
    with open_source(video) as source:
        while len(heads) < count and (frame := source.read()) is not None:
            scores, offsets = network(preprocess(frame.image, spec.input)[None])
            heads.append((scores.copy(), offsets.copy()))
    return heads


def widen_to_ssd300(heads: list[Heads], spec: ModelSpec) -> tuple[list[Heads], ModelSpec]:
    """Transfer real heads of a COCO detector to SSD300's 8732 default boxes and VOC's classes.

    Every default box takes scores and box of the one that overlaps it most, so that number and
    crowding of the candidates are those of real images.

    Returns:
        The heads and the specification that fits them.
    """
    from realtime_ssd_training.models.ssd300_vgg16 import BOXES

    anchors = BOXES["voc"]
    names = [label.lower().replace(" ", "-") for label in spec.labels]
    columns = [names.index(label) for label in VOC_LABELS]
    default_boxes = anchors.boxes()
    nearest = iou(to_corners(default_boxes), to_corners(spec.boxes.boxes())).argmax(axis=1)
    post = PostProcessor(spec)
    widened = []
    for scores, offsets in heads:
        logits = np.zeros((len(default_boxes), len(VOC_LABELS) + 1), np.float32)
        probabilities = np.clip(post.activate(scores)[nearest][:, columns], 1e-6, 1 - 1e-6)
        logits[:, 1:] = np.log(probabilities / (1 - probabilities))
        boxes = post.decode(nearest, offsets)
        widened.append((logits, encode(boxes, default_boxes, VARIANCES).astype(np.float32)))
    widened_spec = replace(
        spec,
        name="8732 x 21",
        boxes=anchors,
        labels=("background", *VOC_LABELS),
        activation="softmax",
        coding="xywh",
        variances=VARIANCES,
        background=0,
        thresholds=Thresholds(iou_threshold=0.45, pre_nms_top_k=400, max_detections=200),
        clip_before_nms=True,
    )
    return widened, widened_spec


def decode_candidates(heads: Heads, spec: ModelSpec, default_boxes: Floats) -> Boxes:
    """Decode all boxes and select the candidates, as scripts do before a library's NMS."""
    scores, offsets = heads
    if spec.activation == "softmax":
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    elif spec.activation == "sigmoid":
        scores = np.reciprocal(1 + np.exp(-scores))
    if spec.background is not None:
        scores = scores.copy()
        scores[:, spec.background] = 0
    if spec.coding == "yxhw":
        offsets = offsets[:, [1, 0, 3, 2]]
    boxes = decode(offsets, default_boxes, spec.variances).astype(np.float32)
    if spec.clip_before_nms:
        boxes = boxes.clip(0, 1)
    rows, classes = np.nonzero(scores > spec.thresholds.score_threshold)
    return boxes[rows], scores[rows, classes], classes


def supervision_nms(candidates: Boxes, spec: ModelSpec) -> Boxes:
    """Apply NMS with supervision."""
    import supervision

    boxes, scores, classes = candidates
    detections = supervision.Detections(xyxy=boxes, confidence=scores, class_id=classes)
    kept = detections.with_nms(spec.thresholds.iou_threshold)
    return kept.xyxy, kept.confidence, kept.class_id


def opencv_nms(candidates: Boxes, spec: ModelSpec) -> Boxes:
    """Apply NMS with OpenCV, class by class."""
    nms: Any = cv2.dnn.NMSBoxes  # its stubs allow no arrays
    boxes, scores, classes = candidates
    # NMSBoxes takes boxes as x, y, width, height.
    rectangles = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) * 1000
    kept = [np.zeros(0, np.intp)]
    for class_id in np.unique(classes):
        rows = np.flatnonzero(classes == class_id)
        best = nms(rectangles[rows], scores[rows], 1e-6, spec.thresholds.iou_threshold)
        kept.append(rows[np.asarray(best, np.intp)])
    indices = np.concatenate(kept)
    return boxes[indices], scores[indices], classes[indices]


def torchvision_nms(candidates: Boxes, spec: ModelSpec) -> Boxes:
    """Apply NMS with torchvision."""
    import torch
    from torchvision.ops import batched_nms

    boxes, scores, classes = map(torch.from_numpy, candidates)
    kept = batched_nms(boxes, scores, classes, spec.thresholds.iou_threshold).numpy()
    return candidates[0][kept], candidates[1][kept], candidates[2][kept]


def torchvision_ssd(spec: ModelSpec, default_boxes: Floats) -> Contender:
    """Return torchvision's own decoding and NMS for SSD; it supports softmax heads only."""
    import torch
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.ssd import SSD

    limits = spec.thresholds
    network = SimpleNamespace(
        box_coder=BoxCoder(tuple(1 / value for value in spec.variances)),
        score_thresh=limits.score_threshold,
        topk_candidates=limits.pre_nms_top_k,
        nms_thresh=limits.iou_threshold,
        detections_per_img=limits.max_detections,
    )
    corners = torch.from_numpy(to_corners(default_boxes).astype(np.float32))

    def run(heads: Heads) -> Boxes:
        logits, offsets = (torch.from_numpy(part)[None] for part in heads)
        outputs = {"cls_logits": logits, "bbox_regression": offsets}
        with torch.inference_mode():
            (result,) = SSD.postprocess_detections(network, outputs, [corners], [(1, 1)])
        boxes, scores, labels = (result[name].numpy() for name in ("boxes", "scores", "labels"))
        return boxes, scores, labels

    return run


NMS: dict[str, Suppression] = {
    "supervision": supervision_nms,
    "OpenCV": opencv_nms,
    "torchvision": torchvision_nms,
}


def baselines(spec: ModelSpec) -> dict[str, Callable[[], Contender]]:
    """Return a factory per baseline; all but torchvision's own function decode in numpy."""
    default_boxes = np.asarray(spec.boxes.boxes(), np.float32)

    def with_numpy_decoding(suppress: Suppression) -> Callable[[], Contender]:
        return lambda: lambda heads: suppress(decode_candidates(heads, spec, default_boxes), spec)

    factories = {name: with_numpy_decoding(suppress) for name, suppress in NMS.items()}
    if spec.activation == "softmax":
        factories[TORCHVISION_SSD] = lambda: torchvision_ssd(spec, default_boxes)
    return factories


def measure_ours(
    heads: list[Heads], spec: ModelSpec, score_threshold: float, rounds: int
) -> dict[str, Any]:
    """Time this project alone with the model's own limits; median in milliseconds per frame."""
    post = _ours(_with_limits(spec, score_threshold=score_threshold))
    times = [_milliseconds_per_frame(post, heads) for _ in range(rounds)]
    return {
        "score_threshold": score_threshold,
        "boxes": spec.num_boxes,
        "classes": spec.num_classes,
        "ms": round(statistics.median(times), 4),
    }


def measure(
    heads: list[Heads], spec: ModelSpec, score_threshold: float, rounds: int
) -> dict[str, Any]:
    """Time this project and all baselines in turn; medians in milliseconds per frame.

    Every candidate enters NMS and every survivor is kept, because the baselines have no such
    limits; "as in use" is this project with the model's own limits.
    """
    in_use = _with_limits(spec, score_threshold=score_threshold)
    unlimited = _with_limits(in_use, pre_nms_top_k=100_000, max_detections=100_000)
    contenders = {"as in use": _ours(in_use), "realtime-ssd": _ours(unlimited)}
    expected = [_detections(contenders["realtime-ssd"](image)) for image in heads]
    rows: dict[str, Any] = {}
    for name, prepare in baselines(unlimited).items():
        try:
            contender = prepare()
            share = agreement(expected, [_detections(contender(image)) for image in heads])
        except Exception as error:
            rows[name] = skipped(error)
            continue
        rows[name] = {"agreement": round(share, 4), "same_answers": share >= SAME_DETECTIONS}
        contenders[name] = contender
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            times[name].append(_milliseconds_per_frame(contender, heads))
    for name, values in times.items():
        rows.setdefault(name, {})["ms"] = round(statistics.median(values), 4)
    default_boxes = np.asarray(spec.boxes.boxes(), np.float32)
    counts = [len(decode_candidates(image, unlimited, default_boxes)[1]) for image in heads]
    return {
        "score_threshold": score_threshold,
        "boxes": spec.num_boxes,
        "classes": spec.num_classes,
        "candidates": round(statistics.mean(counts)),
        "survivors": round(statistics.mean(map(len, expected))),
        "rows": rows,
    }


def _with_limits(spec: ModelSpec, **limits: Any) -> ModelSpec:
    return replace(spec, thresholds=replace(spec.thresholds, **limits))


def _milliseconds_per_frame(contender: Contender, heads: list[Heads]) -> float:
    start = time.perf_counter()
    for image in heads:
        contender(image)
    return (time.perf_counter() - start) / len(heads) * 1000


def _ours(spec: ModelSpec) -> Contender:
    post = PostProcessor(spec)

    def run(heads: Heads) -> Boxes:
        detections = post(*heads)
        return detections.boxes, detections.scores, detections.class_ids

    return run


def _detections(boxes: Boxes) -> Detections:
    corners, scores, classes = boxes
    return Detections(corners, scores, classes.astype(np.int32))
