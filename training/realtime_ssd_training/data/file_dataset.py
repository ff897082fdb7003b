"""Datasets of image files: raw annotations are validated once and become a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd_training.data.classes import ClassMapping
from realtime_ssd_training.data.images import Header, read_header, read_image
from realtime_ssd_training.data.sample import Annotation, Dataset, Problem, Sample

__all__ = [
    "Box",
    "FileDataset",
    "RawImage",
    "RawObject",
    "build_file_dataset",
    "drop_duplicates",
]

Box = tuple[float, float, float, float]

_ROUNDING = 0.5
"""Pixels by which a box may exceed its image through rounding alone."""

_EMPTY = "{} empty or inverted boxes were skipped"


@dataclass(frozen=True, slots=True)
class RawObject:
    """An object as its annotation file describes it.

    Attributes:
        label: Class name.
        box: x1, y1, x2, y2 in pixels, or as fractions of the image (`RawImage.fractions`).
        difficult: Whether it is marked as difficult.
        crowd: Whether the box contains a group of objects.
        area: Area of the object's mask in square pixels, where known.
    """

    label: str
    box: Box
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True, slots=True)
class RawImage:
    """An image and its objects as the annotation files describe them.

    Attributes:
        path: Image file.
        name: Name within the dataset.
        objects: Its objects.
        size: Annotated width and height, if any.
        image_id: COCO image id, or None.
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
    apply_exif: bool
    image_id: int
    annotation: Annotation


class FileDataset(Dataset):
    """A dataset of image files; see `Dataset`."""

    def __init__(
        self,
        name: str,
        classes: ClassMapping,
        entries: Sequence[_Entry],
        problems: Sequence[Problem],
    ) -> None:
        super().__init__(name, classes.labels, classes.category_ids, problems)
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def annotation(self, index: int) -> Annotation:
        """Return the ground truth of an image without decoding the image."""
        return self._entries[index].annotation

    def image_id(self, index: int) -> int:
        """Return the COCO id of an image; for other formats its number, from 1."""
        return self._entries[index].image_id

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[index]
        image, truth = read_image(entry.path, entry.apply_exif), entry.annotation
        height, width = image.shape[:2]
        if (width, height) != (truth.width, truth.height):
            raise RealtimeSSDError(
                f"image '{entry.path}' is {width}x{height} pixels but was {truth.width}x"
                f"{truth.height} when the dataset was opened; open the dataset again"
            )
        return Sample.of(image, truth)


def drop_duplicates(objects: Sequence[RawObject]) -> tuple[list[RawObject], int]:
    """Drop repeated objects of an image.

    Args:
        objects: Objects of one image.

    Returns:
        The distinct objects in their order, and the number of dropped ones.
    """
    kept = list(dict.fromkeys(objects))
    return kept, len(objects) - len(kept)


def build_file_dataset(
    name: str, images: Iterable[RawImage], classes: ClassMapping, problems: Iterable[Problem] = ()
) -> FileDataset:
    """Validate all images and boxes and build a dataset of the valid ones.

    Images that are missing, truncated or of another size than annotated are skipped. Boxes that
    are empty, not finite, outside the image or of an unknown class are skipped; boxes that exceed
    the image are clipped. Each of these is reported.

    Args:
        name: Specification the dataset is opened with.
        images: Raw images.
        classes: Class mapping.
        problems: Problems of the annotation files.

    Raises:
        UsageError: If no image is left.
    """
    all_problems, entries = list(problems), list[_Entry]()
    for number, raw in enumerate(images, start=1):
        try:
            header = read_header(raw.path)
            apply_exif = _applies_exif(raw, header)
        except ValueError as error:
            all_problems.append(Problem(str(raw.path), f"{error}; it was skipped"))
            continue
        size = header.displayed if apply_exif else header.stored
        annotation = _annotate(raw, size, classes, all_problems)
        image_id = number if raw.image_id is None else raw.image_id
        entries.append(_Entry(raw.path, apply_exif, image_id, annotation))
    all_problems += classes.problems(name)
    if not entries:
        first = f"; the first problem: {all_problems[0]}" if all_problems else ""
        raise UsageError(f"dataset '{name}' has no usable image{first}")
    return FileDataset(name, classes, entries, all_problems)


def _applies_exif(raw: RawImage, header: Header) -> bool:
    """Return whether boxes refer to the image rotated by EXIF, judging by the annotated size."""
    if raw.size is None or min(raw.size) <= 0:
        return True
    if raw.size == header.stored:
        return not header.rotated
    if raw.size == header.displayed:
        return True
    (width, height), (annotated_width, annotated_height) = header.displayed, raw.size
    raise ValueError(
        f"the image is {width}x{height} pixels but annotated as "
        f"{annotated_width}x{annotated_height}"
    )


def _annotate(
    raw: RawImage, size: tuple[int, int], classes: ClassMapping, problems: list[Problem]
) -> Annotation:
    boxes: list[Box] = []
    kept: list[tuple[RawObject, int]] = []
    defects: dict[str, int] = {}
    for item in raw.objects:
        label = classes.find(item.label, str(raw.path))
        if label is None:
            continue
        box, defect = _clip(item.box, size, raw.fractions)
        if defect:
            defects[defect] = defects.get(defect, 0) + 1
        if box is not None:
            boxes.append(box)
            kept.append((item, label))
    problems += [Problem(str(raw.path), text.format(count)) for text, count in defects.items()]
    return _pack(raw.name, size, boxes, kept)


def _clip(box: Box, size: tuple[int, int], fractions: bool) -> tuple[Box | None, str]:
    """Return the part of a box inside the image, in pixels, and the defect of the box, if any."""
    width, height = size
    x1, y1, x2, y2 = box
    if fractions:
        x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
    if not all(isfinite(value) for value in box):
        return None, "{} boxes with values that are not finite were skipped"
    if x2 <= x1 or y2 <= y1:
        return None, _EMPTY
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return None, "{} boxes outside the image were skipped"
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    single = np.array(inside, np.float32)
    if (single[2:] <= single[:2]).any():
        return None, _EMPTY
    excess = max(-x1, -y1, x2 - width, y2 - height)
    defect = "{} boxes that exceed the image were clipped" if excess > _ROUNDING else ""
    return inside, defect


def _pack(
    name: str,
    size: tuple[int, int],
    boxes: list[Box],
    kept: list[tuple[RawObject, int]],
) -> Annotation:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    sides = array[:, 2:] - array[:, :2]
    known = np.array([item.area or 0.0 for item, _ in kept], np.float32)
    return Annotation(
        name=name,
        width=size[0],
        height=size[1],
        boxes=array,
        labels=np.array([label for _, label in kept], np.int64),
        difficult=np.array([item.difficult for item, _ in kept], np.bool_),
        crowd=np.array([item.crowd for item, _ in kept], np.bool_),
        areas=np.where(known > 0, known, sides[:, 0] * sides[:, 1]),
    )
