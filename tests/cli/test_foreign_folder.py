"""The program works in folders that have packages named like folders of this project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from realtime_ssd.cli.command import commands
from tests.cli.program import ENVIRONMENT
from tests.tiny import tiny_model

FOREIGN = ("training", "engines", "benchmarks", "tests")
MESSAGE = "a foreign package was imported"

RECIPE = """
[model]
name = "ssd_mobilenet_v1_fpn"
options = { width = 0.25, columns = 128, rows = 128 }
[run]
batch = 4
workers = 0
"""

ACTIONS: dict[str, tuple[int, str]] = {
    "detect --source demo:64x48 --model tiny.onnx --max-frames 1 --json -": (0, '"detections"'),
    "models": (0, "street"),
    "doctor": (0, "models run on"),
    "zones missing.mp4 --output zones.toml": (2, "'missing.mp4' does not exist"),
    "completion bash": (0, "complete -F"),
    "data check voc:missing": (2, "it is not a Pascal VOC dataset"),
    "benchmark --model tiny.onnx --source demo:64x48 --duration 0.02 --paced 100": (0, "network"),
    "build missing.onnx": (2, "model file 'missing.onnx' does not exist"),
    "engines": (0, "no engines in"),
    "import tiny.onnx --output imported.onnx": (2, "needs no import"),
    "train tiny.toml --output run --data demo:0-0:128x128 --preview sheet.png": (0, "sheet.png"),
    "evaluate --model street --data demo:0-0:128x128 --metric voc": (0, "8 of 8 images"),
    "explain missing.jpg --output why.png": (2, "'missing.jpg' does not exist"),
    "export distributed/best.safetensors --output exported.onnx": (0, "probabilities within"),
}
"""Arguments of the program, its exit status and a part of its output."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packages that raise an error when they are imported."""
    folder = tmp_path_factory.mktemp("foreign")
    for name in FOREIGN:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f'raise RuntimeError("{MESSAGE}")\n')
    tiny_model(folder / "tiny.onnx")
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


def run_module(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module with its arguments in a folder, which is the first entry of `sys.path`."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
        env={**ENVIRONMENT, "REALTIME_SSD_ENGINES": str(folder / "engines-cache")},
    )


@pytest.mark.parametrize("name", FOREIGN)
def test_the_foreign_packages_precede_those_of_the_project(folder: Path, name: str) -> None:
    assert MESSAGE in run_module(folder, name).stderr


@pytest.mark.parametrize("command", ["", *commands()])
def test_help(folder: Path, command: str) -> None:
    done = run_module(folder, "realtime_ssd", *command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert f"realtime-ssd {command}".strip() in done.stdout
    assert not done.stderr


def test_every_command_has_an_action() -> None:
    assert {action.split()[0] for action in ACTIONS} == set(commands())


@pytest.mark.parametrize("action", ACTIONS)
def test_action(folder: Path, action: str, request: pytest.FixtureRequest) -> None:
    if action.startswith("export"):
        request.getfixturevalue("distributed_run")
    status, text = ACTIONS[action]
    done = run_module(folder, "realtime_ssd", *action.split())
    output = done.stdout + done.stderr
    assert done.returncode == status, output
    assert text in output
    assert MESSAGE not in output
    assert status == 0 or len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def distributed_run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Train as `torchrun -m realtime_ssd train` does."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m")
    arguments = ("train", "tiny.toml", "--output", "distributed", "--data", "demo:0-0:128x128")
    return run_module(folder, *launcher, "realtime_ssd", *arguments)


def test_distributed_training(
    folder: Path, distributed_run: subprocess.CompletedProcess[str]
) -> None:
    assert distributed_run.returncode == 0, distributed_run.stderr
    assert MESSAGE not in distributed_run.stdout + distributed_run.stderr
    assert (folder / "distributed" / "model.onnx").is_file()
