"""What a run says on the terminal and to TensorBoard."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.data import Problem
from realtime_ssd_training.engine.distributed import World
from realtime_ssd_training.engine.run_folder import Row, RunFolder, git_state
from realtime_ssd_training.engine.training_log import EVERY, Report

from tests.training.engine.test_session import board
from tests.training.tiny_ssd import Squares

FIRST = World(0, 2, torch.device("cpu"))
SECOND = World(1, 2, torch.device("cpu"))
ROW = Row(3, 24, 0.01, 1.5, 1.0, 0.5, 12.34, 0.25)


def test_the_bar_shows_epoch_loss_and_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Report(RunFolder(tmp_path, resume=False), FIRST, Squares()) as report:
        report.step(2, 4, 8, 1.25, 0.01)
    said = capsys.readouterr().out
    assert "epoch 3 loss 1.250" in said
    assert "4/8" in said


def test_lines_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # lines are not broken where a terminal would end
    data = Squares()
    data.problems.append(Problem("a.png", "it is damaged; it was skipped"))
    with Report(RunFolder(tmp_path, resume=False), FIRST, data) as report:
        report.step(0, 1, 8, 1.25, 0.01)
        report.problems([Problem("b[red].png", "it is gone; it was skipped")])
        report.epoch(ROW)
    assert capsys.readouterr().out.splitlines() == [
        "a.png: it is damaged; it was skipped",
        "b[red].png: it is gone; it was skipped",
        "epoch 3  loss 1.5000 = classes 1.0000 + boxes 0.5000  mAP 0.2500  12.3 images/s",
    ]


def test_points_of_steps_and_epochs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, resume=False)
    with Report(folder, FIRST, Squares()) as report:
        for done in range(1, 2 * EVERY + 1):
            report.step(1, done, 2 * EVERY, float(done), 0.5)
        report.epoch(ROW)
    points = board(folder.board)
    total = 2 * EVERY
    assert points["step/loss"] == [(total + k, float(k)) for k in (EVERY, 2 * EVERY)]
    assert points["step/learning rate"] == [(total + k, 0.5) for k in (EVERY, 2 * EVERY)]
    assert points["epoch/score"] == [(3, 0.25)]
    assert "epoch/epoch" not in points


def test_only_the_first_process_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Report(RunFolder(tmp_path, resume=False), SECOND, Squares()) as report:
        report.step(0, EVERY, EVERY, 1.0, 0.5)
        report.problems([Problem("a", "b")])
        report.epoch(ROW)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_the_sources(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(
            ["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "First")
    commit = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "changed": False}
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == {"commit": commit, "changed": True}
