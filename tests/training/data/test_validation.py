"""Validation of boxes and images: what is clipped, skipped, converted or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from realtime_ssd_training.data import Problem, open_dataset, summarize
from realtime_ssd_training.data.classes import ClassSelection
from realtime_ssd_training.data.file_dataset import build_file_dataset
from realtime_ssd_training.data.images import read_header, read_image
from realtime_ssd_training.data.raw_dataset import RawImage, RawObject

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from tests.training.data.builders import (
    labeled_boxes,
    problem_texts,
    voc_object,
    write_coco,
    write_image,
    write_voc,
)

EMPTY = "1 empty or inverted boxes were skipped"
CLIPPED = "1 boxes that exceed the image were clipped"

BOXES = {
    "inside": ([4, 6, 16, 18], [4, 6, 20, 24], None),
    "whole image": ([0, 0, 40, 30], [0, 0, 40, 30], None),
    "outside by rounding": ([-0.4, 0, 40.8, 30.3], [0, 0, 40, 30], None),
    "partly outside": ([-5, 6, 16, 18], [0, 6, 11, 24], CLIPPED),
    "larger than the image": ([-5, -6, 160, 180], [0, 0, 40, 30], CLIPPED),
    "empty": ([4, 6, 0, 18], None, EMPTY),
    "negative": ([4, 6, -3, 18], None, EMPTY),
    "too thin for float32": ([20.0, 6, 1e-9, 18], None, EMPTY),
    "right of the image": ([40, 6, 5, 5], None, "1 boxes outside the image were skipped"),
    "above the image": ([4, -9, 5, 5], None, "1 boxes outside the image were skipped"),
    "not a number": (
        [4, float("nan"), 5, 5],
        None,
        "1 boxes with values that are not finite were skipped",
    ),
    "infinite": (
        [4, 6, float("inf"), 5],
        None,
        "1 boxes with values that are not finite were skipped",
    ),
}


@pytest.mark.parametrize("case", BOXES)
def test_boxes_are_clipped_or_skipped(tmp_path: Path, case: str) -> None:
    bbox, kept, problem = BOXES[case]
    good = {"category_id": 7, "bbox": [1, 2, 3, 4], "area": 5}
    bad = {"category_id": 3, "bbox": bbox, "iscrowd": 1, "area": 6}
    data = open_dataset(write_coco(tmp_path, [bad, good]))
    assert labeled_boxes(data) == [*([("cat", kept)] if kept else []), ("dog", [1, 2, 4, 6])]
    assert problem_texts(data) == ([f"a.png: {problem}"] if problem else [])
    truth = data.annotation(0)
    assert truth.crowd.tolist() == [*([True] if kept else []), False]
    assert truth.areas.tolist() == [*([6] if kept else []), 5]


def test_defects_are_counted_per_image(tmp_path: Path) -> None:
    boxes = [[0, 0, 0, 0], [90, 90, 5, 5], [1, 1, 0, 5], [35, 1, 9, 9], [36, 1, 9, 9]]
    data = open_dataset(write_coco(tmp_path, [{"category_id": 3, "bbox": box} for box in boxes]))
    assert problem_texts(data) == [
        "a.png: 2 empty or inverted boxes were skipped",
        "a.png: 1 boxes outside the image were skipped",
        "a.png: 2 boxes that exceed the image were clipped",
    ]


SIDE = st.one_of(
    st.floats(-60, 90, width=32), st.integers(-5, 50), st.sampled_from([np.nan, np.inf, -np.inf])
)


@given(boxes=st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=12))
def test_kept_boxes_have_an_area_inside_the_image(
    boxes: list[tuple[float, float, float, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_image(tmp_path_factory.getbasetemp() / "noise.png")
    raw = RawImage(path, "noise", [RawObject("cat", box) for box in boxes])
    data = build_file_dataset("test", [raw], ClassSelection().map_classes(["cat"]))
    kept = data.annotation(0).boxes
    assert np.isfinite(kept).all()
    assert (kept[:, 2:] > kept[:, :2]).all()
    assert (kept >= 0).all()
    assert (kept <= (40, 30, 40, 30)).all()
    skipped = sum(int(item.text.split()[0]) for item in data.problems if "skipped" in item.text)
    assert len(kept) + skipped == len(boxes)


def test_every_unknown_class_is_reported_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        objects = [voc_object(kind, (1, 1, 9, 9)) for kind in ("cat", "cow", "cow", "hen")]
        write_voc(tmp_path, name, "".join(objects))
    data = open_dataset(f"voc:{tmp_path}", labels=("background", "dog", "cat"))
    assert labeled_boxes(data) == labeled_boxes(data, 1) == [("cat", [0, 0, 9, 9])]
    assert problem_texts(data) == [
        "a.png: class 'cow' is not among the labels; 4 boxes in 2 files were skipped",
        "a.png: class 'hen' is not among the labels; 2 boxes in 2 files were skipped",
    ]


def truncate(path: Path, fraction: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.5, 0.95])
def test_truncated_images_are_reported_and_skipped(
    tmp_path: Path, suffix: str, fraction: float
) -> None:
    good, bad = write_image(tmp_path / "a.png"), write_image(tmp_path / f"b.{suffix}", 200, 150)
    truncate(bad, fraction)
    box = RawObject("cat", (1, 1, 9, 9))
    raws = [RawImage(bad, "bad", [box]), RawImage(good, "good", [box])]
    data = build_file_dataset("test", raws, ClassSelection().map_classes(["cat"]))
    assert [data.annotation(k).name for k in range(len(data))] == ["good"]
    assert [item.file for item in data.problems] == [str(bad)]
    assert data.problems[0].text.endswith("; it was skipped")
    if fraction == 0:
        assert data.problems[0].text == "the file is empty; it was skipped"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_data_after_the_end_of_an_image_is_ignored(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a.{suffix}")
    before = read_image(path)
    path.write_bytes(path.read_bytes() + bytes(9000))
    assert read_header(path).stored == (40, 30)
    assert np.array_equal(read_image(path), before)


def test_a_text_file_with_the_suffix_of_an_image_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("nothing to see")
    with pytest.raises(ValueError, match="the file is not a readable image"):
        read_header(path)


def test_without_a_usable_image_the_error_has_the_first_problem(tmp_path: Path) -> None:
    name = write_coco(tmp_path, [])
    truncate(tmp_path / "images" / "a.png", 0.5)
    with pytest.raises(UsageError, match=r"has no usable image; the first problem: .*a\.png"):
        open_dataset(name)


def test_an_image_that_is_changed_or_deleted_after_opening(tmp_path: Path) -> None:
    data = open_dataset(write_coco(tmp_path, [{"category_id": 7, "bbox": [1, 2, 3, 4]}]))
    path = tmp_path / "images" / "a.png"
    write_image(path, 80, 60)
    with pytest.raises(RealtimeSSDError, match=r"a\.png' is 80x60 pixels but was 40x30 when"):
        data[0]
    path.write_bytes(b"")
    with pytest.raises(RealtimeSSDError, match=r"a\.png' cannot be decoded; replace or remove"):
        data[0]
    path.unlink()
    with pytest.raises(RealtimeSSDError, match=r"a\.png' cannot be read \(No such file"):
        data[0]


def smooth_image(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


MODES = [
    ("L", "png"),
    ("L", "jpg"),
    ("LA", "png"),
    ("RGBA", "png"),
    ("RGBA", "webp"),
    ("P", "png"),
    ("1", "png"),
    ("CMYK", "jpg"),
    ("CMYK", "tiff"),
    ("YCbCr", "jpg"),
]


@pytest.mark.parametrize(("mode", "suffix"), MODES)
def test_all_color_modes_become_bgr(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    smooth_image(60, 40).convert(mode).save(path, **options)
    image = read_image(path)
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    with Image.open(path) as opened:
        plain = opened.convert("RGBA" if mode in ("RGBA", "LA", "P") else "RGB")
        expected = np.asarray(plain)[:, :, 2::-1].astype(int)
    assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_images_become_8_bit(tmp_path: Path, suffix: str, channels: int) -> None:
    values = np.random.default_rng(2).integers(0, 65536, (40, 60, channels), np.uint16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), values)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    assert np.abs(image - values / 256).max() < 2


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_applies_to_image_and_size(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    stored = smooth_image(60, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    by_suffix: dict[str, dict[str, Any]] = {"jpg": {"quality": 95}, "webp": {"lossless": True}}
    path = tmp_path / f"a.{suffix}"
    stored.save(path, exif=exif, **by_suffix.get(suffix, {}))
    header, image = read_header(path), read_image(path)
    assert image.shape[1::-1] == header.displayed == ((40, 60) if orientation > 4 else (60, 40))
    assert (
        np.abs(image - _apply_orientation(np.asarray(stored)[:, :, ::-1], orientation)).mean() < 3
    )
    if suffix != "tiff":  # its decoders always apply the orientation
        plain = read_image(path, apply_exif=False)
        assert plain.shape[1::-1] == header.stored == (60, 40)
        assert np.abs(plain - np.asarray(stored)[:, :, ::-1].astype(int)).mean() < 3


def _apply_orientation(image: NDArray[np.uint8], orientation: int) -> NDArray[np.int64]:
    """Apply the EXIF definition of the sides of row 0 and column 0 of the stored image."""
    if orientation > 4:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image.astype(int)


@pytest.mark.parametrize(("size", "shape"), [((60, 40), (40, 60, 3)), ((40, 60), (60, 40, 3))])
def test_the_annotated_size_determines_whether_boxes_are_rotated(
    tmp_path: Path, size: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth_image(60, 40).save(tmp_path / "a.png", exif=exif)
    raw = RawImage(tmp_path / "a.png", "a", [RawObject("cat", (1, 2, 39, 38))], size)
    data = build_file_dataset("test", [raw], ClassSelection().map_classes(["cat"]))
    assert data[0].image.shape == shape
    assert (data.annotation(0).width, data.annotation(0).height) == size
    assert not data.problems


def test_the_summary_is_limited() -> None:
    problems = [Problem(f"{k}.jpg", "it was skipped") for k in range(7)]
    assert summarize(problems, limit=2).splitlines() == [
        "0.jpg: it was skipped",
        "1.jpg: it was skipped",
        "... and 5 more",
    ]
    assert summarize([]) == ""
