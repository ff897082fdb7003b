"""Class remapping and selection from Python, from a recipe and from the command line."""

from __future__ import annotations

from json import loads
from pathlib import Path

import pytest
from realtime_ssd_training.cli.evaluate import evaluate
from realtime_ssd_training.cli.train import train
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.data.classes import parse_classes, parse_remap
from realtime_ssd_training.data.concat import open_datasets
from realtime_ssd_training.recipe import load_recipe, with_overrides

from realtime_ssd.core.errors import UsageError
from tests.training.data.builders import (
    labeled_boxes,
    problem_texts,
    voc_object,
    write_coco,
    write_text,
    write_voc,
)

CAT = {"category_id": 3, "bbox": [1, 2, 3, 4]}
DOG = {"category_id": 7, "bbox": [4, 6, 16, 18]}


@pytest.fixture
def animals(tmp_path: Path) -> str:
    """A dataset with a cat and a dog."""
    return write_coco(tmp_path, [CAT, DOG])


def test_labels_may_have_another_order(animals: str) -> None:
    data = open_dataset(animals, ("background", "dog", "hen", "cat"))
    assert [label for label, _ in labeled_boxes(data)] == ["cat", "dog"]
    assert data.annotation(0).labels.tolist() == [3, 1]
    assert data.category_ids == (0, 7, 2, 3)


def test_unselected_classes_are_skipped_without_a_problem(animals: str) -> None:
    data = open_dataset(animals, classes=["dog"])
    assert data.labels == ("background", "dog")
    assert labeled_boxes(data) == [("dog", [4, 6, 20, 24])]
    assert not data.problems


def test_several_classes_may_share_a_new_name(animals: str) -> None:
    data = open_dataset(animals, remap={"cat": "animal", "dog": "animal"})
    assert data.labels == ("background", "animal")
    assert data.category_ids == (0, 3)  # that of the first
    assert data.annotation(0).labels.tolist() == [1, 1]


def test_a_class_that_keeps_its_name_determines_the_category_id(animals: str) -> None:
    data = open_dataset(animals, remap={"cat": "dog"})
    assert (data.labels, data.category_ids) == (("background", "dog"), (0, 7))


def test_unknown_names_are_reported(animals: str) -> None:
    data = open_dataset(animals, remap={"cow": "cat"})
    assert problem_texts(data) == ["images: there is no class 'cow' to rename"]
    with pytest.raises(
        UsageError, match="there is no class 'cow' in the dataset; choose from cat, dog"
    ):
        open_dataset(animals, classes=["cow"])
    with pytest.raises(UsageError, match="the first must be 'background'"):
        open_dataset(animals, labels=("cat", "dog"))


def test_concatenated_datasets_share_their_classes(tmp_path: Path) -> None:
    first, second = write_coco(tmp_path / "1", [CAT, DOG]), write_coco(tmp_path / "2", [DOG])
    joined = open_datasets(
        f"{first} + {second}", remap={"dog": "hound"}, classes=["hound"], repeat=2
    )
    assert joined.labels == ("background", "hound")
    assert [labeled_boxes(joined, k)[0][0] for k in range(len(joined))] == ["hound"] * 4
    assert [joined.image_id(k) for k in range(4)] == [1, 2, 3, 4]


def test_concatenated_datasets_contribute_their_classes(tmp_path: Path) -> None:
    first = write_coco(tmp_path / "1", [CAT], categories=[{"id": 3, "name": "cat"}])
    second = write_coco(tmp_path / "2", [DOG, CAT])
    concatenated = open_datasets(f"{first} + {second}")
    assert concatenated.labels == ("background", "cat", "dog")
    assert labeled_boxes(concatenated, 1) == [("dog", [4, 6, 20, 24]), ("cat", [1, 2, 4, 6])]
    assert not concatenated.problems
    assert len(concatenated) == 2
    assert concatenated.category_ids == (0, 1, 2)  # the ids of the datasets differ
    with pytest.raises(IndexError):
        concatenated.annotation(2)
    assert open_datasets(f"{second} + {second}").category_ids == (0, 3, 7)


def test_a_dataset_without_objects_may_come_first(tmp_path: Path) -> None:
    empty = write_voc(tmp_path / "1", "a", "")
    other = write_voc(tmp_path / "2", "a", voc_object("cat", (1, 1, 9, 9)))
    for text in (f"{empty} + {other}", f"{other} + {empty}"):
        joined = open_datasets(text)
        assert joined.labels == ("background", "cat")
        assert (len(joined), joined.problems) == (2, [])
    with pytest.raises(UsageError, match="the dataset has no objects"):
        open_datasets(f"{empty} + {empty}")


def test_a_class_of_only_one_dataset_is_renamed_without_a_problem(tmp_path: Path) -> None:
    cats = write_voc(tmp_path / "1", "a", voc_object("cat", (1, 1, 9, 9)))
    dogs = write_voc(tmp_path / "2", "a", voc_object("dog", (1, 1, 9, 9)))
    joined = open_datasets(f"{cats} + {dogs}", remap={"dog": "hound", "cow": "bull"})
    assert joined.labels == ("background", "cat", "hound")
    assert {problem.text for problem in joined.problems} == {"there is no class 'cow' to rename"}


def test_parsing_of_classes_and_remap() -> None:
    assert parse_classes(" person, car,") == ["person", "car"]
    assert parse_classes("") is parse_classes(None) is None
    assert parse_remap("van=car, traffic light = light") == {"van": "car", "traffic light": "light"}
    assert parse_remap(None) is None
    for text in ("van", "van=", "=car", "a=b,,"):
        with pytest.raises(UsageError, match="write OLD=NEW, as in van=car"):
            parse_remap(text)


def test_a_recipe_remaps_and_selects_classes(tmp_path: Path) -> None:
    file = write_text(
        tmp_path / "custom.toml",
        '[model]\nname = "ssd_mobilenet_v1_fpn"\n[data]\nclasses = ["pet"]\n'
        '[data.remap]\ncat = "pet"\ndog = "pet"\n',
    )
    recipe = load_recipe(str(file))
    assert recipe.data.remap == {"cat": "pet", "dog": "pet"}
    assert recipe.data.classes == ("pet",)
    recipe = with_overrides(recipe, {"data.classes": ["cat"], "data.remap": {"dog": "cat"}})
    assert (recipe.data.remap, recipe.data.classes) == ({"dog": "cat"}, ("cat",))
    write_text(file, '[model]\nname = "x"\n[data.remap]\ncat = 3\n')
    with pytest.raises(
        UsageError, match=r"data.remap' in '.*' must be a table of strings, not {'cat': 3}"
    ):
        load_recipe(str(file))


def test_training_reports_the_problems_of_both_datasets_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_text(
        tmp_path / "custom.toml",
        '[model]\nname = "ssd_mobilenet_v1_fpn"\n'
        "options = { width = 0.25, columns = 128, rows = 128 }\n"
        "[data]\nrepeat = 2\n[run]\nbatch = 2\nworkers = 0\n",
    )
    empty = {"category_id": 3, "bbox": [1, 2, 0, 4]}
    far = {"category_id": 3, "bbox": [90, 2, 3, 4]}
    data, val = write_coco(tmp_path / "1", [CAT, empty]), write_coco(tmp_path / "2", [CAT, far])
    folder, sheet = tmp_path / "run", tmp_path / "sheet.png"
    train(str(recipe), output=folder, data=data, val=val, device="cpu", preview=sheet)
    assert "a.png: 1 empty or inverted boxes" in capsys.readouterr().out
    train(str(recipe), output=folder, data=data, val=val, device="cpu")
    output = capsys.readouterr().out
    assert output.count("a.png: 1 empty or inverted boxes") == 1
    assert output.count("a.png: 1 boxes outside the image were skipped") == 1


def test_the_commands_remap_and_select_classes(tmp_path: Path, animals: str) -> None:
    sheet, folder = tmp_path / "sheet.png", tmp_path / "run"
    train("bccd", output=folder, data=animals, classes="pet", remap="cat=pet", preview=sheet)
    assert sheet.exists()
    with pytest.raises(UsageError, match="there is no class 'cow' in the dataset; choose from cat"):
        train("bccd", output=folder, data=animals, classes="cow", preview=sheet, overwrite=True)
    with pytest.raises(UsageError, match="write OLD=NEW"):
        train("bccd", output=folder, data=animals, remap="cat", preview=sheet)
    json = tmp_path / "score.json"
    evaluate(model="street", data=animals, remap="cat=car,dog=bus", classes="bus", json=json)
    assert list(loads(json.read_text())["per_class"]) == ["bus"]
