"""Does an engine say what the ONNX file says? Asked on real frames before it is ever served.

A detection is followed by its default box and class, not by its place in the list after NMS: where
two neighbouring default boxes score almost alike, the last bit decides which of them NMS keeps,
and that is no fault of an engine. How much of the lists is the same is told besides.
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
    "Agreement",
    "Gate",
    "Heads",
    "Run",
    "compare",
    "frames_of",
    "onnx_runner",
    "sample_frames",
]

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Heads = tuple[Floats, Floats]
Run = Callable[[Floats], Heads]
"""3 × H × W input → P × C scores and P × 4 offsets."""

FEW, BEST = 20, 20


@dataclass(frozen=True, slots=True)
class Gate:
    """What an engine must reach.

    Attributes:
        share: Least share of detections that agree.
        iou: Least overlap of the two boxes of a detection.
        score: Largest difference of its two scores.
        above: Detections that score more than this in either run are compared.
    """

    share: float = 0.995
    iou: float = 0.95
    score: float = 0.02
    above: float = 0.3


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two runs of a model agree.

    Attributes:
        gate: What was asked.
        frames: Frames compared.
        detections: Detections (default box and class) compared.
        agreeing: Those whose box and score agree.
        boxes_agreeing: Those whose box agrees.
        scores_agreeing: Those whose score agrees.
        classes_agreeing: Those whose default box has the same best class in both runs.
        same_after_nms: Those that both runs keep after NMS.
        least_iou: Smallest overlap of the two boxes of a detection.
        score_max: Largest difference of two probabilities, over the whole output.
        score_mean: Mean difference of two probabilities.
        offset_max: Largest difference of two offsets.
        offset_mean: Mean difference of two offsets.
        broken: Values that are NaN or infinite in the tested run only.
    """

    gate: Gate
    frames: int
    detections: int
    agreeing: int
    boxes_agreeing: int
    scores_agreeing: int
    classes_agreeing: int
    same_after_nms: int
    least_iou: float
    score_max: float
    score_mean: float
    offset_max: float
    offset_mean: float
    broken: int

    @property
    def share(self) -> float:
        """Share of detections that agree; 1.0 if there are none."""
        return self.agreeing / self.detections if self.detections else 1.0

    @property
    def passed(self) -> bool:
        """Whether the gate is reached."""
        return not self.broken and self.share >= self.gate.share

    def to_dict(self) -> dict[str, Any]:
        """Give plain values ready for JSON."""
        return {**asdict(self), "share": self.share, "passed": self.passed}

    def sentence(self) -> str:
        """Say it in half a sentence."""
        text = (
            f"{self.agreeing} of {self.detections} detections agree "
            f"({100 * self.share:.2f} %, {100 * self.gate.share:.1f} % are needed), scores differ "
            f"by at most {self.score_max:.3g}, offsets by {self.offset_max:.3g}"
        )
        return text + (f", {self.broken} values are NaN or infinite" if self.broken else "")


def compare(
    reference: Run, tested: Run, spec: ModelSpec, frames: Sequence[Image], gate: Gate | None = None
) -> Agreement:
    """Run frames through both and compare raw heads and detections.

    Where hardly anything is found on all the frames together, the best candidates of every frame
    are compared instead, so that something always is.

    Args:
        reference: The ONNX file.
        tested: The engine, or another form of the model.
        spec: Contract of the model.
        frames: BGR images.
        gate: What `tested` must reach; 99.5 % at IoU 0.95 and 0.02 by default.
    """
    tally = _Tally(spec, gate or Gate())
    pairs = []
    for image in frames:
        tensor = preprocess(image, spec.input)
        first, second = reference(tensor), tested(tensor)
        pairs.append((first, second))
        tally.add_errors(first, second)
    chosen = [tally.detections(*pair) for pair in pairs]
    if sum(map(len, chosen)) < FEW:
        chosen = [tally.best(first) for first, _ in pairs]
    for (first, second), keys in zip(pairs, chosen, strict=True):
        tally.add_detections(first, second, keys)
    return tally.result(len(frames))


class _Tally:
    """Sums over frames; a detection's key is default box × classes + class."""

    def __init__(self, spec: ModelSpec, gate: Gate) -> None:
        self._spec, self._gate = spec, gate
        self._post = PostProcessor(spec.with_thresholds(score_threshold=gate.above))
        self._counts = dict.fromkeys(("detections", "agreeing", "boxes", "scores", "classes"), 0)
        self._same = self._broken = 0
        self._least_iou = 1.0
        self._largest, self._means = [0.0, 0.0], [[0.0], [0.0]]

    def add_errors(self, first: Heads, second: Heads) -> None:
        """Count differences over the whole outputs."""
        probabilities = (self._post.activate(first[0]), self._post.activate(second[0]))
        self._broken += int(sum((~np.isfinite(head)).sum() for head in second))
        for place, (one, two) in enumerate((probabilities, (first[1], second[1]))):
            gap = np.abs(one - two)
            gap = gap[np.isfinite(gap)]
            if gap.size:
                self._largest[place] = max(self._largest[place], float(gap.max()))
                self._means[place].append(float(gap.mean()))

    def detections(self, first: Heads, second: Heads) -> Indices:
        """List what either run finds."""
        one, two = (self._keys(self._post(*heads)) for heads in (first, second))
        self._same += len(np.intersect1d(one, two))
        return np.union1d(one, two)

    def best(self, heads: Heads) -> Indices:
        """List the best candidates of a frame, however low they score."""
        values = self._post.activate(heads[0]).ravel()
        keys = np.argsort(-values, kind="stable")
        real = keys[keys % self._spec.num_classes != self._spec.background]
        return np.asarray(real[:BEST], np.int64)

    def add_detections(self, first: Heads, second: Heads, keys: Indices) -> None:
        """Compare the boxes, scores and best classes of some detections."""
        rows, columns = np.divmod(keys, self._spec.num_classes)
        boxes = [self._post.decode(rows, offsets) for _, offsets in (first, second)]
        values = [self._post.activate(scores[rows]) for scores, _ in (first, second)]
        places = np.arange(len(rows))
        gap = np.abs(values[0][places, columns] - values[1][places, columns])
        overlap = _overlap(*boxes)
        box_good, score_good = overlap >= self._gate.iou, gap <= self._gate.score
        class_good = values[0].argmax(axis=1) == values[1].argmax(axis=1)
        self._least_iou = min(self._least_iou, float(overlap.min(initial=1.0)))
        for name, good in (
            ("detections", np.ones(len(rows), bool)),
            ("agreeing", box_good & score_good),
            ("boxes", box_good),
            ("scores", score_good),
            ("classes", class_good),
        ):
            self._counts[name] += int(good.sum())

    def result(self, frames: int) -> Agreement:
        """Sum up."""
        return Agreement(
            gate=self._gate,
            frames=frames,
            detections=self._counts["detections"],
            agreeing=self._counts["agreeing"],
            boxes_agreeing=self._counts["boxes"],
            scores_agreeing=self._counts["scores"],
            classes_agreeing=self._counts["classes"],
            same_after_nms=self._same,
            least_iou=self._least_iou,
            score_max=self._largest[0],
            score_mean=float(np.mean(self._means[0][1:] or [0.0])),
            offset_max=self._largest[1],
            offset_mean=float(np.mean(self._means[1][1:] or [0.0])),
            broken=self._broken,
        )

    def _keys(self, found: RawDetections) -> Indices:
        return np.asarray(found.box_indices * self._spec.num_classes + found.class_ids, np.int64)


def _overlap(first: Floats, second: Floats) -> Floats:
    """IoU of each pair of rows: 1 where both are the same box, 0 where one is not a number.

    Boxes without an area, and those whose area is beyond float32, are compared too.
    """
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, 2:], second[:, 2:])
    with np.errstate(over="ignore", invalid="ignore"):
        common = np.prod(np.maximum(high - low, 0), axis=1)
        union = area(first) + area(second) - common
        ratio = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    same = (first == second).all(axis=1)
    return np.where(same, np.float32(1), np.nan_to_num(ratio)).astype(np.float32)


def onnx_runner(model: str | Path | bytes, spec: ModelSpec) -> Run:
    """Open an ONNX model as a reference on the CPU.

    Args:
        model: File, or a serialised model.
        spec: Its contract.

    Raises:
        ModelError: If ONNX Runtime cannot load it.
    """
    session = open_session(model, cpu_count())
    half = "float16" in session.get_inputs()[0].type
    names = [spec.scores_output, spec.offsets_output]

    def run(tensor: Floats) -> Heads:
        batch = tensor[None].astype(np.float16 if half else np.float32)
        scores, offsets = session.run(names, {spec.input.name: batch})
        return scores[0].astype(np.float32), offsets[0].astype(np.float32)

    return run


def sample_frames(count: int = 12) -> list[Image]:
    """Give frames of the built-in street, for a check where no others are at hand."""
    from realtime_ssd.synthetic import StreetScene

    return [StreetScene(640, 360, seed=seed).render(30) for seed in range(40, 40 + count)]


def frames_of(source: str, most: int = 32) -> list[Image]:
    """Take frames out of a video or a folder of photos, spread over its length.

    Args:
        source: As `realtime_ssd.sources.open_source` takes it.
        most: Number of frames to take.

    Raises:
        UsageError: If there is no such source, or it is live.
        SourceError: If it cannot be read.
    """
    with open_source(source) as opened:
        if opened.info.live:
            raise UsageError(f"'{source}' is live; give a video file or a folder of photos")
        step = max((opened.info.frame_count or 0) // most, 1)
        read = (frame.image for frame in iter(opened.read, None))
        return list(islice(read, 0, step * most, step))
