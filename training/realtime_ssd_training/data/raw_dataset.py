"""What annotation files contain, before images are opened: the output of every reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from realtime_ssd_training.data.sample import Problem

__all__ = ["Box", "RawDataset", "RawImage", "RawObject", "drop_duplicates", "parse_number"]

Box = tuple[float, float, float, float]


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
class RawDataset:
    """The content of the annotation files of a dataset.

    Attributes:
        name: Specification it was opened with.
        images: The annotated images.
        classes: Class names in the order of the dataset.
        category_ids: Category id of each class, for formats that have them.
        problems: Problems of the annotation files.
    """

    name: str
    images: Sequence[RawImage]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = ()

    @classmethod
    def with_sorted_classes(
        cls, name: str, images: Sequence[RawImage], problems: Sequence[Problem]
    ) -> RawDataset:
        """Return a dataset whose classes are those that occur, sorted by name."""
        classes = sorted({item.label for image in images for item in image.objects})
        return cls(name, images, tuple(classes), (), tuple(problems))


def drop_duplicates(objects: Sequence[RawObject]) -> tuple[list[RawObject], int]:
    """Drop repeated objects of an image.

    Args:
        objects: Objects of one image.

    Returns:
        The distinct objects in their order, and the number of dropped ones.
    """
    kept = list(dict.fromkeys(objects))
    return kept, len(objects) - len(kept)


def parse_number(text: str) -> float:
    """Return a number that may have a decimal comma, as European spreadsheets write it.

    Raises:
        ValueError: If the text is not a number, or has both a comma and a point.
    """
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    if "_" in text:  # Python accepts digits grouped by underscores
        raise ValueError(text)
    return float(text)
