"""CSV annotations: header names, rows without boxes, and defects."""

from __future__ import annotations

from pathlib import Path

import pytest
from realtime_ssd_training.data import open_dataset

from realtime_ssd.core.errors import UsageError
from tests.training.data.builders import labeled_boxes, problem_texts, write_image, write_text

BOX = [4, 6, 20, 24]  # of an image of 40 x 30 pixels


def write_table(folder: Path, text: str) -> str:
    """Write the images a.png and b.png and a CSV file to the same folder."""
    for name in ("a", "b"):
        write_image(folder / f"{name}.png")
    write_text(folder / "boxes.csv", text)
    return f"csv:{folder / 'boxes.csv'}"


HEADERS = {
    "TensorFlow": "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,30,cat,4,6,20,24",
    "RetinaNet, no header": "a.png,4,6,20,24,cat",
    "RetinaNet, with header": "path,x1,y1,x2,y2,class\na.png,4,6,20,24,cat",
    "any order and case": "Label,YMax,XMax,YMin,XMin,Image\ncat,24,20,6,4,a.png",
    "left and top": "file,left,top,right,bottom,name\na.png,4,6,20,24,cat",
    "width and height": "image_path,x,y,w,h,label\na.png,4,6,16,18,cat",
    "long width": "image,x,y,width,height,category\na.png,4,6,16,18,cat",
    "both widths": "image_id,width,height,bbox_x,bbox_y,bbox_width,bbox_height,label\n"
    "a,40,30,4,6,16,18,cat",
    "Open Images": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n"
    "a,human,cat,1,0.1,0.5,0.2,0.8,0",
    "semicolons": "filename;xmin;ymin;xmax;ymax;class\na.png;4;6;20;24;cat",
    "tabs": "filename\txmin\tymin\txmax\tymax\tclass\na.png\t4\t6\t20\t24\tcat",
    "quotes and spaces": 'filename, xmin, ymin, xmax, ymax, class\n"a.png", 4, 6, 20, 24, cat',
    "more columns": "id,filename,xmin,ymin,xmax,ymax,class,split\n1,a.png,4,6,20,24,cat,train",
    "Windows path": "filename,xmin,ymin,xmax,ymax,class\nC:\\data\\a.png,4,6,20,24,cat",
    "Windows file": "\ufefffilename,xmin,ymin,xmax,ymax,class\r\na.png,4,6,20,24,cat\r\n",
}


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS)
def test_columns_are_recognized(tmp_path: Path, text: str) -> None:
    data = open_dataset(write_table(tmp_path, text))
    assert data.labels == ("background", "cat")
    assert labeled_boxes(data) == [("cat", BOX)]
    assert len(data) == 1
    assert not data.problems


@pytest.mark.parametrize(("side", "end"), [(1, 30), (1.5, 1.5)])
def test_boxes_are_fractions_if_no_value_exceeds_1(tmp_path: Path, side: float, end: float) -> None:
    data = open_dataset(write_table(tmp_path, f"a.png,0,0,0.5,{side},cat\na.png,inf,0,1,1,cat"))
    assert labeled_boxes(data) == [("cat", [0, 0, 20 if side == 1 else 0.5, end])]


def test_images_in_a_separate_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "night" / "a.png")
    write_text(tmp_path / "boxes.csv", "night/a.png,4,6,20,24,cat\n")
    data = open_dataset(f"csv:{tmp_path / 'boxes.csv'}:{tmp_path / 'images'}")
    assert labeled_boxes(data) == [("cat", BOX)]
    assert data.annotation(0).name == "night/a.png"


@pytest.mark.parametrize("row", ["b.png,,,,,", "b.png"])
def test_a_row_without_a_box_is_an_image_without_objects(tmp_path: Path, row: str) -> None:
    data = open_dataset(write_table(tmp_path, f"a.png,4,6,20,24,cat\n{row}\na.png,0,0,9,9,dog\n"))
    assert data.labels == ("background", "cat", "dog")
    assert [len(data.annotation(k).labels) for k in range(len(data))] == [2, 0]


def test_rows_of_an_image_need_not_be_adjacent(tmp_path: Path) -> None:
    text = "a.png,4,6,20,24,cat\nb.png,0,0,9,9,dog\na.png,1,1,5,5,dog\n"
    data = open_dataset(write_table(tmp_path, text))
    assert labeled_boxes(data) == [("cat", BOX), ("dog", [1, 1, 5, 5])]
    assert labeled_boxes(data, 1) == [("dog", [0, 0, 9, 9])]


def test_difficult_and_crowd_flags(tmp_path: Path) -> None:
    text = (
        "filename,xmin,ymin,xmax,ymax,class,difficult,iscrowd\n"
        "a.png,4,6,20,24,cat,1,0\na.png,0,0,9,9,cat,0,true\na.png,1,1,9,9,cat,,\n"
    )
    truth = open_dataset(write_table(tmp_path, text)).annotation(0)
    assert truth.difficult.tolist() == [True, False, False]
    assert truth.crowd.tolist() == [False, True, False]


DEFECTS = {
    "a.png,4,6,20,x,cat": "1 rows without a class or four numbers",
    "a.png,4,6,20,,cat": "1 rows without a class or four numbers",
    "a.png,4,6,20,24,": "1 rows without a class or four numbers",
    ",4,6,20,24,cat": "1 rows without an image",
}


@pytest.mark.parametrize("row", DEFECTS)
def test_invalid_rows_are_reported_and_skipped(tmp_path: Path, row: str) -> None:
    data = open_dataset(write_table(tmp_path, f"a.png,4,6,20,24,cat\n{row}\n"))
    assert labeled_boxes(data) == [("cat", BOX)]
    assert problem_texts(data) == [f"boxes.csv: {DEFECTS[row]}, first in line 2; they were skipped"]


BOX_DEFECTS = {
    "20,6,4,24": "1 empty or inverted boxes were skipped",
    "4,6,4,24": "1 empty or inverted boxes were skipped",
    "nan,6,20,24": "1 boxes with values that are not finite were skipped",
    "50,6,60,24": "1 boxes outside the image were skipped",
}


@pytest.mark.parametrize("row", BOX_DEFECTS)
def test_invalid_boxes_are_reported_and_skipped(tmp_path: Path, row: str) -> None:
    data = open_dataset(write_table(tmp_path, f"a.png,4,6,20,24,cat\na.png,{row},cat\n"))
    assert labeled_boxes(data) == [("cat", BOX)]
    assert problem_texts(data) == [f"a.png: {BOX_DEFECTS[row]}"]


def test_duplicates_and_missing_images_are_reported(tmp_path: Path) -> None:
    row = "a.png,4,6,20,24,cat\n"
    data = open_dataset(write_table(tmp_path, row + "c.png,1,1,5,5,cat\n" + row))
    assert labeled_boxes(data) == [("cat", BOX)]
    assert problem_texts(data) == [
        "a.png: 1 duplicate rows were skipped",
        "c.png: the image file does not exist; it was skipped",
    ]


def test_a_different_image_size_is_reported(tmp_path: Path) -> None:
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    text = f"{head}a.png,80,60,cat,4,6,20,24\nb.png,40,30,cat,4,6,20,24\n"
    data = open_dataset(write_table(tmp_path, text))
    assert labeled_boxes(data) == [("cat", BOX)]
    assert problem_texts(data) == [
        "a.png: the image is 40x30 pixels but annotated as 80x60; it was skipped"
    ]


USAGE = {
    "": "is empty; it needs one row per box",
    "frame,where\n1,2\n": "the header of '.*' is invalid: frame,where; name the columns",
    "a.png,4,6,20,cat\n": "the header of .* is invalid",
    "filename,xmin,ymin,xmax,ymax,class\n": "the dataset has no objects",
}


@pytest.mark.parametrize("text", USAGE)
def test_invalid_headers(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=USAGE[text]):
        open_dataset(write_table(tmp_path, text))


def test_missing_files_and_other_encodings(tmp_path: Path) -> None:
    name = write_table(tmp_path, "a.png,4,6,20,24,cat\n")
    with pytest.raises(UsageError, match=r"the image folder .* does not exist"):
        open_dataset(f"{name}:{tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match="cannot be read"):
        open_dataset(f"csv:{tmp_path / 'nothing.csv'}")
    (tmp_path / "boxes.csv").write_bytes(b"a.png,4,6,20,24,\x81\n")
    with pytest.raises(UsageError, match="is not a UTF-8 CSV file"):
        open_dataset(name)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8", "utf-8-sig", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    name = write_table(tmp_path, "")
    (tmp_path / "boxes.csv").write_bytes("a.png,4,6,20,24,Öl\r\n".encode(encoding))
    data = open_dataset(name)
    assert labeled_boxes(data) == [("Öl", BOX)]
    reported = ["boxes.csv: it is not UTF-8 and was read as Windows-1252"]
    assert problem_texts(data) == (reported if encoding == "cp1252" else [])
