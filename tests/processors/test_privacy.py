from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.processors import Anonymizer
from realtime_ssd.processors.privacy import METHODS
from tests.processors.scenes import HEIGHT, LABELS, WIDTH, result


def noise(seed: int = 0) -> NDArray[np.uint8]:
    """Return an image without structure and without black pixels."""
    return np.random.default_rng(seed).integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_boxes_keep_nothing_recognizable_and_the_rest_is_unchanged(method: str) -> None:
    image = noise()
    before = image.copy()
    frame = result([[40, 20, 90, 70]], image=image)
    after = Anonymizer(method=method, margin=0).process(frame)  # type: ignore[arg-type]
    changed = after.frame.image
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[20:71, 40:91] = True
    assert np.array_equal(changed[~inside], before[~inside])
    # Nothing of the fine structure is left: the noise has a correlation of 1 with itself.
    ours, original = (part[inside].astype(float).ravel() for part in (changed, before))
    assert abs(np.corrcoef(ours, original)[0, 1] if ours.std() else 0) < 0.2
    assert np.array_equal(image, before)  # the captured frame is read-only
    assert not changed.flags.writeable


def test_only_the_named_classes_are_covered() -> None:
    frame = result([[0, 0, 20, 20], [50, 50, 70, 70]], classes=[1, 2], image=noise())
    before = frame.frame.image
    after = Anonymizer(["person"], "fill", margin=0).process(frame).frame.image
    assert np.array_equal(after[:21, :21], before[:21, :21])
    assert not after[50:71, 50:71].any()


def test_the_margin_grows_boxes_within_the_picture() -> None:
    frame = result([[0, 40, 20, 60], [190, 90, 200, 100]], image=noise())
    after = Anonymizer([], "fill", margin=0.5).process(frame).frame.image
    rows, columns = np.nonzero(after[:, :100].max(axis=2) == 0)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 70, 0, 30)
    assert not after[85:, 185:].any()


def test_a_box_is_held_after_its_object_was_missed() -> None:
    anonymizer = Anonymizer(["car"], "fill", hold=3, margin=0)
    anonymizer.process(result([[40, 20, 60, 40]], 0, image=noise()))
    hidden = []
    for number in range(1, 6):
        after = anonymizer.process(result([], number, image=noise(number))).frame.image
        hidden.append(not after[20:40, 40:60].any())
    assert hidden == [True, True, True, False, False]


def test_a_detected_box_replaces_the_held_one() -> None:
    anonymizer = Anonymizer([], "fill", hold=9, margin=0)
    anonymizer.process(result([[40, 20, 60, 40]], 0, image=noise()))
    after = anonymizer.process(result([[45, 20, 65, 40]], 1, image=noise())).frame.image
    assert after[30, 42].any()
    assert not after[30, 62].any()


def test_of_two_objects_side_by_side_the_missed_one_stays_covered() -> None:
    anonymizer = Anonymizer([], "fill", hold=9, margin=0)
    anonymizer.process(result([[40, 20, 60, 60], [52, 20, 72, 60]], 0, image=noise()))
    after = anonymizer.process(result([[40, 20, 60, 60]], 1, image=noise())).frame.image
    assert not after[20:60, 40:72].any()


def test_boxes_of_one_photo_are_not_held_in_the_next() -> None:
    anonymizer = Anonymizer([], "fill", margin=0)
    first = result([[40, 20, 60, 60]], 0, image=noise())
    first.frame = replace(first.frame, name="a.png")
    anonymizer.process(first)
    second = result([], 1, image=noise())
    second.frame = replace(second.frame, name="b.png")
    assert anonymizer.process(second).frame.image.all()


def test_a_second_detector_adds_boxes() -> None:
    def detect(frame: Frame) -> Detections:
        face = np.array([[100, 50, 120, 70]], np.float32)
        return Detections(
            face, np.ones(1, np.float32), np.ones(1, np.int32), ("background", "face")
        )

    frame = result([[0, 0, 20, 20]], classes=[2], image=noise())
    after = Anonymizer(["person"], "fill", margin=0, detect=detect).process(frame).frame.image
    assert not after[:20, :20].any()
    assert not after[50:70, 100:120].any()


def test_detections_and_time_stay() -> None:
    frame = result([[40, 20, 60, 40]], 5, image=noise())
    after = Anonymizer().process(frame)
    assert after.detections is frame.detections
    assert (after.frame.index, after.frame.time) == (5, 0.2)
    assert after.detections.labels == LABELS


def test_boxes_outside_the_picture_are_ignored() -> None:
    frame = result([[300, 300, 320, 320], [-50, -50, -10, -10]], image=noise())
    before = frame.frame.image.copy()
    assert np.array_equal(Anonymizer(margin=0).process(frame).frame.image, before)


def test_wrong_arguments_are_one_sentence() -> None:
    with pytest.raises(UsageError, match="`method` must be blur, pixelate, fill, not 'hide'"):
        Anonymizer(method="hide")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="`blur_margin` must be between 0 and 5, not -1"):
        Anonymizer(margin=-1)
    with pytest.raises(UsageError, match="`blur_hold` must be between 0 and 10000 frames"):
        Anonymizer(hold=-1)
