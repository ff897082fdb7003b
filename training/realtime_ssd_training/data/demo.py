"""The synthetic street as a dataset: synthetic scenes with exact ground truth."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import UsageError
from realtime_ssd.synthetic import LABELS, StreetScene, TruthBox
from realtime_ssd_training.data.classes import ClassMapping, ClassSelection
from realtime_ssd_training.data.sample import Annotation, Dataset, Sample

__all__ = ["IMAGES_PER_SCENE", "DemoDataset", "DemoScenes", "read_demo"]

IMAGES_PER_SCENE = 8

_FRAME_STEP = 53
_WIDTH, _HEIGHT = 480, 270
_MAX_BOXES = 128
_MAX_CACHE_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class DemoScenes:
    """Scenes of the synthetic street, before classes are selected.

    Attributes:
        name: Specification they are opened with.
        first: Seed of the first scene.
        seeds: Number of scenes.
        width: Width of the images in pixels.
        height: Height of the images in pixels.
    """

    name: str
    first: int
    seeds: int
    width: int
    height: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return LABELS

    def build(self, selection: ClassSelection) -> DemoDataset:
        """Return the dataset with the selected classes.

        Raises:
            UsageError: If a selected class does not exist.
        """
        classes = selection.map_classes(LABELS)
        return DemoDataset(self.name, classes, self.first, self.seeds, self.width, self.height)


def read_demo(name: str, seeds: str, size: str) -> DemoScenes:
    """Parse the specification of scenes of the synthetic street.

    Args:
        name: Specification the dataset is opened with.
        seeds: "FIRST-LAST", both included, or one number; empty for 0-99.
        size: "WIDTHxHEIGHT" in pixels; empty for 480x270.

    Raises:
        UsageError: If seeds or size are invalid.
    """
    first, last = _parse_pair(seeds or "0-99", "-")
    width, height = _parse_pair(size, "x") if size else (_WIDTH, _HEIGHT)
    if last < first or min(width, height) < 16:
        raise UsageError(
            f"'{name}' contains no images; write demo:FIRST-LAST:WIDTHxHEIGHT with FIRST not above "
            "LAST and a size of at least 16x16"
        )
    return DemoScenes(name, first, last - first + 1, width, height)


def _parse_pair(text: str, separator: str) -> tuple[int, int]:
    low, _, high = text.lower().partition(separator)
    try:
        return int(low), int(high or low)
    except ValueError:
        raise UsageError(
            f"'{text}' does not match demo[:FIRST-LAST[:WIDTHxHEIGHT]]; write for example "
            "demo:0-99:480x270"
        ) from None


class DemoDataset(Dataset):
    """Images of the synthetic street: `IMAGES_PER_SCENE` per seed, about two seconds apart.

    Building a scene takes far longer than rendering another image of it, so the first access to
    an image renders all images of its scene. They are cached in a temporary file, which worker
    processes share and which is deleted when the process ends.
    """

    def __init__(
        self, name: str, classes: ClassMapping, first: int, seeds: int, width: int, height: int
    ) -> None:
        super().__init__(name, classes.labels, classes.category_ids, classes.problems(name))
        self.first, self.width, self.height = first, width, height
        self._classes, self._seeds = classes, seeds
        self._cache = _make_cache(len(self), width, height)

    def __len__(self) -> int:
        return self._seeds * IMAGES_PER_SCENE

    def image_id(self, index: int) -> int:
        """Return the number of an image, from 1."""
        return range(1, len(self) + 1)[index]

    def annotation(self, index: int) -> Annotation:
        """Return the ground truth of an image."""
        return self._annotation(self._record(index), index)

    def __getitem__(self, index: int) -> Sample:
        record = self._record(index)
        return Sample.of(np.array(record["image"]), self._annotation(record, index))

    def _record(self, index: int) -> NDArray[np.void]:
        index = range(len(self))[index]
        if not len(self._cache):
            return self._render(index, np.zeros(1, _record_dtype(self.width, self.height)))
        if not self._cache[index]["ready"]:
            start = index - index % IMAGES_PER_SCENE
            for position in range(start, start + IMAGES_PER_SCENE):
                self._render(position, self._cache[position : position + 1])
        record: NDArray[np.void] = self._cache[index]
        return record

    def _render(self, index: int, rows: NDArray[np.void]) -> NDArray[np.void]:
        """Render an image into the only record of `rows` and return that record."""
        seed, position = divmod(index, IMAGES_PER_SCENE)
        scene = _scene(self.first + seed, self.width, self.height)
        image, truth = scene.frame(position * _FRAME_STEP)
        objects = _object_rows(truth)[:_MAX_BOXES]
        rows[0]["image"], rows[0]["count"] = image, len(objects)
        rows[0]["objects"][: len(objects)] = objects
        rows[0]["ready"] = 1
        record: NDArray[np.void] = rows[0]
        return record

    def _annotation(self, record: NDArray[np.void], index: int) -> Annotation:
        index = range(len(self))[index]
        objects = np.array(record["objects"][: int(record["count"])])
        name = f"street-{self.first + index // IMAGES_PER_SCENE}-{index % IMAGES_PER_SCENE}"
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
        return {**self.__dict__, "_cache": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = _make_cache(len(self), self.width, self.height)


def _record_dtype(width: int, height: int) -> np.dtype[np.void]:
    """Return the layout of a cached image: ready flag, objects (box, class, difficult), pixels."""
    return np.dtype(
        [
            ("ready", np.uint8),
            ("count", np.int32),
            ("objects", np.float32, (_MAX_BOXES, 6)),
            ("image", np.uint8, (height, width, 3)),
        ]
    )


def _make_cache(count: int, width: int, height: int) -> NDArray[np.void]:
    """Map a temporary file for all images; return an empty array if it would be too large."""
    dtype = _record_dtype(width, height)
    if count * dtype.itemsize > _MAX_CACHE_BYTES:
        return np.zeros(0, dtype)
    with tempfile.TemporaryFile() as file:
        file.truncate(count * dtype.itemsize)
        return np.memmap(file, dtype, "r+", shape=(count,))


@lru_cache(maxsize=4)
def _scene(seed: int, width: int, height: int) -> StreetScene:
    return StreetScene(width, height, seed=seed)


def _object_rows(truth: Sequence[TruthBox]) -> NDArray[np.float32]:
    rows = [(*item.box, LABELS.index(item.label), item.difficult) for item in truth]
    return np.array(rows, np.float32).reshape(-1, 6)
