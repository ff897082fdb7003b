"""The dataset interface, and the annotations and samples every dataset yields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.frames import Image
from realtime_ssd.core.printable import printable

__all__ = ["Annotation", "Dataset", "Problem", "Sample", "Subset", "summarize", "unreadable"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A defect of a dataset, and how it was handled.

    Attributes:
        file: Name of the file with the defect.
        text: Description of the defect, and whether the item was skipped or clipped.
    """

    file: str
    text: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.text}")


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """The ground truth of one image.

    Attributes:
        name: Name of the image within its dataset.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        boxes: N × 4 float32, x1, y1, x2, y2 in pixels, inside the image.
        labels: N int64, class ids from 1; 0 is the background.
        difficult: N bool, boxes that count neither as hits nor as misses in evaluation.
        crowd: N bool, boxes around groups of objects of the class.
        areas: N float32, area of the object's mask in square pixels where known, else of its box.
    """

    name: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image with its ground truth.

    Attributes:
        image: H × W × 3 uint8, BGR.
        boxes: N × 4 float32, x1, y1, x2, y2 in pixels.
        labels: N int64, class ids from 1; 0 is the background.
        difficult: N bool.
        crowd: N bool.
        name: Name of the image within its dataset.
    """

    image: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    name: str = ""

    @classmethod
    def of(cls, image: Image, truth: Annotation) -> Sample:
        """Combine an image with its annotation."""
        return cls(image, truth.boxes, truth.labels, truth.difficult, truth.crowd, truth.name)


class Dataset(ABC):
    """A sequence of annotated images.

    Attributes:
        name: The specification it was opened with.
        labels: Class names, "background" first.
        category_ids: COCO category id of each label; for other formats its index.
        problems: What was skipped or clipped, with the file names.
    """

    def __init__(
        self,
        name: str,
        labels: tuple[str, ...],
        category_ids: tuple[int, ...],
        problems: Iterable[Problem] = (),
    ) -> None:
        self.name, self.labels, self.category_ids = name, labels, category_ids
        self.problems = list(problems)

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def annotation(self, index: int) -> Annotation:
        """Return the ground truth of an image without decoding the image."""

    @abstractmethod
    def image_id(self, index: int) -> int:
        """Return the COCO id of an image; for other formats its number, from 1."""

    def image_file(self, index: int) -> Path | None:
        """Return the file whose pixels are those of an image, or None if there is none.

        None also for a photo with an EXIF rotation, which programs may apply or not.
        """
        return None

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read an image with its ground truth.

        Raises:
            RealtimeSSDError: If the image can no longer be read.
        """

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


class Subset(Dataset):
    """A selection of the images of a dataset.

    Args:
        dataset: The full dataset.
        indices: Index in `dataset` of each selected image.
        problems: Why the other images are excluded.
    """

    def __init__(
        self, dataset: Dataset, indices: Sequence[int], problems: Iterable[Problem] = ()
    ) -> None:
        super().__init__(dataset.name, dataset.labels, dataset.category_ids, problems)
        self._dataset, self._indices = dataset, tuple(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]

    def annotation(self, index: int) -> Annotation:
        """Return the ground truth of an image; see `Dataset.annotation`."""
        return self._dataset.annotation(self._indices[index])

    def image_id(self, index: int) -> int:
        """Return the id that the image has in the full dataset."""
        return self._dataset.image_id(self._indices[index])

    def image_file(self, index: int) -> Path | None:
        """Return the file of an image; see `Dataset.image_file`."""
        return self._dataset.image_file(self._indices[index])


def unreadable(data: Dataset, index: int, error: Exception) -> Problem:
    """Return the problem of an image that became unreadable after its dataset was opened."""
    return Problem(data.annotation(index).name, f"{error}; it was skipped")


def summarize(problems: Sequence[Problem], limit: int = 5) -> str:
    """Format the first problems of a dataset.

    Args:
        problems: `Dataset.problems`.
        limit: Maximum number of problems to list.

    Returns:
        One line per problem, and a last line with the number of the others; empty without
        problems.
    """
    lines = [str(problem) for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"... and {len(problems) - limit} more")
    return "\n".join(lines)
