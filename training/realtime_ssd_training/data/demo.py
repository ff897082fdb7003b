"""The procedural street as a data set: endless scenes with exact ground truth."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import UsageError
from realtime_ssd.synthetic import LABELS, StreetScene, TruthBox
from realtime_ssd_training.data.classes import Classes, Selection
from realtime_ssd_training.data.sample import Annotation, Dataset, Sample

__all__ = ["PICTURES", "DemoDataset", "open_demo"]

PICTURES = 8
"""Pictures taken of each scene."""

_STEP = 53
_WIDTH, _HEIGHT = 480, 270
_MOST_BOXES = 128
_MOST_BYTES = 4 << 30


def open_demo(name: str, seeds: str, size: str, selection: Selection) -> DemoDataset:
    """Open scenes of the procedural street.

    Args:
        name: The text the data set is opened with.
        seeds: "FIRST-LAST", both included, or one number; empty for 0-99.
        size: "WIDTHxHEIGHT" in pixels; empty for 480x270.
        selection: Wanted classes.

    Raises:
        UsageError: If seeds or size are no such numbers.
    """
    first, last = _numbers(seeds or "0-99", "-")
    width, height = _numbers(size, "x") if size else (_WIDTH, _HEIGHT)
    if last < first or min(width, height) < 16:
        raise UsageError(
            f"'{name}' holds no picture; write demo:FIRST-LAST:WIDTHxHEIGHT with FIRST not above "
            "LAST and a size of at least 16x16"
        )
    return DemoDataset(name, selection.classes(LABELS), first, last - first + 1, width, height)


def _numbers(text: str, sign: str) -> tuple[int, int]:
    low, _, high = text.lower().partition(sign)
    try:
        return int(low), int(high or low)
    except ValueError:
        raise UsageError(
            f"'{text}' does not fit in demo[:FIRST-LAST[:WIDTHxHEIGHT]]; write for example "
            "demo:0-99:480x270"
        ) from None


class DemoDataset(Dataset):
    """Pictures of the procedural street: `PICTURES` of each seed, some two seconds apart.

    Building a scene takes far longer than painting it once more, so that the first picture asked
    for paints all of its scene. They are kept in a temporary file that workers share and that is
    gone with the process.
    """

    def __init__(
        self, name: str, classes: Classes, first: int, seeds: int, width: int, height: int
    ) -> None:
        super().__init__(name, classes.labels, classes.category_ids, classes.problems(name))
        self.first, self.width, self.height = first, width, height
        self._classes, self._seeds = classes, seeds
        self._store = _make_store(len(self), width, height)

    def __len__(self) -> int:
        return self._seeds * PICTURES

    def image_id(self, index: int) -> int:
        """Give the number of an image from 1."""
        return range(1, len(self) + 1)[index]

    def annotation(self, index: int) -> Annotation:
        """Give the ground truth of a picture."""
        return self._truth(self._record(index), index)

    def __getitem__(self, index: int) -> Sample:
        record = self._record(index)
        return Sample.of(np.array(record["image"]), self._truth(record, index))

    def _record(self, index: int) -> NDArray[np.void]:
        index = range(len(self))[index]
        if not len(self._store):
            return self._paint(index, np.zeros(1, _layout(self.width, self.height)))
        if not self._store[index]["ready"]:
            start = index - index % PICTURES
            for number in range(start, start + PICTURES):
                self._paint(number, self._store[number : number + 1])
        record: NDArray[np.void] = self._store[index]
        return record

    def _paint(self, index: int, rows: NDArray[np.void]) -> NDArray[np.void]:
        seed, picture = divmod(index, PICTURES)
        scene = _scene(self.first + seed, self.width, self.height)
        image, truth = scene.frame(picture * _STEP)
        objects = _rows(truth)[:_MOST_BOXES]
        rows[0]["image"], rows[0]["count"] = image, len(objects)
        rows[0]["objects"][: len(objects)] = objects
        rows[0]["ready"] = 1
        record: NDArray[np.void] = rows[0]
        return record

    def _truth(self, record: NDArray[np.void], index: int) -> Annotation:
        index = range(len(self))[index]
        objects = np.array(record["objects"][: int(record["count"])])
        name = f"street-{self.first + index // PICTURES}-{index % PICTURES}"
        labels = [self._classes.find(LABELS[int(row[4])], name) or 0 for row in objects]
        kept = np.array(labels, np.int64) > 0
        boxes = np.ascontiguousarray(objects[kept, :4])
        return Annotation(
            name=name,
            width=self.width,
            height=self.height,
            boxes=boxes,
            labels=np.array(labels, np.int64)[kept],
            difficult=objects[kept, 5] > 0,
            crowd=np.zeros(len(boxes), np.bool_),
            areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._store = _make_store(len(self), self.width, self.height)


def _layout(width: int, height: int) -> np.dtype[np.void]:
    """One picture: whether it is there, its objects (box, class, difficult), its pixels."""
    return np.dtype(
        [
            ("ready", np.uint8),
            ("count", np.int32),
            ("objects", np.float32, (_MOST_BOXES, 6)),
            ("image", np.uint8, (height, width, 3)),
        ]
    )


def _make_store(count: int, width: int, height: int) -> NDArray[np.void]:
    """Make room for all pictures in a temporary file; none if it would be too large."""
    layout = _layout(width, height)
    if count * layout.itemsize > _MOST_BYTES:
        return np.zeros(0, layout)
    with tempfile.TemporaryFile() as file:
        file.truncate(count * layout.itemsize)
        return np.memmap(file, layout, "r+", shape=(count,))


@lru_cache(maxsize=4)
def _scene(seed: int, width: int, height: int) -> StreetScene:
    return StreetScene(width, height, seed=seed)


def _rows(truth: Sequence[TruthBox]) -> NDArray[np.float32]:
    rows = [(*item.box, LABELS.index(item.label), item.difficult) for item in truth]
    return np.array(rows, np.float32).reshape(-1, 6)
