"""The values that travel from a data set to the network, and what every data set offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.frames import Image

__all__ = ["Annotation", "Dataset", "Problem", "Sample", "Subset", "summarise", "unreadable"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a data set, and what was done about it.

    Attributes:
        file: Name of the file it was found in.
        text: What was wrong and whether it was skipped or clipped.
    """

    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """The ground truth of one image.

    Attributes:
        name: Name of the image inside its data set.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        boxes: N × 4 float32, x1, y1, x2, y2 in pixels, inside the image.
        labels: N int64, class ids from 1; 0 is the background.
        difficult: N bool, boxes that evaluation neither rewards nor punishes.
        crowd: N bool, boxes around many objects of the class.
        areas: N float32, square pixels of the object itself where known, else of its box.
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
        name: Name of the image inside its data set.
    """

    image: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    name: str = ""

    @classmethod
    def of(cls, image: Image, truth: Annotation) -> Sample:
        """Put an image and its annotation together."""
        return cls(image, truth.boxes, truth.labels, truth.difficult, truth.crowd, truth.name)


class Dataset(ABC):
    """Annotated images, by number.

    Attributes:
        name: The text it was opened with.
        labels: Class names; "background" first.
        category_ids: For each label the category id of a COCO file, elsewhere its position.
        problems: What was skipped or clipped, each with the name of its file.
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
        """Count the images."""

    @abstractmethod
    def annotation(self, index: int) -> Annotation:
        """Give the ground truth of an image without reading its pixels."""

    @abstractmethod
    def image_id(self, index: int) -> int:
        """Give the id of an image in a COCO file, elsewhere its number from 1."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read an image with its ground truth.

        Raises:
            RealtimeSSDError: If the image can no longer be read.
        """

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


class Subset(Dataset):
    """Some images of a data set.

    Args:
        whole: The data set.
        numbers: Number of each image in it.
        problems: Why the others are left out.
    """

    def __init__(
        self, whole: Dataset, numbers: Sequence[int], problems: Iterable[Problem] = ()
    ) -> None:
        super().__init__(whole.name, whole.labels, whole.category_ids, problems)
        self._whole, self._numbers = whole, tuple(numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        return self._whole[self._numbers[index]]

    def annotation(self, index: int) -> Annotation:
        """Give the ground truth of an image; see `Dataset.annotation`."""
        return self._whole.annotation(self._numbers[index])

    def image_id(self, index: int) -> int:
        """Give the id that the image has in the whole data set."""
        return self._whole.image_id(self._numbers[index])


def unreadable(data: Dataset, index: int, error: Exception) -> Problem:
    """Report an image that was there when its data set was opened but cannot be read now."""
    return Problem(data.annotation(index).name, f"{error}; it was skipped")


def summarise(problems: Sequence[Problem], limit: int = 5) -> str:
    """Tell in a few lines what is wrong with a data set.

    Args:
        problems: `Dataset.problems`.
        limit: Most problems that are listed one by one.

    Returns:
        One line a problem and a last line for the rest; empty if there are none.
    """
    lines = [str(problem) for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"... and {len(problems) - limit} more")
    return "\n".join(lines)
