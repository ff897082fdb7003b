"""Does an engine say what the ONNX file says? Asked on real frames before it is ever served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.boxes import iou
from realtime_ssd.errors import ModelError
from realtime_ssd.frames import Image
from realtime_ssd.postprocess import Found, PostProcessor
from realtime_ssd.preprocess import preprocess
from realtime_ssd.spec import ModelSpec

__all__ = ["Agreement", "Heads", "Run", "compare", "onnx_runner", "require", "sample_frames"]

Floats = NDArray[np.float32]
Heads = tuple[Floats, Floats]
Run = Callable[[Floats], Heads]
"""3 × H × W input → P × C scores and P × 4 offsets."""

SCORE, IOU, SCORE_STEP, SHARE = 0.3, 0.95, 0.02, 0.995


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two runs of a model agree.

    Attributes:
        frames: Frames compared.
        score_max: Largest difference of a raw score.
        score_mean: Mean difference of a raw score.
        offset_max: Largest difference of an offset.
        offset_mean: Mean difference of an offset.
        detections: Detections above `SCORE` in the reference and in the other, larger of both.
        agreeing: Those with a partner of the same class, IoU ≥ 0.95 and score within 0.02.
    """

    frames: int
    score_max: float
    score_mean: float
    offset_max: float
    offset_mean: float
    detections: int
    agreeing: int

    @property
    def share(self) -> float:
        """Share of detections that agree; 1.0 if there are none."""
        return self.agreeing / self.detections if self.detections else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values ready for JSON."""
        return {**asdict(self), "share": self.share}


def compare(reference: Run, other: Run, spec: ModelSpec, frames: Sequence[Image]) -> Agreement:
    """Run frames through both and compare raw heads and detections.

    Args:
        reference: The ONNX file.
        other: The engine, or another form of the model.
        spec: Contract of the model.
        frames: BGR images.

    Returns:
        The comparison; NaN in a head counts as an infinite difference.
    """
    limits = spec.with_thresholds(score=max(SCORE - SCORE_STEP, 0.0))
    post = PostProcessor(limits)
    errors: list[tuple[Floats, Floats]] = []
    total = agreeing = 0
    for image in frames:
        tensor = preprocess(image, spec.input)
        first, second = reference(tensor), other(tensor)
        errors.append((_difference(first[0], second[0]), _difference(first[1], second[1])))
        counts = _pairs(post(*first), post(*second))
        total, agreeing = total + counts[0], agreeing + counts[1]
    scores, offsets = (np.concatenate([pair[k].ravel() for pair in errors]) for k in (0, 1))
    return Agreement(
        frames=len(frames),
        score_max=float(scores.max()),
        score_mean=float(scores.mean()),
        offset_max=float(offsets.max()),
        offset_mean=float(offsets.mean()),
        detections=total,
        agreeing=agreeing,
    )


def _difference(first: Floats, second: Floats) -> Floats:
    gap = np.abs(first.astype(np.float32) - second.astype(np.float32))
    return np.where(np.isnan(gap), np.float32(np.inf), gap)


def _pairs(first: Found, second: Found) -> tuple[int, int]:
    """Count the detections above the threshold of both runs, and those with a partner.

    A detection just above the threshold may have its partner just below it.
    """
    hits = []
    for one, two in ((first, second), (second, first)):
        rows = one.scores > SCORE
        overlap = iou(one.boxes[rows], two.boxes)
        same = one.class_ids[rows][:, None] == two.class_ids[None, :]
        near = np.abs(one.scores[rows][:, None] - two.scores[None, :]) <= SCORE_STEP
        hits.append((int(rows.sum()), int(((overlap >= IOU) & same & near).any(axis=1).sum())))
    (count_a, hit_a), (count_b, hit_b) = hits
    total = max(count_a, count_b)
    return total, total - max(count_a - hit_a, count_b - hit_b)


def require(found: Agreement, name: str, precision: str) -> None:
    """Refuse what does not agree.

    Raises:
        ModelError: If fewer than 99.5 % of the detections agree.
    """
    if found.share < SHARE or not np.isfinite(found.score_max):
        raise ModelError(
            f"the {precision} engine of '{name}' does not give what its ONNX file gives: "
            f"{found.agreeing} of {found.detections} detections agree, raw scores differ by up to "
            f"{found.score_max:.3g}; it is not used, build it with --precision fp32"
        )


def onnx_runner(model: str | Path | bytes, spec: ModelSpec) -> Run:
    """Open an ONNX model as a reference on the CPU.

    Args:
        model: File, or a serialised model.
        spec: Its contract.
    """
    import onnxruntime

    given = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    half = "float16" in session.get_inputs()[0].type
    names = [spec.scores_output, spec.offsets_output]

    def run(tensor: Floats) -> Heads:
        batch = tensor[None].astype(np.float16 if half else np.float32)
        scores, offsets = session.run(names, {spec.input.name: batch})
        return scores[0].astype(np.float32), offsets[0].astype(np.float32)

    return run


def sample_frames(count: int = 8) -> list[Image]:
    """Give frames of the built-in street, for a check where no others are at hand."""
    from realtime_ssd.demo import StreetScene

    return [StreetScene(640, 360, seed=seed).render(30) for seed in range(40, 40 + count)]
