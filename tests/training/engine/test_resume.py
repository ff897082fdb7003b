"""An interrupted and resumed run ends bit for bit like an uninterrupted one."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.cli.train import train as command
from realtime_ssd_training.models.checkpoint import Checkpoint, read_checkpoint

from tests.cli.program import start
from tests.training.scenes import RECIPE, draw, recipe
from tests.training.tiny_ssd import (
    RecordingReporter,
    Squares,
    tiny_recipe,
    tiny_ssd,
    train,
    without_times,
)


def assert_same_result(expected: Path, resumed: Path) -> None:
    """Assert that weights, averages, optimizer, progress and metrics of two runs are equal."""
    first, second = (read_checkpoint(folder / "last.safetensors") for folder in (expected, resumed))
    assert {"model", "ema", "optimizer"} <= set(first.tensors)
    assert without_times(dict(first.metadata)) == without_times(dict(second.metadata))
    assert_same_tensors(first, second)
    assert_same_tensors(
        *(read_checkpoint(folder / "best.safetensors") for folder in (expected, resumed))
    )


def assert_same_tensors(first: Checkpoint, second: Checkpoint) -> None:
    assert set(first.tensors) == set(second.tensors)
    for group, tensors in first.tensors.items():
        assert set(tensors) == set(second.tensors[group])
        for name, value in tensors.items():
            assert torch.equal(value, second.tensors[group][name]), f"{group}/{name}"


CHANGES = {"optimizer__name": "adamw", "schedule__kind": "cosine", "schedule__warmup": 4}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder, tiny_recipe(**CHANGES), val=Squares(4))
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "stop_at", [(0, 1), (1, 2), (1, 3), (2, 3)], ids=["first", "middle", "end", "last"]
)
def test_a_resumed_run_ends_bit_for_bit_the_same(
    uninterrupted: Path, tmp_path: Path, stop_at: tuple[int, int], workers: int
) -> None:
    settings = tiny_recipe(**CHANGES, run__workers=workers)
    _, result = train(tmp_path, settings, val=Squares(4), reporter=RecordingReporter(stop_at))
    assert result.stop_signal == signal.SIGTERM
    assert result.epochs == stop_at[0]
    other_weights = tiny_ssd(dropout=0.3, seed=5)
    _, result = train(tmp_path, settings, val=Squares(4), resume=True, model=other_weights)
    assert (result.stop_signal, result.epochs) == (0, 3)
    assert_same_result(uninterrupted, tmp_path)


def test_a_run_may_be_interrupted_many_times(uninterrupted: Path, tmp_path: Path) -> None:
    stops = [(0, 1), (0, 3), (1, 1), (2, 1)]  # each takes effect one step later
    for number, stop in enumerate(stops):
        reporter, again = RecordingReporter(stop, signal.SIGINT), number > 0
        _, result = train(
            tmp_path, tiny_recipe(**CHANGES), val=Squares(4), resume=again, reporter=reporter
        )
        assert result.stop_signal == signal.SIGINT
    train(tmp_path, tiny_recipe(**CHANGES), val=Squares(4), resume=True)
    assert_same_result(uninterrupted, tmp_path)


def test_an_interrupted_evaluation_is_repeated(uninterrupted: Path, tmp_path: Path) -> None:
    def stop(index: int) -> None:
        if index == 0:
            signal.raise_signal(signal.SIGTERM)

    _, result = train(tmp_path, tiny_recipe(**CHANGES), val=Squares(4, before_read=stop))
    assert (result.stop_signal, result.epochs) == (signal.SIGTERM, 0)
    assert not (tmp_path / "best.safetensors").exists()
    train(tmp_path, tiny_recipe(**CHANGES), val=Squares(4), resume=True)
    assert_same_result(uninterrupted, tmp_path)


def test_resuming_a_finished_run_changes_nothing(uninterrupted: Path) -> None:
    before = (uninterrupted / "last.safetensors").read_bytes()
    _, result = train(uninterrupted, tiny_recipe(**CHANGES), val=Squares(4), resume=True)
    assert (result.epochs, result.stop_signal) == (3, 0)
    assert (uninterrupted / "last.safetensors").read_bytes() == before


def test_a_finished_run_can_be_extended(tmp_path: Path) -> None:
    train(tmp_path / "long", tiny_recipe(run__epochs=4))
    train(tmp_path / "short", tiny_recipe(run__epochs=2))
    train(tmp_path / "short", tiny_recipe(run__epochs=4), resume=True)
    assert_same_result(tmp_path / "long", tmp_path / "short")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_interrupts_immediately(tmp_path: Path, second: signal.Signals) -> None:
    class TwoSignals(RecordingReporter):
        def on_step(self, epoch: int, batch: int, total: int, loss: float, lr: float) -> None:
            super().on_step(epoch, batch, total, loss, lr)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(second)

    reporter = TwoSignals()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tiny_recipe(**CHANGES), reporter=reporter)
    assert len(reporter.losses) == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_command_stops_on_sigterm_and_resumes(tmp_path: Path) -> None:
    data = draw(tmp_path / "images")
    path = recipe(tmp_path, RECIPE.replace("epochs = 2", "epochs = 3") + "[data]\nrepeat = 3\n")

    def run_to_end(name: str, *, resume: bool = False) -> None:
        torch.set_num_threads(1)  # as in the other process, for the same order of summation
        folder = tmp_path / name
        command(str(path), output=folder, data=data, val=data, device="cpu", resume=resume)

    run_to_end("uninterrupted")
    args = ("--data", data, "--val", data, "--device", "cpu", "--workers", 1)
    with start("train", path, *args, "--output", tmp_path / "interrupted") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 1 "):
                process.send_signal(signal.SIGTERM)
                break
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "the state is saved" in output.splitlines()[-1]
    assert errors.startswith("\nstopping after this step, then saving")
    assert len(errors.strip().splitlines()) == 1
    state = json.loads((tmp_path / "interrupted/last.json").read_text())["facts"]["progress"]
    assert (state["epoch"], state["batch"]) != (0, 0)
    assert state["epoch"] < 3
    assert not (tmp_path / "interrupted/model.onnx").exists()
    run_to_end("interrupted", resume=True)
    assert_same_result(tmp_path / "uninterrupted", tmp_path / "interrupted")
    assert (tmp_path / "interrupted/model.onnx").read_bytes() == (
        tmp_path / "uninterrupted/model.onnx"
    ).read_bytes()
