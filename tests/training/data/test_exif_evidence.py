"""Whether boxes of rotated photos refer to the photo as stored or as displayed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from realtime_ssd_training.data import Dataset, open_dataset

from tests.training.data.builders import problem_texts, write_text

WIDTH, HEIGHT = 200, 150
RED = (20, 30, 90, 100)


def write_photo(path: Path, orientation: int, size: tuple[int, int], *, displayed: bool) -> None:
    """Write a photo with a red square at `RED` as displayed, or as stored."""
    canvas = np.full((size[1], size[0], 3), 200, np.uint8)
    canvas[RED[1] : RED[3], RED[0] : RED[2]] = (255, 0, 0)
    image = Image.fromarray(canvas)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if displayed:  # store what EXIF rotates back to the canvas
        inverse = {6: 8, 8: 6}.get(orientation, orientation)
        tagged = image.copy()
        tagged.getexif()[0x0112] = inverse
        image = ImageOps.exif_transpose(tagged)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif, quality=95)


def write_xml(folder: Path, name: str, size: tuple[int, int]) -> None:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), (21, 31, 90, 100), strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    text = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    text += f"<object><name>red</name><bndbox>{box}</bndbox></object>"
    write_text(folder / "Annotations" / f"{name}.xml", f"<annotation>{text}</annotation>")


def red_inside(data: Dataset) -> list[float]:
    """Return the share of red pixels in the box of every image."""
    shares = []
    for sample in data:
        x1, y1, x2, y2 = sample.boxes[0].round().astype(int)
        blue, _, red = cv2.split(sample.image[y1:y2, x1:x2])
        shares.append(float(((red > 150) & (blue < 100)).mean()))
    return shares


@pytest.mark.parametrize("displayed", [True, False])
def test_boxes_without_evidence_follow_those_with_evidence(tmp_path: Path, displayed: bool) -> None:
    square = (HEIGHT, HEIGHT)
    photos = {2: (WIDTH, HEIGHT), 3: (WIDTH, HEIGHT), 4: (WIDTH, HEIGHT), 5: square, 6: square}
    for orientation, size in photos.items():
        name = f"unclear{orientation}"
        write_photo(tmp_path / "JPEGImages" / f"{name}.jpg", orientation, size, displayed=displayed)
        write_xml(tmp_path, name, size)
    for orientation in (1, 6, 8):
        name = f"clear{orientation}"
        path = tmp_path / "JPEGImages" / f"{name}.jpg"
        write_photo(path, orientation, (WIDTH, HEIGHT), displayed=displayed)
        write_xml(tmp_path, name, (WIDTH, HEIGHT))
    data = open_dataset(f"voc:{tmp_path}")
    assert min(red_inside(data)) > 0.95
    way = "rotated by EXIF" if displayed else "stored"
    assert problem_texts(data) == [
        "unclear2.jpg: 5 images have an EXIF rotation; their boxes were taken to refer to the "
        f"images as {way}, as in 2 of 2 images that show it"
    ]


def test_without_any_evidence_photos_are_rotated(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg", 3, (WIDTH, HEIGHT), displayed=True)
    write_text(tmp_path / "boxes.csv", "a.jpg,20,30,90,100,red\n")
    data = open_dataset(f"csv:{tmp_path / 'boxes.csv'}")
    assert min(red_inside(data)) > 0.95
    assert problem_texts(data)[0].endswith("images as rotated by EXIF, since nothing shows it")


@pytest.mark.parametrize("displayed", [True, False])
def test_boxes_that_fit_only_one_orientation_are_evidence(tmp_path: Path, displayed: bool) -> None:
    write_photo(tmp_path / "a.jpg", 6, (WIDTH, HEIGHT), displayed=displayed)
    write_text(tmp_path / "boxes.csv", "a.jpg,20,30,90,100,red\na.jpg,150,20,200,30,other\n")
    data = open_dataset(f"csv:{tmp_path / 'boxes.csv'}")
    assert min(red_inside(data)) > 0.95
    assert not data.problems


def test_ordinary_photos_are_not_reported(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg", 1, (WIDTH, HEIGHT), displayed=True)
    write_photo(tmp_path / "b.jpg", 3, (WIDTH, HEIGHT), displayed=True)
    write_text(tmp_path / "boxes.csv", "a.jpg,20,30,90,100,red\nb.jpg,,,,,\n")
    assert not open_dataset(f"csv:{tmp_path / 'boxes.csv'}").problems
