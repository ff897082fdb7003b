"""Datasets of image files: raw annotations are validated once and become a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd_training.data.classes import ClassMapping, ClassSelection
from realtime_ssd_training.data.exif_evidence import check_size, decide_rotations
from realtime_ssd_training.data.images import Header, read_header, read_image
from realtime_ssd_training.data.raw_dataset import Box, RawDataset, RawImage, RawObject
from realtime_ssd_training.data.sample import Annotation, Dataset, Problem, Sample

__all__ = [
    "FileDataset",
    "build_dataset",
    "build_file_dataset",
    "first_problems",
]

_ROUNDING = 0.5
"""Pixels by which a box may exceed its image through rounding alone."""

_EMPTY = "{} empty or inverted boxes were skipped"


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    apply_exif: bool
    has_exif_rotation: bool
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

    def image_file(self, index: int) -> Path | None:
        """Return the file of an image; see `Dataset.image_file`."""
        entry = self._entries[index]
        return None if entry.has_exif_rotation else entry.path

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


def build_dataset(raw: RawDataset, selection: ClassSelection) -> FileDataset:
    """Open the images of a dataset whose annotation files have been read.

    Args:
        raw: Content of the annotation files.
        selection: Classes to use.

    Raises:
        UsageError: If no image or no class is left, with the first problem of the dataset, or if
            the selection contradicts the dataset.
    """
    try:
        classes = selection.map_classes(raw.classes, raw.category_ids)
    except UsageError as error:
        raise UsageError(f"{error}{first_problems(raw.problems)}") from None
    return build_file_dataset(raw.name, raw.images, classes, raw.problems)


def build_file_dataset(
    name: str, images: Iterable[RawImage], classes: ClassMapping, problems: Iterable[Problem] = ()
) -> FileDataset:
    """Validate all images and boxes and build a dataset of the valid ones.

    Images that are missing, truncated or of another size than annotated are skipped. Boxes that
    are empty, not finite, outside the image or of an unknown class are skipped; boxes that exceed
    the image are clipped. Each of these is reported. `exif_evidence` decides whether boxes refer
    to images as rotated by EXIF.

    Args:
        name: Specification the dataset is opened with.
        images: Raw images.
        classes: Class mapping.
        problems: Problems of the annotation files.

    Raises:
        UsageError: If no image is left.
    """
    all_problems, opened = list(problems), list[tuple[int, RawImage, Header]]()
    for number, raw in enumerate(images, start=1):
        try:
            header = read_header(raw.path)
            check_size(raw, header)
            opened.append((number, raw, header))
        except ValueError as error:
            all_problems.append(Problem(str(raw.path), f"{error}; it was skipped"))
    apply_exif, unclear = decide_rotations([(raw, header) for _, raw, header in opened])
    all_problems += unclear
    entries = list[_Entry]()
    for (number, raw, header), rotated in zip(opened, apply_exif, strict=True):
        size = header.displayed if rotated else header.stored
        annotation = _annotate(raw, size, classes, all_problems)
        image_id = number if raw.image_id is None else raw.image_id
        entries.append(_Entry(raw.path, rotated, header.rotated, image_id, annotation))
    all_problems += classes.problems(name)
    if not entries:
        raise UsageError(f"dataset '{name}' has no usable image{first_problems(all_problems)}")
    return FileDataset(name, classes, entries, all_problems)


def first_problems(problems: Sequence[Problem]) -> str:
    """Return the end of an error message, with the first problem; empty without problems."""
    if not problems:
        return ""
    which = "first problem" if len(problems) == 1 else f"first of {len(problems)} problems"
    return f"; the {which}: {problems[0]}"


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
