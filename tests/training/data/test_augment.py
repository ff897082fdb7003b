"""Augmentation: boxes against drawn pixels, crops against their constraints, color formulas."""

from __future__ import annotations

import colorsys
from dataclasses import fields, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from realtime_ssd_training.data.augment import (
    AugmentationConfig,
    SSDAugmentation,
    Window,
    _adjust_colors,
    _flip,
    _scale_and_shift,
    build_augmentation,
    resize_sample,
)
from realtime_ssd_training.data.sample import Sample
from realtime_ssd_training.engine.loader import normalize

from realtime_ssd.core.boxes import iou
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import InputSpec

WARP = InputSpec(96, 80, "BGR")
LETTERBOX = replace(WARP, resize="letterbox", fill=0)
SPECS = st.sampled_from([WARP, LETTERBOX, replace(WARP, width=160)])
SEEDS = st.integers(0, 2**32 - 1)


def sample_of(
    image: NDArray[np.uint8], boxes: object, crowd: NDArray[np.bool_] | None = None
) -> Sample:
    """Return a sample with labels 1, 2, 3, ...; objects with even labels are difficult."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.arange(1, len(array) + 1)
    crowd = np.zeros(len(array), np.bool_) if crowd is None else crowd
    return Sample(image, array, labels, labels % 2 == 0, crowd, "x")


@st.composite
def rectangles(draw: st.DrawFn) -> Sample:
    """Draw three rectangles in separate color channels; they may overlap."""
    width, height = draw(st.integers(60, 220)), draw(st.integers(60, 220))
    image = np.zeros((height, width, 3), np.uint8)
    boxes = []
    for channel in range(3):
        x1 = draw(st.integers(0, width - 30))
        y1 = draw(st.integers(0, height - 30))
        x2 = draw(st.integers(x1 + 30, width))
        y2 = draw(st.integers(y1 + 30, height))
        image[y1:y2, x1:x2, channel] = 255
        boxes.append((x1, y1, x2, y2))
    return sample_of(image, boxes)


def bright_region(image: NDArray[np.uint8], channel: int) -> NDArray[np.int64]:
    """Return x1, y1, x2, y2 of the bright pixels of a channel."""
    rows, columns = np.nonzero(image[:, :, channel] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@settings(max_examples=300)
@given(rectangles(), SPECS, SEEDS)
def test_boxes_match_the_pixels(sample: Sample, spec: InputSpec, seed: int) -> None:
    augment = SSDAugmentation(spec, photometric=0.0)
    result = augment(sample, np.random.default_rng(seed))
    assert result.image.shape == (spec.height, spec.width, 3)
    for box, label in zip(result.boxes, result.labels, strict=True):
        assert np.abs(box - bright_region(result.image, int(label) - 1)).max() <= 1.0


@given(rectangles(), SPECS)
def test_boxes_match_the_pixels_without_augmentation(sample: Sample, spec: InputSpec) -> None:
    result = resize_sample(sample, spec)
    assert result.labels.tolist() == [1, 2, 3]
    for channel, box in enumerate(result.boxes):
        assert np.abs(box - bright_region(result.image, channel)).max() <= 0.5


@given(rectangles(), SPECS, SEEDS)
def test_augmented_samples_are_valid_and_reproducible(
    sample: Sample, spec: InputSpec, seed: int
) -> None:
    crowd = np.array([False, seed % 2 == 0, seed % 3 == 0])
    sample = replace(sample, crowd=crowd)
    before = sample.image.copy(), sample.boxes.copy()
    result = SSDAugmentation(spec)(sample, np.random.default_rng(seed))
    again = SSDAugmentation(spec)(sample, np.random.default_rng(seed))
    for first, second in ((result.image, again.image), (result.boxes, again.boxes)):
        assert np.array_equal(first, second)
    assert np.array_equal(sample.image, before[0])
    assert np.array_equal(sample.boxes, before[1])
    assert (result.boxes >= 0).all()
    assert (result.boxes <= np.array([spec.width, spec.height] * 2)).all()
    assert (result.boxes[:, 2:] > result.boxes[:, :2]).all()
    assert result.boxes.dtype == np.float32
    assert result.image.dtype == np.uint8
    assert all(label < following for label, following in pairwise(result.labels))
    assert result.difficult.tolist() == [label % 2 == 0 for label in result.labels]
    assert result.crowd.tolist() == [bool(crowd[label - 1]) for label in result.labels]
    assert result.name == "x"
    # A crop keeps at least one object that is not a crowd.
    assert crowd.all() or not result.crowd.all()


@given(rectangles())
def test_flipping_twice_restores_the_sample(sample: Sample) -> None:
    once = _flip(sample)
    assert np.array_equal(once.image, sample.image[:, ::-1])
    for channel, box in enumerate(once.boxes):
        assert np.array_equal(box, bright_region(once.image, channel))
    twice = _flip(once)
    assert np.array_equal(twice.image, sample.image)
    assert np.array_equal(twice.boxes, sample.boxes)


@given(rectangles(), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans(), SEEDS)
def test_a_crop_meets_its_constraints(
    sample: Sample, minimum: float, zoomed: bool, seed: int
) -> None:
    height, width = sample.image.shape[:2]
    window = Window(-10, -5, width + 30, height + 40) if zoomed else Window(0, 0, width, height)
    augment = SSDAugmentation(WARP, overlaps=(minimum,))
    part = augment._crop(window, sample, np.random.default_rng(seed))
    assume(part != window)
    assert window.x <= part.x <= part.x + part.width <= window.x + window.width
    assert window.y <= part.y <= part.y + part.height <= window.y + window.height
    assert part.width >= 0.3 * window.width - 1
    assert part.height >= 0.3 * window.height - 1
    assert 0.5 <= part.width / part.height <= 2.0
    box = np.array([part.x, part.y, part.x + part.width, part.y + part.height], np.float64)
    centers = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    inside = ((centers >= box[:2]) & (centers < box[2:])).all(axis=1)
    overlap = iou(box[None], sample.boxes.astype(np.float64))[0]
    assert (inside & (overlap >= minimum)).any()


def test_most_crops_succeed_at_moderate_overlaps() -> None:
    sample = sample_of(np.zeros((150, 200, 3), np.uint8), [(20, 30, 150, 120)])
    whole = Window(0, 0, 200, 150)
    for minimum, share in ((0.0, 1.0), (0.3, 0.99), (0.7, 0.7)):
        augment = SSDAugmentation(WARP, overlaps=(minimum,))
        parts = [augment._crop(whole, sample, np.random.default_rng(k)) for k in range(200)]
        assert np.mean([part != whole for part in parts]) >= share
    for choice in (None, "whole"):
        augment = build_augmentation(WARP, {"overlaps": [choice]})
        crops = [augment._crop(whole, sample, np.random.default_rng(k)) for k in range(20)]
        assert set(crops) == {whole}


def test_images_without_objects_are_not_cropped() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    augment = SSDAugmentation(WARP, photometric=0.0, zoom_out=0.0, flip=0.0, overlaps=(0.5,))
    crowd = sample_of(image, [(5, 5, 20, 20)], np.array([True]))
    for sample in (sample_of(image, []), crowd):
        result = augment(sample, np.random.default_rng(1))
        assert np.array_equal(result.image, resize_sample(sample, WARP).image)
        assert len(result.boxes) == len(sample.boxes)


def test_a_crowd_is_kept_while_partly_visible() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    sample = sample_of(image, [(5, 5, 45, 95), (0, 0, 200, 100)], np.array([False, True]))
    augment = SSDAugmentation(WARP, zoom_out=0.0, flip=0.0, overlaps=(0.5,))
    windows = []
    for seed in range(20):
        result = augment(sample, np.random.default_rng(seed))
        assert result.labels.tolist() == [1, 2]
        assert result.boxes[1].tolist() == [0, 0, 96, 80]
        windows.append(augment._crop(Window(0, 0, 200, 100), sample, np.random.default_rng(seed)))
    assert any(window.x + window.width < 100 for window in windows)  # the crowd's center is outside


@given(SEEDS)
def test_zoom_out_fills_the_canvas_with_the_mean(seed: int) -> None:
    spec = replace(WARP, channels="RGB", mean=(120.6, 117.2, 104.0))
    image = np.full((50, 70, 3), 255, np.uint8)
    augment = SSDAugmentation(spec, zoom_out=1.0, overlaps=(None,), photometric=0.0, flip=0.0)
    window = augment._zoom_out(Window(0, 0, 70, 50), np.random.default_rng(seed))
    assert window.x <= 0 <= 70 <= window.x + window.width
    assert window.y <= 0 <= 50 <= window.y + window.height
    assert 1.0 <= window.width / 70 <= 4.01
    assert window.width / 70 == pytest.approx(window.height / 50, abs=0.02)
    result = augment(sample_of(image, [(0, 0, 70, 50)]), np.random.default_rng(seed))
    x1, y1, x2, y2 = (round(float(side)) for side in result.boxes[0])
    background = np.ones(result.image.shape[:2], np.bool_)
    background[y1:y2, x1:x2] = False
    assert (result.image[y1:y2, x1:x2] == 255).all()
    assert (result.image[background] == (104, 117, 121)).all()


def test_zoom_out_and_flip_have_the_configured_frequency() -> None:
    left = np.zeros((40, 60, 3), np.uint8)
    left[:, :30] = 200
    sample = sample_of(left, [(0, 0, 30, 40)])
    disabled = {"photometric": 0.0, "zoom_out": 0.0, "flip": 0.0, "overlaps": [None]}
    for change, frequency in (({"flip": 0.3}, 0.3), ({"zoom_out": 0.7}, 0.7), ({"flip": 1.0}, 1.0)):
        augment = build_augmentation(WARP, {**disabled, **change})
        unchanged = resize_sample(sample, WARP)
        differs = [
            not np.array_equal(augment(sample, np.random.default_rng(k)).image, unchanged.image)
            for k in range(300)
        ]
        assert np.mean(differs) == pytest.approx(frequency, abs=0.07)


@given(SEEDS)
def test_photometric_distortion_changes_no_box(seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    sample = sample_of(image, [(3, 4, 20, 30)])
    plain = SSDAugmentation(WARP, photometric=0.0, zoom_out=0.0, flip=0.0, overlaps=(None,))
    distorted = replace(plain, photometric=1.0)
    result = distorted(sample, np.random.default_rng(seed))
    assert result.image.dtype == np.uint8
    assert np.array_equal(result.boxes, plain(sample, np.random.default_rng(seed)).boxes)


def test_brightness_reaches_but_never_exceeds_its_limits() -> None:
    gray = sample_of(np.full((20, 20, 3), 128, np.uint8), [(1, 1, 9, 9)])
    augment = SSDAugmentation(
        WARP,
        photometric=1.0,
        brightness=32.0,
        contrast=(1.0, 1.0),
        saturation=(1.0, 1.0),
        hue=0.0,
        zoom_out=0.0,
        overlaps=(None,),
    )
    values = []
    for seed in range(300):
        image = augment(gray, np.random.default_rng(seed)).image
        assert image.min() == image.max()
        values.append(int(image[0, 0, 0]) - 128)
    assert -32 <= min(values) < -28
    assert 28 < max(values) <= 32


def test_contrast_scales_gray_and_saturation_does_not_change_it() -> None:
    gray = sample_of(np.full((20, 20, 3), 100, np.uint8), [(1, 1, 9, 9)])
    augment = SSDAugmentation(WARP, photometric=1.0, brightness=0.0, zoom_out=0.0, overlaps=(None,))
    values = []
    for seed in range(300):
        image = augment(gray, np.random.default_rng(seed)).image
        assert image.min() == image.max()
        values.append(int(image[0, 0, 0]))
    assert 50 <= min(values) < 55
    assert 145 < max(values) <= 150


@given(st.floats(0.5, 1.5), st.floats(-32, 32))
def test_brightness_and_contrast_by_formula(gain: float, shift: float) -> None:
    values = np.arange(256, dtype=np.uint8)
    image = np.stack([values, values[::-1], values // 2], axis=1)[None]
    brighter = np.minimum(np.maximum(image + shift, 0.0), 255.0)
    expected = np.minimum(brighter * gain, 255.0)
    assert np.abs(_scale_and_shift(image, gain, shift) - expected).max() <= 0.5 + 1e-6


@given(st.floats(0.5, 1.5), st.floats(-18, 18), SEEDS)
def test_saturation_and_hue_by_formula(saturation: float, rotation: float, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    adjusted = _adjust_colors(image, saturation, rotation)
    for pixel, actual in zip(image.reshape(-1, 3), adjusted.reshape(-1, 3), strict=True):
        blue, green, red = (value / 255 for value in pixel.tolist())
        hue, chroma, value = colorsys.rgb_to_hsv(red, green, blue)
        rgb = colorsys.hsv_to_rgb((hue + rotation / 360) % 1, min(1.0, chroma * saturation), value)
        # OpenCV stores the hue in steps of two degrees, 1/30 of the distance between two colors.
        assert np.abs(actual - np.array(rgb[::-1]) * 255).max() <= 255 / 30 + 3


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("resize", ["warp", "letterbox"])
@pytest.mark.parametrize("size", [(64, 48), (37, 91), (200, 150), (96, 80)])
def test_resized_samples_equal_preprocess(
    channels: Literal["RGB", "BGR"], resize: Literal["warp", "letterbox"], size: tuple[int, int]
) -> None:
    spec = InputSpec(
        96, 80, channels, (123.7, 116.3, 103.5), (1 / 58.4, 1 / 57.1, 1 / 57.4), resize, 114
    )
    image = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    result = resize_sample(sample_of(image, []), spec)
    tensor = normalize(torch.from_numpy(result.image)[None], spec)[0]
    assert np.array_equal(tensor.numpy(), preprocess(image, spec))


def test_a_recipe_sets_every_field() -> None:
    augment = build_augmentation(WARP, {"overlaps": ["whole", 0.5], "hue": 10, "flip": 0.0})
    assert augment.overlaps == ("whole", 0.5)
    assert (augment.hue, augment.flip, augment.zoom_out) == (10, 0.0, 0.5)
    values = {item.name: getattr(augment, item.name) for item in fields(AugmentationConfig)}
    assert build_augmentation(WARP, values) == augment
    with pytest.raises(UsageError, match="'augment' has no entry 'zoom'; it has photometric"):
        build_augmentation(WARP, {"zoom": 1})


INVALID = {
    "flip": (1.5, "yes", True, False, -0.1, None, [0.5]),
    "zoom_limit": (0.5, float("nan")),
    "crop_scale": (0.0, 1.5),
    "crop_ratio": (0.9,),
    "hue": (-3,),
    "contrast": (0.5, [0.5], [1.5, 0.5], [-1, 1], ["a", "b"]),
    "overlaps": ([], 0.5, ["half"], [1.5], ["whole", -0.1], "whole"),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in INVALID.items() for value in values]
)
def test_invalid_values(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"'augment\.{key}' must be .*, not "):
        build_augmentation(WARP, {key: value})
