"""`Detections`: the objects detected in one frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.extras import require

if TYPE_CHECKING:
    import supervision

__all__ = ["Detection", "Detections"]

_RESERVED = frozenset({"label", "class_id", "score", "box", "track_id", "class_name"})
"""Names of columns that would hide a value in JSON or in supervision."""

_SHOWN = 5
"""Detections in a `repr`."""

Rows = slice | Sequence[int] | Sequence[bool] | NDArray[np.bool_] | NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Detection:
    """One detected object.

    Attributes:
        label: Name of the class.
        class_id: Column of the class in the scores of the model.
        score: Confidence from 0 to 1.
        box: x1, y1, x2, y2 in pixels of the frame.
        track_id: Number of the track, or None without one.
    """

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]
    track_id: int | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Detections:
    """All objects detected in one frame, in a fixed order.

    The order of a backend is score descending, then default-box index, then class. Indexing with
    an integer returns a `Detection`; a slice, a mask of N booleans or an array of indices returns
    `Detections` with the track ids and columns of these rows.

    Attributes:
        boxes: N × 4 float32, x1, y1, x2, y2 in pixels of the frame.
        scores: N float32, from 0 to 1.
        class_ids: N int32, columns of the scores of the model.
        labels: Names of all classes of the model, indexed by class id.
        track_ids: N int64, -1 for an object without a track; or None without tracking.
        columns: More values by name, each an array of length N.

    Raises:
        ValueError: If the lengths differ, or a column has the name of another value.

    Example:
        >>> detections = Detections(
        ...     np.array([[0, 0, 9, 9], [5, 5, 8, 8]], np.float32),
        ...     np.array([0.91, 0.52], np.float32),
        ...     np.array([1, 2], np.int32),
        ...     ("background", "car", "person"),
        ... )
        >>> detections
        Detections(2: car 0.91, person 0.52)
        >>> detections[0].label
        'car'
        >>> detections[detections.scores < 0.6]
        Detections(1: person 0.52)
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    labels: tuple[str, ...] = ()
    track_ids: NDArray[np.int64] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.scores.shape
        if self.class_ids.shape != shape or self.boxes.shape != (*shape, 4) or len(shape) != 1:
            raise ValueError(
                "expected N × 4 `boxes`, N `scores` and N `class_ids`, not shapes "
                f"{self.boxes.shape}, {shape} and {self.class_ids.shape}"
            )
        if self.track_ids is not None and self.track_ids.shape != shape:
            raise ValueError(f"expected {len(self)} `track_ids`, not shape {self.track_ids.shape}")
        if self.columns:
            self._check_columns()

    def _check_columns(self) -> None:
        for name, values in self.columns.items():
            if name in _RESERVED:
                raise ValueError(f"a column cannot be named '{name}'; choose another name")
            if values.shape[:1] != self.scores.shape:
                raise ValueError(
                    f"expected {len(self)} rows in column '{name}', not shape {values.shape}"
                )

    @classmethod
    def empty(cls, labels: tuple[str, ...] = ()) -> Detections:
        """Return the detections of a frame without objects."""
        return cls(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), labels
        )

    @classmethod
    def from_supervision(
        cls, detections: supervision.Detections, labels: Sequence[str] | None = None
    ) -> Detections:
        """Convert from `supervision.Detections`; masks and metadata are dropped.

        Args:
            detections: Boxes in pixels; the score is 1 without `confidence`.
            labels: Names of all classes, indexed by class id. By default they are taken from
                `data["class_name"]`; a class without a name is called by its number.

        Returns:
            The detections in the same order, `tracker_id` as track ids and the other entries of
            `data` as columns.

        Raises:
            ValueError: If a class has several names, or the name of an entry is reserved.
        """
        count = len(detections)
        columns = {name: np.asarray(values) for name, values in detections.data.items()}
        names = columns.pop("class_name", None)
        ids = np.zeros(count, int) if detections.class_id is None else detections.class_id
        if labels is None:
            labels = _labels_by_id(ids, [] if names is None else names.tolist())
        scores, tracks = detections.confidence, detections.tracker_id
        return cls(
            np.array(detections.xyxy, np.float32).reshape(count, 4),
            np.ones(count, np.float32) if scores is None else np.array(scores, np.float32),
            np.array(ids, np.int32),
            tuple(labels),
            None if tracks is None else np.array(tracks, np.int64),
            columns,
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        tracks = self._tracks()
        for box, score, class_id, track in zip(
            self.boxes.tolist(), self.scores.tolist(), self.class_ids.tolist(), tracks, strict=True
        ):
            yield Detection(self.label_of(class_id), class_id, score, tuple(box), track)

    @overload
    def __getitem__(self, rows: int | np.integer) -> Detection: ...

    @overload
    def __getitem__(self, rows: Rows) -> Detections: ...

    def __getitem__(self, rows: int | np.integer | Rows) -> Detection | Detections:
        if not isinstance(rows, int | np.integer):
            return self.select(rows)
        class_id = int(self.class_ids[rows])
        x1, y1, x2, y2 = self.boxes[rows].tolist()
        track = self._tracks()[rows]
        score = float(self.scores[rows])
        return Detection(self.label_of(class_id), class_id, score, (x1, y1, x2, y2), track)

    def _tracks(self) -> list[int | None]:
        if self.track_ids is None:
            return [None] * len(self)
        return [number if number >= 0 else None for number in self.track_ids.tolist()]

    def __repr__(self) -> str:
        """Return the number of detections, and label and score of the first ones."""
        shown = [f"{item.label} {_two_digits(item.score)}" for item in self[:_SHOWN]]
        more = ["..."] if len(self) > _SHOWN else []
        return f"Detections({len(self)}{': ' if shown else ''}{', '.join(shown + more)})"

    def label_of(self, class_id: int) -> str:
        """Return the name of a class, or its number if the model has no name for it."""
        return self.labels[class_id] if 0 <= class_id < len(self.labels) else str(class_id)

    def select(self, rows: Rows) -> Detections:
        """Return some of the detections with their track ids and columns.

        Args:
            rows: A slice, N booleans, or indices in the wanted order.

        Raises:
            IndexError: If there is no such row.
        """
        return Detections(
            self.boxes[rows],
            self.scores[rows],
            self.class_ids[rows],
            self.labels,
            None if self.track_ids is None else self.track_ids[rows],
            {name: values[rows] for name, values in self.columns.items()},
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return plain values for JSON, in order.

        Returns:
            `{"label", "class_id", "score", "box": [x1, y1, x2, y2]}` for each detection, the score
            rounded to 6 decimals and the box, in pixels, to 3; then "track_id" with tracking, null
            for an object without a track, and the values of each column under its name.

        Example:
            >>> Detections.empty().to_dicts()
            []
        """
        rows: list[dict[str, Any]] = [
            {
                "label": item.label,
                "class_id": item.class_id,
                "score": round(item.score, 6),
                "box": [round(value, 3) for value in item.box],
            }
            for item in self
        ]
        extra = {name: values.tolist() for name, values in self.columns.items()}
        if self.track_ids is not None:
            extra = {"track_id": self._tracks(), **extra}
        for name, values in extra.items():
            for row, value in zip(rows, values, strict=True):
                row[name] = value
        return rows

    def to_supervision(self) -> supervision.Detections:
        """Convert to `supervision.Detections`.

        Returns:
            A copy, with track ids as `tracker_id`, labels as `data["class_name"]` and the columns
            as further entries of `data`.

        Raises:
            RealtimeSSDError: If supervision is not installed.
        """
        require("track", "supervision", purpose="converting detections")
        import supervision

        names = np.array([self.label_of(number) for number in self.class_ids.tolist()], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(int),
            tracker_id=None if self.track_ids is None else self.track_ids.astype(int),
            data={"class_name": names, **{k: v.copy() for k, v in self.columns.items()}},
        )


def _two_digits(score: float) -> str:
    """Return a score with two decimals, 1.00 only if it is exactly that."""
    return f"{score if score == 1 else min(score, 0.99):.2f}"


def _labels_by_id(ids: NDArray[np.integer], names: list[str]) -> tuple[str, ...]:
    """Return names indexed by class id; a class without a name is called by its number.

    Raises:
        ValueError: If a class has several names.
    """
    known: dict[int, str] = {}
    for number, name in zip(ids.tolist(), names, strict=False):
        if known.setdefault(number, name) != name:
            raise ValueError(f"class {number} is called '{known[number]}' and '{name}'")
    return tuple(known.get(number, str(number)) for number in range(max(known, default=-1) + 1))
