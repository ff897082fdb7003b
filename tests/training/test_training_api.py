"""Training from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from realtime_ssd_training import Callback, train
from realtime_ssd_training.data import Problem
from realtime_ssd_training.engine.run_folder import EpochMetrics

from realtime_ssd.core.errors import UsageError

RECIPE = """
[model]
name = "ssd_mobilenet_v1_fpn"
options = { width = 0.25, columns = 128, rows = 128 }
[run]
epochs = 2
batch = 4
workers = 0
[optimizer]
lr = 0.01
"""


class Recorder(Callback):
    def __init__(self) -> None:
        self.steps: list[tuple[int, int, int]] = []
        self.epochs: list[EpochMetrics] = []
        self.problems: list[Problem] = []

    def on_step(self, epoch: int, batch: int, total: int, loss: float, lr: float) -> None:
        self.steps.append((epoch, batch, total))
        assert loss > 0
        assert lr > 0

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


def test_a_model_is_trained_and_detects(recipe: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    result = train(
        recipe, data="demo:0-0:128x128", val="demo:1-1:128x128", output=tmp_path / "run",
        callbacks=[recorder], seed=3,
    )  # fmt: skip
    assert (result.epochs, result.stopped) == (2, False)
    assert recorder.steps == [(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 2)]
    assert [row.epoch for row in result.history] == [1, 2]
    assert result.history == tuple(recorder.epochs)
    assert result.score == max(row.score or 0.0 for row in result.history)
    assert result.checkpoint.is_file()
    with result.detector(score_threshold=0.01) as detector:
        detector(np.zeros((64, 64, 3), np.uint8))
    assert result.network().spec.labels[0] == "background"


def test_unknown_options_are_refused_before_anything_is_written(
    recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="there is no option `epoch`; the options are data, val"):
        train(recipe, data="demo:0-0:128x128", output=tmp_path / "run", epoch=3)
    with pytest.raises(UsageError, match="`resume` needs the folder of the run"):
        train(recipe, data="demo:0-0:128x128", resume=True)
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_follows_the_batch(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(recipe, data="demo:0-0:128x128", output=tmp_path / "a", batch=8, epochs=1)
    assert result.history[0].lr == pytest.approx(0.02)
    assert "learning rate 0.02 instead of 0.01, for a batch of 8" in capsys.readouterr().out
    other = tmp_path / "b"
    result = train(recipe, data="demo:0-0:128x128", output=other, batch=8, epochs=1, lr=0.1)
    assert result.history[0].lr == pytest.approx(0.1)


def test_lines_without_a_terminal_have_the_remaining_time(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe, data="demo:0-15:128x128", output=tmp_path / "a", batch=2, epochs=1, lr=1e-4)
    out = capsys.readouterr().out
    assert "epoch 1/1  step 50/64  loss " in out
    assert " left" in out


def test_a_run_without_progress_ends_early(recipe: Path, tmp_path: Path) -> None:
    # With a learning rate this small no epoch is better than the first.
    result = train(
        recipe, data="demo:0-0:128x128", val="demo:1-1:128x128", output=tmp_path / "run", epochs=9,
        patience=2, lr=1e-30,
    )  # fmt: skip
    assert result.epochs == 3
    assert result.best_epoch <= 3
    assert result.onnx.is_file()
