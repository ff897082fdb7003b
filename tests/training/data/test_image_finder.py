"""Images named by annotations of other tools and machines are found, or are ambiguous."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.data.image_finder import ImageFinder, spellings
from realtime_ssd_training.data.images import read_header

from tests.training.data.builders import (
    labeled_boxes,
    problem_texts,
    write_coco,
    write_image,
    write_text,
)

FILES = ("a.png", "night/b.png", "night/city/c.jpg", "café 1.png", "day/x.png", "night/x.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        write_image(tmp_path / name)
    return tmp_path


NAMES = {
    "a.png": "a.png",
    "./a.png": "a.png",
    " 'a.png' ": "a.png",
    "images\\a.png": "a.png",
    "C:\\Users\\me\\data\\a.png": "a.png",
    "..\\..\\media\\upload\\4\\a.png": "a.png",
    "/home/other/set/images/a.png": "a.png",
    "file:///home/other/a.png": "a.png",
    "https://host/files/a.png?token=3": "a.png",
    "s3://bucket/set/a.png": "a.png",
    "/data/local-files/?d=set/a.png": "a.png",
    "/data/local-files/?d=set%5Ca.png": "a.png",
    "b.png": "night/b.png",
    "city/c.jpg": "night/city/c.jpg",
    "night\\city\\c.jpg": "night/city/c.jpg",
    "A.PNG": "a.png",
    "a": "a.png",
    "a.jpg": "a.png",
    "c.jpeg": "night/city/c.jpg",
    "caf%C3%A9%201.png": "café 1.png",
    unicodedata.normalize("NFD", "café 1.png"): "café 1.png",
    "day/x.png": "day/x.png",
    "/other/machine/night/x.png": "night/x.png",
    "D:\\set\\Day\\x.jpg": "day/x.png",
}


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_found(folder: Path, name: str) -> None:
    assert ImageFinder(folder).find(name) == folder / NAMES[name]


@pytest.mark.parametrize("name", ["d.png", "a.txt", "night", "aa", "x\0.png", "a" * 999, ".", ""])
def test_another_image_is_not_taken_for_a_missing_one(folder: Path, name: str) -> None:
    path = ImageFinder(folder).find(name or "?")
    assert not os.path.isfile(path)
    with pytest.raises(ValueError, match=r"."):
        read_header(path)


def test_an_ambiguous_name_is_refused(folder: Path) -> None:
    for name in ("x.png", "dusk/x.png", "x"):
        with pytest.raises(ValueError, match=r"2 images match .*\(day/x\.png, night/x\.png\)"):
            ImageFinder(folder).find(name)
    assert ImageFinder(folder, ["night"]).find("x.png") == folder / "night" / "x.png"
    write_image(folder / "a.jpg")
    assert ImageFinder(folder).find("sub/a.jpg") == folder / "a.jpg"
    with pytest.raises(ValueError, match="2 images match 'a'"):
        ImageFinder(folder).find("a")


def test_folders_of_a_split_are_preferred_by_all_of_its_names(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_image(tmp_path / split / "a.png")
    assert ImageFinder(tmp_path, ["validation"]).find("a.png") == tmp_path / "valid" / "a.png"
    assert ImageFinder(tmp_path, ["train"]).find("a") == tmp_path / "train" / "a.png"


def test_files_that_differ_by_case_are_told_apart(tmp_path: Path) -> None:
    for name in ("one/A.png", "two/a.png"):
        write_image(tmp_path / name)
    assert ImageFinder(tmp_path).find("A.png") == tmp_path / "one" / "A.png"
    assert ImageFinder(tmp_path).find("a.png") == tmp_path / "two" / "a.png"


def test_the_most_reliable_name_is_searched_first(folder: Path) -> None:
    assert ImageFinder(folder).find("missing", "b.png") == folder / "night" / "b.png"
    assert ImageFinder(folder).find("a", "b.png") == folder / "a.png"


def test_another_name_decides_between_ambiguous_ones(folder: Path) -> None:
    write_image(folder / "a.jpg")
    assert ImageFinder(folder).find("a", "C:\\old\\a.jpg") == folder / "a.jpg"
    with pytest.raises(ValueError, match="2 images match 'a'"):
        ImageFinder(folder).find("a", "missing.png")


def test_spellings_are_ordered_from_literal_to_decoded() -> None:
    assert spellings("a%20b.png") == ["a%20b.png", "a b.png"]
    assert spellings("https://h/p/a.png?x=1")[1] == "/p/a.png"


@pytest.mark.parametrize("name", ["images\\a.png", "..\\x\\a.png", "/data/?d=x/a.png", "q/A.PNG"])
def test_coco_uses_the_finder(tmp_path: Path, name: str) -> None:
    images = [{"id": 5, "file_name": name, "width": 40, "height": 30}]
    text = write_coco(tmp_path, [{"category_id": 3, "bbox": [4, 6, 16, 18]}], images=images)
    for spec in (text, f"coco:{tmp_path / 'a.json'}"):
        data = open_dataset(spec)
        assert labeled_boxes(data) == [("cat", [4, 6, 20, 24])]
        assert not data.problems


def test_ambiguous_images_are_reported_by_every_reader(tmp_path: Path) -> None:
    for name in ("day/x.png", "night/x.png", "images/a.png"):
        write_image(tmp_path / name)
    content = {
        "images": [{"id": 1, "file_name": "x.png"}, {"id": 2, "file_name": "a.png"}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{"image_id": 2, "category_id": 3, "bbox": [4, 6, 16, 18]}],
    }
    write_text(tmp_path / "labels.json", json.dumps(content))
    write_text(tmp_path / "boxes.csv", "x.png,1,1,9,9,cat\na.png,4,6,20,24,cat")
    box = "<bndbox><xmin>5</xmin><ymin>7</ymin><xmax>20</xmax><ymax>24</ymax></bndbox>"
    for name in ("a", "x"):
        xml = f"<annotation><object><name>cat</name>{box}</object></annotation>"
        write_text(tmp_path / "Annotations" / f"{name}.xml", xml)
    write_text(tmp_path / "obj.names", "cat")
    write_text(tmp_path / "images" / "a.txt", "0 0.3 0.5 0.4 0.6")
    write_text(tmp_path / "all.txt", "data/x.png\ndata/a.png\n")
    specs = ("coco:{}/labels.json", "csv:{}/boxes.csv", "voc:{}", "yolo:{}:all")
    for spec in specs:
        data = open_dataset(spec.format(tmp_path))
        assert labeled_boxes(data) == [("cat", [4, 6, 20, 24])], spec
        assert len(data.problems) == 1, spec
        assert "(day/x.png, night/x.png); name its folder too" in problem_texts(data)[0], spec
