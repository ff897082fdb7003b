"""Renamed classes and subsets, from Python, from a recipe and from the command line."""

from __future__ import annotations

from json import loads
from pathlib import Path

import pytest
from realtime_ssd_training.cli.evaluate import evaluate
from realtime_ssd_training.cli.train import train
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.data.classes import parse_classes, parse_remap
from realtime_ssd_training.data.joined import open_set
from realtime_ssd_training.recipe import load_recipe, with_overrides

from realtime_ssd.core.errors import UsageError
from tests.training.data.folders import coco, rows, told, write

CAT = {"category_id": 3, "bbox": [1, 2, 3, 4]}
DOG = {"category_id": 7, "bbox": [4, 6, 16, 18]}


@pytest.fixture
def animals(tmp_path: Path) -> str:
    """A cat and a dog."""
    return coco(tmp_path, [CAT, DOG])


def test_labels_of_another_order(animals: str) -> None:
    data = open_dataset(animals, ("background", "dog", "hen", "cat"))
    assert [label for label, _ in rows(data)] == ["cat", "dog"]
    assert data.annotation(0).labels.tolist() == [3, 1]
    assert data.category_ids == (0, 7, 2, 3)


def test_a_subset(animals: str) -> None:
    data = open_dataset(animals, only=["dog"])
    assert data.labels == ("background", "dog")
    assert rows(data) == [("dog", [4, 6, 20, 24])]
    assert not data.problems  # what was not asked for is not missed


def test_several_classes_become_one(animals: str) -> None:
    data = open_dataset(animals, remap={"cat": "animal", "dog": "animal"})
    assert data.labels == ("background", "animal")
    assert data.annotation(0).labels.tolist() == [1, 1]


def test_the_id_of_a_class_that_keeps_its_name_wins(animals: str) -> None:
    data = open_dataset(animals, remap={"cat": "dog"})
    assert (data.labels, data.category_ids) == (("background", "dog"), (0, 7))


def test_names_that_do_not_occur(animals: str) -> None:
    data = open_dataset(animals, remap={"cow": "cat"})
    assert told(data) == ["images: no class is called 'cow', so that nothing was renamed"]
    with pytest.raises(UsageError, match="'cow' to keep does not occur; choose from cat, dog"):
        open_dataset(animals, only=["cow"])
    with pytest.raises(UsageError, match="'background' first"):
        open_dataset(animals, labels=("cat", "dog"))


def test_joined_sets_share_their_classes(tmp_path: Path) -> None:
    first, second = coco(tmp_path / "1", [CAT, DOG]), coco(tmp_path / "2", [DOG])
    joined = open_set(f"{first} + {second}", remap={"dog": "hound"}, only=["hound"], repeat=2)
    assert joined.labels == ("background", "hound")
    assert [rows(joined, k)[0][0] for k in range(len(joined))] == ["hound"] * 4
    assert [joined.image_id(k) for k in range(4)] == [1, 2, 3, 4]


def test_words_of_the_command_line() -> None:
    assert parse_classes(" person, car,") == ["person", "car"]
    assert parse_classes("") is parse_classes(None) is None
    assert parse_remap("van=car, traffic light = light") == {"van": "car", "traffic light": "light"}
    assert parse_remap(None) is None
    for text in ("van", "van=", "=car", "a=b,,"):
        with pytest.raises(UsageError, match="write OLD=NEW, as in van=car"):
            parse_remap(text)


def test_a_recipe_renames_and_chooses(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.toml",
        '[model]\nname = "ssd_mobilenet_v1_fpn"\n[data]\nonly = ["pet"]\n'
        '[data.remap]\ncat = "pet"\ndog = "pet"\n',
    )
    recipe = load_recipe(str(file))
    assert recipe.data.remap == {"cat": "pet", "dog": "pet"}
    assert recipe.data.only == ("pet",)
    recipe = with_overrides(recipe, {"data.only": ["cat"], "data.remap": {"dog": "cat"}})
    assert (recipe.data.remap, recipe.data.only) == ({"dog": "cat"}, ("cat",))
    write(file, '[model]\nname = "x"\n[data.remap]\ncat = 3\n')
    with pytest.raises(UsageError, match=r"remap.cat' is 3; it must be a text"):
        load_recipe(str(file))


def test_training_tells_what_is_wrong_with_both_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(
        tmp_path / "mine.toml",
        '[model]\nname = "ssd_mobilenet_v1_fpn"\n'
        "options = { width = 0.25, columns = 128, rows = 128 }\n"
        "[data]\nrepeat = 2\n[run]\nbatch = 2\nworkers = 0\n",
    )
    empty = {"category_id": 3, "bbox": [1, 2, 0, 4]}
    far = {"category_id": 3, "bbox": [90, 2, 3, 4]}
    data, val = coco(tmp_path / "1", [CAT, empty]), coco(tmp_path / "2", [CAT, far])
    words = {"output": tmp_path / "run", "data": data, "val": val, "device": "cpu"}
    train(str(recipe), **words, preview=tmp_path / "sheet.png")
    assert "a.png: 1 empty boxes" in capsys.readouterr().out
    train(str(recipe), **words)
    told = capsys.readouterr().out
    assert told.count("a.png: 1 empty boxes") == 1
    assert told.count("a.png: 1 boxes outside the image were skipped") == 1


def test_the_commands_rename_and_choose(tmp_path: Path, animals: str) -> None:
    sheet, folder = tmp_path / "sheet.png", tmp_path / "run"
    train("bccd", output=folder, data=animals, classes="pet", remap="cat=pet", preview=sheet)
    assert sheet.exists()
    with pytest.raises(UsageError, match="class 'cow' to keep does not occur; choose from cat"):
        train("bccd", output=folder, data=animals, classes="cow", preview=sheet)
    with pytest.raises(UsageError, match="write OLD=NEW"):
        train("bccd", output=folder, data=animals, remap="cat", preview=sheet)
    json = tmp_path / "score.json"
    evaluate(model="street", data=animals, remap="cat=car,dog=bus", classes="bus", json=json)
    assert list(loads(json.read_text())["per_class"]) == ["bus"]
