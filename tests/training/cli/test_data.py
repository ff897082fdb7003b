"""The commands `data check` and `data convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from realtime_ssd.cli import main
from tests.training.data.builders import voc_object, write_image, write_text, write_voc


@pytest.fixture
def animals(tmp_path: Path) -> str:
    objects = voc_object("cat", (1, 1, 20, 20)) + voc_object("dog", (5, 5, 5, 2))
    write_voc(tmp_path / "voc", "a", objects + voc_object("dog", (5, 5, 30, 25)))
    return write_voc(tmp_path / "voc", "b", voc_object("cat", (3, 3, 10, 10)))


def run(*arguments: str) -> int:
    """Run the program and return its exit status."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(str(stopped.value.code or 0))


def test_check_prints_counts_problems_and_a_recipe(
    animals: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, file = tmp_path / "sheet.png", tmp_path / "check.json"
    assert run("data", "check", animals, "--output", str(sheet), "--json", str(file)) == 0
    output, errors = capsys.readouterr()
    assert "2 images, 0 without objects, 40x30 pixels" in output
    assert "custom" in output
    assert "proposed recipe: custom" in output
    assert "problems: 1" in output
    assert "a.png: 1 empty or inverted boxes were skipped" in errors
    assert sheet.stat().st_size > 1000
    values = json.loads(file.read_text())
    assert (values["classes"]["cat"]["objects"], values["classes"]["dog"]["objects"]) == (2, 1)
    assert values["problems"][0]["text"] == "1 empty or inverted boxes were skipped"
    assert {item["recipe"] for item in values["default_boxes"]} >= {"custom", "coco_ssdlite320"}
    assert run("data", "check", animals, "--output", str(sheet)) == 2
    assert "set --overwrite" in capsys.readouterr().err


def test_check_selects_classes_and_measures_a_recipe(
    animals: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run("data", "check", animals, "--classes", "pet", "--remap", "cat=pet", "--recipe", "demo")
        == 0
    )
    output = capsys.readouterr().out
    assert "pet" in output
    assert "dog" not in output
    assert "demo" in output


def test_check_reports_an_unusable_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.png")
    table = write_text(
        tmp_path / "boxes.csv", "path,x1,y1,x2,y2,class\na.png,1,1,,9,cat\na.png,2,1,,9,cat\n"
    )
    for spec, message in ((f"csv:{table}", "2 rows"), ("voc:/none", "no folder"), ("x", "write")):
        assert run("data", "check", spec) == 2
        assert message in capsys.readouterr().err


def test_convert(animals: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "yolo"
    assert run("data", "convert", animals, str(folder), "--to", "yolo", "--split", "val") == 0
    output, errors = capsys.readouterr()
    assert f"yolo:{folder}:val: 2 images, 3 objects" in output
    assert "1 empty or inverted boxes were skipped" in errors
    assert run("data", "check", f"yolo:{folder}:val") == 0
    assert "problems: none" in capsys.readouterr().out
    assert run("data", "convert", animals, str(folder), "--to", "yolo", "--split", "val") == 2
