"""Commands report missing packages of the extra `train` before any work, and only required ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from realtime_ssd_training.cli.train import train
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.data.dataset_factory import required_packages

from realtime_ssd.cli import main
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from tests.cli.program import ENVIRONMENT
from tests.training.bright import write_bright_set
from tests.training.scenes import RECIPE, recipe

EVALUATE = ("evaluate", "--model", "missing.onnx", "--data")
TRAIN = ("train", "demo", "--output", "run")
COCO, VOC, YOLO, DEMO = "coco:missing.json:missing", "voc:missing", "yolo:data.yaml", "demo:0-0"

CASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("faster_coco_eval", (*EVALUATE, DEMO)),
    ("matplotlib", (*EVALUATE, DEMO, "--metric", "voc", "--report", "report")),
    ("PIL", (*EVALUATE, COCO, "--metric", "voc")),
    ("PIL", (*EVALUATE, "csv:missing.csv", "--metric", "voc")),
    ("defusedxml", (*EVALUATE, VOC, "--metric", "voc")),
    ("yaml", (*EVALUATE, YOLO, "--metric", "voc")),
    ("torch", ("evaluate", "--model", "missing.safetensors", "--data", DEMO)),
    ("safetensors", ("evaluate", "--model", "missing.safetensors", "--data", DEMO)),
    ("torch", (*TRAIN, "--data", COCO)),
    ("torch", (*TRAIN, "--data", COCO, "--preview", "sheet.png")),
    ("msgspec", (*TRAIN, "--data", COCO)),
    ("safetensors", (*TRAIN, "--data", COCO)),
    ("matplotlib", (*TRAIN, "--data", COCO)),
    ("tensorboard", (*TRAIN, "--data", COCO)),
    ("PIL", (*TRAIN, "--data", COCO)),
    ("defusedxml", (*TRAIN, "--data", f"{COCO} + {VOC}")),
    ("defusedxml", (*TRAIN, "--data", DEMO, "--val", VOC)),
    ("defusedxml", (*TRAIN, "--data", VOC, "--preview", "sheet.png")),
    ("defusedxml", ("train", "voc.toml", "--output", "run")),
    ("faster_coco_eval", ("train", "voc.toml", "--output", "run")),
    ("torch", ("export", "missing.safetensors", "--output", "model.onnx")),
    ("safetensors", ("export", "missing.safetensors", "--output", "model.onnx")),
    ("torch", ("import", "missing.pth", "--output", "model.onnx")),
    ("torch", ("import", "missing.PT", "--output", "model.onnx")),
    ("torch", ("import", "missing.safetensors", "--output", "model.onnx")),
    ("safetensors", ("import", "missing.safetensors", "--output", "model.onnx")),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a recipe and an invalid YAML file; no dataset or model exists."""
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path, f'{RECIPE}metric = "coco"\n[data]\ntrain = "{DEMO}"\nval = "{VOC}"\n', "voc")
    (tmp_path / "data.yaml").write_text("[")
    return tmp_path


@pytest.mark.parametrize(("package", "arguments"), CASES)
def test_a_missing_package_is_reported_before_any_input_is_read(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
    arguments: tuple[str, ...],
) -> None:
    before = sorted(folder.iterdir())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output = capsys.readouterr()
    assert caught.value.code == 1
    assert f"requires '{package}'; run pip install 'realtime-ssd[train]'" in output.err
    assert len(output.err.splitlines()) == 1
    assert not output.out
    assert sorted(folder.iterdir()) == before


def test_all_missing_packages_are_reported_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("faster_coco_eval", "PIL"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RealtimeSSDError, match="requires 'PIL', 'faster_coco_eval'; run pip"):
        train("voc.toml", output=folder / "run")


@pytest.mark.parametrize("text", ["coco:missing.json", "csv:missing", "voc:missing", "yolo:."])
def test_a_dataset_reports_a_missing_package_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setitem(sys.modules, required_packages(text)[-1], None)
    with pytest.raises(RealtimeSSDError, match=r"reading '.*' requires '\w+'; run pip") as caught:
        open_dataset(text)
    assert not isinstance(caught.value, UsageError)


def test_yolo_requires_yaml_only_for_yaml_files(folder: Path) -> None:
    (folder / "lists").mkdir()
    assert required_packages("yolo:lists") == ("PIL",)
    assert required_packages("yolo:.") == required_packages("yolo:data.yaml") == ("PIL", "yaml")
    assert required_packages("demo") == required_packages("nothing") == ()


def test_evaluation_of_an_onnx_file_requires_only_what_its_dataset_requires(
    tiny: Path, tmp_path: Path
) -> None:
    arguments = [
        *("evaluate", "--model", str(tiny), "--metric", "voc"),
        *("--data", f"coco:{write_bright_set(tmp_path / 'data')}"),
    ]
    hidden = ("torch", "safetensors", "matplotlib", "tensorboard", "msgspec", "faster_coco_eval")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({(*hidden, 'defusedxml', 'yaml')}))\n"
        f"from realtime_ssd.cli import main; main({arguments})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert "3 of 5 objects detected" in done.stdout


def test_a_preview_requires_no_packages_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("tensorboard", "matplotlib", "safetensors", "faster_coco_eval", "defusedxml"):
        monkeypatch.setitem(sys.modules, package, None)
    file = recipe(tmp_path, f'{RECIPE}metric = "coco"\n[data]\nval = "voc:missing"\n')
    train(str(file), output=tmp_path / "run", data="demo:0-0:64x48", preview=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert not (tmp_path / "run").exists()


def test_importing_onnx_and_caffe_requires_no_pytorch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("torch", "safetensors"):
        monkeypatch.setitem(sys.modules, package, None)
    for name in ("missing.onnx", "missing.caffemodel"):
        with pytest.raises(SystemExit) as caught:
            main(["import", name, "--output", str(folder / "model.onnx")])
        assert caught.value.code == 2
        assert f"'{name}' does not exist" in capsys.readouterr().err
