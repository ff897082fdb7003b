"""Augmentation: boxes against painted pixels, crops against their rule, colours by formula."""

from __future__ import annotations

import colorsys
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from realtime_ssd_training.data.augment import (
    SSDAugmentation,
    Window,
    _colours,
    _linear,
    _mirror,
    fit,
)
from realtime_ssd_training.data.joined import build_augmentation
from realtime_ssd_training.data.sample import Sample
from realtime_ssd_training.engine.loader import normalise

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
    """Give an image with boxes whose flags follow from their labels 1, 2, 3 and so on."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.arange(1, len(array) + 1)
    nothing = np.zeros(len(array), np.bool_)
    return Sample(image, array, labels, labels % 2 == 0, nothing if crowd is None else crowd, "x")


@st.composite
def painted(draw: st.DrawFn) -> Sample:
    """Three rectangles, each painted in a colour channel of its own, which may overlap."""
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


def region(image: NDArray[np.uint8], channel: int) -> NDArray[np.int64]:
    """Find x1, y1, x2, y2 of what is bright in a channel."""
    rows, columns = np.nonzero(image[:, :, channel] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@settings(max_examples=300)
@given(painted(), SPECS, SEEDS)
def test_boxes_lie_on_the_painted_pixels(sample: Sample, spec: InputSpec, seed: int) -> None:
    augment = SSDAugmentation(spec, photometric=0.0)
    seen = augment(sample, np.random.default_rng(seed))
    assert seen.image.shape == (spec.height, spec.width, 3)
    for box, label in zip(seen.boxes, seen.labels, strict=True):
        assert np.abs(box - region(seen.image, int(label) - 1)).max() <= 1.0


@given(painted(), SPECS)
def test_boxes_lie_on_the_painted_pixels_without_augmentation(
    sample: Sample, spec: InputSpec
) -> None:
    seen = fit(sample, spec)
    assert seen.labels.tolist() == [1, 2, 3]
    for channel, box in enumerate(seen.boxes):
        assert np.abs(box - region(seen.image, channel)).max() <= 0.5


@given(painted(), SPECS, SEEDS)
def test_all_views_share_what_must_hold(sample: Sample, spec: InputSpec, seed: int) -> None:
    crowd = np.array([False, seed % 2 == 0, seed % 3 == 0])
    sample = replace(sample, crowd=crowd)
    before = sample.image.copy(), sample.boxes.copy()
    seen = SSDAugmentation(spec)(sample, np.random.default_rng(seed))
    again = SSDAugmentation(spec)(sample, np.random.default_rng(seed))
    for one, other in ((seen.image, again.image), (seen.boxes, again.boxes)):
        assert np.array_equal(one, other)
    assert np.array_equal(sample.image, before[0])
    assert np.array_equal(sample.boxes, before[1])
    assert (seen.boxes >= 0).all()
    assert (seen.boxes <= np.array([spec.width, spec.height] * 2)).all()
    assert (seen.boxes[:, 2:] > seen.boxes[:, :2]).all()
    assert seen.boxes.dtype == np.float32
    assert seen.image.dtype == np.uint8
    assert all(first < second for first, second in pairwise(seen.labels))
    assert seen.difficult.tolist() == [label % 2 == 0 for label in seen.labels]
    assert seen.crowd.tolist() == [bool(crowd[label - 1]) for label in seen.labels]
    assert seen.name == "x"
    # The crop never loses all objects that count.
    assert crowd.all() or not seen.crowd.all()


@given(painted())
def test_mirrored_twice_is_the_same(sample: Sample) -> None:
    once = _mirror(sample)
    assert np.array_equal(once.image, sample.image[:, ::-1])
    for channel, box in enumerate(once.boxes):
        assert np.array_equal(box, region(once.image, channel))
    twice = _mirror(once)
    assert np.array_equal(twice.image, sample.image)
    assert np.array_equal(twice.boxes, sample.boxes)


@given(painted(), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans(), SEEDS)
def test_a_crop_keeps_its_promise(sample: Sample, least: float, zoomed: bool, seed: int) -> None:
    height, width = sample.image.shape[:2]
    window = Window(-10, -5, width + 30, height + 40) if zoomed else Window(0, 0, width, height)
    augment = SSDAugmentation(WARP, overlaps=(least,))
    part = augment._crop(window, sample, np.random.default_rng(seed))
    assume(part != window)
    assert window.x <= part.x <= part.x + part.width <= window.x + window.width
    assert window.y <= part.y <= part.y + part.height <= window.y + window.height
    assert part.width >= 0.3 * window.width - 1
    assert part.height >= 0.3 * window.height - 1
    assert 0.5 <= part.width / part.height <= 2.0
    box = np.array([part.x, part.y, part.x + part.width, part.y + part.height], np.float64)
    centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    inside = ((centres >= box[:2]) & (centres < box[2:])).all(axis=1)
    overlap = iou(box[None], sample.boxes.astype(np.float64))[0]
    assert (inside & (overlap >= least)).any()


def test_most_crops_succeed() -> None:
    sample = sample_of(np.zeros((150, 200, 3), np.uint8), [(20, 30, 150, 120)])
    whole = Window(0, 0, 200, 150)
    for least, share in ((0.0, 1.0), (0.3, 0.99), (0.7, 0.7)):
        augment = SSDAugmentation(WARP, overlaps=(least,))
        parts = [augment._crop(whole, sample, np.random.default_rng(k)) for k in range(200)]
        assert np.mean([part != whole for part in parts]) >= share
    augment = SSDAugmentation(WARP, overlaps=(None,))
    assert all(augment._crop(whole, sample, np.random.default_rng(k)) == whole for k in range(20))


def test_nothing_is_cropped_without_objects() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    augment = SSDAugmentation(WARP, photometric=0.0, zoom_out=0.0, flip=0.0, overlaps=(0.5,))
    crowd = sample_of(image, [(5, 5, 20, 20)], np.array([True]))
    for sample in (sample_of(image, []), crowd):
        seen = augment(sample, np.random.default_rng(1))
        assert np.array_equal(seen.image, fit(sample, WARP).image)
        assert len(seen.boxes) == len(sample.boxes)


def test_a_crowd_stays_where_any_of_it_is_seen() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    sample = sample_of(image, [(5, 5, 45, 95), (0, 0, 200, 100)], np.array([False, True]))
    augment = SSDAugmentation(WARP, zoom_out=0.0, flip=0.0, overlaps=(0.5,))
    windows = []
    for seed in range(20):
        seen = augment(sample, np.random.default_rng(seed))
        assert seen.labels.tolist() == [1, 2]
        assert seen.boxes[1].tolist() == [0, 0, 96, 80]
        windows.append(augment._crop(Window(0, 0, 200, 100), sample, np.random.default_rng(seed)))
    assert any(window.x + window.width < 100 for window in windows)  # without the crowd's centre


@given(SEEDS)
def test_zoom_out_puts_the_image_on_a_ground_of_the_mean(seed: int) -> None:
    spec = replace(WARP, channels="RGB", mean=(120.6, 117.2, 104.0))
    image = np.full((50, 70, 3), 255, np.uint8)
    augment = SSDAugmentation(spec, zoom_out=1.0, overlaps=(None,), photometric=0.0, flip=0.0)
    window = augment._zoom(Window(0, 0, 70, 50), np.random.default_rng(seed))
    assert window.x <= 0 <= 70 <= window.x + window.width
    assert window.y <= 0 <= 50 <= window.y + window.height
    assert 1.0 <= window.width / 70 <= 4.01
    assert window.width / 70 == pytest.approx(window.height / 50, abs=0.02)
    seen = augment(sample_of(image, [(0, 0, 70, 50)]), np.random.default_rng(seed))
    x1, y1, x2, y2 = (round(float(side)) for side in seen.boxes[0])
    ground = np.ones(seen.image.shape[:2], np.bool_)
    ground[y1:y2, x1:x2] = False
    assert (seen.image[y1:y2, x1:x2] == 255).all()
    assert (seen.image[ground] == (104, 117, 121)).all()


def test_zoom_out_flip_and_colours_come_as_often_as_asked_for() -> None:
    left = np.zeros((40, 60, 3), np.uint8)
    left[:, :30] = 200
    sample = sample_of(left, [(0, 0, 30, 40)])
    plain = {"photometric": 0.0, "zoom_out": 0.0, "flip": 0.0, "overlaps": [None]}
    for change, share in (({"flip": 0.3}, 0.3), ({"zoom_out": 0.7}, 0.7), ({"flip": 1.0}, 1.0)):
        augment = build_augmentation(WARP, {**plain, **change})
        still = fit(sample, WARP)
        moved = [
            not np.array_equal(augment(sample, np.random.default_rng(k)).image, still.image)
            for k in range(300)
        ]
        assert np.mean(moved) == pytest.approx(share, abs=0.07)


@given(SEEDS)
def test_colours_move_no_box_and_stay_bytes(seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    sample = sample_of(image, [(3, 4, 20, 30)])
    quiet = SSDAugmentation(WARP, photometric=0.0, zoom_out=0.0, flip=0.0, overlaps=(None,))
    loud = replace(quiet, photometric=1.0)
    seen = loud(sample, np.random.default_rng(seed))
    assert seen.image.dtype == np.uint8
    assert np.array_equal(seen.boxes, quiet(sample, np.random.default_rng(seed)).boxes)


def test_brightness_reaches_its_limits_and_no_further() -> None:
    grey = sample_of(np.full((20, 20, 3), 128, np.uint8), [(1, 1, 9, 9)])
    augment = SSDAugmentation(
        WARP, 1.0, 32.0, (1.0, 1.0), (1.0, 1.0), 0.0, zoom_out=0.0, overlaps=(None,)
    )
    values = []
    for seed in range(300):
        image = augment(grey, np.random.default_rng(seed)).image
        assert image.min() == image.max()
        values.append(int(image[0, 0, 0]) - 128)
    assert -32 <= min(values) < -28
    assert 28 < max(values) <= 32


def test_contrast_is_a_factor_and_saturation_leaves_grey_alone() -> None:
    grey = sample_of(np.full((20, 20, 3), 100, np.uint8), [(1, 1, 9, 9)])
    augment = SSDAugmentation(
        WARP, 1.0, 0.0, (0.5, 1.5), (0.5, 1.5), 18.0, zoom_out=0.0, overlaps=(None,)
    )
    values = []
    for seed in range(300):
        image = augment(grey, np.random.default_rng(seed)).image
        assert image.min() == image.max()
        values.append(int(image[0, 0, 0]))
    assert 50 <= min(values) < 55
    assert 145 < max(values) <= 150


@given(st.floats(0.5, 1.5), st.floats(-32, 32))
def test_brightness_and_contrast_by_formula(gain: float, shift: float) -> None:
    values = np.arange(256, dtype=np.uint8)
    image = np.stack([values, values[::-1], values // 2], axis=1)[None]
    brighter = np.minimum(np.maximum(image + shift, 0.0), 255.0)
    wanted = np.minimum(brighter * gain, 255.0)
    assert np.abs(_linear(image, gain, shift) - wanted).max() <= 0.5 + 1e-6


@given(st.floats(0.5, 1.5), st.floats(-18, 18), SEEDS)
def test_saturation_and_hue_by_formula(saturation: float, turn: float, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    found = _colours(image, saturation, turn)
    for pixel, changed in zip(image.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        blue, green, red = (value / 255 for value in pixel.tolist())
        hue, colour, value = colorsys.rgb_to_hsv(red, green, blue)
        rgb = colorsys.hsv_to_rgb((hue + turn / 360) % 1, min(1.0, colour * saturation), value)
        # OpenCV's bytes hold the hue in steps of two degrees, 1/30 of the way between two colours.
        assert np.abs(changed - np.array(rgb[::-1]) * 255).max() <= 255 / 30 + 3


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("resize", ["warp", "letterbox"])
@pytest.mark.parametrize("size", [(64, 48), (37, 91), (200, 150), (96, 80)])
def test_fit_is_what_the_program_does(channels: str, resize: str, size: tuple[int, int]) -> None:
    spec = InputSpec(
        96, 80, channels, (123.7, 116.3, 103.5), (1 / 58.4, 1 / 57.1, 1 / 57.4), resize, 114
    )  # type: ignore[arg-type]
    image = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    seen = fit(sample_of(image, []), spec)
    tensor = normalise(torch.from_numpy(seen.image)[None], spec)[0]
    assert np.array_equal(tensor.numpy(), preprocess(image, spec))


def test_entries_of_a_recipe() -> None:
    augment = build_augmentation(WARP, {"overlaps": ["whole", 0.5], "hue": 10, "flip": 0.0})
    assert augment.overlaps == (None, 0.5)
    assert (augment.hue, augment.flip, augment.zoom_out) == (10, 0.0, 0.5)
    same = {item.name: getattr(augment, item.name) for item in fields(augment)[1:]}
    assert build_augmentation(WARP, same) == augment  # every field can be given
    with pytest.raises(UsageError, match="'augment' has no entry 'zoom'; it has photometric"):
        build_augmentation(WARP, {"zoom": 1})


BAD = {
    "flip": (1.5, "yes", True, False, -0.1, None, [0.5]),
    "zoom_limit": (0.5, float("nan")),
    "crop_scale": (0.0, 1.5),
    "crop_ratio": (0.9,),
    "hue": (-3,),
    "contrast": (0.5, [0.5], [1.5, 0.5], [-1, 1], ["a", "b"]),
    "overlaps": ([], 0.5, ["half"], [1.5], ["whole", -0.1], "whole"),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, one) for key, all_ in BAD.items() for one in all_]
)
def test_values_that_do_not_fit(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"'augment: {key}' is .*; it must be"):
        build_augmentation(WARP, {key: value})
