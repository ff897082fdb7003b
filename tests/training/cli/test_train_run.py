"""`realtime-ssd train`: the files of a complete run, and invalid options."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from realtime_ssd.cli import main
from realtime_ssd.core.errors import UsageError
from tests.cli.program import run
from tests.training.scenes import RECIPE, draw, recipe

FILES = (
    *(f"{name}.{suffix}" for name in ("best", "last") for suffix in ("json", "safetensors")),
    *("config.json", "curves.png", "metrics.csv", "model.onnx"),
)


def test_a_complete_run_replaces_the_files_of_an_earlier_one(tmp_path: Path) -> None:
    events = tmp_path / "run/tensorboard/events.out.tfevents.1.host"
    events.parent.mkdir(parents=True)
    for old in (*(tmp_path / "run" / name for name in FILES), events):
        old.write_text("old")
    data = draw(tmp_path / "images")
    path = recipe(tmp_path, RECIPE)
    args = ("--data", data, "--val", data, "--output", tmp_path / "run", "--seed", "3")
    process = run("train", path, *args, "--device", "cpu", "--overwrite")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[:3] == [
        "training on 10 images (disc, square, triangle): 2 epochs, 10 steps",
        "evaluating on 10 images",
        "this is short for training from scratch; increase --epochs or set --init",
    ]
    assert [line.split()[:2] for line in lines[3:5]] == [["epoch", "1"], ["epoch", "2"]]
    assert lines[-1].startswith(f"{tmp_path}/run/model.onnx: mAP ")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES, "tensorboard"}
    assert all((tmp_path / "run" / name).read_bytes() != b"old" for name in FILES)
    assert not events.exists()
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["recipe"]["run"]["seed"] == 3
    assert config["recipe"]["data"]["train"] == data
    assert config["labels"] == ["background", "disc", "square", "triangle"]
    assert config["torch"] == torch.__version__
    assert config["command"][1:3] == ["train", str(path)]
    assert set(config["git"] or {}) <= {"commit", "changed"}
    points = tensorboard_points(tmp_path / "run/tensorboard")
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for key in ("loss", "score_loss", "offset_loss", "lr", "score", "images_per_second"):
        epochs, values = zip(*points[f"epoch/{key}"], strict=True)
        assert epochs == (1, 2)
        assert values == pytest.approx([float(row[key]) for row in table])


@pytest.mark.parametrize("name", FILES)
def test_existing_files_are_kept_without_overwrite(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(SystemExit) as caught:
        main(["train", "demo", "--data", "voc:missing", "--output", str(tmp_path)])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert "--overwrite to" in error
    assert [file.read_text() for file in tmp_path.iterdir()] == ["precious"]


def test_a_preview_replaces_a_file_only_with_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sheet.png").write_text("precious")
    args = ["train", "demo", "--data", "voc:missing", "--output", str(tmp_path / "run")]
    args += ["--preview", str(tmp_path / "sheet.png")]
    with pytest.raises(SystemExit):
        main(args)
    assert "sheet.png' exists; set --overwrite to replace it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*args, "--overwrite"])
    assert "'missing' has no folder" in capsys.readouterr().err


def tensorboard_points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the points of TensorBoard files by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("names no training set; set --data", ()),
        ("recipe 'missing' does not exist", ("RECIPE", "missing")),
        ("--epochs must be an integer of at least 1, not 0", ("--epochs", "0")),
        ("--batch must be an integer of at least 1, not 0", ("--batch", "0")),
        ("--lr must be a finite number above 0, not -1", ("--lr", "-1")),
        ("--workers must be an integer of at least 0 or 'auto', not -1", ("--workers", "-1")),
        ("--seed must be an integer of at least 0, not -1", ("--seed", "-1")),
        ("--amp must be one of 'auto', 'bf16', 'fp16', 'none', not 'fp8'", ("--amp", "fp8")),
        ("--device 'quantum' is unknown", ("--data", "demo:1-1", "--device", "quantum")),
        ("contains no run to resume; omit --resume", ("--data", "demo:1-1", "--resume")),
        ("checkpoint 'missing' does not exist", ("--data", "demo:1-1", "--init", "missing")),
        (
            "--backbone file 'missing' does not exist",
            ("--data", "demo:1-1", "--backbone", "missing"),
        ),
        ("needs a checksum", ("--data", "demo:1-1", "--backbone", "http://x/y.pth")),
        ("does not specify a dataset", ("--data", "nothing")),
        ("cannot be", ("--data", "demo:1-1", "--output", "/proc/run")),
        ("cannot be", ("--data", "demo:1-1", "--output", "/proc")),
        ("--epochs must be a whole number, not 'many'", ("--epochs", "many")),
    ],
)
def test_invalid_options_are_reported_in_one_line(
    tmp_path: Path, text: str, args: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(recipe(tmp_path))
    if args[:1] == ("RECIPE",):
        name, args = args[1], args[2:]
    output = () if "--output" in args else ("--output", str(tmp_path / "run"))
    with pytest.raises(SystemExit) as caught:
        main(["train", name, *args, *output])
    error = capsys.readouterr().err
    assert caught.value.code == (1 if "cannot be written" in error else 2)
    assert error.startswith("realtime-ssd: ")
    assert text in error
    assert len(error.splitlines()) == 1


def test_datasets_without_usable_objects_are_rejected(tmp_path: Path) -> None:
    from realtime_ssd_training.training_run import TrainingRun

    data, path = draw(tmp_path / "images"), str(recipe(tmp_path, RECIPE))
    content = json.loads((tmp_path / "images/scenes.json").read_text())
    for item in content["annotations"]:
        item["iscrowd"] = 1
    (tmp_path / "crowds.json").write_text(json.dumps(content))
    crowds = f"coco:{tmp_path / 'crowds.json'}:{tmp_path / 'images'}"
    for train_set, val_set in ((data, crowds), (crowds, data)):
        overrides = {"data.train": train_set, "data.val": val_set}
        with pytest.raises(
            UsageError, match=r"crowds\.json.* has no usable object of the classes disc"
        ):
            TrainingRun(path, tmp_path / "run", overrides, device="cpu").run()
    assert not (tmp_path / "run").exists()
    folder = tmp_path / "voc"
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    (tmp_path / "images/image0.png").rename(folder / "JPEGImages/a.png")
    (folder / "Annotations/a.xml").write_text("<annotation></annotation>")
    with pytest.raises(UsageError, match="the dataset has no objects; check its annotations"):
        TrainingRun(path, tmp_path / "run", {"data.train": f"voc:{folder}"}).run()


def test_invalid_model_options_are_rejected(tmp_path: Path) -> None:
    from realtime_ssd_training.training_run import TrainingRun

    text = RECIPE.replace("width = 0.25", 'width = "wide"')
    with pytest.raises(UsageError, match="cannot be built: field 'width' must be"):
        TrainingRun(str(recipe(tmp_path, text)), tmp_path / "run", {"data.train": "demo:1-1"}).run()


def test_the_message_of_an_invalid_model_is_not_changed(tmp_path: Path) -> None:
    from realtime_ssd_training.training_run import TrainingRun

    path = str(recipe(tmp_path, RECIPE.replace("ssd_mobilenet_v1_fpn", "ssd999")))
    with pytest.raises(UsageError, match=r"^model 'ssd999' does not exist; choose from"):
        TrainingRun(path, tmp_path / "run", {"data.train": "demo:1-1"}).run()
