"""Image files with raw annotations, checked once and turned into a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd_training.data.classes import Classes
from realtime_ssd_training.data.images import Header, read_header, read_image
from realtime_ssd_training.data.sample import Annotation, Dataset, Problem, Sample

__all__ = ["Box", "FileDataset", "RawImage", "RawObject", "build", "distinct"]

Box = tuple[float, float, float, float]

_ROUNDING = 0.5
"""Pixels that a box may reach outside its image through rounding alone."""


@dataclass(frozen=True, slots=True)
class RawObject:
    """An object as its file gives it.

    Attributes:
        label: Name of its class.
        box: x1, y1, x2, y2; pixels, or fractions of the image if the image says so.
        difficult: Whether it is marked as difficult.
        crowd: Whether the box holds many objects.
        area: Square pixels of the object itself, where known.
    """

    label: str
    box: Box
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True, slots=True)
class RawImage:
    """An image with its objects as its files give them.

    Attributes:
        path: Image file.
        name: Name inside the data set.
        objects: Its objects.
        size: Width and height that the annotation states, where it does.
        image_id: Id of a COCO file, or None.
        fractions: Whether boxes are fractions of the image.
    """

    path: Path
    name: str
    objects: Sequence[RawObject] = ()
    size: tuple[int, int] | None = None
    image_id: int | None = None
    fractions: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    turn: bool
    image_id: int
    truth: Annotation


class FileDataset(Dataset):
    """A data set whose images are files; see `Dataset`."""

    def __init__(
        self, name: str, classes: Classes, entries: Sequence[_Entry], problems: Sequence[Problem]
    ) -> None:
        super().__init__(name, classes.labels, classes.category_ids, problems)
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def annotation(self, index: int) -> Annotation:
        """Give the ground truth of an image without reading its pixels."""
        return self._entries[index].truth

    def image_id(self, index: int) -> int:
        """Give the id of an image in a COCO file, elsewhere its number from 1."""
        return self._entries[index].image_id

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[index]
        image, truth = read_image(entry.path, entry.turn), entry.truth
        height, width = image.shape[:2]
        if (width, height) != (truth.width, truth.height):
            raise RealtimeSSDError(
                f"image '{entry.path}' is {width}x{height} pixels but was {truth.width}x"
                f"{truth.height} when the data was opened; open the data anew"
            )
        return Sample.of(image, truth)


def distinct(objects: Sequence[RawObject]) -> tuple[list[RawObject], int]:
    """Drop objects that are given twice.

    Args:
        objects: Objects of one image.

    Returns:
        The different ones in their order, and how many were dropped.
    """
    kept = list(dict.fromkeys(objects))
    return kept, len(objects) - len(kept)


def build(
    name: str, images: Iterable[RawImage], classes: Classes, problems: Iterable[Problem] = ()
) -> FileDataset:
    """Check every image and box and keep what can be used.

    Images that are missing, cut off or of another size than their annotation says are skipped.
    Boxes that are empty, hold values that are no numbers, lie outside the image or belong to no
    known class are skipped; boxes that reach outside are clipped. Each of these is reported.

    Args:
        name: The text the data set is opened with.
        images: Raw images.
        classes: Labels.
        problems: Problems found while reading the annotations.

    Raises:
        UsageError: If no image is left.
    """
    found, entries = list(problems), list[_Entry]()
    for number, raw in enumerate(images, start=1):
        try:
            header = read_header(raw.path)
            turn = _orientation(raw, header)
        except ValueError as error:
            found.append(Problem(str(raw.path), f"{error}; it was skipped"))
            continue
        width, height = header.shown if turn else header.stored
        truth = _annotate(raw, (width, height), classes, found)
        image_id = number if raw.image_id is None else raw.image_id
        entries.append(_Entry(raw.path, turn, image_id, truth))
    found += classes.problems(name)
    if not entries:
        first = f"; the first problem: {found[0]}" if found else ""
        raise UsageError(f"data set '{name}' holds no usable image{first}")
    return FileDataset(name, classes, entries, found)


def _orientation(raw: RawImage, header: Header) -> bool:
    """Decide whether EXIF applies: annotations that state the stored size mean stored pixels."""
    if raw.size is None or min(raw.size) <= 0:
        return True
    if raw.size == header.stored:
        return not header.turned
    if raw.size == header.shown:
        return True
    (width, height), (wide, high) = header.shown, raw.size
    raise ValueError(f"the image is {width}x{height} pixels but its annotation says {wide}x{high}")


def _annotate(
    raw: RawImage, size: tuple[int, int], classes: Classes, problems: list[Problem]
) -> Annotation:
    boxes: list[Box] = []
    kept: list[tuple[RawObject, int]] = []
    faults: dict[str, int] = {}
    for item in raw.objects:
        label = classes.find(item.label, str(raw.path))
        if label is None:
            continue
        box, fault = _clip(item.box, size, raw.fractions)
        if fault:
            faults[fault] = faults.get(fault, 0) + 1
        if box is not None:
            boxes.append(box)
            kept.append((item, label))
    problems += [Problem(str(raw.path), fault.format(count)) for fault, count in faults.items()]
    return _pack(raw.name, size, boxes, kept)


def _clip(box: Box, size: tuple[int, int], fractions: bool) -> tuple[Box | None, str]:
    """Give the part of a box inside the image in pixels, and what was wrong with it."""
    width, height = size
    x1, y1, x2, y2 = box
    if fractions:
        x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
    if not all(isfinite(value) for value in box):
        return None, "{} boxes with values that are no numbers were skipped"
    if x2 <= x1 or y2 <= y1:
        return None, "{} empty boxes, or with corners exchanged, were skipped"
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return None, "{} boxes outside the image were skipped"
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    single = np.array(inside, np.float32)
    if (single[2:] <= single[:2]).any():
        return None, "{} empty boxes, or with corners exchanged, were skipped"
    reach = max(-x1, -y1, x2 - width, y2 - height)
    fault = "{} boxes that reach outside the image were clipped" if reach > _ROUNDING else ""
    return inside, fault


def _pack(
    name: str,
    size: tuple[int, int],
    boxes: list[Box],
    kept: list[tuple[RawObject, int]],
) -> Annotation:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    sides = array[:, 2:] - array[:, :2]
    areas = sides[:, 0] * sides[:, 1]
    known = np.array([item.area or 0.0 for item, _ in kept], np.float32)
    return Annotation(
        name=name,
        width=size[0],
        height=size[1],
        boxes=array,
        labels=np.array([label for _, label in kept], np.int64),
        difficult=np.array([item.difficult for item, _ in kept], np.bool_),
        crowd=np.array([item.crowd for item, _ in kept], np.bool_),
        areas=np.where(known > 0, known, areas),
    )
