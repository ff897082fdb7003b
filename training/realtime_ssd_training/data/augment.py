"""SSD's training augmentation: photometric distortion, zoom-out, min-IoU crop, flip, resize.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2 "Data
augmentation" and section 3.6 (zoom-out), with the constants of its reference implementation.

Zoom-out, crop and flip only choose which rectangle of the image the network sees; the pixels are
then resized once, straight into the input, so that a 4x zoom-out never builds a 4x canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import iou
from realtime_ssd.core.frames import Image
from realtime_ssd.core.preprocess import letterbox_params
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_training.data.sample import Sample

__all__ = ["SSDAugmentation", "Window", "fit"]

Array = NDArray[np.float64]

_TRIALS = 50


@dataclass(frozen=True, slots=True)
class Window:
    """The rectangle of an image that becomes the input; it may reach beyond the image.

    Attributes:
        x: Left edge in pixels of the image.
        y: Top edge.
        width: Width in pixels.
        height: Height in pixels.
    """

    x: int
    y: int
    width: int
    height: int


def fit(sample: Sample, spec: InputSpec) -> Sample:
    """Resize a sample to the input of a model without augmentation, as `preprocess` does.

    Args:
        sample: Any sample.
        spec: Input of the model.

    Returns:
        The sample at input size, boxes in input pixels.
    """
    height, width = sample.image.shape[:2]
    return _show(sample, Window(0, 0, width, height), spec)


@dataclass(frozen=True, slots=True)
class SSDAugmentation:
    """A random view of a sample at the input size of a model.

    Attributes:
        spec: Input of the model; also says what "warp" or "letterbox" does.
        photometric: Probability of each photometric change.
        brightness: Most that is added to or taken from a pixel.
        contrast: Smallest and largest factor of contrast.
        saturation: Smallest and largest factor of saturation.
        hue: Most degrees by which the hue turns.
        zoom_out: Probability of a zoom-out.
        zoom_limit: Largest side of the zoomed-out image, in sides of the image.
        overlaps: Choices of the crop: the least IoU with an object, or None for no crop.
        crop_scale: Smallest side of a crop, as a fraction of the image's.
        crop_ratio: Largest aspect ratio of a crop, and the inverse of its smallest.
        flip: Probability of a horizontal flip.

    Example:
        >>> augment = SSDAugmentation(model.spec.input)
        >>> sample = augment(dataset[0], np.random.default_rng(0))
    """

    spec: InputSpec
    photometric: float = 0.5
    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18.0
    zoom_out: float = 0.5
    zoom_limit: float = 4.0
    overlaps: tuple[float | None, ...] = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
    crop_scale: float = 0.3
    crop_ratio: float = 2.0
    flip: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Augment a sample; all chance comes from `rng`.

        Args:
            sample: Any sample; it is left as it is.
            rng: Random numbers.

        Returns:
            A sample at input size. Boxes whose centre the crop leaves out are gone (crowd boxes
            only where nothing of them is left), the others are clipped.
        """
        height, width = sample.image.shape[:2]
        window = self._zoom(Window(0, 0, width, height), rng)
        window = self._crop(window, sample, rng)
        seen = _show(sample, window, self.spec, lambda image: self._distort(image, rng))
        return _mirror(seen) if rng.random() < self.flip else seen

    def _zoom(self, window: Window, rng: np.random.Generator) -> Window:
        """Put the image somewhere on a larger canvas, filled with the mean."""
        if rng.random() >= self.zoom_out:
            return window
        ratio = rng.uniform(1.0, self.zoom_limit)
        width, height = round(window.width * ratio), round(window.height * ratio)
        left = int(rng.integers(0, width - window.width + 1))
        top = int(rng.integers(0, height - window.height + 1))
        return Window(-left, -top, width, height)

    def _crop(self, window: Window, sample: Sample, rng: np.random.Generator) -> Window:
        """Take a part that holds the centre of an object and overlaps it enough."""
        objects = sample.boxes[~sample.crowd].astype(np.float64)
        if not len(objects):
            return window
        for _ in range(len(self.overlaps)):
            least = self.overlaps[int(rng.integers(len(self.overlaps)))]
            if least is None:
                return window
            parts = self._parts(window, rng)
            enough = np.greater_equal(iou(parts, objects), least)
            good = np.any(_centred(objects, parts) & enough, axis=1)
            if good.any():
                x1, y1, x2, y2 = parts[int(good.argmax())].astype(int).tolist()
                return Window(x1, y1, x2 - x1, y2 - y1)
        return window

    def _parts(self, window: Window, rng: np.random.Generator) -> Array:
        """Draw T × 4 whole-pixel parts of a window of allowed size and shape, some fewer."""
        scale = rng.uniform(self.crop_scale, 1.0, (_TRIALS, 2))
        sizes = np.maximum(1, np.floor(scale * (window.width, window.height)))
        ratio = sizes[:, 0] / sizes[:, 1]
        sizes = sizes[(ratio >= 1 / self.crop_ratio) & (ratio <= self.crop_ratio)]
        room = np.array([window.width, window.height]) - sizes
        corner = np.floor(rng.uniform(size=sizes.shape) * (room + 1)) + np.array(
            [window.x, window.y]
        )
        return np.concatenate([corner, corner + sizes], axis=1)

    def _distort(self, image: Image, rng: np.random.Generator) -> Image:
        """Change brightness, contrast (before or after the colours), saturation and hue."""
        wanted = rng.random(5) < (self.photometric,) * 4 + (0.5,)
        shift = rng.uniform(-self.brightness, self.brightness) if wanted[0] else 0.0
        gain = rng.uniform(*self.contrast) if wanted[1] else 1.0
        saturation = rng.uniform(*self.saturation) if wanted[2] else 1.0
        turn = rng.uniform(-self.hue, self.hue) if wanted[3] else 0.0
        first = bool(wanted[4])
        image = _linear(image, gain if first else 1.0, shift)
        image = _colours(image, saturation, turn)
        return image if first else _linear(image, gain, 0.0)


def _centred(boxes: Array, parts: Array) -> NDArray[np.bool_]:
    """Tell which box centres (N) lie inside which parts (T): T × N."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    after = centres[None] >= parts[:, None, :2]
    before = centres[None] < parts[:, None, 2:]
    return np.asarray((after & before).all(axis=2), np.bool_)


def _show(
    sample: Sample, window: Window, spec: InputSpec, distort: Callable[[Image], Image] | None = None
) -> Sample:
    """Resize what a window shows to the input; beyond the image it shows the mean."""
    height, width = sample.image.shape[:2]
    x1, x2 = max(window.x, 0), min(window.x + window.width, width)
    y1, y2 = max(window.y, 0), min(window.y + window.height, height)
    spot = letterbox_params(spec, window.width, window.height)
    left, right = _scaled(x1 - window.x, x2 - window.x, spot.width / window.width, spot.width)
    top, bottom = _scaled(y1 - window.y, y2 - window.y, spot.height / window.height, spot.height)
    patch: Image = cv2.resize(
        sample.image[y1:y2, x1:x2], (right - left, bottom - top), interpolation=cv2.INTER_LINEAR
    )
    patch = patch if distort is None else distort(patch)
    canvas = np.full((spec.height, spec.width, 3), spec.fill, np.uint8)
    inner = canvas[spot.y : spot.y + spot.height, spot.x : spot.x + spot.width]
    if patch.shape != inner.shape:
        inner[:] = _mean_bgr(spec)
    inner[top:bottom, left:right] = patch
    kept, boxes = _cut(sample, np.array([x1, y1, x2, y2], np.float64))
    # The mapping of the pixels as they were really resized, not of the window before rounding.
    scale = np.array([(right - left) / (x2 - x1), (bottom - top) / (y2 - y1)] * 2)
    origin, shift = np.array([x1, y1] * 2), np.array([spot.x + left, spot.y + top] * 2)
    boxes = ((boxes - origin) * scale + shift).astype(np.float32)
    return _with(sample, canvas, boxes, kept)


def _scaled(low: int, high: int, scale: float, limit: int) -> tuple[int, int]:
    """Round a stretch to whole pixels of the input, at least one."""
    first = min(round(low * scale), limit - 1)
    return first, max(first + 1, min(round(high * scale), limit))


def _mean_bgr(spec: InputSpec) -> NDArray[np.uint8]:
    """Give the colour that the network sees as zero."""
    mean = spec.mean[::-1] if spec.channels == "RGB" else spec.mean
    return np.array([min(max(round(value), 0), 255) for value in mean], np.uint8)


def _cut(sample: Sample, part: Array) -> tuple[NDArray[np.bool_], Array]:
    """Keep boxes whose centre lies in a part of the image, and crowds that reach into it."""
    boxes = sample.boxes.astype(np.float64)
    inside = np.clip(boxes, np.tile(part[:2], 2), np.tile(part[2:], 2))
    seen = (inside[:, 2:] > inside[:, :2]).all(axis=1)
    kept = seen & (_centred(boxes, part[None])[0] | sample.crowd)
    return kept, inside[kept]


def _with(
    sample: Sample, image: Image, boxes: NDArray[np.float32], kept: NDArray[np.bool_]
) -> Sample:
    return Sample(
        image=image,
        boxes=boxes,
        labels=sample.labels[kept],
        difficult=sample.difficult[kept],
        crowd=sample.crowd[kept],
        name=sample.name,
    )


def _mirror(sample: Sample) -> Sample:
    """Exchange left and right."""
    width = np.float32(sample.image.shape[1])
    boxes = sample.boxes.copy()
    boxes[:, 0], boxes[:, 2] = width - sample.boxes[:, 2], width - sample.boxes[:, 0]
    flipped: Image = cv2.flip(sample.image, 1)
    return replace(sample, image=flipped, boxes=boxes)


_LEVELS = np.arange(256, dtype=np.float64)


def _linear(image: Image, gain: float, shift: float) -> Image:
    """Compute gain * (value + shift), clipped to a byte at each step."""
    if gain == 1.0 and shift == 0.0:
        return image
    table = np.clip(np.clip(_LEVELS + shift, 0, 255) * gain, 0, 255)
    changed: Image = cv2.LUT(image, np.round(table).astype(np.uint8))
    return changed


def _colours(image: Image, saturation: float, turn: float) -> Image:
    """Scale the saturation and turn the hue by degrees (OpenCV's byte holds half degrees)."""
    if saturation == 1.0 and turn == 0.0:
        return image
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = np.round(_LEVELS + turn / 2) % 180
    table[0, :, 1] = np.round(np.clip(_LEVELS * saturation, 0, 255))
    table[0, :, 2] = _LEVELS
    turned = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table)
    changed: Image = cv2.cvtColor(turned, cv2.COLOR_HSV2BGR)
    return changed
