"""`realtime-ssd train`: what a whole run writes, and what is wrong with a command line."""

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


def test_a_whole_run_and_its_folder(tmp_path: Path) -> None:
    data = draw(tmp_path / "pictures")
    plan = recipe(tmp_path, RECIPE)
    words = ("--data", data, "--val", data, "--output", tmp_path / "run", "--seed", "3")
    done = run("train", plan, *words, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "training on 10 images (disc, square, triangle): 2 epochs, 10 steps",
        "scoring on 10 images",
        "that is short for a network from nothing; give more --epochs, or --init",
    ]
    assert [line.split()[:2] for line in lines[3:5]] == [["epoch", "1"], ["epoch", "2"]]
    assert lines[-1].startswith(f"{tmp_path}/run/model.onnx: mAP ")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *(f"{name}.{kind}" for name in ("best", "last") for kind in ("json", "safetensors")),
        *("config.json", "curves.png", "metrics.csv", "model.onnx", "tensorboard"),
    }
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["recipe"]["run"]["seed"] == 3
    assert config["recipe"]["data"]["train"] == data
    assert config["labels"] == ["background", "disc", "square", "triangle"]
    assert config["torch"] == torch.__version__
    assert config["command"][1:3] == ["train", str(plan)]
    assert set(config["git"] or {}) <= {"commit", "changed"}
    points = board(tmp_path / "run/tensorboard")
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for key in ("loss", "score_loss", "offset_loss", "lr", "score", "images_per_second"):
        wanted = [(k + 1, pytest.approx(float(row[key]))) for k, row in enumerate(table)]
        assert points[f"epoch/{key}"] == wanted


def board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read TensorBoard's points by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names no training set; give one with --data", ()),
        ("there is no recipe 'missing'", ("RECIPE", "missing")),
        ("'the command line: run: epochs' is 0", ("--epochs", "0")),
        ("'the command line: run: batch' is 0", ("--batch", "0")),
        ("'the command line: optimizer: lr' is -1", ("--lr", "-1")),
        ("'the command line: run: workers' is -1", ("--workers", "-1")),
        ("'the command line: run: seed' is -1", ("--seed", "-1")),
        ("it must be 'none' or 'bf16' or 'fp16'", ("--amp", "fp8")),
        ("is no device", ("--data", "demo:1-1", "--device", "quantum")),
        ("there is no run to resume", ("--data", "demo:1-1", "--resume")),
        ("checkpoint 'missing' does not exist", ("--data", "demo:1-1", "--init", "missing")),
        ("there is no file 'missing'", ("--data", "demo:1-1", "--backbone", "missing")),
        ("needs its checksum", ("--data", "demo:1-1", "--backbone", "http://x/y.pth")),
        ("does not specify a dataset", ("--data", "nothing")),
        ("cannot be", ("--data", "demo:1-1", "--output", "/proc/run")),
        ("cannot be", ("--data", "demo:1-1", "--output", "/proc")),
        ("unable to convert", ("--epochs", "many")),
    ],
)
def test_wrong_words(
    tmp_path: Path, text: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    plan: object = recipe(tmp_path)
    if words[:1] == ("RECIPE",):
        plan, words = words[1], words[2:]
    output = () if "--output" in words else ("--output", str(tmp_path / "run"))
    with pytest.raises(SystemExit) as caught:
        main(["train", str(plan), *words, *output])
    said = capsys.readouterr().err
    assert caught.value.code == (1 if "cannot be written" in said else 2)
    assert said.startswith("realtime-ssd: ")
    assert text in said
    assert len(said.splitlines()) == 1


def test_sets_without_objects(tmp_path: Path) -> None:
    from realtime_ssd_training.engine.session import Command

    data, plan = draw(tmp_path / "pictures"), str(recipe(tmp_path, RECIPE))
    content = json.loads((tmp_path / "pictures/scenes.json").read_text())
    for item in content["annotations"]:
        item["iscrowd"] = 1
    (tmp_path / "crowds.json").write_text(json.dumps(content))
    crowds = f"coco:{tmp_path / 'crowds.json'}:{tmp_path / 'pictures'}"
    for train_set, val_set in ((data, crowds), (crowds, data)):
        changes = {"data.train": train_set, "data.val": val_set}
        with pytest.raises(UsageError, match=r"crowds\.json.* has no object of the classes disc"):
            Command(plan, tmp_path / "run", changes, device="cpu").start()
    assert not (tmp_path / "run").exists()
    folder = tmp_path / "voc"
    for part in ("Annotations", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    (tmp_path / "pictures/picture0.png").rename(folder / "JPEGImages/a.png")
    (folder / "Annotations/a.xml").write_text("<annotation></annotation>")
    with pytest.raises(UsageError, match="no image of the data has an object"):
        Command(plan, tmp_path / "run", {"data.train": f"voc:{folder}"}).start()


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    from realtime_ssd_training.engine.session import Command

    text = RECIPE.replace("width = 0.25", 'width = "wide"')
    with pytest.raises(UsageError, match="do not fit model 'ssd_mobilenet_v1_fpn'"):
        Command(str(recipe(tmp_path, text)), tmp_path / "run", {"data.train": "demo:1-1"}).start()
