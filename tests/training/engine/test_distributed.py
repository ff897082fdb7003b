"""Two processes on one machine learn what one does, and stop together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.cli.train import train
from realtime_ssd_training.engine.checkpoint import read_checkpoint
from realtime_ssd_training.engine.distributed import World, join

from realtime_ssd.core.errors import UsageError
from tests.cli.program import ENVIRONMENT
from tests.training.scenes import RECIPE, draw, recipe

# Frozen normalisation: half batches have other statistics than whole ones.
FROZEN = RECIPE.replace("[augment]", 'norm = "frozen"\n[augment]').replace("batch = 2", "batch = 4")


def torchrun(*words: object) -> list[str]:
    start = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    return [*start, "--nproc-per-node", "2", "-m", "realtime_ssd", *map(str, words)]


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    data, plan = draw(tmp_path / "pictures"), recipe(tmp_path, FROZEN)
    words = ("train", plan, "--data", data, "--val", data, "--device", "cpu")
    train(str(plan), output=tmp_path / "one", data=data, val=data, device="cpu")
    two = subprocess.run(
        torchrun(*words, "--output", tmp_path / "two"),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env=ENVIRONMENT,
    )
    assert two.returncode == 0, two.stderr
    first, second = (
        read_checkpoint(tmp_path / name / "last.safetensors") for name in ("one", "two")
    )
    for group in ("model", "ema", "optimizer"):
        for name, value in first.tensors[group].items():
            found = second.tensors[group][name]
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6, msg=f"{group}/{name}")
    rows = [[row["loss"] for row in found.facts["rows"]] for found in (first, second)]
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)
    assert second.facts["progress"]["step"] == first.facts["progress"]["step"] == 4
    # Only the first process speaks and writes.
    said = [line for line in two.stdout.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in said] == ["1", "2"]
    assert two.stdout.count("model.onnx") == 1
    config = json.loads((tmp_path / "two/config.json").read_text())
    assert (config["processes"], config["device"]) == (2, "cpu")
    assert len(list((tmp_path / "two/tensorboard").iterdir())) == 1
    files = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "one").iterdir())


def test_sigterm_to_torchrun_saves_the_state(tmp_path: Path) -> None:
    data = draw(tmp_path / "pictures")
    plan = recipe(tmp_path, FROZEN.replace("epochs = 2", "epochs = 500"))
    words = ("train", plan, "--data", data, "--device", "cpu", "--output", tmp_path / "run")
    with subprocess.Popen(
        torchrun(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 2 "):
                process.send_signal(signal.SIGTERM)
                break
        rest, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    assert sum("the state is saved" in line for line in rest.splitlines()) == 1
    found = read_checkpoint(tmp_path / "run/last.safetensors").facts
    done = found["progress"]["epoch"]
    assert 2 <= done < 500
    assert len(found["rows"]) == done
    # One process goes on with the run of two.
    folder, epochs = tmp_path / "run", done + 1
    train(str(plan), output=folder, data=data, device="cpu", resume=True, epochs=epochs)
    assert len(read_checkpoint(tmp_path / "run/last.safetensors").facts["rows"]) == done + 1


def test_a_batch_that_cannot_be_dealt_out() -> None:
    world = World(0, 3, torch.device("cpu"))
    assert world.share(9) == 3
    with pytest.raises(
        UsageError, match=r"a batch of 4 images .* 3 processes; give a multiple of 3"
    ):
        world.share(4)


def test_alone() -> None:
    assert "WORLD_SIZE" not in os.environ
    world = join("cpu")
    assert (world.rank, world.size, world.first) == (0, 1, True)
    assert world.gather(["a", "b"]) == ["a", "b"]
    values = torch.ones(3)
    assert world.total(values) is values


@pytest.mark.parametrize("name", ["quantum", "cuda:99", "cuda"])
def test_devices_that_are_not_there(name: str) -> None:
    if torch.cuda.is_available() and name == "cuda":
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match=r"is no device|needs a GPU|does not exist"):
        join(name)
