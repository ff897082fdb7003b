"""COCO and Pascal VOC against independent readers, and a real dataset in four formats."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from realtime_ssd_training.data import Dataset, open_dataset

from realtime_ssd.core.errors import UsageError
from tests.training.data.builders import (
    labeled_boxes,
    problem_texts,
    voc_object,
    write_coco,
    write_text,
    write_voc,
)


@pytest.fixture(scope="module")
def mini(shared_data: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a small COCO dataset and its parsed JSON file."""
    folder = shared_data / "coco_mini"
    return folder, json.loads((folder / "instances.json").read_text())


def by_name(data: Dataset) -> dict[str, list[tuple[str, NDArray[np.float32]]]]:
    """Return the objects of every image by file name, sorted by label and box."""
    objects_of = {}
    for index in range(len(data)):
        truth = data.annotation(index)
        objects = zip(truth.labels.tolist(), truth.boxes, strict=True)
        named = sorted(((data.labels[k], box) for k, box in objects), key=_sort_key)
        objects_of[Path(truth.name).name] = named
    return objects_of


def _sort_key(item: tuple[str, NDArray[np.float32]]) -> tuple[str, list[float]]:
    return item[0], np.round(item[1], 1).tolist()


def assert_same_boxes(first: Dataset, second: Dataset, tolerance: float) -> int:
    """Compare all objects of two datasets and return their number."""
    actual, expected = by_name(first), by_name(second)
    assert list(map(len, actual.values())) == [len(expected[name]) for name in actual]
    for name, objects in actual.items():
        # Rounding may change the order of boxes: compare each with the nearest.
        for label, box in objects:
            errors = [np.abs(box - item).max() for other, item in expected[name] if other == label]
            assert errors, (name, label)
            assert min(errors) <= tolerance, (name, label, box)
    return sum(map(len, actual.values()))


def test_coco_equals_an_independent_reader(mini: tuple[Path, dict[str, Any]]) -> None:
    folder, content = mini
    data = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    categories = sorted(content["categories"], key=lambda item: item["id"])
    assert data.labels == ("background", *(item["name"] for item in categories))
    assert data.category_ids[1:] == tuple(item["id"] for item in categories)
    assert len(data) == len(content["images"]) == 83
    total = 0
    for index in range(len(data)):
        truth, image = data.annotation(index), content["images"][index]
        expected = [item for item in content["annotations"] if item["image_id"] == image["id"]]
        assert (data.image_id(index), truth.name) == (image["id"], image["file_name"])
        assert (truth.width, truth.height) == (image["width"], image["height"])
        ids = [data.category_ids[label] for label in truth.labels]
        assert ids == [item["category_id"] for item in expected]
        assert truth.crowd.tolist() == [bool(item["iscrowd"]) for item in expected]
        assert truth.areas == pytest.approx([item["area"] for item in expected], rel=1e-6)
        boxes = np.array([item["bbox"] for item in expected]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        assert np.abs(truth.boxes - boxes).max(initial=0) < 0.5
        total += len(expected)
    assert total == 618
    assert not data.problems


def test_coco_and_voc_have_the_same_boxes(mini: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = mini
    as_voc = open_dataset(f"voc:{folder}")
    renamed = {"airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa"}
    renamed |= {"dining table": "diningtable", "tv": "tvmonitor", "potted plant": "pottedplant"}
    as_coco = open_dataset(
        f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}",
        remap=renamed,
        classes=as_voc.labels[1:],
    )
    assert as_coco.labels == as_voc.labels
    # The XML files are rounded to whole pixels.
    assert assert_same_boxes(as_voc, as_coco, tolerance=1.0) == 334
    crowds = sum(as_coco.annotation(k).crowd.sum() for k in range(len(as_coco)))
    assert crowds == sum(as_voc.annotation(k).difficult.sum() for k in range(len(as_voc))) > 0


def test_coco_as_yolo(mini: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, content = mini
    (tmp_path / "images").symlink_to(folder / "JPEGImages")
    numbers = {item["id"]: k for k, item in enumerate(content["categories"])}
    names = json.dumps([item["name"] for item in content["categories"]])
    write_text(tmp_path / "data.yaml", f"names: {names}\ntrain: images\n")
    for image in content["images"]:
        lines = []
        for item in content["annotations"]:
            if item["image_id"] == image["id"]:
                x, y, w, h = item["bbox"]
                cx, cy = (x + w / 2) / image["width"], (y + h / 2) / image["height"]
                w, h = w / image["width"], h / image["height"]
                lines.append(f"{numbers[item['category_id']]} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}")
        stem = Path(image["file_name"]).stem
        write_text(tmp_path / "labels" / f"{stem}.txt", "\n".join(lines))
    original = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    as_yolo = open_dataset(f"yolo:{tmp_path}:train")
    assert as_yolo.labels == original.labels
    assert assert_same_boxes(original, as_yolo, tolerance=0.002) == 618
    assert not as_yolo.problems


def test_coco_as_csv(mini: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, content = mini
    images = {item["id"]: item for item in content["images"]}
    names = {item["id"]: item["name"] for item in content["categories"]}
    with_header, without_header = ["filename,width,height,class,xmin,ymin,xmax,ymax"], []
    for item in content["annotations"]:
        image, label = images[item["image_id"]], names[item["category_id"]]
        x, y, w, h = item["bbox"]
        sides = f"{x},{y},{x + w:.4f},{y + h:.4f}"
        file = image["file_name"]
        with_header.append(f"{file},{image['width']},{image['height']},{label},{sides}")
        without_header.append(f"/somewhere/else/{file},{sides},{label}")
    empty = sorted(set(images) - {item["image_id"] for item in content["annotations"]})
    without_header += [f"{images[key]['file_name']},,,,," for key in empty]
    original = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    for name, lines in (("with_header", with_header), ("without_header", without_header)):
        path = write_text(tmp_path / f"{name}.csv", "\n".join(lines))
        data = open_dataset(f"csv:{path}:{folder / 'JPEGImages'}", labels=original.labels)
        assert assert_same_boxes(data, original, tolerance=0.001) == 618
        assert len(data) == 83 - (len(empty) if name == "with_header" else 0)
        assert not data.problems


def test_blood_cells_as_counted_in_the_xml_files(shared_data: Path) -> None:
    folder = shared_data / "bccd"
    train, val = (open_dataset(f"voc:{folder}:{split}") for split in ("train", "val"))
    assert (len(train), len(val)) == (205, 87)
    assert train.labels == val.labels == ("background", "Platelets", "RBC", "WBC")
    text = "".join(path.read_text() for path in (folder / "Annotations").glob("*.xml"))
    annotated = Counter(re.findall(r"<name>(\w+)</name>", text))
    loaded = Counter(
        data.labels[label]
        for data in (train, val)
        for index in range(len(data))
        for label in data.annotation(index).labels
    )
    skipped = sum(
        int(problem.text.split()[0])
        for data in (train, val)
        for problem in data.problems
        if "skipped" in problem.text
    )
    assert sum(annotated.values()) - sum(loaded.values()) == skipped
    assert annotated.keys() == loaded.keys()


def test_photos_of_voc2007(shared_data: Path, tmp_path: Path) -> None:
    for name in ("000007", "000009"):
        for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(shared_data / f"photos/voc2007/{name}.{ending}", tmp_path / folder)
    data = open_dataset(f"voc:{tmp_path}")
    assert data.labels == ("background", "car", "horse", "person")
    # The file counts pixels from 1: 141, 50, 500, 330 of 500 x 333.
    assert labeled_boxes(data) == [("car", [140, 49, 500, 330])]
    assert [label for label, _ in labeled_boxes(data, 1)] == [
        "horse",
        "person",
        "person",
        "person",
    ]
    assert data[0].image.shape == (333, 500, 3)


def test_voc_counts_pixels_from_one(tmp_path: Path) -> None:
    whole = voc_object("cat", (1, 1, 40, 30)) + voc_object("cat", (0, 0, 5, 5), difficult=1)
    data = open_dataset(write_voc(tmp_path, "a", whole))
    assert labeled_boxes(data) == [("cat", [0, 0, 40, 30]), ("cat", [0, 0, 5, 5])]
    assert data.annotation(0).difficult.tolist() == [False, True]
    assert not data.problems


def test_voc_splits(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_voc(tmp_path, name, voc_object("cat", (1, 1, 9, 9)))
    lists = tmp_path / "ImageSets" / "Main"
    write_text(lists / "train.txt", "\ufeffa\r\nb\r\n\r\nnone\r\n")
    write_text(lists / "cat_val.txt", "a -1\nc  1\n")
    train = open_dataset(f"voc:{tmp_path}:train")
    assert [train.annotation(k).name for k in range(len(train))] == ["a.png", "b.png"]
    assert problem_texts(train) == ["none.xml: the annotation file does not exist; it was skipped"]
    assert open_dataset(f"voc:{tmp_path}:cat_val").annotation(0).name == "c.png"
    assert len(open_dataset(f"voc:{tmp_path}")) == 3
    with pytest.raises(UsageError, match=r"no split 'test' in '.*'; choose from cat_val, train"):
        open_dataset(f"voc:{tmp_path}:test")
    (lists / "odd.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(UsageError, match=r"odd\.txt' is not UTF-8 text"):
        open_dataset(f"voc:{tmp_path}:odd")


XML_DEFECTS = {
    "<annotation>": "the annotation is not valid XML (no element found: line 1, column 12)",
    '<?xml version="1.0" encoding="odd"?><a/>': "the annotation is not valid XML (unknown "
    "encoding: odd)",
    '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>': "the annotation is not valid XML "
    "(EntitiesForbidden(name='b', system_id=None, public_id=None))",
}


@pytest.mark.parametrize("text", XML_DEFECTS)
def test_an_image_with_invalid_xml_is_skipped(tmp_path: Path, text: str) -> None:
    name = write_voc(tmp_path, "a", voc_object("cat", (1, 1, 9, 9)))
    write_text(tmp_path / "Annotations" / "b.xml", text)
    data = open_dataset(name)
    assert len(data) == 1
    assert problem_texts(data) == [f"b.xml: {XML_DEFECTS[text]}; it was skipped"]


XML_OBJECT_DEFECTS = {
    "<object><bndbox/></object>": "1 objects without a name were skipped",
    "<object><name>cat</name></object>": "1 objects whose 'xmin' is not a number were skipped",
    voc_object("cat", (1, 1, 9, 9)).replace("9", "x"): "1 objects whose 'xmax' is not a number "
    "were skipped",
}


@pytest.mark.parametrize("text", XML_OBJECT_DEFECTS)
def test_an_invalid_object_is_skipped(tmp_path: Path, text: str) -> None:
    data = open_dataset(write_voc(tmp_path, "a", voc_object("cat", (1, 1, 9, 9)) + text))
    assert labeled_boxes(data) == [("cat", [0, 0, 9, 9])]
    assert problem_texts(data) == [f"a.xml: {XML_OBJECT_DEFECTS[text]}"]


def test_voc_folders_are_validated(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007", "a", "")
    with pytest.raises(UsageError, match=r"no folder 'Annotations'.*mean voc:.*VOC2007\?"):
        open_dataset(f"voc:{tmp_path}")


ANNOTATION_DEFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "no box": ({"id": 9, "category_id": 3}, "annotation 9 of image 5 has no bbox of four numbers"),
    "three numbers": (
        {"id": 9, "category_id": 3, "bbox": [1, 2, 3]},
        "annotation 9 of image 5 has no bbox of four numbers",
    ),
    "text": (
        {"id": 9, "category_id": 3, "bbox": [1, 2, 3, "x"]},
        "annotation 9 of image 5 has no bbox of four numbers",
    ),
    "unknown image": (
        {"image_id": 6, "category_id": 3, "bbox": [1, 2, 3, 4]},
        "a 'cat' of the unknown image 6 was",
    ),
}


@pytest.mark.parametrize("case", ANNOTATION_DEFECTS)
def test_invalid_coco_annotations_are_reported_and_skipped(tmp_path: Path, case: str) -> None:
    item, text = ANNOTATION_DEFECTS[case]
    data = open_dataset(write_coco(tmp_path, [{"category_id": 7, "bbox": [4, 6, 16, 18]}, item]))
    assert data.labels == ("background", "cat", "dog")
    assert labeled_boxes(data) == [("dog", [4, 6, 20, 24])]
    assert len(data.problems) == 1
    assert problem_texts(data)[0].startswith(f"a.json: {text}")
    assert problem_texts(data)[0].endswith("skipped")


def test_a_repeated_coco_image_id(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a.png"}, {"id": 5, "file_name": "b.png"}]
    data = open_dataset(write_coco(tmp_path, [], images=images))
    assert problem_texts(data) == ["a.json: image id 5 is not unique; 'b.png' was skipped"]


INVALID_JSON = {
    "[1, 2]": "must contain a JSON object",
    "{": "is not valid JSON",
    "[" * 100_000: "is not valid JSON",
    '{"images": []}': "the entry 'categories' is missing",
    '{"images": [{"id": "x"}], "categories": [], "annotations": []}': "not a COCO detection file",
    '{"images": [{"id": Infinity}], "categories": [], "annotations": []}': "not a COCO detection",
    '{"images": 3, "categories": [], "annotations": []}': "not a COCO detection file",
}


@pytest.mark.parametrize("number", range(len(INVALID_JSON)))
def test_invalid_coco_files(tmp_path: Path, number: int) -> None:
    text, message = list(INVALID_JSON.items())[number]
    name = write_coco(tmp_path, [])
    write_text(tmp_path / "a.json", text)
    with pytest.raises(UsageError, match=message):
        open_dataset(name)


def test_drive_letters_are_part_of_a_path() -> None:
    for text in (r"coco:C:\a.json:D:\images", "csv:a.csv:D:/images", "coco:a.json:D:/images"):
        with pytest.raises(UsageError, match=r"the image folder 'D:[/\\]images' does not exist"):
            open_dataset(text)
    with pytest.raises(UsageError, match="'C' has no folder 'Annotations'"):
        open_dataset("voc:C:train")


@pytest.mark.parametrize(
    "text", ["", "photos/", "coco", "coco:", "yolo:", "voc:a:b:c", "coco:a:b:c", "demo:1:2:3"]
)
def test_invalid_specifications(text: str) -> None:
    with pytest.raises(UsageError, match=r"not specify a dataset; write coco:.*voc:.*yolo:.*csv:"):
        open_dataset(text)
