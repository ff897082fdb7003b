"""Decode + NMS against the field's, on the same heads, with the same survivors."""

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

from benchmarks.answers import agreement
from realtime_ssd import Detections, open_source
from realtime_ssd.core.boxes import decode, encode, iou, to_corners
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec, Thresholds, read_spec

__all__ = ["OWN", "heads_of", "measure", "measure_ours", "peers", "widened"]

Floats = NDArray[np.float32]
Heads = tuple[Floats, Floats]
Answers = tuple[Floats, Floats, NDArray[np.integer[Any]]]
"""Boxes, scores and classes."""

Peer = Callable[[Heads], Answers]
OWN = "torchvision SSD.postprocess_detections"
SAME = 0.98
VOC = (
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining-table", "dog", "horse", "motorcycle", "person", "potted-plant", "sheep", "couch"),
    *("train", "tv"),
)


def heads_of(model: Path, video: str, count: int = 8) -> list[Heads]:
    """Run a model over the first frames of a video and keep its raw heads."""
    from benchmarks.cpu.video_baselines import onnxruntime_network

    spec = read_spec(model)
    network = onnxruntime_network(model, spec)
    heads: list[Heads] = []
    with open_source(video) as source:
        while len(heads) < count and (frame := source.read()) is not None:
            scores, offsets = network(preprocess(frame.image, spec.input)[None])
            heads.append((scores.copy(), offsets.copy()))
    return heads


def widened(heads: list[Heads], spec: ModelSpec) -> tuple[list[Heads], ModelSpec]:
    """Carry real heads of a COCO detector over to SSD300's 8732 default boxes and VOC's classes.

    Every default box takes the scores and the box of the one that overlaps it most, so that
    there are as many candidates, as crowded, as real pictures give.
    """
    from realtime_ssd_training.models.ssd300_vgg16 import BOXES

    recipe = BOXES["voc"]
    names = [label.lower().replace(" ", "-") for label in spec.labels]
    columns = [names.index(label) for label in VOC]
    given, wanted = spec.boxes.boxes(), recipe.boxes()
    nearest = iou(to_corners(wanted), to_corners(given)).argmax(axis=1)
    post = PostProcessor(spec)
    made = []
    for scores, offsets in heads:
        logits = np.zeros((len(wanted), len(VOC) + 1), np.float32)
        odds = np.clip(post.activate(scores)[nearest][:, columns], 1e-6, 1 - 1e-6)
        logits[:, 1:] = np.log(odds / (1 - odds))
        boxes = post.decode(nearest, offsets)
        variances = (0.1, 0.1, 0.2, 0.2)
        made.append((logits, encode(boxes, wanted, variances).astype(np.float32)))
    target = replace(
        spec,
        name="8732 x 21",
        boxes=recipe,
        labels=("background", *VOC),
        activation="softmax",
        coding="xywh",
        variances=(0.1, 0.1, 0.2, 0.2),
        background=0,
        thresholds=Thresholds(iou_threshold=0.45, pre_nms_top_k=400, max_detections=200),
        clip_before_nms=True,
    )
    return made, target


def candidates(heads: Heads, spec: ModelSpec, default_boxes: Floats) -> Answers:
    """Decode all boxes and list the candidates, as is usual before a library's NMS."""
    scores, offsets = heads
    if spec.activation == "softmax":
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = shifted / shifted.sum(axis=1, keepdims=True)
    elif spec.activation == "sigmoid":
        scores = 1 / (1 + np.exp(-scores))
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


def supervision_nms(found: Answers, spec: ModelSpec) -> Answers:
    """NMS by supervision."""
    import supervision

    boxes, scores, classes = found
    given = supervision.Detections(xyxy=boxes, confidence=scores, class_id=classes)
    kept = given.with_nms(spec.thresholds.iou_threshold)
    return kept.xyxy, kept.confidence, kept.class_id


def opencv_nms(found: Answers, spec: ModelSpec) -> Answers:
    """NMS by OpenCV."""
    boxes, scores, classes = found
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) * 1000
    kept = [np.zeros(0, np.intp)]
    for one in np.unique(classes):
        mine = np.flatnonzero(classes == one)
        best = cv2.dnn.NMSBoxes(sides[mine], scores[mine], 1e-6, spec.thresholds.iou_threshold)
        kept.append(mine[np.asarray(best, np.intp)])
    picked = np.concatenate(kept)
    return boxes[picked], scores[picked], classes[picked]


def torchvision_nms(found: Answers, spec: ModelSpec) -> Answers:
    """NMS by torchvision."""
    import torch
    from torchvision.ops import batched_nms

    boxes, scores, classes = map(torch.from_numpy, found)
    kept = batched_nms(boxes, scores, classes, spec.thresholds.iou_threshold).numpy()
    return found[0][kept], found[1][kept], found[2][kept]


def torchvision_own(spec: ModelSpec, default_boxes: Floats) -> Peer:
    """Decode and suppress with the very function of torchvision's SSD; softmax heads alone."""
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

    def run(heads: Heads) -> Answers:
        logits, offsets = (torch.from_numpy(part)[None] for part in heads)
        given = {"cls_logits": logits, "bbox_regression": offsets}
        with torch.inference_mode():
            (found,) = SSD.postprocess_detections(network, given, [corners], [(1, 1)])
        boxes, scores, labels = (found[name].numpy() for name in ("boxes", "scores", "labels"))
        return boxes, scores, labels

    return run


NMS: dict[str, Callable[[Answers, ModelSpec], Answers]] = {
    "supervision": supervision_nms,
    "OpenCV": opencv_nms,
    "torchvision": torchvision_nms,
}


def peers(spec: ModelSpec) -> dict[str, Callable[[], Peer]]:
    """Give what makes each peer ready; all but torchvision's own decode with numpy."""
    default_boxes = np.asarray(spec.boxes.boxes(), np.float32)

    def ready(suppress: Callable[[Answers, ModelSpec], Answers]) -> Callable[[], Peer]:
        return lambda: lambda one: suppress(candidates(one, spec, default_boxes), spec)

    made = {name: ready(suppress) for name, suppress in NMS.items()}
    if spec.activation == "softmax":
        made[OWN] = lambda: torchvision_own(spec, default_boxes)
    return made


def measure_ours(heads: list[Heads], spec: ModelSpec, score: float, repeats: int) -> dict[str, Any]:
    """Time ours alone with the model's own limits; median in milliseconds a frame."""
    post = PostProcessor(replace(spec, thresholds=replace(spec.thresholds, score=score)))
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        for one in heads:
            post(*one)
        times.append((time.perf_counter() - begun) / len(heads) * 1000)
    return {
        "score_threshold": score,
        "boxes": spec.num_boxes,
        "classes": spec.num_classes,
        "ms": round(statistics.median(times), 4),
    }


def measure(heads: list[Heads], spec: ModelSpec, score: float, repeats: int) -> dict[str, Any]:
    """Time ours and all peers in turn over the same heads; medians in milliseconds a frame.

    The thresholds let every candidate into NMS and every survivor out, because the peers have no
    such limits; "as in use" is ours with the model's own limits.
    """
    limits = replace(spec.thresholds, score=score)
    free = replace(spec, thresholds=replace(limits, pre_nms_top_k=100_000, max_detections=100_000))
    runs: dict[str, Peer] = {
        "as in use": _ours(replace(spec, thresholds=limits)),
        "realtime-ssd": _ours(free),
    }
    rows: dict[str, Any] = {}
    expected = [_detections(runs["realtime-ssd"](one)) for one in heads]
    for name, make in peers(free).items():
        try:
            run = make()
            share = agreement(expected, [_detections(run(one)) for one in heads])
        except Exception as error:
            rows[name] = {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"}
            continue
        rows[name] = {"agreement": round(share, 4), "same_answers": share >= SAME}
        runs[name] = run
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            begun = time.perf_counter()
            for one in heads:
                run(one)
            times[name].append((time.perf_counter() - begun) / len(heads) * 1000)
    for name, values in times.items():
        rows.setdefault(name, {})["ms"] = round(statistics.median(values), 4)
    default_boxes = np.asarray(free.boxes.boxes(), np.float32)
    counts = [len(candidates(one, free, default_boxes)[1]) for one in heads]
    return {
        "score_threshold": score,
        "boxes": free.num_boxes,
        "classes": free.num_classes,
        "candidates": round(statistics.mean(counts)),
        "survivors": round(statistics.mean(map(len, expected))),
        "rows": rows,
    }


def _ours(spec: ModelSpec) -> Peer:
    post = PostProcessor(spec)

    def run(heads: Heads) -> Answers:
        found = post(*heads)
        return found.boxes, found.scores, found.class_ids

    return run


def _detections(answers: Answers) -> Detections:
    boxes, scores, classes = answers
    return Detections(boxes, scores, classes.astype(np.int32))
