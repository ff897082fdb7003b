"""Seeded inputs for comparing the loss with torchvision's; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = 7
SIZE = 256.0
"""Input size in pixels: torchvision uses pixels, this project fractions.

A power of two, so that both round equally. A small object inside two default boxes has the same
IoU with both, and rounding errors would decide between them.
"""


@dataclass(frozen=True)
class Case:
    """A batch.

    Attributes:
        defaults: P x 4 default boxes (cx, cy, w, h), fractions of the image.
        boxes: Per image, M x 4 (x1, y1, x2, y2), fractions of the image.
        labels: Per image, M class ids from 1.
        scores: N x P x C logits.
        offsets: N x P x 4.
        probe: A random weight for each score and offset, for weighted sums of the gradients.
    """

    defaults: NDArray[np.float32]
    boxes: list[NDArray[np.float32]]
    labels: list[NDArray[np.int64]]
    scores: NDArray[np.float32]
    offsets: NDArray[np.float32]
    probe: tuple[NDArray[np.float32], NDArray[np.float32]]


def default_boxes() -> NDArray[np.float32]:
    """Return 274 SSD default boxes (cx, cy, w, h) of three maps, as fractions of the image."""
    rows = []
    for cells, scale in ((8, 0.15), (4, 0.4), (2, 0.7)):
        shapes = [
            (scale, scale),
            (scale * 2**0.5, scale / 2**0.5),
            (scale / 2**0.5, scale * 2**0.5),
        ]
        shapes += [(scale * 1.4, scale * 1.4)] * (cells < 8)
        for y in range(cells):
            for x in range(cells):
                center = ((x + 0.5) / cells, (y + 0.5) / cells)
                rows += [(*center, *shape) for shape in shapes]
    rows += [(0.5, 0.5, 0.95, 0.95)] * 2
    return np.array(rows, np.float32)


def _case(seed: int, counts: list[int], defaults: NDArray[np.float32] | None = None) -> Case:
    # RandomState produces the same numbers in every version of numpy.
    random = np.random.RandomState(seed)
    defaults = default_boxes() if defaults is None else defaults
    boxes, labels = [], []
    for count in counts:
        centers, sizes = random.uniform(0.1, 0.9, (count, 2)), random.uniform(0.01, 0.8, (count, 2))
        low, high = np.clip(centers - sizes / 2, 0, 1), np.clip(centers + sizes / 2, 0, 1)
        boxes.append(np.concatenate([low, high], axis=1).astype(np.float32))
        labels.append(random.randint(1, CLASSES, count).astype(np.int64))
    shape = (len(counts), len(defaults))
    draw = [
        random.standard_normal((*shape, width)).astype(np.float32)
        for width in (CLASSES, 4, CLASSES, 4)
    ]
    return Case(defaults, boxes, labels, draw[0] * 2, draw[1], (draw[2], draw[3]))


def cases() -> dict[str, Case]:
    """Return all batches by name."""
    conflict = _case(5, [6, 2])
    for boxes in conflict.boxes:  # several objects have the same best default box
        boxes[:] = boxes[0] + np.linspace(0, 0.002, len(boxes), dtype=np.float32)[:, None]
    tiny = _case(6, [3, 1])
    tiny.boxes[0][0] = (0.0, 0.0, 1e-4, 1e-4)
    return {
        "ordinary": _case(1, [3, 5, 1, 8]),
        "crowded": _case(2, [40, 25, 60]),
        "some images without objects": _case(3, [0, 4, 0, 2]),
        "no objects": _case(4, [0, 0]),
        "conflict": conflict,
        "tiny": tiny,
    }


def overfull() -> Case:
    """Return a batch in which half of the default boxes are matched."""
    near = np.random.RandomState(8).uniform(-0.05, 0.05, (12, 4))
    near += np.array([0.5, 0.5, 0.7, 0.7])
    near[6:, 2:] = 0.2
    case = _case(7, [1, 1], near.astype(np.float32))
    case.boxes[0][:] = (0.15, 0.15, 0.85, 0.85)
    case.boxes[1][:] = (0.12, 0.17, 0.83, 0.84)
    return case
