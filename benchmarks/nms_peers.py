"""Decode + NMS against the field's, on the same heads, with the same survivors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd import open_source
from realtime_ssd.boxes import decode, encode, iou, to_corners
from realtime_ssd.postprocess import PostProcessor
from realtime_ssd.preprocess import preprocess
from realtime_ssd.spec import ModelSpec, Thresholds, read_spec

__all__ = ["heads_of", "measure", "measure_ours", "widened"]

Floats = NDArray[np.float32]
Heads = tuple[Floats, Floats]
Candidates = tuple[Floats, Floats, NDArray[np.intp]]
VOC = (
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining-table", "dog", "horse", "motorcycle", "person", "potted-plant", "sheep", "couch"),
    *("train", "tv"),
)


def heads_of(model: Path, video: str, count: int = 8) -> list[Heads]:
    """Run a model over the first frames of a video and keep its raw heads."""
    from benchmarks.video_peers import onnxruntime_network

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
    from training.models.ssd300_vgg16 import BOXES

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
        thresholds=Thresholds(nms=0.45, top_k=400, keep=200),
    )
    return made, target


def candidates(heads: Heads, spec: ModelSpec, default_boxes: Floats) -> Candidates:
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
    rows, classes = np.nonzero(scores > spec.thresholds.score)
    return boxes[rows], scores[rows, classes], classes


def supervision_nms(found: Candidates, spec: ModelSpec) -> int:
    """NMS by supervision; the number of survivors."""
    import supervision

    boxes, scores, classes = found
    given = supervision.Detections(xyxy=boxes, confidence=scores, class_id=classes)
    return len(given.with_nms(spec.thresholds.nms))


def opencv_nms(found: Candidates, spec: ModelSpec) -> int:
    """NMS by OpenCV; the number of survivors."""
    boxes, scores, classes = found
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) * 1000
    kept = 0
    for one in np.unique(classes):
        mine = classes == one
        kept += len(cv2.dnn.NMSBoxes(sides[mine], scores[mine], 1e-6, spec.thresholds.nms))
    return kept


def torchvision_nms(found: Candidates, spec: ModelSpec) -> int:
    """NMS by torchvision; the number of survivors."""
    import torch
    from torchvision.ops import batched_nms

    boxes, scores, classes = map(torch.from_numpy, found)
    return len(batched_nms(boxes, scores, classes, spec.thresholds.nms))


PEERS: dict[str, Callable[[Candidates, ModelSpec], int]] = {
    "supervision": supervision_nms,
    "OpenCV": opencv_nms,
    "torchvision": torchvision_nms,
}


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
    free = replace(spec, thresholds=replace(limits, top_k=100_000, keep=100_000))
    ours, in_use = PostProcessor(free), PostProcessor(replace(spec, thresholds=limits))
    anchors = np.asarray(free.boxes.boxes(), np.float32)
    runs: dict[str, Callable[[Heads], int]] = {
        "as in use": lambda one: len(in_use(*one).scores),
        "realtime-ssd": lambda one: len(ours(*one).scores),
    }
    rows: dict[str, Any] = {}
    expected = [runs["realtime-ssd"](one) for one in heads]
    for name, peer in PEERS.items():
        run = _with(peer, free, anchors)
        try:
            found = [run(one) for one in heads]
        except Exception as error:
            rows[name] = {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"}
            continue
        off = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        rows[name] = {"survivors_off_by_at_most": off}
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
    counts = [len(candidates(one, free, anchors)[1]) for one in heads]
    return {
        "score_threshold": score,
        "boxes": free.num_boxes,
        "classes": free.num_classes,
        "candidates": round(statistics.mean(counts)),
        "survivors": round(statistics.mean(expected)),
        "rows": rows,
    }


def _with(
    peer: Callable[[Candidates, ModelSpec], int], spec: ModelSpec, anchors: Floats
) -> Callable[[Heads], int]:
    return lambda one: peer(candidates(one, spec, anchors), spec)
