"""Why a model detected what it detected: default boxes, suppressed rivals and near misses.

The steps are those of `realtime_ssd.core.postprocess`, with every decision recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import AnchorSpec, iou, to_corners
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.preprocess import letterbox_params
from realtime_ssd.core.spec import ModelSpec

__all__ = ["BoxOrigin", "Candidate", "ExplainedDetection", "Explanation", "Rival", "explain"]

Box = tuple[float, float, float, float]
Floats = NDArray[np.float32]

LOWEST_SCORE = 0.05
"""Score above which a candidate may be a near miss."""

MAX_NEAR_MISSES = 9
"""Largest number of near misses that are reported, best first."""

_MAX_CANDIDATES = 3000


@dataclass(frozen=True, slots=True)
class BoxOrigin:
    """The default box that a candidate comes from.

    Attributes:
        index: Index among all default boxes.
        feature_map: Number of its feature map, from 1; 0 if the default boxes follow no rule.
        feature_maps: Number of feature maps.
        grid: Rows and columns of the feature map.
        cell: Row and column of the cell, from 1.
        shape: Number of the default box within its cell, from 1.
        shapes: Default boxes per cell.
        box: The default box in pixels of the image: x1, y1, x2, y2; it may exceed the image. None
            if the graph decodes the boxes itself.
        iou: IoU of the default box with the box that was decoded from it.
    """

    index: int
    feature_map: int
    feature_maps: int
    grid: tuple[int, int]
    cell: tuple[int, int]
    shape: int
    shapes: int
    box: Box | None
    iou: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A class at a default box.

    Attributes:
        label: Class name.
        class_id: Column of the class.
        score: Probability.
        threshold: Score threshold of the class.
        box: x1, y1, x2, y2 in pixels of the image.
        origin: Where it comes from.
    """

    label: str
    class_id: int
    score: float
    threshold: float
    box: Box
    origin: BoxOrigin


@dataclass(frozen=True, slots=True)
class Rival:
    """A candidate that a better one suppressed.

    Attributes:
        candidate: The candidate.
        iou: Its IoU with the better one, above the threshold of NMS.
    """

    candidate: Candidate
    iou: float


@dataclass(frozen=True, slots=True)
class ExplainedDetection:
    """A detection and what it suppressed.

    Attributes:
        candidate: The detection.
        rivals: Candidates that it suppressed, best first.
    """

    candidate: Candidate
    rivals: tuple[Rival, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a model detected in one image, and why.

    Attributes:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        detections: The detections, best first.
        near_misses: The best candidates at or below their score threshold, above `LOWEST_SCORE`,
            that no detection and no better near miss would suppress.
        candidates: Number of candidates above their threshold, before NMS.
        iou_threshold: IoU above which a better box suppresses another one.
    """

    width: int
    height: int
    detections: tuple[ExplainedDetection, ...]
    near_misses: tuple[Candidate, ...]
    candidates: int
    iou_threshold: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serializable values."""
        return asdict(self)


def explain(
    spec: ModelSpec,
    scores: Floats,
    offsets: Floats,
    width: int,
    height: int,
    classes: tuple[int, ...] | None = None,
) -> Explanation:
    """Explain the detections of one image.

    Args:
        spec: Specification of the model with the thresholds to apply.
        scores: P × C raw scores.
        offsets: P × 4 raw offsets, or corners if the graph decodes the boxes.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        classes: Class ids to detect; all but the background if None.

    Returns:
        The explanation; its detections are those of `PostProcessor`.
    """
    post = PostProcessor(spec, classes)
    found = post(scores, offsets)
    selected = range(spec.num_classes) if classes is None else classes
    columns = np.array([c for c in selected if c != spec.background], np.int64)
    pool = _Pool(spec, post, scores, offsets, columns, (width, height))
    kept = [
        pool.position_of(int(row), int(column))
        for row, column in zip(found.box_indices, found.class_ids, strict=True)
    ]
    suppressors = pool.suppressors(kept)
    detections = []
    for position in kept:
        rivals = np.flatnonzero(suppressors == position).tolist()
        detections.append(
            ExplainedDetection(
                pool.candidate(position),
                tuple(Rival(pool.candidate(k), pool.overlap(position, k)) for k in rivals),
            )
        )
    return Explanation(
        width,
        height,
        tuple(detections),
        tuple(pool.candidate(k) for k in pool.near_misses(kept)),
        int(pool.above.sum()),
        spec.thresholds.iou_threshold,
    )


class _Pool:
    """The best candidates of an image, above and below the thresholds, best first.

    Attributes:
        rows: Default box of each candidate.
        columns: Class of each candidate.
        values: Score of each candidate.
        above: Whether the score is above the threshold of the class.
    """

    def __init__(
        self,
        spec: ModelSpec,
        post: PostProcessor,
        scores: Floats,
        offsets: Floats,
        columns: NDArray[np.int64],
        size: tuple[int, int],
    ) -> None:
        self._spec, self._size = spec, size
        limits = spec.thresholds
        thresholds = np.full(spec.num_classes, limits.score_threshold, np.float32)
        if limits.class_scores:
            thresholds = np.asarray(limits.class_scores, np.float32)
        probabilities = post.activate(scores)[:, columns]
        lowest = np.minimum(thresholds[columns], np.float32(LOWEST_SCORE))
        rows, hits = np.nonzero(probabilities > lowest)
        values = probabilities[rows, hits]
        order = np.argsort(-values, kind="stable")
        above = values > thresholds[columns][hits]
        # All candidates above a threshold, and the best others.
        others = np.cumsum(~above[order]) <= _MAX_CANDIDATES
        order = order[above[order] | others]
        self.rows, self.columns, self.values = rows[order], columns[hits[order]], values[order]
        self.above = above[order]
        self._limits = thresholds[self.columns]
        self._boxes = post.decode(self.rows, offsets)
        self._defaults = None if spec.coding == "corners" else spec.boxes.boxes()
        self._positions = {
            pair: k
            for k, pair in enumerate(zip(self.rows.tolist(), self.columns.tolist(), strict=True))
        }

    def position_of(self, row: int, column: int) -> int:
        """Return the position of a class at a default box."""
        return self._positions[row, column]

    def overlap(self, first: int, second: int) -> float:
        """Return the IoU of two candidates."""
        return float(iou(self._boxes[[first]], self._boxes[[second]])[0, 0])

    def _rivals(self, position: int) -> NDArray[np.bool_]:
        """Return which candidates a candidate would suppress, were they worse."""
        exceeds = iou(self._boxes[[position]], self._boxes)[0] > self._spec.thresholds.iou_threshold
        if not self._spec.thresholds.agnostic_nms:
            exceeds &= self.columns == self.columns[position]
        return np.asarray(exceeds)

    def suppressors(self, kept: Sequence[int]) -> NDArray[np.int64]:
        """Return for each candidate above its threshold the detection that suppressed it, or -1."""
        result = np.full(len(self.rows), -1)
        for position in sorted(kept):
            worse = np.arange(len(self.rows)) > position
            result[self._rivals(position) & worse & self.above & (result < 0)] = position
        return result

    def near_misses(self, kept: Sequence[int]) -> list[int]:
        """Return the best candidates below their threshold that nothing suppresses."""
        free = ~self.above & (self.values > LOWEST_SCORE)
        for position in kept:
            free &= ~self._rivals(position)
        chosen: list[int] = []
        while free.any() and len(chosen) < MAX_NEAR_MISSES:
            best = int(free.argmax())
            chosen.append(best)
            free &= ~self._rivals(best)
            free[best] = False
        return chosen

    def candidate(self, position: int) -> Candidate:
        """Return a candidate with boxes in pixels of the image."""
        column = int(self.columns[position])
        label = self._spec.labels[column]
        box = self._to_image(self._boxes[position], clip=True)
        score, limit = float(self.values[position]), float(self._limits[position])
        return Candidate(label, column, score, limit, box, self._origin(position))

    def _origin(self, position: int) -> BoxOrigin:
        index = int(self.rows[position])
        default: Box | None = None
        overlap = 0.0
        if self._defaults is not None:
            corners = to_corners(self._defaults[index][None])
            default = self._to_image(corners[0], clip=False)
            overlap = float(iou(corners, self._boxes[[position]])[0, 0])
        return _locate(self._spec.boxes, index, default, overlap)

    def _to_image(self, box: NDArray[np.floating], *, clip: bool) -> Box:
        """Convert fractions of the input to pixels of the image."""
        width, height = self._size
        spec = self._spec.input
        params = letterbox_params(spec, width, height)
        if clip:
            box = params.to_frame(box[None].astype(np.float32), spec, width, height)[0]
        else:
            scale = np.array(
                [spec.width / params.width * width, spec.height / params.height * height]
            )
            shift = np.array([params.x / params.width * width, params.y / params.height * height])
            box = box * np.tile(scale, 2) - np.tile(shift, 2)
        x1, y1, x2, y2 = (float(value) for value in box)
        return x1, y1, x2, y2


def _locate(anchors: AnchorSpec, index: int, box: Box | None, overlap: float) -> BoxOrigin:
    """Return feature map, cell and shape of a default box by its index."""
    remaining = index
    for number, layer in enumerate(anchors.layers, start=1):
        if remaining < layer.count:
            cell, shape = divmod(remaining, len(layer.sizes))
            row, column = divmod(cell, layer.columns)
            return BoxOrigin(
                index=index,
                feature_map=number,
                feature_maps=len(anchors.layers),
                grid=(layer.rows, layer.columns),
                cell=(row + 1, column + 1),
                shape=shape + 1,
                shapes=len(layer.sizes),
                box=box,
                iou=overlap,
            )
        remaining -= layer.count
    return BoxOrigin(index, 0, 0, (0, 0), (0, 0), 0, 0, box, overlap)
