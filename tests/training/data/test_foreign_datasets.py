"""Datasets as annotation tools export them, and what users' files look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from PIL import Image
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.data.images import read_header

from realtime_ssd.core.errors import UsageError
from tests.training.data.builders import (
    labeled_boxes,
    problem_texts,
    voc_object,
    write_coco,
    write_image,
    write_text,
    write_voc,
)

BOX = [4, 6, 20, 24]  # of an image of 40 x 30 pixels
ROW = "0 0.3 0.5 0.4 0.6\n"  # the same in YOLO's form
CAT = voc_object("cat", (5, 7, 20, 24))


def write_xml(path: Path, objects: str = CAT, filename: str = "") -> Path:
    """Write a Pascal VOC annotation of an image of 40 x 30 pixels."""
    size = "<size><width>40</width><height>30</height></size>"
    return write_text(
        path, f"<annotation><filename>{filename}</filename>{size}{objects}</annotation>"
    )


def names_of(spec: str) -> list[str]:
    """Return the names of all images of a dataset, checking their only object."""
    data = open_dataset(spec)
    assert [labeled_boxes(data, k) for k in range(len(data))] == [[("cat", BOX)]] * len(data)
    assert not data.problems
    return [data.annotation(k).name for k in range(len(data))]


VOC_LAYOUTS = {
    "labelImg: XML next to images": ("{}.png", "{}.xml", ("a", "b")),
    "Roboflow: a folder per split": ("train/{}.png", "train/{}.xml", ("a", "b")),
    "CVAT: subfolders": ("JPEGImages/{}.png", "Annotations/{}.xml", ("cam1/f", "cam2/f")),
    "VOC without JPEGImages": ("images/{}.png", "Annotations/{}.xml", ("a", "b")),
    "separate folders": ("img/{}.png", "xml/{}.xml", ("a", "b")),
    "names with blanks": ("JPEGImages/{}.png", "Annotations/{}.xml", ("a (1)", "a (2)")),
    "names with points": ("JPEGImages/{}.png", "Annotations/{}.xml", ("a.rf.1", "a.rf.2")),
}


@pytest.mark.parametrize("layout", VOC_LAYOUTS)
def test_voc_layouts(tmp_path: Path, layout: str) -> None:
    image, xml, names = VOC_LAYOUTS[layout]
    for name in names:
        write_image(tmp_path / image.format(name))
        write_xml(tmp_path / xml.format(name), filename="C:\\elsewhere\\old.png")
    assert len(names_of(f"voc:{tmp_path}")) == 2


def test_voc_splits_of_subfolders(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "valid/a"):
        write_image(tmp_path / f"{name}.png", seed=len(name))
        write_xml(tmp_path / f"{name}.xml")
    assert names_of(f"voc:{tmp_path}:train") == ["train/a.png", "train/b.png"]
    for split in ("valid", "val", "validation"):
        assert names_of(f"voc:{tmp_path}:{split}") == ["valid/a.png"]
    assert len(names_of(f"voc:{tmp_path}")) == 3
    with pytest.raises(UsageError, match=r"no split 'night' in .*; choose from train, valid"):
        open_dataset(f"voc:{tmp_path}:night")


LISTS = {
    "paths of CVAT": "cam 1/f 1\ncam 2/f 2\n",
    "with suffixes": "f 1.png\nf 2.xml\n",
    "paths of another machine": "/home/me/JPEGImages/f 1.jpg\nD:\\set\\f 2.png\n",
    "list of a class": "cam 1/f 1  1\ncam 2/f 2 0\ncam 2/f 3 -1\n",
    "list of a class with tabs": "f 1\t1\nf 2\t1\nf 3\t-1\n",
}


@pytest.mark.parametrize("rows", LISTS.values(), ids=LISTS)
def test_rows_of_voc_lists(tmp_path: Path, rows: str) -> None:
    for name in ("cam 1/f 1", "cam 2/f 2", "cam 2/f 3"):
        write_image(tmp_path / "JPEGImages" / f"{name}.png")
        write_xml(tmp_path / "Annotations" / f"{name}.xml")
    write_text(tmp_path / "ImageSets" / "Main" / "default.txt", rows)
    assert names_of(f"voc:{tmp_path}:default") == ["cam 1/f 1.png", "cam 2/f 2.png"]


XML = {
    "blank before the declaration": '\n <?xml version="1.0"?><a>{}</a>',
    "namespace": '<a xmlns="http://x">{}</a>',
    "GB2312": '<?xml version="1.0" encoding="gb2312"?><a>{}</a>',
    "UTF-16": '<?xml version="1.0" encoding="utf-16"?><a>{}</a>',
    "size of no number": "<a><size><width>None</width><height/></size>{}</a>",
    "polygon": "<a>{}<object><name>cat</name><polygon><x1>1</x1></polygon></object></a>",
    "difficult of no number": "<a><object><difficult>Unspecified</difficult></object>{}</a>",
}


@pytest.mark.parametrize("form", XML)
def test_unusual_xml(tmp_path: Path, form: str) -> None:
    write_image(tmp_path / "JPEGImages" / "a.png")
    (tmp_path / "Annotations").mkdir()
    encoding = {"GB2312": "gb2312", "UTF-16": "utf-16"}.get(form, "utf-8")
    text = XML[form].format(voc_object("叶", (5, 7, 20, 24)))
    (tmp_path / "Annotations" / "a.xml").write_bytes(text.encode(encoding))
    data = open_dataset(f"voc:{tmp_path}")
    assert labeled_boxes(data) == [("叶", BOX)]
    skipped = form in ("polygon", "difficult of no number")
    assert len(data.problems) == skipped


def test_decimal_commas_in_xml(tmp_path: Path) -> None:
    text = write_voc(tmp_path, "a", CAT.replace("<xmin>5</", "<xmin>5,5</"))
    assert labeled_boxes(open_dataset(text)) == [("cat", [4.5, 6, 20, 24])]


def write_darknet(folder: Path, lists: dict[str, str]) -> None:
    for name in ("f1", "f2", "f3"):
        write_image(folder / "obj_train_data" / f"{name}.png")
        write_text(folder / "obj_train_data" / f"{name}.txt", ROW)
    write_text(folder / "obj.names", "cat\n")
    for name, rows in lists.items():
        write_text(folder / name, rows)


@pytest.mark.parametrize("prefix", ["data/", "", "build/darknet/x64/data/", "C:\\set\\"])
def test_cvat_yolo_1_1(tmp_path: Path, prefix: str) -> None:
    rows = [f"{prefix}obj_train_data/{name}.png" for name in ("f1", "f2", "f3")]
    lists = {"train.txt": "\n".join(rows[:2]), "Validation.txt": rows[2]}
    data_file = f"classes = 1\ntrain = {prefix}train.txt\nvalid = {prefix}Validation.txt\n"
    lists["obj.data"] = f"{data_file}names = {prefix}obj.names\nbackup = backup/\n"
    write_darknet(tmp_path, lists)
    for spec in (f"yolo:{tmp_path}", f"yolo:{tmp_path / 'obj.data'}"):
        assert names_of(f"{spec}:train") == ["obj_train_data/f1.png", "obj_train_data/f2.png"]
        for split in ("val", "valid"):
            assert names_of(f"{spec}:{split}") == ["obj_train_data/f3.png"]
        assert len(names_of(spec)) == 3
        with pytest.raises(UsageError, match=r"no split 'test' in .*; choose from train, valid"):
            open_dataset(f"{spec}:test")


def test_darknet_files_in_a_folder_of_their_own(tmp_path: Path) -> None:
    write_darknet(tmp_path, {"data/train.txt": "obj_train_data/f1.png\n"})
    text = "train = data/train.txt\nnames = obj.names\n"
    write_text(tmp_path / "cfg" / "obj.data", text)
    assert names_of(f"yolo:{tmp_path / 'cfg' / 'obj.data'}:train") == ["obj_train_data/f1.png"]


def test_a_darknet_file_without_its_class_names(tmp_path: Path) -> None:
    write_darknet(tmp_path, {"obj.data": "train = train.txt\nnames = data/none.names\n"})
    with pytest.raises(UsageError, match=r"class names 'data/none\.names' of .* does not exist"):
        open_dataset(f"yolo:{tmp_path}")


YAMLS = {
    "absolute": "train: /home/other/set/images/train\nval: /home/other/set/images/val\n",
    "Windows": "path: D:\\set\ntrain: D:\\set\\images\\train\nval: images\\val\n",
    "path of another machine": "path: /content/set\ntrain: images/train\nval: images/val\n",
    "lists": "train: /home/other/set/train.txt\nval: ../val.txt\n",
}


@pytest.mark.parametrize("yaml", YAMLS.values(), ids=YAMLS)
def test_data_yaml_of_another_machine(tmp_path: Path, yaml: str) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / f"{split}.png")
        write_text(tmp_path / "labels" / split / f"{split}.txt", ROW)
        rows = f"/home/other/set/images/{split}/{split}.png\n"
        write_text(tmp_path / f"{split}.txt", rows)
    write_text(tmp_path / "data.yaml", f"names: [cat]\n{yaml}")
    for split in ("train", "val"):
        assert names_of(f"yolo:{tmp_path}:{split}") == [f"images/{split}/{split}.png"]


@pytest.mark.parametrize("name", ["Capture décran 1", "a%b", "naïve+1", "100 %"])
def test_percent_encoded_label_files(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "images" / f"{name}.png")
    write_text(tmp_path / "labels" / f"{quote(name)}.txt", ROW)
    write_text(tmp_path / "classes.txt", "cat\n")
    assert names_of(f"yolo:{tmp_path}") == [f"images/{name}.png"]


@pytest.mark.parametrize(
    "row", ["0,0.3,0.5,0.4,0.6", "0 0,3 0,5 0,4 0,6", "0;0,3;0,5;0,4;0,6", "cat 0.3 0.5 0.4 0.6"]
)
def test_other_forms_of_yolo_rows(tmp_path: Path, row: str) -> None:
    write_image(tmp_path / "images" / "a.jpg").rename(tmp_path / "images" / "a.jfif")
    write_text(tmp_path / "labels" / "a.txt", row)
    write_text(tmp_path / "classes.txt", "cat\n")
    assert names_of(f"yolo:{tmp_path}") == ["images/a.jfif"]


def test_numbers_of_classes_go_before_names(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    write_text(tmp_path / "labels" / "a.txt", ROW)
    write_text(tmp_path / "classes.txt", "1\n0\n")
    assert labeled_boxes(open_dataset(f"yolo:{tmp_path}")) == [("1", BOX)]


TABLES = {
    "decimal commas": "filename;xmin;ymin;xmax;ymax;class\na.png;4,0;6;20,0;24;cat",
    "decimal commas, no header": "a.png;4,0;6;20;24,0;cat",
    "decimal commas in quotes": 'filename,xmin,ymin,xmax,ymax,class\na.png,"4,0",6,20,24,cat',
    "URL": "image_url,class,xmin,ymin,xmax,ymax\nhttps://x.y/a.png?alt=1,cat,4,6,20,24",
    "box in brackets": 'image_id,width,height,bbox,label\na,40,30,"[4.0, 6.0, 16.0, 18.0]",cat',
    "Open Images with names": "ImageID,LabelName,XMin,XMax,YMin,YMax,ClassName\n"
    "a,/m/01yrx,0.1,0.5,0.2,0.8,cat",
    "AutoML": "TRAIN,gs://bucket/a.png,cat,0.1,0.2,,,0.5,0.8,,",
    "AutoML with four corners": "UNASSIGNED,gs://b/a.png,cat,0.1,0.2,0.5,0.2,0.5,0.8,0.1,0.8",
    "AutoML, lower case": "validation,gs://b/c/a.png,cat,0.1,0.2,,,0.5,0.8,,",
    "VIA": "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    'region_attributes\na.png,9,"{}",1,0,'
    '"{""name"":""rect"",""x"":4,""y"":6,""width"":16,""height"":18}","{""kind"":""cat""}"',
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables(tmp_path: Path, table: str) -> None:
    write_image(tmp_path / "a.png")
    write_text(tmp_path / "boxes.csv", table)
    assert len(names_of(f"csv:{tmp_path / 'boxes.csv'}")) == 1


@pytest.mark.parametrize("end", ["1.0000001", "1.015625", "1.0140625", "1.2"])
def test_fractions_just_above_1_are_clipped(tmp_path: Path, end: str) -> None:
    write_image(tmp_path / "a.png", 200, 150)
    rows = f"a.png,0.1,0.2,0.45,0.6,cat\na.png,0.5,0.5,{end},0.8,cat\n"
    write_text(tmp_path / "boxes.csv", rows)
    data = open_dataset(f"csv:{tmp_path / 'boxes.csv'}")
    assert labeled_boxes(data) == [("cat", [20, 30, 90, 90]), ("cat", [100, 75, 200, 120])]
    assert len(data.problems) == (float(end) > 1.01)


def test_a_single_box_in_pixels_among_fractions_is_reported(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    rows = "".join(f"a.png,0.{k},0.2,0.5,0.8,cat\n" for k in range(1, 4))
    write_text(tmp_path / "boxes.csv", f"{rows}a.png,4,6,20,24,cat\n")
    data = open_dataset(f"csv:{tmp_path / 'boxes.csv'}")
    assert problem_texts(data) == ["a.png: 1 boxes outside the image were skipped"]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_open_images_as_jetson_inference_downloads_them(tmp_path: Path, split: str) -> None:
    for folder, size in (("train", 40), ("test", 80), ("valid", 40)):
        write_image(tmp_path / folder / "0000.png", size)
    rows = "ImageID,LabelName,XMin,XMax,YMin,YMax,ClassName\n0000,/m/1,0.1,0.5,0.2,0.8,cat\n"
    name = {"train": "train", "valid": "validation"}[split]
    write_text(tmp_path / f"sub-{name}-annotations-bbox.csv", rows)
    data = open_dataset(f"csv:{tmp_path / f'sub-{name}-annotations-bbox.csv'}")
    assert labeled_boxes(data) == [("cat", BOX)]
    assert data[0].image.shape == (30, 40, 3)


def test_sets_of_a_table(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png")
    rows = (
        "TRAIN,gs://x/a.png,cat,0.1,0.2,,,0.5,0.8,,\nVALIDATE,gs://x/b.png,cat,0.1,0.2,,,0.5,0.8,,"
    )
    write_text(tmp_path / "boxes.csv", rows)
    spec = f"csv:{tmp_path / 'boxes.csv'}:{tmp_path}"
    assert names_of(f"{spec}:train") == ["gs://x/a.png"]
    assert names_of(f"{spec}:val") == ["gs://x/b.png"]
    assert len(names_of(spec)) == 2
    with pytest.raises(UsageError, match="no rows of the set 'test'; choose from TRAIN, VALIDATE"):
        open_dataset(f"{spec}:test")


def region(shape: dict[str, Any], attributes: dict[str, Any]) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


RECTANGLE = {"name": "rect", "x": 4, "y": 6, "width": 16, "height": 18}
SHAPES: dict[str, dict[str, Any]] = {
    "rectangle": RECTANGLE,
    "polygon": {"all_points_x": [4, 20, 20, 4], "all_points_y": [6, 6, 24, 24]},
    "ellipse": {"cx": 12, "cy": 15, "rx": 8, "ry": 9},
    "rotated ellipse": {"cx": 12, "cy": 15, "rx": 9, "ry": 8, "theta": 90},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("form", ["project", "annotations", "VIA 1"])
def test_via_json(tmp_path: Path, shape: dict[str, Any], form: str) -> None:
    write_image(tmp_path / "a.png")
    regions = [region(shape, {"class": "cat", "color": "red"})]
    item = {"filename": "a.png", "size": 9, "regions": regions, "file_attributes": {}}
    if form == "VIA 1":
        item["regions"] = {str(k): value for k, value in enumerate(regions)}
    content: dict[str, Any] = {"a.png9": item}
    if form == "project":
        content = {"_via_settings": {}, "_via_img_metadata": content}
    write_text(tmp_path / "via.json", json.dumps(content))
    assert names_of(f"coco:{tmp_path / 'via.json'}") == ["a.png"]


def test_regions_of_via_without_class_or_area(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    point, boxes = {"name": "point", "cx": 1, "cy": 2}, {"cat": True, "dog": False}
    regions = [region(RECTANGLE, {"animal": boxes}), region(point, {"animal": boxes})]
    regions.append(region(RECTANGLE, {"animal": {"cat": True, "dog": True}}))
    item = {"filename": "a.png", "size": 9, "regions": regions}
    path = write_text(tmp_path / "via.json", json.dumps({"a.png9": item}))
    data = open_dataset(f"coco:{path}")
    assert labeled_boxes(data) == [("cat", BOX)]
    assert len(data.problems) == 2
    regions[:] = [region(RECTANGLE, {"animal": "cat", "age": "3"})]
    write_text(path, json.dumps({"a.png9": item}))
    with pytest.raises(UsageError, match="have the attributes animal, age; call the one"):
        open_dataset(f"coco:{path}")


IDS = [("a", "b"), ("2007_000027", "20070000_27"), (5.0, 6.0), ("001", "2"), ("3f2c-1", "3f2c-2")]


@pytest.mark.parametrize("ids", IDS)
def test_ids_of_coco_files(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    write_image(tmp_path / "images" / "b.png")
    spec = write_coco(
        tmp_path,
        [{"image_id": k, "category_id": "3", "bbox": [4, 6, 16, 18]} for k in ids],
        images=[{"id": k, "file_name": f"{n}.png"} for k, n in zip(ids, "ab", strict=True)],
        categories=[{"id": "3", "name": "cat"}],
    )
    assert names_of(spec) == ["a.png", "b.png"]
    # Ids that are no numbers are replaced by the number of the image.
    expected = [5, 6] if ids[0] == 5 else [1, 2]
    assert [open_dataset(spec).image_id(k) for k in (0, 1)] == expected


@pytest.mark.parametrize(
    ("value", "crowd"),
    [
        *((value, False) for value in ("0", 0, None, "", "false", False)),
        *((value, True) for value in ("1", 1, True, 1.0, "true")),
    ],
)
def test_crowd_flags(tmp_path: Path, value: Any, crowd: bool) -> None:
    item = {"category_id": 3, "bbox": [4, 6, 16, 18], "iscrowd": value, "area": ""}
    truth = open_dataset(write_coco(tmp_path, [item])).annotation(0)
    assert truth.crowd.tolist() == [crowd]
    assert truth.areas.tolist() == [16 * 18]


def test_categories_that_are_no_classes(tmp_path: Path) -> None:
    cat = {"category_id": 3, "bbox": [4, 6, 16, 18]}
    roots = ({"name": "animals", "supercategory": "none"}, {"name": "BACKGROUND"})
    for root in roots:
        categories = [{"id": 0, **root}, {"id": 3, "name": "cat", "supercategory": root["name"]}]
        assert names_of(write_coco(tmp_path, [cat], categories=categories)) == ["a.png"]
    used = {"category_id": 0, "bbox": [4, 6, 16, 18]}
    categories = [{"id": 0, **roots[0]}, {"id": 3, "name": "cat", "supercategory": "animals"}]
    data = open_dataset(write_coco(tmp_path, [cat, used], categories=categories))
    assert data.labels == ("background", "animals", "cat")


def test_problems_are_reported_when_nothing_usable_is_left(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    write_text(tmp_path / "boxes.csv", "filename,xmin,ymin,xmax,ymax,class\na.png,4,6,20,x,cat\n")
    with pytest.raises(UsageError, match=r"no objects; .*the first problem: .*1 rows without"):
        open_dataset(f"csv:{tmp_path / 'boxes.csv'}")
    write_xml(tmp_path / "voc" / "Annotations" / "a.xml", "<object/>")
    (tmp_path / "voc" / "Annotations" / "b.xml").write_text("<")
    with pytest.raises(UsageError, match=r"no objects; .*the first of 2 problems: .*without"):
        open_dataset(f"voc:{tmp_path / 'voc'}")
    with pytest.raises(UsageError, match=r"no usable image; the first problem: .*c\.png: the"):
        open_dataset(f"csv:{write_text(tmp_path / 'c.csv', 'c.png,4,6,20,24,cat')}")


def test_images_beyond_the_limit_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # of 600 pixels
    path = write_image(tmp_path / "a.png", 40, 15)
    assert read_header(path).stored == (40, 15)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.slow
def test_an_aerial_photo_of_182_megapixels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((13500, 13500), np.uint8))
    write_text(tmp_path / "boxes.csv", "a.png,4,6,20,24,cat")
    data = open_dataset(f"csv:{tmp_path / 'boxes.csv'}")
    assert not data.problems
    assert data[0].image.shape == (13500, 13500, 3)


def test_an_image_too_large_to_decode_is_reported(tmp_path: Path) -> None:
    header = b"P6 40000 40000 255\n"
    (tmp_path / "a.png").write_bytes(header + bytes(9))
    with pytest.raises(ValueError, match="has 40000x40000 pixels, more than the 1073 million"):
        read_header(tmp_path / "a.png")
