"""What a dataset contains: images, objects by class and by size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd_training.data.sample import Dataset

__all__ = ["AREAS", "ClassCounts", "DatasetStatistics", "collect_statistics"]

AREAS = (("small", 0.0, 32.0**2), ("medium", 32.0**2, 96.0**2), ("large", 96.0**2, np.inf))
"""COCO's object sizes: name, smallest and largest area in square pixels."""


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Counts of one class.

    Attributes:
        label: Class name.
        images: Images with at least one object of the class.
        objects: Objects, without crowds.
        difficult: Objects among them that are marked as difficult.
        crowds: Boxes around groups of objects.
        sizes: Objects by COCO's sizes, see `AREAS`.
        median_side: Median square root of the area in pixels; NaN without objects.
    """

    label: str
    images: int
    objects: int
    difficult: int
    crowds: int
    sizes: tuple[int, ...]
    median_side: float


@dataclass(frozen=True, slots=True, eq=False)
class DatasetStatistics:
    """Contents of a dataset.

    Attributes:
        images: Number of images.
        empty: Images without objects.
        image_sizes: Width and height of the images with their number, most frequent first.
        classes: Counts by class, in the order of the labels.
        boxes: N × 4 float64, x1, y1, x2, y2 as fractions of the image, of all objects that count.
        areas: N float64, areas of these boxes in square pixels.
    """

    images: int
    empty: int
    image_sizes: tuple[tuple[tuple[int, int], int], ...]
    classes: tuple[ClassCounts, ...]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]

    @property
    def aspect(self) -> float:
        """Median width of the images divided by their height."""
        ratios = [[width / height] * number for (width, height), number in self.image_sizes]
        return float(np.median(np.concatenate(ratios)))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serializable values."""
        return {
            "images": self.images,
            "images_without_objects": self.empty,
            "image_sizes": [[*size, number] for size, number in self.image_sizes],
            "classes": {
                item.label: {
                    "images": item.images,
                    "objects": item.objects,
                    "difficult": item.difficult,
                    "crowds": item.crowds,
                    **{name: n for (name, *_), n in zip(AREAS, item.sizes, strict=True)},
                    "median_side": None if np.isnan(item.median_side) else item.median_side,
                }
                for item in self.classes
            },
        }


def collect_statistics(data: Dataset) -> DatasetStatistics:
    """Count images and objects of a dataset without decoding its images.

    Args:
        data: The dataset.
    """
    truths = [data.annotation(index) for index in range(len(data))]
    labels, flags, areas, boxes, owners = [], [], [], [], []
    for number, truth in enumerate(truths):
        labels.append(truth.labels)
        flags.append(np.stack([truth.difficult, truth.crowd], axis=1))
        sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).astype(np.float64)
        areas.append(sides[:, 0] * sides[:, 1])
        boxes.append(truth.boxes / np.array([truth.width, truth.height] * 2, np.float64))
        owners.append(np.full(len(truth.labels), number))
    sizes = Counter((truth.width, truth.height) for truth in truths)
    joined = [np.concatenate(column) for column in (labels, flags, areas, boxes, owners)]
    label, flag, area, box, owner = joined
    classes = tuple(
        _count(name, label == k, flag, area, owner) for k, name in enumerate(data.labels) if k > 0
    )
    counted = ~flag[:, 1].astype(bool)
    empty = sum(not len(truth.labels) for truth in truths)
    return DatasetStatistics(
        len(truths), empty, tuple(sizes.most_common()), classes, box[counted], area[counted]
    )


def _count(
    name: str,
    of_class: NDArray[np.bool_],
    flags: NDArray[np.bool_],
    areas: NDArray[np.float64],
    owners: NDArray[np.int64],
) -> ClassCounts:
    difficult, crowd = flags[:, 0], flags[:, 1]
    counted = of_class & ~crowd
    values = areas[counted]
    return ClassCounts(
        label=name,
        images=len(np.unique(owners[of_class])),
        objects=int(counted.sum()),
        difficult=int((counted & difficult).sum()),
        crowds=int((of_class & crowd).sum()),
        sizes=tuple(int(((values >= low) & (values < high)).sum()) for _, low, high in AREAS),
        median_side=float(np.median(np.sqrt(values))) if len(values) else float("nan"),
    )
