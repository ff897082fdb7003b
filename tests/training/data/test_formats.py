"""COCO and Pascal VOC against readers written here, and one real set in four formats."""

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
from tests.training.data.folders import coco, rows, told, voc, voc_object, write


@pytest.fixture(scope="module")
def mini(shared_data: Path) -> tuple[Path, dict[str, Any]]:
    """The small COCO set and its JSON file."""
    folder = shared_data / "coco_mini"
    return folder, json.loads((folder / "instances.json").read_text())


def by_name(data: Dataset) -> dict[str, list[tuple[str, NDArray[np.float32]]]]:
    """Give the objects of every image by its file name, boxes sorted."""
    found = {}
    for index in range(len(data)):
        truth = data.annotation(index)
        objects = zip(truth.labels.tolist(), truth.boxes, strict=True)
        named = sorted(((data.labels[k], box) for k, box in objects), key=_order)
        found[Path(truth.name).name] = named
    return found


def _order(item: tuple[str, NDArray[np.float32]]) -> tuple[str, list[float]]:
    return item[0], np.round(item[1], 1).tolist()


def same_boxes(first: Dataset, second: Dataset, within: float) -> int:
    """Compare all objects of two data sets; give their number."""
    one, other = by_name(first), by_name(second)
    assert list(map(len, one.values())) == [len(other[name]) for name in one]
    for name, objects in one.items():
        # Of boxes that differ by rounding alone the order may differ: match each to the nearest.
        for label, box in objects:
            near = [np.abs(box - item).max() for kind, item in other[name] if kind == label]
            assert near, (name, label)
            assert min(near) <= within, (name, label, box)
    return sum(map(len, one.values()))


def test_coco_as_read_by_hand(mini: tuple[Path, dict[str, Any]]) -> None:
    folder, content = mini
    data = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    categories = sorted(content["categories"], key=lambda item: item["id"])
    assert data.labels == ("background", *(item["name"] for item in categories))
    assert data.category_ids[1:] == tuple(item["id"] for item in categories)
    assert len(data) == len(content["images"]) == 83
    total = 0
    for index in range(len(data)):
        truth, image = data.annotation(index), content["images"][index]
        wanted = [item for item in content["annotations"] if item["image_id"] == image["id"]]
        assert (data.image_id(index), truth.name) == (image["id"], image["file_name"])
        assert (truth.width, truth.height) == (image["width"], image["height"])
        ids = [data.category_ids[label] for label in truth.labels]
        assert ids == [item["category_id"] for item in wanted]
        assert truth.crowd.tolist() == [bool(item["iscrowd"]) for item in wanted]
        assert truth.areas == pytest.approx([item["area"] for item in wanted], rel=1e-6)
        boxes = np.array([item["bbox"] for item in wanted]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        assert np.abs(truth.boxes - boxes).max(initial=0) < 0.5
        total += len(wanted)
    assert total == 618
    assert not data.problems


def test_coco_and_voc_give_the_same_boxes(mini: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = mini
    as_voc = open_dataset(f"voc:{folder}")
    renamed = {"airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa"}
    renamed |= {"dining table": "diningtable", "tv": "tvmonitor", "potted plant": "pottedplant"}
    as_coco = open_dataset(
        f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}",
        remap=renamed,
        only=as_voc.labels[1:],
    )
    assert as_coco.labels == as_voc.labels
    # The XML files hold whole pixels.
    assert same_boxes(as_voc, as_coco, within=1.0) == 334
    crowds = sum(as_coco.annotation(k).crowd.sum() for k in range(len(as_coco)))
    assert crowds == sum(as_voc.annotation(k).difficult.sum() for k in range(len(as_voc))) > 0


def test_coco_as_yolo(mini: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, content = mini
    (tmp_path / "images").symlink_to(folder / "JPEGImages")
    numbers = {item["id"]: k for k, item in enumerate(content["categories"])}
    names = json.dumps([item["name"] for item in content["categories"]])
    write(tmp_path / "data.yaml", f"names: {names}\ntrain: images\n")
    for image in content["images"]:
        lines = []
        for item in content["annotations"]:
            if item["image_id"] == image["id"]:
                x, y, w, h = item["bbox"]
                cx, cy = (x + w / 2) / image["width"], (y + h / 2) / image["height"]
                w, h = w / image["width"], h / image["height"]
                lines.append(f"{numbers[item['category_id']]} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}")
        stem = Path(image["file_name"]).stem
        write(tmp_path / "labels" / f"{stem}.txt", "\n".join(lines))
    original = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    as_yolo = open_dataset(f"yolo:{tmp_path}:train")
    assert as_yolo.labels == original.labels
    assert same_boxes(original, as_yolo, within=0.002) == 618
    assert not as_yolo.problems


def test_coco_as_tables(mini: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, content = mini
    images = {item["id"]: item for item in content["images"]}
    names = {item["id"]: item["name"] for item in content["categories"]}
    head, bare = ["filename,width,height,class,xmin,ymin,xmax,ymax"], []
    for item in content["annotations"]:
        image, label = images[item["image_id"]], names[item["category_id"]]
        x, y, w, h = item["bbox"]
        sides = f"{x},{y},{x + w:.4f},{y + h:.4f}"
        file = image["file_name"]
        head.append(f"{file},{image['width']},{image['height']},{label},{sides}")
        bare.append(f"/somewhere/else/{file},{sides},{label}")
    empty = sorted(set(images) - {item["image_id"] for item in content["annotations"]})
    bare += [f"{images[key]['file_name']},,,,," for key in empty]
    original = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    for name, lines in (("head", head), ("bare", bare)):
        path = write(tmp_path / f"{name}.csv", "\n".join(lines))
        data = open_dataset(f"csv:{path}:{folder / 'JPEGImages'}", labels=original.labels)
        assert same_boxes(data, original, within=0.001) == 618
        assert len(data) == 83 - (len(empty) if name == "head" else 0)
        assert not data.problems


def test_blood_cells(shared_data: Path) -> None:
    folder = shared_data / "bccd"
    train, val = (open_dataset(f"voc:{folder}:{split}") for split in ("train", "val"))
    assert (len(train), len(val)) == (205, 87)
    assert train.labels == val.labels == ("background", "Platelets", "RBC", "WBC")
    text = "".join(path.read_text() for path in (folder / "Annotations").glob("*.xml"))
    wanted = Counter(re.findall(r"<name>(\w+)</name>", text))
    found = Counter(
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
    assert sum(wanted.values()) - sum(found.values()) == skipped
    assert wanted.keys() == found.keys()


def test_a_photo_of_voc2007(shared_data: Path, tmp_path: Path) -> None:
    for name in ("000007", "000009"):
        for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(shared_data / f"photos/voc2007/{name}.{ending}", tmp_path / folder)
    data = open_dataset(f"voc:{tmp_path}")
    assert data.labels == ("background", "car", "horse", "person")
    # The file counts pixels from 1 and says 141, 50, 500, 330 of 500 x 333.
    assert rows(data) == [("car", [140, 49, 500, 330])]
    assert [label for label, _ in rows(data, 1)] == ["horse", "person", "person", "person"]
    assert data[0].image.shape == (333, 500, 3)


def test_voc_counts_pixels_from_one(tmp_path: Path) -> None:
    whole = voc_object("cat", (1, 1, 40, 30)) + voc_object("cat", (0, 0, 5, 5), difficult=1)
    data = open_dataset(voc(tmp_path, "a", whole))
    assert rows(data) == [("cat", [0, 0, 40, 30]), ("cat", [0, 0, 5, 5])]
    assert data.annotation(0).difficult.tolist() == [False, True]
    assert not data.problems


def test_voc_splits(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        voc(tmp_path, name, voc_object("cat", (1, 1, 9, 9)))
    lists = tmp_path / "ImageSets" / "Main"
    write(lists / "train.txt", "\ufeffa\r\nb\r\n\r\nnone\r\n")
    write(lists / "cat_val.txt", "a -1\nc  1\n")
    train = open_dataset(f"voc:{tmp_path}:train")
    assert [train.annotation(k).name for k in range(len(train))] == ["a.png", "b.png"]
    assert told(train) == ["none.xml: the annotation file does not exist; it was skipped"]
    assert open_dataset(f"voc:{tmp_path}:cat_val").annotation(0).name == "c.png"
    assert len(open_dataset(f"voc:{tmp_path}")) == 3
    with pytest.raises(UsageError, match=r"no split 'test' in '.*'; choose from cat_val, train"):
        open_dataset(f"voc:{tmp_path}:test")
    (lists / "odd.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(UsageError, match=r"odd\.txt' is no UTF-8 text"):
        open_dataset(f"voc:{tmp_path}:odd")


XML = {
    "<annotation>": "the annotation is no valid XML (no element found: line 1, column 12)",
    '<?xml version="1.0" encoding="odd"?><a/>': "the annotation is no valid XML (unknown "
    "encoding: odd)",
    "<a><object><bndbox/></object></a>": "an object has no name",
    "<a><object><name>cat</name></object></a>": "an object or the size has no number 'xmin'",
    '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>': "the annotation is no valid XML "
    "(EntitiesForbidden(name='b', system_id=None, public_id=None))",
}


@pytest.mark.parametrize("text", XML)
def test_bad_xml_skips_its_image(tmp_path: Path, text: str) -> None:
    name = voc(tmp_path, "a", voc_object("cat", (1, 1, 9, 9)))
    write(tmp_path / "Annotations" / "b.xml", text)
    data = open_dataset(name)
    assert len(data) == 1
    assert told(data) == [f"b.xml: {XML[text]}; it was skipped"]


def test_voc_folders_are_checked(tmp_path: Path) -> None:
    voc(tmp_path / "VOC2007", "a", "")
    with pytest.raises(UsageError, match=r"no folder 'Annotations'.*mean voc:.*VOC2007\?"):
        open_dataset(f"voc:{tmp_path}")


ANNOTATIONS = {
    "no box": ({"id": 9, "category_id": 3}, "annotation 9 of image 5 has no bbox of four numbers"),
    "three numbers": (
        {"id": 9, "category_id": 3, "bbox": [1, 2, 3]},
        "annotation 9 of image 5 has no bbox of four numbers",
    ),
    "words": (
        {"id": 9, "category_id": 3, "bbox": [1, 2, 3, "x"]},
        "annotation 9 of image 5 has no bbox of four numbers",
    ),
    "of no image": (
        {"image_id": 6, "category_id": 3, "bbox": [1, 2, 3, 4]},
        "a 'cat' of the unknown image 6 was",
    ),
}


@pytest.mark.parametrize("case", ANNOTATIONS)
def test_bad_annotations_of_coco_are_told_and_skipped(tmp_path: Path, case: str) -> None:
    item, text = ANNOTATIONS[case]
    data = open_dataset(coco(tmp_path, [{"category_id": 7, "bbox": [4, 6, 16, 18]}, item]))
    assert data.labels == ("background", "cat", "dog")
    assert rows(data) == [("dog", [4, 6, 20, 24])]
    assert len(data.problems) == 1
    assert told(data)[0].startswith(f"a.json: {text}")
    assert told(data)[0].endswith("skipped")


def test_an_image_of_coco_given_twice(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a.png"}, {"id": 5, "file_name": "b.png"}]
    data = open_dataset(coco(tmp_path, [], images=images))
    assert told(data) == ["a.json: image 5 is given twice; 'b.png' was skipped"]


BAD_JSON = {
    "[1, 2]": "must hold a JSON object",
    "{": "is no valid JSON",
    "[" * 100_000: "is no valid JSON",
    '{"images": []}': "the entry 'categories' is missing",
    '{"images": [{"id": "x"}], "categories": [], "annotations": []}': "is no COCO detection file",
    '{"images": [{"id": Infinity}], "categories": [], "annotations": []}': "is no COCO detection",
    '{"images": 3, "categories": [], "annotations": []}': "is no COCO detection file",
}


@pytest.mark.parametrize("number", range(len(BAD_JSON)))
def test_json_that_is_no_coco_file(tmp_path: Path, number: int) -> None:
    text, message = list(BAD_JSON.items())[number]
    name = coco(tmp_path, [])
    write(tmp_path / "a.json", text)
    with pytest.raises(UsageError, match=message):
        open_dataset(name)


@pytest.mark.parametrize(
    "text", ["", "photos/", "coco", "coco:", "yolo:", "voc:a:b:c", "coco:a:b:c", "demo:1:2:3"]
)
def test_texts_that_name_no_data_set(text: str) -> None:
    with pytest.raises(UsageError, match=r"names no data set; write coco:.*voc:.*yolo:.*csv:"):
        open_dataset(text)
