"""SSD's training augmentation: photometric distortion, zoom-out, min-IoU crop, flip, resize.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2 "Data
augmentation" and section 3.6 (zoom-out), with the constants of its reference implementation.

Zoom-out, crop and flip only choose the rectangle of the image that becomes the input. Its pixels
are resized once, directly into the input, so a 4x zoom-out never allocates a 4x canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

import cv2
import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from realtime_ssd.core.boxes import iou
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.core.preprocess import letterbox_params
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_training.data.sample import Sample

__all__ = [
    "AugmentationConfig",
    "SSDAugmentation",
    "Window",
    "build_augmentation",
    "resize_sample",
]

Array = NDArray[np.float64]

_TRIALS = 50


def _limits(low: float, high: float | None = None) -> Meta:
    text = f"a number from {low:g}" + ("" if high is None else f" to {high:g}")
    return Meta(ge=low, le=high, description=text)


_Probability = Annotated[float, _limits(0, 1)]
_Factor = Annotated[float, _limits(0)]
_FactorRange = Annotated[
    tuple[_Factor, _Factor], Meta(description="a list of a smallest and a largest factor")
]
_Overlaps = Annotated[
    tuple[_Probability | Literal["whole"] | None, ...],
    Meta(min_length=1, description='a list of overlaps from 0 to 1, or "whole" for no crop'),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationConfig:
    """Parameters of `SSDAugmentation`; the annotations limit the values in a recipe.

    Attributes:
        photometric: Probability of each photometric distortion.
        brightness: Maximum change of a pixel value.
        contrast: Smallest and largest factor of the contrast.
        saturation: Smallest and largest factor of the saturation.
        hue: Maximum rotation of the hue in degrees.
        zoom_out: Probability of a zoom-out.
        zoom_limit: Largest side of the zoomed-out image, relative to the side of the image.
        overlaps: Choices of the crop: the minimum IoU with an object; None or "whole" for no crop.
        crop_scale: Smallest side of a crop, relative to the side of the image.
        crop_ratio: Largest aspect ratio of a crop, and the inverse of its smallest.
        flip: Probability of a horizontal flip.
    """

    photometric: _Probability = 0.5
    brightness: Annotated[float, _limits(0, 255)] = 32.0
    contrast: _FactorRange = (0.5, 1.5)
    saturation: _FactorRange = (0.5, 1.5)
    hue: Annotated[float, _limits(0, 180)] = 18.0
    zoom_out: _Probability = 0.5
    zoom_limit: Annotated[float, _limits(1, 20)] = 4.0
    overlaps: _Overlaps = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
    crop_scale: Annotated[float, _limits(0.01, 1)] = 0.3
    crop_ratio: Annotated[float, _limits(1)] = 2.0
    flip: _Probability = 0.5

    def __post_init__(self) -> None:
        for low, high in (self.contrast, self.saturation):
            if low > high:
                raise ValueError(f"the smallest factor {low} exceeds the largest, {high}")


@dataclass(frozen=True, slots=True)
class SSDAugmentation(AugmentationConfig):
    """A random view of a sample at the input size of a model.

    Attributes:
        spec: Input of the model, including its resize mode.

    Example:
        >>> augment = SSDAugmentation(model.spec.input, flip=0.0)
        >>> sample = augment(dataset[0], np.random.default_rng(0))
    """

    spec: InputSpec

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return an augmented copy of a sample.

        Args:
            sample: Any sample.
            rng: The only source of randomness.

        Returns:
            A sample at input size. Boxes whose center is outside the crop are dropped (crowd
            boxes only if they are entirely outside), the others are clipped.
        """
        height, width = sample.image.shape[:2]
        window = self._zoom_out(Window(0, 0, width, height), rng)
        window = self._crop(window, sample, rng)
        view = _resize_window(sample, window, self.spec, lambda image: self._distort(image, rng))
        return _flip(view) if rng.random() < self.flip else view

    def _zoom_out(self, window: Window, rng: np.random.Generator) -> Window:
        """Place the image at random on a larger canvas."""
        if rng.random() >= self.zoom_out:
            return window
        ratio = rng.uniform(1.0, self.zoom_limit)
        width, height = round(window.width * ratio), round(window.height * ratio)
        left = int(rng.integers(0, width - window.width + 1))
        top = int(rng.integers(0, height - window.height + 1))
        return Window(-left, -top, width, height)

    def _crop(self, window: Window, sample: Sample, rng: np.random.Generator) -> Window:
        """Choose a crop that contains the center of an object and overlaps it sufficiently."""
        objects = sample.boxes[~sample.crowd].astype(np.float64)
        if not len(objects):
            return window
        for _ in range(len(self.overlaps)):
            minimum = self.overlaps[int(rng.integers(len(self.overlaps)))]
            if minimum is None or minimum == "whole":
                return window
            crops = self._candidates(window, rng)
            overlapping = np.greater_equal(iou(crops, objects), minimum)
            valid = np.any(_contain_centers(crops, objects) & overlapping, axis=1)
            if valid.any():
                x1, y1, x2, y2 = crops[int(valid.argmax())].astype(int).tolist()
                return Window(x1, y1, x2 - x1, y2 - y1)
        return window

    def _candidates(self, window: Window, rng: np.random.Generator) -> Array:
        """Draw up to `_TRIALS` crops (T × 4, whole pixels) of allowed size and aspect ratio."""
        scale = rng.uniform(self.crop_scale, 1.0, (_TRIALS, 2))
        sizes = np.maximum(1, np.floor(scale * (window.width, window.height)))
        ratio = sizes[:, 0] / sizes[:, 1]
        sizes = sizes[(ratio >= 1 / self.crop_ratio) & (ratio <= self.crop_ratio)]
        margin = np.array([window.width, window.height]) - sizes
        corner = np.floor(rng.uniform(size=sizes.shape) * (margin + 1)) + np.array(
            [window.x, window.y]
        )
        return np.concatenate([corner, corner + sizes], axis=1)

    def _distort(self, image: Image, rng: np.random.Generator) -> Image:
        """Change brightness, contrast (before or after the colors), saturation and hue."""
        apply = rng.random(5) < (self.photometric,) * 4 + (0.5,)
        shift = rng.uniform(-self.brightness, self.brightness) if apply[0] else 0.0
        gain = rng.uniform(*self.contrast) if apply[1] else 1.0
        saturation = rng.uniform(*self.saturation) if apply[2] else 1.0
        hue = rng.uniform(-self.hue, self.hue) if apply[3] else 0.0
        contrast_first = bool(apply[4])
        image = _scale_and_shift(image, gain if contrast_first else 1.0, shift)
        image = _adjust_colors(image, saturation, hue)
        return image if contrast_first else _scale_and_shift(image, gain, 0.0)


_TYPES = get_type_hints(AugmentationConfig, include_extras=True)


def build_augmentation(spec: InputSpec, changes: Mapping[str, Any]) -> SSDAugmentation:
    """Build the augmentation of a recipe.

    Args:
        spec: Input of the model.
        changes: Fields of `AugmentationConfig` by name.

    Raises:
        UsageError: If a field does not exist, or its value is invalid.
    """
    for key, value in changes.items():
        if key not in _TYPES:
            raise UsageError(f"'augment' has no entry '{key}'; it has {', '.join(_TYPES)}")
        try:
            msgspec.convert({key: value}, AugmentationConfig)
        except msgspec.ValidationError:
            expected = get_args(_TYPES[key])[1].description
            raise UsageError(f"'augment.{key}' must be {expected}, not {value!r}") from None
    config = msgspec.convert(changes, AugmentationConfig)
    return SSDAugmentation(
        spec, **{item.name: getattr(config, item.name) for item in fields(config)}
    )


@dataclass(frozen=True, slots=True)
class Window:
    """The rectangle of an image that becomes the input; it may extend beyond the image.

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


def resize_sample(sample: Sample, spec: InputSpec) -> Sample:
    """Resize a sample to the input of a model without augmentation, as `preprocess` does.

    Args:
        sample: Any sample.
        spec: Input of the model.

    Returns:
        The sample at input size, boxes in input pixels.
    """
    height, width = sample.image.shape[:2]
    return _resize_window(sample, Window(0, 0, width, height), spec)


def _contain_centers(crops: Array, boxes: Array) -> NDArray[np.bool_]:
    """Return which crops (T × 4) contain the centers of which boxes (N × 4): T × N."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    after = centers[None] >= crops[:, None, :2]
    before = centers[None] < crops[:, None, 2:]
    return np.asarray((after & before).all(axis=2), np.bool_)


def _resize_window(
    sample: Sample, window: Window, spec: InputSpec, distort: Callable[[Image], Image] | None = None
) -> Sample:
    """Resize a window to the input; the area beyond the image is filled with the mean."""
    height, width = sample.image.shape[:2]
    x1, x2 = max(window.x, 0), min(window.x + window.width, width)
    y1, y2 = max(window.y, 0), min(window.y + window.height, height)
    target = letterbox_params(spec, window.width, window.height)
    left, right = _scale_interval(
        x1 - window.x, x2 - window.x, target.width / window.width, target.width
    )
    top, bottom = _scale_interval(
        y1 - window.y, y2 - window.y, target.height / window.height, target.height
    )
    patch: Image = cv2.resize(
        sample.image[y1:y2, x1:x2], (right - left, bottom - top), interpolation=cv2.INTER_LINEAR
    )
    patch = patch if distort is None else distort(patch)
    canvas = np.full((spec.height, spec.width, 3), spec.fill, np.uint8)
    inner = canvas[target.y : target.y + target.height, target.x : target.x + target.width]
    if patch.shape != inner.shape:
        inner[:] = _mean_bgr(spec)
    inner[top:bottom, left:right] = patch
    kept, boxes = _clip_boxes(sample, np.array([x1, y1, x2, y2], np.float64))
    # The scale of the resized pixels, which rounding makes differ from that of the window.
    scale = np.array([(right - left) / (x2 - x1), (bottom - top) / (y2 - y1)] * 2)
    origin, shift = np.array([x1, y1] * 2), np.array([target.x + left, target.y + top] * 2)
    return Sample(
        image=canvas,
        boxes=((boxes - origin) * scale + shift).astype(np.float32),
        labels=sample.labels[kept],
        difficult=sample.difficult[kept],
        crowd=sample.crowd[kept],
        name=sample.name,
    )


def _scale_interval(low: int, high: int, scale: float, limit: int) -> tuple[int, int]:
    """Scale an interval to whole pixels of the input, at least one."""
    first = min(round(low * scale), limit - 1)
    return first, max(first + 1, min(round(high * scale), limit))


def _mean_bgr(spec: InputSpec) -> NDArray[np.uint8]:
    """Return the color that is zero after normalization."""
    mean = spec.mean[::-1] if spec.channels == "RGB" else spec.mean
    return np.array([min(max(round(value), 0), 255) for value in mean], np.uint8)


def _clip_boxes(sample: Sample, crop: Array) -> tuple[NDArray[np.bool_], Array]:
    """Clip boxes to a crop (4); keep those with their center in it, and crowds that intersect it.

    Returns:
        N bool, which boxes are kept; and the clipped boxes of those.
    """
    boxes = sample.boxes.astype(np.float64)
    clipped = np.clip(boxes, np.tile(crop[:2], 2), np.tile(crop[2:], 2))
    visible = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    kept = visible & (_contain_centers(crop[None], boxes)[0] | sample.crowd)
    return kept, clipped[kept]


def _flip(sample: Sample) -> Sample:
    """Flip a sample horizontally."""
    width = np.float32(sample.image.shape[1])
    boxes = sample.boxes.copy()
    boxes[:, 0], boxes[:, 2] = width - sample.boxes[:, 2], width - sample.boxes[:, 0]
    return replace(sample, image=cast("Image", cv2.flip(sample.image, 1)), boxes=boxes)


_LEVELS = np.arange(256, dtype=np.float64)


def _scale_and_shift(image: Image, gain: float, shift: float) -> Image:
    """Compute gain * (value + shift), clipped to 0..255 after each step."""
    if gain == 1.0 and shift == 0.0:
        return image
    table = np.clip(np.clip(_LEVELS + shift, 0, 255) * gain, 0, 255)
    return cast("Image", cv2.LUT(image, np.round(table).astype(np.uint8)))


def _adjust_colors(image: Image, saturation: float, hue: float) -> Image:
    """Scale the saturation and rotate the hue by degrees (OpenCV's bytes hold half degrees)."""
    if saturation == 1.0 and hue == 0.0:
        return image
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = np.round(_LEVELS + hue / 2) % 180
    table[0, :, 1] = np.round(np.clip(_LEVELS * saturation, 0, 255))
    table[0, :, 2] = _LEVELS
    adjusted = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table)
    return cast("Image", cv2.cvtColor(adjusted, cv2.COLOR_HSV2BGR))
