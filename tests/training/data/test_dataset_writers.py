"""Converted datasets, read back by this project, pycocotools and supervision."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from realtime_ssd_training.data import Dataset, open_dataset
from realtime_ssd_training.data.concat import open_datasets
from realtime_ssd_training.data.dataset_writers import FORMATS, DatasetWriter, Format

from realtime_ssd.core.errors import UsageError
from tests.training.data.builders import (
    labeled_boxes,
    problem_texts,
    write_coco,
    write_image,
    write_text,
)

Objects = list[tuple[str, list[float]]]
TOLERANCE: dict[Format, float] = {"coco": 0.002, "csv": 0.002, "yolo": 0.002, "voc": 0.5}
"""Pixels; VOC's coordinates are integers."""


@pytest.fixture
def animals(tmp_path: Path) -> str:
    """Two images, one without objects, with names that formats have to quote."""
    write_image(tmp_path / "source" / "a, b & c.png", 40, 30, seed=1)
    write_image(tmp_path / "source" / "sub" / "ü.jpg", 64, 48, seed=2)
    rows = [
        '"a, b & c.png",4.25,6,20,24.5,"cat, <big>",0',
        '"a, b & c.png",0,0,40,30,dog: no,1',
        "sub/ü.jpg,,,,,,",
    ]
    text = "filename,xmin,ymin,xmax,ymax,class,difficult\n" + "\n".join(rows)
    return f"csv:{write_text(tmp_path / 'source' / 'boxes.csv', text)}"


def by_image(data: Dataset) -> dict[str, Objects]:
    return {
        Path(data.annotation(k).name).stem: sorted(labeled_boxes(data, k)) for k in range(len(data))
    }


def assert_same(first: dict[str, Objects], second: dict[str, Objects], tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name, objects in first.items():
        others = second[name]
        assert [label for label, _ in objects] == [label for label, _ in others], name
        for (_, box), (_, other) in zip(objects, others, strict=True):
            assert box == pytest.approx(other, abs=tolerance), name


@pytest.mark.parametrize("form", FORMATS)
def test_round_trip(animals: str, tmp_path: Path, form: Format) -> None:
    data = open_dataset(animals)
    written = DatasetWriter(tmp_path / "out", form).write(data)
    assert (written.images, written.objects) == (2, 2)
    back = open_dataset(written.spec)
    assert not back.problems
    assert back.labels == data.labels
    assert_same(by_image(back), by_image(data), TOLERANCE[form])
    for first, second in zip(
        sorted(data, key=lambda s: s.image.shape),
        sorted(back, key=lambda s: s.image.shape),
        strict=True,
    ):
        assert np.array_equal(first.image, second.image)
    difficult = sum(back.annotation(k).difficult.sum() for k in range(2))
    assert difficult == (form != "yolo")
    assert len(written.problems) == (form == "yolo")


def test_all_formats_of_real_data_are_equal(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "coco_mini"
    data = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    for form in FORMATS:
        written = DatasetWriter(tmp_path / form, form).write(data)
        back = open_dataset(written.spec, data.labels)
        assert sum(len(objects) for objects in by_image(back).values()) == 618
        for k in range(len(back)):
            truth, other = back.annotation(k), data.annotation(k)
            assert np.abs(truth.boxes - other.boxes).max(initial=0) <= TOLERANCE[form] + 1e-3
            assert truth.labels.tolist() == other.labels.tolist()


def test_pycocotools_reads_coco(shared_data: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    folder = shared_data / "coco_mini"
    data = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    DatasetWriter(tmp_path, "coco", "val").write(data)
    with redirect_stdout(StringIO()):
        original, converted = (
            COCO(str(path)) for path in (folder / "instances.json", tmp_path / "instances_val.json")
        )
    assert converted.loadCats(converted.getCatIds()) == [
        {"id": item["id"], "name": item["name"]} for item in original.loadCats(original.getCatIds())
    ]
    for image in original.getImgIds():
        ours, theirs = (
            [
                (item["category_id"], item["iscrowd"], *item["bbox"], item["area"])
                for item in coco.loadAnns(coco.getAnnIds(imgIds=[image]))
            ]
            for coco in (converted, original)
        )
        tables = [np.array(rows).reshape(-1, 7) for rows in (ours, theirs)]
        assert tables[0] == pytest.approx(tables[1], rel=1e-4, abs=0.5)


Reader = Callable[[Path], dict[str, Objects]]


def _supervision(form: Format) -> Reader:
    import supervision as sv

    def read(folder: Path) -> dict[str, Objects]:
        images = folder / ("JPEGImages" if form == "voc" else "images/train")
        if form == "coco":
            found = sv.DetectionDataset.from_coco(str(images), str(folder / "instances_train.json"))
        elif form == "voc":
            found = sv.DetectionDataset.from_pascal_voc(str(images), str(folder / "Annotations"))
        else:
            found = sv.DetectionDataset.from_yolo(
                str(images), str(folder / "labels" / "train"), str(folder / "data.yaml")
            )
        result: dict[str, Objects] = {}
        for path, _, detections in found:
            boxes: NDArray[np.float32] = detections.xyxy
            assert detections.class_id is not None
            labels = [found.classes[k] for k in detections.class_id]
            result[Path(path).stem] = sorted(zip(labels, boxes.tolist(), strict=True))
        return result

    return read


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_supervision_reads_what_was_written(animals: str, tmp_path: Path, form: Format) -> None:
    data = open_dataset(animals)
    DatasetWriter(tmp_path / "out", form).write(data)
    # supervision reads YOLO boxes as integers.
    assert_same(_supervision(form)(tmp_path / "out"), by_image(data), max(1, TOLERANCE[form]))


@pytest.mark.parametrize("form", FORMATS)
def test_a_second_split_joins_the_first(animals: str, tmp_path: Path, form: Format) -> None:
    data = open_dataset(animals)
    first = DatasetWriter(tmp_path / "out", form, "train").write(data)
    second = DatasetWriter(tmp_path / "out", form, "val").write(data)
    for written in (first, second):
        assert len(open_dataset(written.spec)) == 2
    with pytest.raises(UsageError, match="exists; set `overwrite`"):
        DatasetWriter(tmp_path / "out", form, "val")
    files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    DatasetWriter(tmp_path / "out", form, "val", overwrite=True).write(data)
    assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == files
    assert len(open_dataset(second.spec)) == 2


def test_splits_of_yolo_have_the_same_classes(animals: str, tmp_path: Path) -> None:
    DatasetWriter(tmp_path / "out", "yolo", "train").write(open_dataset(animals))
    writer = DatasetWriter(tmp_path / "out", "yolo", "val")
    with pytest.raises(UsageError, match="has other classes"):
        writer.write(open_dataset(animals, classes=["dog: no"]))
    assert not (tmp_path / "out" / "val.txt").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_equal_names_and_ids_of_joined_datasets(tmp_path: Path, form: Format) -> None:
    specs = [
        write_coco(tmp_path / name, [{"category_id": 3, "bbox": [4, 6, 16, 18]}]) for name in "ab"
    ]
    written = DatasetWriter(tmp_path / "out", form).write(open_datasets(" + ".join(specs)))
    back = open_dataset(written.spec)
    assert [labeled_boxes(back, k) for k in (0, 1)] == [[("cat", [4, 6, 20, 24])]] * 2
    assert {back.image_id(k) for k in (0, 1)} == {1, 2}


@pytest.mark.parametrize("orientation", [3, 6])
def test_rotated_photos_are_written_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    stored = Image.fromarray(cv2.resize(noise, (60, 40), interpolation=cv2.INTER_CUBIC))
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    text = write_text(tmp_path / "boxes.csv", "a.jpg,1,2,30,30,cat")
    data = open_dataset(f"csv:{text}")
    back = open_dataset(DatasetWriter(tmp_path / "out", "csv").write(data).spec)
    assert not problem_texts(back)
    assert np.abs(back[0].image.astype(int) - data[0].image).mean() < 3
    with Image.open(tmp_path / "out" / "images" / "train" / "a.jpg") as image:
        assert not image.getexif()


def test_the_synthetic_street_and_unreadable_images(tmp_path: Path) -> None:
    written = DatasetWriter(tmp_path / "street", "csv").write(open_dataset("demo:5:96x64"))
    assert open_dataset(written.spec)[0].image.shape == (64, 96, 3)
    rows = "a.png,1,1,9,9,cat\nb.png,1,1,9,9,cat"
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png")
    data = open_dataset(f"csv:{write_text(tmp_path / 'boxes.csv', rows)}")
    (tmp_path / "a.png").unlink()
    written = DatasetWriter(tmp_path / "out", "coco").write(data)
    assert written.images == 1
    assert "a.png" in str(written.problems[0])
    content = json.loads((tmp_path / "out" / "instances_train.json").read_text())
    assert [item["file_name"] for item in content["images"]] == ["b.png"]


def test_arguments_are_validated(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    with pytest.raises(UsageError, match="no format 'xml'"):
        DatasetWriter(tmp_path / "out", "xml")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is a file"):
        DatasetWriter(tmp_path / "file", "coco")
    for split in ("", "../x", "a/b"):
        with pytest.raises(UsageError, match="`split` must be a name"):
            DatasetWriter(tmp_path / "out", "coco", split)
    with pytest.raises(UsageError, match="train, val or test"):
        DatasetWriter(tmp_path / "out", "yolo", "night")
    assert not (tmp_path / "out").exists()
