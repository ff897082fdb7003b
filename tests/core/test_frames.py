"""Frames: read-only images, converted immediately or by the first reader."""

from __future__ import annotations

import copy
import pickle
import threading
import weakref
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import cast

import numpy as np
import pytest

from realtime_ssd.core.frames import Frame, Image, LazyImage, Surface

SURFACE = Surface(64, 36, (1, 2), (64, 64), "bt601", False, owner=None)


def gray() -> Image:
    return np.full((36, 64, 3), 7, np.uint8)


class Conversion:
    """Counts its calls and records their threads; raises the given errors first."""

    def __init__(self, *errors: Exception) -> None:
        self.threads: list[str] = []
        self._errors = list(errors)

    def __call__(self) -> Image:
        self.threads.append(threading.current_thread().name)
        if self._errors:
            raise self._errors.pop(0)
        return gray()


def unread() -> Image:
    raise AssertionError("converted without a reader")


def test_frame_is_read_only_and_knows_size_and_time() -> None:
    frame = Frame(np.zeros((36, 64, 3), np.uint8), 3, "clip", pts=50, time_base=Fraction(1, 25))
    assert (frame.width, frame.height, frame.time) == (64, 36, 2.0)
    assert Frame(gray()).time == 0.0
    assert not frame.discontinuity
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 0
    with pytest.raises(FrozenInstanceError):
        frame.index = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((36, 64), np.uint8),
        np.zeros((36, 64, 4), np.uint8),
        np.zeros((36, 64, 3), np.float32),
    ],
)
def test_image_of_wrong_shape_or_type_is_rejected(image: Image) -> None:
    with pytest.raises(ValueError, match="H × W × 3 uint8"):
        Frame(image)
    with pytest.raises(ValueError, match="H × W × 3 uint8"):
        _ = Frame(LazyImage(lambda: image, 64, 36)).image


def test_lazy_image_must_have_the_announced_size() -> None:
    with pytest.raises(ValueError, match="expected an image of"):
        _ = Frame(LazyImage(gray, 36, 64)).image


@pytest.mark.parametrize("surface", [None, SURFACE])
def test_lazy_image_is_converted_once_by_the_first_reader(surface: Surface | None) -> None:
    convert = Conversion()
    frame = Frame(LazyImage(convert, 64, 36), 5, "clip", 50, Fraction(1, 25), surface=surface)
    assert (frame.width, frame.height, frame.index, frame.time) == (64, 36, 5, 2.0)
    assert frame.captured_at > 0
    assert frame.surface is surface
    assert convert.threads == []
    reader = threading.Thread(target=lambda: frame.image, name="reader")
    reader.start()
    reader.join()
    assert convert.threads == ["reader"]
    assert frame.image is frame.image
    assert convert.threads == ["reader"]
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 0


def test_concurrent_readers_share_one_conversion() -> None:
    waiting = threading.Barrier(4)
    convert = Conversion()
    frame = Frame(LazyImage(convert, 64, 36))
    images = []

    def read() -> None:
        waiting.wait()
        images.append(frame.image)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(convert.threads) == 1
    assert all(image is images[0] for image in images)


def test_replace_shares_the_pixels_without_converting_them() -> None:
    convert = Conversion()
    frame = Frame(LazyImage(convert, 64, 36), 5, "clip", 50, Fraction(1, 25), 3.0, SURFACE)
    other = replace(frame, source="stream 1", surface=None)
    assert convert.threads == []
    assert (other.source, other.surface) == ("stream 1", None)
    assert other.image is frame.image
    assert len(convert.threads) == 1
    for name in ("index", "time", "captured_at", "width", "height", "name", "discontinuity"):
        assert getattr(other, name) == getattr(frame, name)


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda frame: pickle.loads(pickle.dumps(frame)),  # noqa: S301
    ],
)
def test_copy_of_a_lazy_frame_holds_the_pixels(duplicate: Callable[[Frame], Frame]) -> None:
    pixels = LazyImage(gray, 64, 36)
    frame = Frame(pixels, 5, "clip", 50, Fraction(1, 25), 3.0, SURFACE, "a.jpg", True)
    other = duplicate(frame)
    assert isinstance(other.pixels, np.ndarray)
    assert np.array_equal(other.image, frame.image)
    assert not other.image.flags.writeable
    assert other.surface is None
    for name in ("index", "source", "time", "captured_at", "width", "height", "name"):
        assert getattr(other, name) == getattr(frame, name)
    assert other.discontinuity


def test_failed_conversion_is_repeated_by_the_next_reader() -> None:
    frame = Frame(LazyImage(Conversion(OSError("lost")), 64, 36))
    with pytest.raises(OSError, match="lost"):
        _ = frame.image
    assert frame.image.shape == (36, 64, 3)


def test_decoded_frame_is_released_after_the_conversion() -> None:
    convert = Conversion()
    pixels = LazyImage(convert, 64, 36)
    decoded = weakref.ref(convert)
    del convert
    assert cast("Conversion", decoded()) is not None
    pixels.get()
    assert decoded() is None


def test_frame_that_is_never_read_is_never_converted() -> None:
    frame = Frame(LazyImage(unread, 64, 36))
    assert (frame.width, frame.height) == (replace(frame, index=1).width, 36)
