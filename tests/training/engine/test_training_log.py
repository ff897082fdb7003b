"""The output of a run on the terminal and in TensorBoard files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.data import Problem
from realtime_ssd_training.engine.distributed import DistributedContext
from realtime_ssd_training.engine.run_folder import EpochMetrics, RunFolder, git_state
from realtime_ssd_training.engine.training_log import TENSORBOARD_INTERVAL, TrainingLog

from tests.training.cli.test_train_run import tensorboard_points
from tests.training.tiny_ssd import Squares

MAIN = DistributedContext(0, 2, torch.device("cpu"))
SECOND = DistributedContext(1, 2, torch.device("cpu"))
METRICS = EpochMetrics(3, 24, 0.01, 1.5, 1.0, 0.5, 12.34, 0.25)


def test_the_progress_bar_shows_epoch_loss_and_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with TrainingLog(RunFolder(tmp_path, resume=False), MAIN, Squares(), epochs=5) as log:
        log.on_step(2, 4, 8, 1.25, 0.01)
    output = capsys.readouterr().out
    assert "epoch 3/5 loss 1.250" in output
    assert "20/40" in output  # steps of the whole run, for its remaining time


def test_lines_are_not_wrapped_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    data = Squares()
    data.problems.append(Problem("a.png", "it is damaged; it was skipped"))
    with TrainingLog(RunFolder(tmp_path, resume=False), MAIN, data) as log:
        log.on_step(0, 1, 8, 1.25, 0.01)
        log.on_problems([Problem("b[red].png", "it is gone; it was skipped")])
        log.on_epoch(METRICS)
    assert capsys.readouterr().out.splitlines() == [
        "a.png: it is damaged; it was skipped",
        "b[red].png: it is gone; it was skipped",
        "epoch 3  loss 1.5000 = classes 1.0000 + boxes 0.5000  mAP 0.2500  12.3 images/s",
    ]


def test_tensorboard_receives_every_20th_step_and_every_epoch(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, resume=False)
    with TrainingLog(folder, MAIN, Squares()) as log:
        for batch in range(1, 41):
            log.on_step(1, batch, 40, float(batch), 0.5)
        log.on_epoch(METRICS)
    points = tensorboard_points(folder.tensorboard)
    assert TENSORBOARD_INTERVAL == 20
    assert points["step/loss"] == [(40 + batch, float(batch)) for batch in (20, 40)]
    assert points["step/learning rate"] == [(60, 0.5), (80, 0.5)]
    assert points["epoch/score"] == [(3, 0.25)]
    assert "epoch/epoch" not in points


def test_only_the_main_process_prints_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrainingLog(RunFolder(tmp_path, resume=False), SECOND, Squares()) as log:
        log.on_step(0, 20, 20, 1.0, 0.5)
        log.on_problems([Problem("a", "b")])
        log.on_epoch(METRICS)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_git_state_names_commit_and_changes(tmp_path: Path) -> None:
    def git(*args: str) -> str:
        user = ("-c", "user.name=a", "-c", "user.email=a@b")
        process = subprocess.run(
            ["git", *user, *args], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return process.stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "First")
    commit = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "changed": False}
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == {"commit": commit, "changed": True}
