"""`Anonymizer`: makes objects unrecognizable before any sink sees the frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors.base import BaseProcessor

__all__ = ["Anonymizer", "Method"]

Method = Literal["blur", "pixelate", "fill"]
METHODS: tuple[str, ...] = get_args(Method)

_BLOCKS = 8
"""Blocks of a pixelated or blurred box along its longer side: too few to recognize a face."""

_SAME = 0.1
"""IoU above which a box of this frame replaces a held one of an earlier frame."""


@dataclass(slots=True)
class _Held:
    """A box of an earlier frame.

    Attributes:
        box: x1, y1, x2, y2 in pixels.
        age: Frames since it was detected.
    """

    box: NDArray[np.float32]
    age: int = 0


class Anonymizer(BaseProcessor):
    """Blurs, pixelates or fills the boxes of some classes in the frame itself.

    The frame of the result is replaced, so that no sink, snapshot or crop has the original pixels.
    Detections are not changed. A box is held for some frames after its object is missed, and
    boxes grow by a margin.

    Args:
        classes: Names of the classes; empty for all.
        method: "blur", "pixelate" or "fill" (black).
        margin: Growth of each side of a box, as a fraction of its width and height.
        hold: Frames for which a box is kept after its object was detected last.
        detect: Detects further objects that are made unrecognizable, all of them or those of
            `classes` that the detector knows; None uses only the detections of the result.

    Raises:
        UsageError: If a value is out of range.
    """

    name = "anonymize"

    def __init__(
        self,
        classes: Sequence[str] = (),
        method: Method = "blur",
        *,
        margin: float = 0.15,
        hold: int = 15,
        detect: Callable[[Frame], Detections] | None = None,
    ) -> None:
        if method not in METHODS:
            raise UsageError(f"`method` must be {', '.join(METHODS)}, not '{method}'")
        if not 0 <= margin <= 5:
            raise UsageError(f"`blur_margin` must be between 0 and 5, not {margin:g}")
        if not 0 <= hold <= 10_000:
            raise UsageError(f"`blur_hold` must be between 0 and 10000 frames, not {hold}")
        self._classes, self._method = frozenset(classes), method
        self._margin, self._hold, self._detect = margin, hold, detect
        self._held: list[_Held] = []
        self._size = (0, 0)

    def process(self, result: FrameResult) -> FrameResult:
        """Return the result with a frame in which the boxes are unrecognizable."""
        frame = result.frame
        if frame.name or (frame.width, frame.height) != self._size:
            # Boxes of another photo, or of a picture of another size, mean nothing here.
            self._held, self._size = [], (frame.width, frame.height)
        boxes = self._boxes(result.detections)
        if self._detect is not None:
            found = self._detect(result.frame)
            known = not self._classes.isdisjoint(found.labels)
            boxes = np.concatenate([boxes, self._boxes(found) if known else found.boxes])
        boxes = self._with_held(boxes)
        if len(boxes):
            image = result.frame.image.copy()
            for box in boxes:
                self._anonymize(image, box)
            result.frame = replace(result.frame, pixels=image, surface=None)
        return result

    def _boxes(self, detections: Detections) -> NDArray[np.float32]:
        """Return the boxes of the chosen classes."""
        if not self._classes:
            return detections.boxes
        wanted = [detections.label_of(n) in self._classes for n in detections.class_ids.tolist()]
        return detections.select(np.array(wanted, bool)).boxes

    def _with_held(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the boxes and those of earlier frames that none of them replaces."""
        held = [_Held(one.box, one.age + 1) for one in self._held if one.age < self._hold]
        self._held = [*(_Held(box) for box in boxes), *_unmatched(held, boxes)]
        return np.array([one.box for one in self._held], np.float32).reshape(-1, 4)

    def _anonymize(self, image: Image, box: NDArray[np.float32]) -> None:
        height, width = image.shape[:2]
        x1, y1, x2, y2 = box.tolist()
        grow_x, grow_y = (x2 - x1) * self._margin, (y2 - y1) * self._margin
        left, top = max(0, int(x1 - grow_x)), max(0, int(y1 - grow_y))
        right = min(width, int(np.ceil(x2 + grow_x)) + 1)
        bottom = min(height, int(np.ceil(y2 + grow_y)) + 1)
        if right <= left or bottom <= top:
            return
        part = image[top:bottom, left:right]
        if self._method == "fill":
            part[:] = 0
            return
        # Both methods keep only the averages of a few blocks, which no sharpening restores.
        size = part.shape[1], part.shape[0]
        blocks = tuple(max(1, round(_BLOCKS * side / max(size))) for side in size)
        small = cv2.resize(part, blocks, interpolation=cv2.INTER_AREA)
        smooth = cv2.INTER_CUBIC if self._method == "blur" else cv2.INTER_NEAREST
        part[:] = cv2.resize(small, size, interpolation=smooth)

    def reset(self) -> None:
        """See `Processor.reset`; held boxes stay, since the objects may still be there."""


def _unmatched(held: Sequence[_Held], boxes: NDArray[np.float32]) -> list[_Held]:
    """Return the held boxes without those that a box of this frame replaces, best pairs first.

    Each box replaces one, so that of two people side by side the one that is missed stays covered.
    """
    ious = np.array([_ious(one.box, boxes) for one in held]).reshape(len(held), len(boxes))
    remaining = list(range(len(held)))
    while ious.size and ious.max() > _SAME:
        row, column = divmod(int(ious.argmax()), ious.shape[1])
        remaining.remove(row)
        ious[row], ious[:, column] = 0, 0
    return [held[row] for row in remaining]


def _ious(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the IoU of one box with N boxes."""
    overlap = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.clip(overlap, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    ious: NDArray[np.float32] = common / np.maximum(areas - common, 1e-6)
    return ious
