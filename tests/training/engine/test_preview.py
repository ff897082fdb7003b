"""The preview sheet shows the first batch of a run and its matched default boxes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from realtime_ssd_training.cli.train import train as train_command
from realtime_ssd_training.data import Dataset, open_dataset
from realtime_ssd_training.data.augment import build_augmentation
from realtime_ssd_training.data.contact_sheet import CAPTION_HEIGHT, COLUMNS, GAP
from realtime_ssd_training.engine.loader import Loader, LoaderOptions
from realtime_ssd_training.engine.loss import MultiBoxLoss
from realtime_ssd_training.engine.preview import ROWS, write_preview
from realtime_ssd_training.models import SSD, create
from realtime_ssd_training.recipe import LossConfig, Recipe, from_dict

from realtime_ssd.annotators.palette import color_of
from realtime_ssd.core.errors import UsageError
from tests.training.data.builders import write_text

RECIPE = from_dict(
    {
        "name": "test",
        "model": {
            "name": "ssd_mobilenet_v1_fpn",
            "options": {"width": 0.25, "columns": 256, "rows": 192},
        },
        "data": {"difficult": "ignore"},
        "run": {"seed": 5},
    }
)
WIDTH, HEIGHT = 480, 360  # of a tile: the input is enlarged
GRAY = (150, 150, 150)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Fourteen black images with one object each; every third object is difficult."""
    folder = tmp_path_factory.mktemp("preview")
    rows = ["image,xmin,ymin,xmax,ymax,class,difficult"]
    for k in range(14):
        cv2.imwrite(str(folder / f"{k}.png"), np.zeros((150, 200, 3), np.uint8))
        label = ("cat", "dog")[k % 2]
        rows.append(f"{k}.png,{20 + 4 * k},30,{110 + 4 * k},120,{label},{int(k % 3 == 0)}")
    return open_dataset(f"csv:{write_text(folder / 'boxes.csv', chr(10).join(rows))}")


@pytest.fixture(scope="module")
def model(data: Dataset) -> SSD:
    """A small SSD."""
    return create(RECIPE.model.name, data.labels, **RECIPE.model.options)


def read_preview(model: SSD, recipe: Recipe, data: Dataset, path: Path) -> NDArray[np.uint8]:
    write_preview(path, model, recipe, data)
    return np.asarray(cv2.imread(str(path)), np.uint8)


def tiles(sheet: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the images of the tiles, without captions."""
    step_y, step_x = CAPTION_HEIGHT + HEIGHT + GAP, WIDTH + GAP
    starts = product(range(ROWS), range(COLUMNS))
    corners = [
        (CAPTION_HEIGHT + GAP + row * step_y + CAPTION_HEIGHT, column * step_x + GAP // 2)
        for row, column in starts
    ]
    return [sheet[y : y + HEIGHT, x : x + WIDTH] for y, x in corners]


def has_box(tile: NDArray[np.uint8], box: NDArray[np.float32], color: tuple[int, ...]) -> bool:
    """Return whether the lower edge of a box is drawn, as far as it is inside the tile."""
    x1, _, x2, y2 = (round(float(side)) for side in box)
    y2 = min(y2, HEIGHT - 1)
    edge = tile[y2, max(x1, 0) : min(x2, WIDTH)]
    return bool((edge == color).all(axis=1).mean() > 0.8)


def test_the_sheet_shows_the_first_samples_and_matched_default_boxes(
    model: SSD, data: Dataset, tmp_path: Path
) -> None:
    sheet = read_preview(model, RECIPE, data, tmp_path / "sheet.png")
    size = (
        ROWS * (CAPTION_HEIGHT + HEIGHT + GAP) + CAPTION_HEIGHT + GAP,
        COLUMNS * (WIDTH + GAP),
        3,
    )
    assert sheet.shape == size
    augment = build_augmentation(model.spec.input, {})
    options = LoaderOptions(12, seed=5)
    batch = next(Loader(data, model.spec.input, options, augment).epoch(0))
    labels, _ = MultiBoxLoss(model.spec, model.default_boxes).assign(batch.targets)
    scale = np.array([WIDTH, HEIGHT] * 2, np.float32)
    matched = ignored_objects = 0
    for tile, target, assigned in zip(tiles(sheet), batch.targets, labels, strict=True):
        for box, label, ignored in zip(target.boxes, target.labels, target.ignored, strict=True):
            color = GRAY if ignored else color_of(int(label))
            assert has_box(tile, box.numpy() * scale, color)
            ignored_objects += int(ignored)
        colored = (tile == color_of(1)).all(2) | (tile == color_of(2)).all(2)
        assert colored.any() == bool((assigned > 0).any())
        centers, sizes = torch.split(model.default_boxes[assigned > 0], 2, dim=1)
        for box in torch.cat([centers - sizes / 2, centers + sizes / 2], 1).numpy() * scale:
            if box[3] < HEIGHT - 4:
                near = [tile[round(float(box[3])) + k] for k in (-1, 0, 1)]
                assert any((row == color_of(int(target.labels[0]))).all(1).any() for row in near)
                matched += 1
    assert matched > 20
    assert ignored_objects > 2


def test_the_preview_follows_the_recipe(model: SSD, data: Dataset, tmp_path: Path) -> None:
    def colored_pixels(recipe: Recipe) -> int:
        sheet = read_preview(model, recipe, data, tmp_path / "sheet.png")
        return int(((sheet == color_of(1)) | (sheet == color_of(2))).all(2).sum())

    default = colored_pixels(RECIPE)
    assert colored_pixels(RECIPE) == default
    assert colored_pixels(replace(RECIPE, loss=LossConfig(iou_threshold=0.7))) < default
    assert colored_pixels(replace(RECIPE, data=replace(RECIPE.data, difficult="use"))) > default
    disabled = {"photometric": 0.0, "zoom_out": 0.0, "flip": 0.0, "overlaps": ["whole"]}
    plain = read_preview(model, replace(RECIPE, augment=disabled), data, tmp_path / "plain.png")
    assert not np.array_equal(plain, read_preview(model, RECIPE, data, tmp_path / "sheet.png"))


def test_a_small_dataset_fills_the_sheet_over_several_epochs(model: SSD, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((60, 80, 3), 90, np.uint8))
    data = open_dataset(f"csv:{write_text(tmp_path / 'boxes.csv', 'a.png,10,10,50,50,cat')}")
    model = create(RECIPE.model.name, data.labels, **RECIPE.model.options)
    views = tiles(read_preview(model, RECIPE, data, tmp_path / "new" / "sheet.jpg"))
    assert len(views) == COLUMNS * ROWS
    assert all(view.std() > 1 for view in views)
    assert not np.array_equal(views[0], views[1])


def test_the_command_writes_only_the_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, run = tmp_path / "sheet.png", tmp_path / "run"
    train_command("demo", output=run, data="demo:0-1", preview=sheet)
    assert "augmented samples with their matched default boxes" in capsys.readouterr().out
    assert np.asarray(cv2.imread(str(sheet))).shape[1] == COLUMNS * (WIDTH + GAP)
    assert not run.exists()


@pytest.mark.parametrize("name", ["sheet.txt", "sheet"])
def test_an_unwritable_sheet(model: SSD, data: Dataset, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be written; use a PNG or JPEG file"):
        write_preview(tmp_path / name, model, RECIPE, data)
