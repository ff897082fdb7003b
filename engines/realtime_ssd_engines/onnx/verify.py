"""Compares an engine with its ONNX file on real frames before the engine is used.

Detections are matched by default box and class, not by rank after NMS. Where two neighboring
default boxes have almost equal scores, the last bit decides which one NMS keeps, and that is not an
error of the engine. The report also counts the detections that both runs keep after NMS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.backends.onnxruntime import open_session
from realtime_ssd.core.boxes import area
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.core.postprocess import PostProcessor, RawDetections
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd.sources import open_source

__all__ = [
    "TOLERANCES",
    "ComparisonReport",
    "Heads",
    "Runner",
    "Tolerance",
    "compare",
    "onnx_runner",
    "read_frames",
    "synthetic_frames",
]

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Heads = tuple[Floats, Floats]
Runner = Callable[[Floats], Heads]
"""Runs a network: 3 × H × W input → P × C scores and P × 4 offsets."""

MIN_DETECTIONS = 20  # over all frames; with fewer, the best candidates are compared instead
BEST_CANDIDATES = 20  # of each frame


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Limits within which an engine must agree with its reference.

    Attributes:
        share: Minimum share of matching detections.
        iou: Minimum IoU of the two boxes of a detection.
        score: Maximum difference between its two scores.
        above: Detections with a higher score than this in either run are compared.
    """

    share: float = 0.995
    iou: float = 0.95
    score: float = 0.02
    above: float = 0.3


TOLERANCES = {
    "fp32": Tolerance(),
    "fp16": Tolerance(),
    "int8": Tolerance(share=0.95, iou=0.9, score=0.05),
}
"""Limits by precision. INT8 engines are compared with their Q/DQ ONNX file; a rounding difference
is a larger step."""


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """Differences between two runs of a model.

    Attributes:
        tolerance: Limits that were applied.
        frames: Frames compared.
        detections: Detections (default box and class) compared.
        agreeing: Detections whose box and score agree.
        boxes_agreeing: Detections whose box agrees.
        scores_agreeing: Detections whose score agrees.
        classes_agreeing: Detections whose default box has the same best class in both runs.
        same_after_nms: Detections that both runs keep after NMS.
        min_iou: Smallest IoU of the two boxes of a detection.
        score_max: Largest difference between two probabilities, over the whole output.
        score_mean: Mean difference between two probabilities.
        offset_max: Largest difference between two offsets.
        offset_mean: Mean difference between two offsets.
        non_finite: NaN and infinite values in the tested run.
    """

    tolerance: Tolerance
    frames: int
    detections: int
    agreeing: int
    boxes_agreeing: int
    scores_agreeing: int
    classes_agreeing: int
    same_after_nms: int
    min_iou: float
    score_max: float
    score_mean: float
    offset_max: float
    offset_mean: float
    non_finite: int

    @property
    def share(self) -> float:
        """Share of detections that agree; 1.0 if there are none."""
        return self.agreeing / self.detections if self.detections else 1.0

    @property
    def passed(self) -> bool:
        """Whether the differences are within the tolerance."""
        return not self.non_finite and self.share >= self.tolerance.share

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable dictionary."""
        values = asdict(self)
        for key, name in _JSON_KEYS.items():
            values[key] = values.pop(name)
        return {**values, "share": self.share, "passed": self.passed}

    def summary(self) -> str:
        """Return the result as one clause for messages."""
        text = (
            f"{self.agreeing} of {self.detections} detections agree "
            f"({100 * self.share:.2f} %, minimum {100 * self.tolerance.share:.1f} %), scores "
            f"differ by up to {self.score_max:.3g}, offsets by up to {self.offset_max:.3g}"
        )
        if self.non_finite:
            text += f", {self.non_finite} values are NaN or infinite"
        return text


_JSON_KEYS = {"gate": "tolerance", "least_iou": "min_iou", "broken": "non_finite"}


def compare(
    reference: Runner,
    tested: Runner,
    spec: ModelSpec,
    frames: Sequence[Image],
    tolerance: Tolerance | None = None,
) -> ComparisonReport:
    """Compare the raw heads and the detections of two networks on the same frames.

    If all frames together have hardly any detections, the best candidates of each frame are
    compared instead, so that the comparison is never empty.

    Args:
        reference: Runs the ONNX file.
        tested: Runs the engine, or another form of the model.
        spec: Specification of the model.
        frames: BGR images.
        tolerance: Limits for `tested`; by default 99.5 % at IoU 0.95 and score difference 0.02.
    """
    comparison = _Comparison(spec, tolerance or Tolerance())
    pairs = []
    for image in frames:
        tensor = preprocess(image, spec.input)
        expected, actual = reference(tensor), tested(tensor)
        pairs.append((expected, actual))
        comparison.add_heads(expected, actual)
    keys = [comparison.detection_keys(*pair) for pair in pairs]
    if sum(map(len, keys)) < MIN_DETECTIONS:
        keys = [comparison.best_candidates(expected) for expected, _ in pairs]
    for (expected, actual), frame_keys in zip(pairs, keys, strict=True):
        comparison.add_detections(expected, actual, frame_keys)
    return comparison.report(len(frames))


class _Comparison:
    """Accumulates differences over frames; a detection's key is default box × classes + class."""

    def __init__(self, spec: ModelSpec, tolerance: Tolerance) -> None:
        self._spec, self._tolerance = spec, tolerance
        self._post = PostProcessor(spec.with_thresholds(score_threshold=tolerance.above))
        self._counts = dict.fromkeys(("detections", "agreeing", "boxes", "scores", "classes"), 0)
        self._same_after_nms = self._non_finite = 0
        self._min_iou = 1.0
        self._max_errors = [0.0, 0.0]
        self._mean_errors: list[list[float]] = [[], []]

    def add_heads(self, expected: Heads, actual: Heads) -> None:
        """Accumulate differences over the whole outputs."""
        scores = (self._post.activate(expected[0]), self._post.activate(actual[0]))
        self._non_finite += int(sum((~np.isfinite(head)).sum() for head in actual))
        for head, (first, second) in enumerate((scores, (expected[1], actual[1]))):
            errors = np.abs(first - second)
            errors = errors[np.isfinite(errors)]
            if errors.size:
                self._max_errors[head] = max(self._max_errors[head], float(errors.max()))
                self._mean_errors[head].append(float(errors.mean()))

    def detection_keys(self, expected: Heads, actual: Heads) -> Indices:
        """Return the keys of all detections of either run."""
        first, second = (self._keys(self._post(*heads)) for heads in (expected, actual))
        self._same_after_nms += len(np.intersect1d(first, second))
        return np.union1d(first, second)

    def best_candidates(self, heads: Heads) -> Indices:
        """Return the keys of the candidates with the highest scores, whatever the threshold."""
        scores = self._post.activate(heads[0]).ravel()
        keys = np.argsort(-scores, kind="stable")
        foreground = keys[keys % self._spec.num_classes != self._spec.background]
        return np.asarray(foreground[:BEST_CANDIDATES], np.int64)

    def add_detections(self, expected: Heads, actual: Heads, keys: Indices) -> None:
        """Compare the boxes, scores and best classes of detections."""
        boxes, classes = np.divmod(keys, self._spec.num_classes)
        corners = [self._post.decode(boxes, offsets) for _, offsets in (expected, actual)]
        scores = [self._post.activate(logits[boxes]) for logits, _ in (expected, actual)]
        rows = np.arange(len(boxes))
        errors = np.abs(scores[0][rows, classes] - scores[1][rows, classes])
        ious = _paired_iou(*corners)
        box_agrees, score_agrees = ious >= self._tolerance.iou, errors <= self._tolerance.score
        class_agrees = scores[0].argmax(axis=1) == scores[1].argmax(axis=1)
        self._min_iou = min(self._min_iou, float(ious.min(initial=1.0)))
        for name, selected in (
            ("detections", np.ones(len(boxes), bool)),
            ("agreeing", box_agrees & score_agrees),
            ("boxes", box_agrees),
            ("scores", score_agrees),
            ("classes", class_agrees),
        ):
            self._counts[name] += int(selected.sum())

    def report(self, frames: int) -> ComparisonReport:
        """Return the accumulated differences."""
        return ComparisonReport(
            tolerance=self._tolerance,
            frames=frames,
            detections=self._counts["detections"],
            agreeing=self._counts["agreeing"],
            boxes_agreeing=self._counts["boxes"],
            scores_agreeing=self._counts["scores"],
            classes_agreeing=self._counts["classes"],
            same_after_nms=self._same_after_nms,
            min_iou=self._min_iou,
            score_max=self._max_errors[0],
            score_mean=float(np.mean(self._mean_errors[0] or [0.0])),
            offset_max=self._max_errors[1],
            offset_mean=float(np.mean(self._mean_errors[1] or [0.0])),
            non_finite=self._non_finite,
        )

    def _keys(self, raw: RawDetections) -> Indices:
        return np.asarray(raw.box_indices * self._spec.num_classes + raw.class_ids, np.int64)


def _paired_iou(first: Floats, second: Floats) -> Floats:
    """Return the IoU of each pair of rows: 1 for identical boxes, 0 where a value is NaN.

    Identical boxes count as 1 even if their area is zero or exceeds float32.
    """
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, 2:], second[:, 2:])
    with np.errstate(over="ignore", invalid="ignore"):
        intersection = np.prod(np.maximum(high - low, 0), axis=1)
        union = area(first) + area(second) - intersection
        ratio = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    identical = (first == second).all(axis=1)
    ious: Floats = np.where(identical, np.float32(1), np.nan_to_num(ratio)).astype(np.float32)
    return ious


def onnx_runner(model: str | Path | bytes, spec: ModelSpec) -> Runner:
    """Open an ONNX model as the reference, on the CPU.

    Args:
        model: File, or a serialized model.
        spec: Specification of the model.

    Raises:
        ModelError: If ONNX Runtime cannot load it.
    """
    session = open_session(model, cpu_count())
    is_fp16 = "float16" in session.get_inputs()[0].type
    names = [spec.scores_output, spec.offsets_output]

    def run(tensor: Floats) -> Heads:
        batch = tensor[None].astype(np.float16 if is_fp16 else np.float32)
        scores, offsets = session.run(names, {spec.input.name: batch})
        return scores[0].astype(np.float32), offsets[0].astype(np.float32)

    return run


def synthetic_frames(count: int = 12) -> list[Image]:
    """Return frames of the synthetic street, used when no other frames are specified."""
    from realtime_ssd.synthetic import StreetScene

    return [StreetScene(640, 360, seed=seed).render(30) for seed in range(40, 40 + count)]


def read_frames(source: str, limit: int = 32) -> list[Image]:
    """Read evenly spaced frames of a video or a folder of images.

    Args:
        source: As `realtime_ssd.sources.open_source` takes it.
        limit: Maximum number of frames.

    Raises:
        UsageError: If the source does not exist, or is live.
        SourceError: If it cannot be read.
    """
    with open_source(source) as opened:
        if opened.info.live:
            raise UsageError(f"'{source}' is a live source; use a video file or a folder of images")
        step = max((opened.info.frame_count or 0) // limit, 1)
        images = (frame.image for frame in iter(opened.read, None))
        return list(islice(images, 0, step * limit, step))
