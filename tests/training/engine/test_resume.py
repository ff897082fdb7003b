"""A run that was broken off and goes on ends with the same bits as one that was not."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.cli.train import train as command
from realtime_ssd_training.engine.checkpoint import Checkpoint, read_checkpoint
from realtime_ssd_training.engine.interrupt import stop_requests

from tests.cli.program import start
from tests.training.scenes import RECIPE, draw, recipe
from tests.training.tiny_ssd import Listener, Squares, tiny_recipe, tiny_ssd, train, without_times


def same_end(one: Path, other: Path) -> None:
    """Compare weights, averages, optimiser, progress and metrics of two runs bit for bit."""
    first, second = (read_checkpoint(folder / "last.safetensors") for folder in (one, other))
    assert {"model", "ema", "optimizer"} <= set(first.tensors)
    assert without_times(dict(first.facts)) == without_times(dict(second.facts))
    same_tensors(first, second)
    same_tensors(*(read_checkpoint(folder / "best.safetensors") for folder in (one, other)))


def same_tensors(first: Checkpoint, second: Checkpoint) -> None:
    assert set(first.tensors) == set(second.tensors)
    for group, tensors in first.tensors.items():
        assert set(tensors) == set(second.tensors[group])
        for name, value in tensors.items():
            assert torch.equal(value, second.tensors[group][name]), f"{group}/{name}"


CHANGES = {"optimizer__name": "adamw", "schedule__kind": "cosine", "schedule__warmup": 4}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train(folder, tiny_recipe(**CHANGES), val=Squares(4))
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "stop_at", [(0, 1), (1, 2), (1, 3), (2, 3)], ids=["first", "middle", "end", "last"]
)
def test_same_bits(unbroken: Path, tmp_path: Path, stop_at: tuple[int, int], workers: int) -> None:
    plan = tiny_recipe(**CHANGES, run__workers=workers)
    _, outcome = train(tmp_path, plan, val=Squares(4), listener=Listener(stop_at))
    assert outcome.stopped == signal.SIGTERM
    assert outcome.epochs == stop_at[0]
    _, outcome = train(
        tmp_path, plan, val=Squares(4), resume=True, model=tiny_ssd(dropout=0.3, seed=5)
    )
    assert (outcome.stopped, outcome.epochs) == (0, 3)
    same_end(unbroken, tmp_path)


def test_many_interruptions(unbroken: Path, tmp_path: Path) -> None:
    stops = [(0, 1), (0, 3), (1, 1), (2, 1)]  # each is noticed one step later
    for number, stop in enumerate(stops):
        listener = Listener(stop, signal.SIGINT)
        plan = tiny_recipe(**CHANGES)
        _, outcome = train(tmp_path, plan, val=Squares(4), resume=number > 0, listener=listener)
        assert outcome.stopped == signal.SIGINT
    train(tmp_path, tiny_recipe(**CHANGES), val=Squares(4), resume=True)
    same_end(unbroken, tmp_path)


def test_interruption_while_it_is_scored(unbroken: Path, tmp_path: Path) -> None:
    def stop(index: int) -> None:
        if index == 0:
            signal.raise_signal(signal.SIGTERM)

    plan = tiny_recipe(**CHANGES)
    _, outcome = train(tmp_path, plan, val=Squares(4, before=stop))
    assert (outcome.stopped, outcome.epochs) == (signal.SIGTERM, 0)
    assert not (tmp_path / "best.safetensors").exists()
    train(tmp_path, plan, val=Squares(4), resume=True)
    same_end(unbroken, tmp_path)


def test_going_on_after_the_end_changes_nothing(unbroken: Path) -> None:
    before = (unbroken / "last.safetensors").read_bytes()
    _, outcome = train(unbroken, tiny_recipe(**CHANGES), val=Squares(4), resume=True)
    assert (outcome.epochs, outcome.stopped) == (3, 0)
    assert (unbroken / "last.safetensors").read_bytes() == before


def test_more_epochs_go_on_from_the_end(tmp_path: Path) -> None:
    train(tmp_path / "long", tiny_recipe(run__epochs=4))
    train(tmp_path / "short", tiny_recipe(run__epochs=2))
    train(tmp_path / "short", tiny_recipe(run__epochs=4), resume=True)
    same_end(tmp_path / "long", tmp_path / "short")


def test_the_same_signal_again_ends_at_once() -> None:
    with stop_requests() as asked:
        assert asked() == 0
        signal.raise_signal(signal.SIGTERM)
        assert asked() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_sigterm_to_the_program(tmp_path: Path) -> None:
    data = draw(tmp_path / "pictures")
    plan = recipe(tmp_path, RECIPE.replace("epochs = 2", "epochs = 3") + "[data]\nrepeat = 3\n")

    def whole(name: str, *, resume: bool = False) -> None:
        torch.set_num_threads(1)  # as in the other process: sums have an order
        folder = tmp_path / name
        command(str(plan), output=folder, data=data, val=data, device="cpu", resume=resume)

    whole("unbroken")
    words = ("--data", data, "--val", data, "--device", "cpu", "--workers", 1)
    with start("train", plan, *words, "--output", tmp_path / "broken") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 1 "):
                process.send_signal(signal.SIGTERM)
                break
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "the state is saved" in rest.splitlines()[-1]
    assert errors == ""
    state = json.loads((tmp_path / "broken/last.json").read_text())["facts"]["progress"]
    assert (state["epoch"], state["batch"]) != (0, 0)
    assert state["epoch"] < 3
    assert not (tmp_path / "broken/model.onnx").exists()
    whole("broken", resume=True)
    same_end(tmp_path / "unbroken", tmp_path / "broken")
    assert (tmp_path / "broken/model.onnx").read_bytes() == (
        tmp_path / "unbroken/model.onnx"
    ).read_bytes()
