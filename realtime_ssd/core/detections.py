"""The answer that travels through the program: `Detections` of one frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import supervision

__all__ = ["Detection", "Detections"]


@dataclass(frozen=True, slots=True)
class Detection:
    """One found object.

    Attributes:
        label: Name of the class.
        class_id: Column of the class in the model's scores.
        score: Confidence from 0 to 1.
        box: x1, y1, x2, y2 in pixels of the frame.
    """

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """All objects found in one frame, best first.

    The order is fixed: score descending, then default-box index, then class.

    Attributes:
        boxes: N × 4 float32, x1, y1, x2, y2 in pixels of the frame.
        scores: N float32, from 0 to 1.
        class_ids: N int32, columns of the model's scores.
        labels: Names of all classes of the model, indexed by class id.
        overflow: Candidates that a fixed-capacity backend had to leave out (0 almost always).
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    labels: tuple[str, ...] = ()
    overflow: int = 0

    @classmethod
    def empty(cls, labels: tuple[str, ...] = ()) -> Detections:
        """Make the answer for a frame in which nothing was found."""
        return cls(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), labels
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, class_id in zip(
            self.boxes.tolist(), self.scores.tolist(), self.class_ids.tolist(), strict=True
        ):
            yield Detection(self.label_of(class_id), class_id, score, tuple(box))

    def label_of(self, class_id: int) -> str:
        """Give the name of a class, or its number where the model has no name for it."""
        return self.labels[class_id] if class_id < len(self.labels) else str(class_id)

    def select(self, keep: NDArray[np.bool_]) -> Detections:
        """Keep the rows for which `keep` (N booleans) is true, in the same order."""
        return Detections(
            self.boxes[keep], self.scores[keep], self.class_ids[keep], self.labels, self.overflow
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """Give plain values ready for JSON.

        Returns:
            One `{"label", "class_id", "score", "box": [x1, y1, x2, y2]}` a detection.

        Example:
            >>> Detections.empty().to_dicts()
            []
        """
        return [
            {
                "label": found.label,
                "class_id": found.class_id,
                "score": round(found.score, 6),
                "box": [round(value, 3) for value in found.box],
            }
            for found in self
        ]

    def to_supervision(self) -> supervision.Detections:
        """Convert to `supervision.Detections`, with the labels under `data["class_name"]`."""
        import supervision

        names = np.array([self.label_of(int(class_id)) for class_id in self.class_ids], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(int),
            data={"class_name": names},
        )
