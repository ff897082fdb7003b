"""Frames: read-only pictures, made at once or when they are asked for."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from realtime_ssd.core.frames import Frame, LazyFrame, Surface


def test_a_frame_is_read_only_and_knows_its_time() -> None:
    frame = Frame(np.zeros((36, 64, 3), np.uint8), 3, "clip", pts=50, time_base=Fraction(1, 25))
    assert (frame.width, frame.height, frame.time) == (64, 36, 2.0)
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 0
    with pytest.raises(ValueError, match="H × W × 3 uint8"):
        Frame(np.zeros((36, 64), np.uint8))


@pytest.mark.parametrize(
    "surface", [None, Surface(64, 36, (1, 2), (64, 64), "bt601", False, owner=None)]
)
def test_a_late_picture_is_made_once_and_only_when_asked_for(surface: Surface | None) -> None:
    made = []

    def paint() -> np.ndarray:  # type: ignore[type-arg]
        made.append(threading.get_ident())
        return np.full((36, 64, 3), 7, np.uint8)

    frame = LazyFrame(paint, (64, 36), 5, "clip", 50, Fraction(1, 25), surface=surface)
    assert (frame.width, frame.height, frame.index, frame.time) == (64, 36, 5, 2.0)
    assert frame.captured_at > 0
    assert frame.surface is surface
    assert not made
    threads = [threading.Thread(target=lambda: frame.image) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert frame.image is frame.image
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 0


@pytest.mark.parametrize("late", [False, True])
def test_a_frame_under_another_name_is_the_same(late: bool) -> None:
    image = np.full((36, 64, 3), 7, np.uint8)
    frame = Frame(image, 5, "clip", 50, Fraction(1, 25))
    if late:
        surface = Surface(64, 36, (1, 2), (64, 64), "bt601", False, owner=None)
        frame = LazyFrame(lambda: image, (64, 36), 5, "clip", 50, Fraction(1, 25), 3.0, surface)
    other = frame.renamed("stream 1")
    assert other.source == "stream 1"
    assert other.image is frame.image
    for name in ("index", "time", "captured_at", "surface", "width", "height"):
        assert getattr(other, name) == getattr(frame, name)


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        replace,
        lambda frame: pickle.loads(pickle.dumps(frame)),  # noqa: S301
    ],
)
def test_a_copy_of_a_late_picture_is_a_plain_frame(copied: Callable[[Frame], Frame]) -> None:
    image = np.full((36, 64, 3), 7, np.uint8)
    frame = LazyFrame(lambda: image, (64, 36), 5, "clip", 50, Fraction(1, 25), 3.0)
    other = copied(frame)
    assert type(other) is Frame
    assert not other.image.flags.writeable
    for name in ("index", "source", "time", "captured_at", "surface", "width", "height"):
        assert getattr(other, name) == getattr(frame, name)
    assert replace(frame, index=6, surface=None).index == 6


def test_a_picture_that_could_not_be_made_is_tried_again() -> None:
    answers = iter([OSError("lost"), np.zeros((36, 64, 3), np.uint8)])

    def paint() -> np.ndarray:  # type: ignore[type-arg]
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    frame = LazyFrame(paint, (64, 36), 0, "clip", None, Fraction(1, 25))
    with pytest.raises(OSError, match="lost"):
        _ = frame.image
    assert frame.image.shape == (36, 64, 3)
