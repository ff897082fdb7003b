"""Counts of a dataset, and the sheet of its images."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.data.contact_sheet import CAPTION_HEIGHT, COLUMNS, GAP
from realtime_ssd_training.data.dataset_sheet import choose_images, write_dataset_sheet
from realtime_ssd_training.data.statistics import collect_statistics

from realtime_ssd.annotators.palette import color_of
from realtime_ssd.core.errors import UsageError
from tests.training.data.builders import write_image, write_text

ROWS = (
    "filename,xmin,ymin,xmax,ymax,class,difficult,iscrowd\n"
    "a.png,0,0,10,10,cat,0,0\na.png,0,0,40,40,cat,1,0\na.png,0,0,100,100,dog,0,0\n"
    "b.png,0,0,20,20,cat,0,1\nc.png,,,,,,,\n"
)


@pytest.fixture
def animals(tmp_path: Path) -> str:
    for name, width in (("a", 200), ("b", 200), ("c", 300)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((100, width, 3), 90, np.uint8))
    return f"csv:{write_text(tmp_path / 'boxes.csv', ROWS)}"


def test_counts_by_class_and_size(animals: str) -> None:
    statistics = collect_statistics(open_dataset(animals))
    assert (statistics.images, statistics.empty, statistics.aspect) == (3, 1, 2.0)
    assert statistics.image_sizes == (((200, 100), 2), ((300, 100), 1))
    cat, dog = statistics.classes
    assert (cat.label, cat.images, cat.objects, cat.difficult, cat.crowds) == ("cat", 2, 2, 1, 1)
    assert (cat.sizes, dog.sizes) == ((1, 1, 0), (0, 0, 1))
    assert (cat.median_side, dog.median_side) == (25, 100)
    assert statistics.boxes.tolist()[0] == [0, 0, 0.05, 0.1]
    assert len(statistics.boxes) == 3  # without the crowd
    assert json.loads(json.dumps(statistics.to_dict()))["classes"]["cat"]["small"] == 1


def test_counts_equal_those_of_pycocotools(shared_data: Path) -> None:
    from pycocotools.coco import COCO

    folder = shared_data / "coco_mini"
    data = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    coco = COCO(str(folder / "instances.json"))
    for item, category in zip(
        collect_statistics(data).classes, coco.loadCats(coco.getCatIds()), strict=True
    ):
        assert item.label == category["name"]
        assert item.images == len(coco.getImgIds(catIds=[category["id"]]))
        assert item.objects == len(coco.getAnnIds(catIds=[category["id"]], iscrowd=False))


def test_images_of_rare_classes_are_chosen_first(tmp_path: Path) -> None:
    rows = [f"{k:02d}.png,1,1,9,9,{'hen' if k == 17 else 'cat'}" for k in range(40)]
    for k in range(40):
        write_image(tmp_path / f"{k:02d}.png")
    data = open_dataset(f"csv:{write_text(tmp_path / 'boxes.csv', chr(10).join(rows))}")
    chosen = choose_images(data, 4)
    assert len(chosen) == 4
    assert 17 in chosen
    assert chosen == sorted(set(chosen))
    assert choose_images(data, 1) == [17]
    assert len(choose_images(data, 99)) == 40


def test_the_sheet_has_a_tile_per_image_with_its_boxes(animals: str, tmp_path: Path) -> None:
    data = open_dataset(animals)
    write_dataset_sheet(tmp_path / "new" / "sheet.png", data)
    sheet = cv2.imread(str(tmp_path / "new" / "sheet.png"))
    assert sheet is not None
    tile_width, tile_height = 480 + GAP, 360 + CAPTION_HEIGHT + GAP
    assert sheet.shape == (CAPTION_HEIGHT + GAP + tile_height, 3 * tile_width, 3)
    assert COLUMNS > 3
    top = CAPTION_HEIGHT + GAP + CAPTION_HEIGHT
    scale = 480 / 200
    right_edge = sheet[top + 120, GAP // 2 + round(100 * scale)]  # of the dog
    assert right_edge.tolist() == list(color_of(2))
    with pytest.raises(UsageError, match="use a PNG or JPEG file"):
        write_dataset_sheet(tmp_path / "sheet.docx", data)
